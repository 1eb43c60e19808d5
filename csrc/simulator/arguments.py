"""What a launch is given, checked against its kernel and packed into bytes and ranges."""

from __future__ import annotations

import contextlib
import operator
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from csrc.simulator import Kernel

MAX_SHARED_BYTES = 227 * 1024
MAX_THREADS = 1024
MAX_CLUSTER = 16
MAX_LOCAL_BYTES = 1 << 34  # of all threads that may be resident

_MAX_BITS = 128  # of any number that a launch or a machine is given

# Per dimension, by the CUDA programming guide.
_LIMITS = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64), "cluster": (16, 16, 16)}

Shape = tuple[int, int, int]
# (begin, end, name) of bytes that a kernel may touch.
Range = tuple[int, int, str]


def whole(name: str, value: Any) -> int:
    """The value as an int, if it is one or numpy's or torch's; truth values are none.

    Raises:
        TypeError: it is something else; the message begins with the name.
    """
    number = None
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError, RuntimeError):
            number = operator.index(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if number.bit_length() > _MAX_BITS:
        raise ValueError(f"{name} must have at most {_MAX_BITS} bits, got {shown(number)}")
    return number


def shown(value: Any) -> str:
    """The value for a message. Not every tensor and every integer can be printed."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def dims(name: str, given: Any) -> Shape:
    """One to three sizes, filled up with 1."""
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | Tensor):
        given = (given,)
    sizes = tuple(whole(f"launch: {name}", size) for size in given)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"launch: {name} must have one to three numbers, got {sizes}")
    padded = sizes + (1,) * (3 - len(sizes))
    shape = padded[0], padded[1], padded[2]
    if min(shape) < 1:
        raise ValueError(f"launch: {name} must be positive, got {shape}")
    if name == "block" and shape[0] * shape[1] * shape[2] > MAX_THREADS:
        raise ValueError(f"launch: block must have at most {MAX_THREADS} threads, got {shape}")
    if name == "cluster" and shape[0] * shape[1] * shape[2] > MAX_CLUSTER:
        raise ValueError(f"launch: cluster must have at most {MAX_CLUSTER} CTAs, got {shape}")
    if any(size > most for size, most in zip(shape, _LIMITS[name], strict=True)):
        raise ValueError(f"launch: {name} must be at most {_LIMITS[name]}, got {shape}")
    return shape


def check_shapes(kernel: Kernel, grid: Shape, block: Shape, cluster: Shape) -> None:
    """What the shapes have to be for one another, and for what the kernel says of itself."""
    for axis in range(3):
        if grid[axis] % cluster[axis]:
            raise ValueError(f"launch: cluster must divide grid, got {cluster} and {grid}")
    program = kernel.program
    for name, wanted, given in (
        ("block", list(program.required_threads), block),
        ("cluster", list(program.required_cluster), cluster),
    ):
        if wanted and wanted + [1] * (3 - len(wanted)) != list(given):
            raise ValueError(f"launch: {name} must be {wanted} for {kernel.name}, got {given}")
    limit = list(program.max_threads)
    most = limit + [1] * (3 - len(limit))
    threads = block[0] * block[1] * block[2]
    if limit and threads > most[0] * most[1] * most[2]:
        raise ValueError(f"launch: block must be within {limit} threads, got {block}")


def check_memory(kernel: Kernel, grid: Shape, block: Shape, smem_bytes: int, sms: int) -> None:
    """Whether the CTAs that are resident at a time have shared and local memory enough."""
    program = kernel.program
    most = MAX_SHARED_BYTES - program.shared_bytes
    if not 0 <= smem_bytes <= most:
        raise ValueError(
            f"launch: smem_bytes must be within 0 and {most} for {kernel.name}, got {smem_bytes}"
        )
    resident = min(sms, grid[0] * grid[1] * grid[2]) * block[0] * block[1] * block[2]
    if resident * program.local_bytes > MAX_LOCAL_BYTES:
        raise ValueError(
            f"launch: block must have fewer threads, or the machine fewer sms: {resident} resident "
            f"threads of {kernel.name} want {program.local_bytes} bytes of local memory each, "
            f"more than {MAX_LOCAL_BYTES} together"
        )


def pack(kernel: Kernel, args: Sequence[Tensor | float | bytes]) -> tuple[bytes, list[Held]]:
    """The buffer of parameters, and the tensors among them."""
    parameters = kernel.parameters
    if isinstance(args, str | bytes | Tensor) or not isinstance(args, Sequence):
        raise TypeError(f"launch: args must be a list or a tuple, got {shown(args)}")
    if len(args) != len(parameters):
        raise ValueError(
            f"launch: args must have one entry for each of the {len(parameters)} parameters of "
            f"{kernel.name}, got {len(args)}"
        )
    buffer = bytearray(kernel.program.parameter_bytes)
    held = []
    for position, (value, (_, offset, size)) in enumerate(zip(args, parameters, strict=True)):
        name = f"args[{position}]"
        if isinstance(value, Tensor):
            held.append(Held(name, value))
        buffer[offset : offset + size] = _packed(name, value, size)
    return bytes(buffer), held


class Held:
    """A tensor that a kernel may touch. It is kept until the run has ended.

    Raises:
        TypeError: it is no tensor.
        ValueError: it has no memory that the host may touch.
    """

    def __init__(self, name: str, tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"launch: {name} must be a tensor, got {shown(tensor)}")
        if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            what = f"one on {tensor.device} of layout {tensor.layout}"
            raise ValueError(f"launch: {name} must be a contiguous CPU tensor, got {what}")
        self._name, self._tensor = name, tensor
        try:
            self.range = self._now()
        except RuntimeError as error:  # such as a fake tensor
            raise ValueError(f"launch: {name} must be a CPU tensor with memory: {error}") from None
        if self.range is None:
            raise ValueError(f"launch: {name} must have memory, its storage has been emptied")

    def check(self) -> None:
        """Raises ValueError if the tensor has another memory than at the launch."""
        if self._now() != self.range:
            raise ValueError(
                f"run: {self._name} has been resized or moved since the launch; keep it as it is "
                f"until the run has ended"
            )

    def _now(self) -> Range | None:
        """The bytes up to the tensor's last element, if its storage has them."""
        tensor, extent = self._tensor, 0
        if tensor.numel():
            strides = zip(tensor.shape, tensor.stride(), strict=True)
            extent = 1 + sum((size - 1) * stride for size, stride in strides)
        end = (tensor.storage_offset() + extent) * tensor.element_size()
        if end > tensor.untyped_storage().nbytes():
            return None
        begin = tensor.data_ptr()
        return begin, begin + extent * tensor.element_size(), self._name


def _packed(name: str, value: Any, size: int) -> bytes:
    if isinstance(value, Tensor):
        if not value.is_contiguous():
            raise ValueError(f"launch: {name} must be a contiguous CPU tensor (use .contiguous())")
        if size != 8:
            raise ValueError(f"launch: {name} must be {size} bytes, got a tensor, which is 8")
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"launch: {name} must have {size} bytes, got {len(value)}")
        return value
    if isinstance(value, int):
        try:
            return int(value).to_bytes(size, "little", signed=value < 0)
        except OverflowError:
            raise ValueError(
                f"launch: {name} must fit in {size} bytes, got {shown(value)}"
            ) from None
    if isinstance(value, float) and size in (4, 8):
        try:
            return struct.pack("<f" if size == 4 else "<d", value)
        except OverflowError:
            raise ValueError(
                f"launch: {name} must fit in a float of 4 bytes, got {value}"
            ) from None
    raise TypeError(f"launch: {name} must be a tensor, a number or bytes, got {shown(value)}")
