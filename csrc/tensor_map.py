"""What the tensor memory accelerator (TMA) must know to copy a box of a tensor.

A `TensorMap` is a description that obeys every rule of cuTensorMapEncodeTiled (CUDA driver API,
"Tensor Map Object Management"), or it cannot be made. The driver encodes it for a GPU in a format
of NVIDIA's own; for the simulator it is encoded as this table says, 128 bytes, little-endian:

| byte | size  | field                                                                      |
|-----:|-------|----------------------------------------------------------------------------|
|    0 | 8     | magic, the letters "OWTMAP01"                                              |
|    8 | u64   | address of element 0, a multiple of 16                                     |
|   16 | u8    | rank, 1 to 5                                                               |
|   17 | u8    | dtype as CUtensorMapDataType: 0 u8, 1 u16, 2 u32, 3 s32, 4 u64, 5 s64,     |
|      |       | 6 f16, 7 f32, 8 f64, 9 bf16                                                |
|   18 | u8    | bytes of an element: 1, 2, 4 or 8                                          |
|   19 | u8    | swizzle as CUtensorMapSwizzle: 0 none, 1 32 B, 2 64 B, 3 128 B             |
|   20 | u8    | interleave, always 0 (none)                                                |
|   21 | u8    | L2 promotion: 0 none, 1 64 B, 2 128 B, 3 256 B; of no effect in a simulator |
|   22 | u8    | fill for what lies out of bounds: 0 zero, 1 NaN                            |
|   23 | u8    | zero                                                                       |
|   24 | 5 u64 | sizes in elements, innermost dim first, each 1 to 2**32; 1 beyond the rank |
|   64 | 4 u64 | strides in bytes of dims 1, 2, 3, 4; 0 beyond the rank                     |
|   96 | 5 u16 | box in elements, innermost first, each 1 to 256; 1 beyond the rank         |
|  106 | 5 u8  | element strides, each 1 to 8; 1 beyond the rank                            |
|  111 | 17    | zeros                                                                      |

With element stride s a box of b covers ceil(b / s) elements of that dim; the innermost dim ignores
its element stride.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from csrc.checks import Checker

SIMULATOR_MAGIC = b"OWTMAP01"
MAP_BYTES = 128

# CUtensorMapDataType by dtype. TMA has no 8-bit numbers: they travel as bytes.
_DTYPE_CODES = {
    torch.uint8: 0,
    torch.int8: 0,
    torch.float8_e4m3fn: 0,
    torch.float8_e5m2: 0,
    torch.uint16: 1,
    torch.int16: 1,
    torch.uint32: 2,
    torch.int32: 3,
    torch.uint64: 4,
    torch.int64: 5,
    torch.float16: 6,
    torch.float32: 7,
    torch.float64: 8,
    torch.bfloat16: 9,
}
_FIRST_FLOAT_CODE = 6
_SWIZZLE_CODES = {0: 0, 32: 1, 64: 2, 128: 3}
_L2_CODES = {0: 0, 64: 1, 128: 2, 256: 3}
_FILL_CODES = {"zero": 0, "nan": 1}

_SIMULATOR_LAYOUT = struct.Struct("<8sQ8B5Q4Q5H5B17x")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorMap:
    """A tensor in global memory, and the box of it that one TMA instruction copies.

    Dims count from the innermost, as TMA counts them: the reverse of torch. The map does not keep
    the memory alive.

    Attributes:
        dtype: What an element is.
        address: Of element 0; a multiple of 16.
        sizes: Elements per dim, 1 to 5 of them; beyond them the fill is read and nothing written.
        strides: Bytes from one element to the next in dims 1 and up; multiples of 16, below 2**40.
            Dim 0 has no gaps.
        box: Elements per dim that one instruction covers, at most 256; the innermost dim of a box
            fills a multiple of 16 bytes, and no more than the swizzle's width if there is one.
        element_strides: Steps between the elements taken, 1 to 8 per dim; by default 1.
        swizzle_bytes: Width within which 16-byte units are permuted in shared memory: 0 (not at
            all), 32, 64 or 128.
        l2_promotion_bytes: What the L2 cache fetches at least: 0, 64, 128 or 256.
        fill: What is read out of bounds, "zero" or "nan"; NaN needs floats of 16 bits or more.
        device: Where the memory lies.

    Raises:
        ValueError, TypeError: A rule is broken; the message names the attribute.
    """

    dtype: torch.dtype
    address: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    element_strides: tuple[int, ...] = ()
    swizzle_bytes: int = 0
    l2_promotion_bytes: int = 128
    fill: Literal["zero", "nan"] = "zero"
    device: torch.device
    _driver_encoding: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.element_strides:
            object.__setattr__(self, "element_strides", (1,) * len(self.sizes))
        _check(self)

    @classmethod
    def of(
        cls,
        tensor: torch.Tensor,
        box: Sequence[int],
        *,
        swizzle_bytes: int = 0,
        l2_promotion_bytes: int = 128,
        fill: Literal["zero", "nan"] = "zero",
    ) -> TensorMap:
        """Returns the map of a whole tensor, with the dims of `box` in the tensor's own order.

        Args:
            tensor: Its last dim must be contiguous; not kept alive.
            box: One entry per dim of the tensor, outermost first.
            swizzle_bytes: As the attribute.
            l2_promotion_bytes: As the attribute.
            fill: As the attribute.
        """
        return _map_of(
            tensor.dtype,
            tensor.data_ptr(),
            tensor.shape,
            tensor.stride(),
            tuple(box),
            swizzle_bytes,
            l2_promotion_bytes,
            fill,
            tensor.device,
        )

    @property
    def rank(self) -> int:
        """The number of dims."""
        return len(self.sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes from the first element's first to the last element's last."""
        span = sum((n - 1) * s for n, s in zip(self.sizes[1:], self.strides, strict=True))
        return span + self.sizes[0] * self.dtype.itemsize

    def encode_for_simulator(self) -> bytes:
        """Returns the 128 bytes of the table above."""
        rest = 5 - self.rank
        return _SIMULATOR_LAYOUT.pack(
            SIMULATOR_MAGIC,
            self.address,
            self.rank,
            _DTYPE_CODES[self.dtype],
            self.dtype.itemsize,
            _SWIZZLE_CODES[self.swizzle_bytes],
            0,
            _L2_CODES[self.l2_promotion_bytes],
            _FILL_CODES[self.fill],
            0,
            *(*self.sizes, *(1,) * rest),
            *(*self.strides, *(0,) * rest),
            *(*self.box, *(1,) * rest),
            *(*self.element_strides, *(1,) * rest),
        )

    def encode_for_driver(self) -> bytes:
        """Returns the 128 bytes that the CUDA driver makes of it; needs an NVIDIA driver."""
        if self._driver_encoding is not None:
            return self._driver_encoding
        from csrc.host import driver  # noqa: PLC0415 (built at first use)

        encoding: bytes = driver().encode_tiled(
            _DTYPE_CODES[self.dtype],
            self.address,
            self.sizes,
            self.strides,
            self.box,
            self.element_strides,
            _SWIZZLE_CODES[self.swizzle_bytes],
            _L2_CODES[self.l2_promotion_bytes],
            _FILL_CODES[self.fill],
        )
        object.__setattr__(self, "_driver_encoding", encoding)
        return encoding


@functools.lru_cache(maxsize=4096)  # layers and decode steps ask for the same maps again
def _map_of(
    dtype: torch.dtype,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    swizzle_bytes: int,
    l2_promotion_bytes: int,
    fill: Literal["zero", "nan"],
    device: torch.device,
) -> TensorMap:
    if shape and strides[-1] != 1 and shape[-1] > 1:
        actual, remedy = f"strides {list(strides)}", "call .contiguous()"
        check = Checker("TensorMap")
        check.invalid("tensor", "have stride 1 in its last dim", actual, remedy)
    # The stride of a dim with one element is never used, and torch lets it be anything.
    unused = -(-shape[-1] * dtype.itemsize // 16) * 16 if shape else 0
    outer = [
        stride * dtype.itemsize if size > 1 else unused
        for size, stride in zip(shape[:-1], strides[:-1], strict=True)
    ]
    return TensorMap(
        dtype=dtype,
        address=address,
        sizes=shape[::-1],
        strides=tuple(reversed(outer)),
        box=box[::-1],
        swizzle_bytes=swizzle_bytes,
        l2_promotion_bytes=l2_promotion_bytes,
        fill=fill,
        device=device,
    )


def _check(described: TensorMap) -> None:
    """The rules of cuTensorMapEncodeTiled for maps without interleave."""
    check = Checker("TensorMap")
    rank = described.rank
    check.between("the number of sizes", rank, 1, 5, "merge dims, or slice the tensor")
    for attribute, count in (("strides", rank - 1), ("box", rank), ("element_strides", rank)):
        values = getattr(described, attribute)
        if len(values) != count:
            rule = f"have {count} entries for {rank} sizes"
            check.invalid(attribute, rule, len(values), "give one per dim; dim 0 has no stride")
    if described.dtype not in _DTYPE_CODES:
        check.wrong_type("dtype", "be one that TMA copies", described.dtype, "view it as uint8")
    if described.address <= 0:
        check.invalid("address", "be positive", described.address, "an empty tensor has no memory")
    check.multiple("address", described.address, 16, "clone the tensor")
    for dim, size in enumerate(described.sizes):
        check.between(f"sizes[{dim}]", size, 1, 2**32, "do not launch on an empty tensor")
    for dim, stride in enumerate(described.strides):
        remedy = "pad the rows of the tensor to a multiple of 16 bytes"
        check.multiple(f"strides[{dim}]", stride, 16, remedy)
        check.between(f"strides[{dim}]", stride, 0, 2**40 - 1, "slice the tensor")
    for dim, step in enumerate(described.element_strides):
        check.between(f"element_strides[{dim}]", step, 1, 8, "leave it out for 1")
    _check_choices(check, described)
    _check_box(check, described)


def _check_box(check: Checker, described: TensorMap) -> None:
    for dim, extent in enumerate(described.box):
        check.between(f"box[{dim}]", extent, 1, 256, "copy a larger box with several instructions")
    inner_bytes = described.box[0] * described.dtype.itemsize
    check.multiple("the bytes of box[0]", inner_bytes, 16, "take more elements of dim 0")
    width = described.swizzle_bytes
    if width and inner_bytes > width:
        rule = f"be at most the swizzle's {width}"
        check.invalid("the bytes of box[0]", rule, inner_bytes, "split the box along dim 0")


def _check_choices(check: Checker, described: TensorMap) -> None:
    for attribute, codes in (
        ("swizzle_bytes", _SWIZZLE_CODES),
        ("l2_promotion_bytes", _L2_CODES),
        ("fill", _FILL_CODES),
    ):
        value = getattr(described, attribute)
        if value not in codes:
            names = ", ".join(map(str, codes))
            check.invalid(attribute, f"be one of {names}", value, "TMA knows no other")
    if described.fill == "nan" and _DTYPE_CODES[described.dtype] < _FIRST_FLOAT_CODE:
        check.invalid("fill", "be zero for bytes and integers", "nan", "TMA has no 8-bit NaN")
