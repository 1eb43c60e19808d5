"""TMA copies between tensors and shared memory against element-by-element copies in numpy."""

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from csrc.tensor_map import TensorMap
from tests.oracles import tensor_boxes
from tests.simulator.numeric import numeric

TORCH_TYPES = {
    "u8": torch.uint8,
    "u16": torch.uint16,
    "u32": torch.uint32,
    "s32": torch.int32,
    "u64": torch.uint64,
    "s64": torch.int64,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "f32": torch.float32,
    "f64": torch.float64,
}
NUMPY_TYPES = {
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "s32": np.int32,
    "u64": np.uint64,
    "s64": np.int64,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
}
SHARED_BYTES = 1 << 16
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Case:
    """A tensor (a view with padded rows), and the box of it; dims from the innermost."""

    type: str
    sizes: tuple[int, ...]
    box: tuple[int, ...]
    corner: tuple[int, ...]
    steps: tuple[int, ...] = ()
    swizzle_bytes: int = 0
    fill: str = "zero"

    @property
    def steps_or_ones(self) -> tuple[int, ...]:
        return self.steps or (1,) * len(self.sizes)

    def tensor(self, seed: int) -> Array:
        """Random bytes; rows are padded to 16 bytes and some more."""
        rng = np.random.default_rng(seed)
        dtype = np.dtype(NUMPY_TYPES[self.type])
        per_unit = 16 // dtype.itemsize
        padded = (-(-self.sizes[0] // per_unit) + 1) * per_unit
        whole = rng.standard_normal((*reversed(self.sizes[1:]), padded)) * 100
        return np.abs(whole).astype(dtype)[..., : self.sizes[0]]

    def encoded(self, tensor: Array) -> bytes:
        return TensorMap(
            dtype=TORCH_TYPES[self.type],
            address=tensor.ctypes.data,
            sizes=self.sizes,
            strides=tuple(reversed(tensor.strides[:-1])),
            box=self.box,
            element_strides=self.steps_or_ones,
            swizzle_bytes=self.swizzle_bytes,
            fill="nan" if self.fill == "nan" else "zero",
            device=torch.device("cpu"),
        ).encode_for_simulator()

    @property
    def corner5(self) -> tuple[int, ...]:
        return (*self.corner, *(0,) * (5 - len(self.corner)))

    def expected_bytes(self, tensor: Array) -> NDArray[np.uint8]:
        fill = math.nan if self.fill == "nan" else 0
        box = tensor_boxes.load(tensor, self.corner, self.box, self.steps_or_ones, fill)
        return np.frombuffer(box.tobytes(), np.uint8)


CASES = {
    "1d": Case("f32", (100,), (32,), (16,)),
    "1d across the end": Case("bf16", (100,), (64,), (72,)),
    "1d before the start": Case("u8", (100,), (64,), (-30,)),
    "1d wholly outside": Case("u8", (100,), (64,), (100,)),
    "2d 128": Case("bf16", (100, 40), (64, 16), (32, 8), swizzle_bytes=128),
    "2d 128, a corner": Case("bf16", (100, 40), (64, 16), (70, 30), swizzle_bytes=128),
    "2d 128, rows above": Case("f16", (100, 40), (64, 16), (-3, -5), swizzle_bytes=128),
    "2d 64": Case("f32", (100, 40), (16, 24), (4, 8), swizzle_bytes=64),
    "2d 32": Case("u8", (100, 40), (32, 24), (4, 8), swizzle_bytes=32),
    "2d nan": Case("bf16", (20, 9), (16, 16), (10, 2), fill="nan"),
    "2d nan f32": Case("f32", (20, 9), (32, 16), (-1, -1), swizzle_bytes=128, fill="nan"),
    "2d one element": Case("f64", (1, 1), (2, 1), (0, 0)),
    "2d negative row": Case("s32", (8, 3), (4, 1), (0, -1)),
    "2d steps": Case("bf16", (64, 40), (64, 15), (0, 30), steps=(3, 4), swizzle_bytes=128),
    "3d": Case("u16", (24, 5, 4), (16, 3, 2), (8, 3, 2)),
    "4d": Case("u32", (12, 5, 4, 3), (8, 3, 2, 2), (8, 3, -1, 2), swizzle_bytes=32),
    "5d": Case("s64", (6, 5, 4, 3, 2), (4, 3, 2, 2, 2), (2, 3, 2, 1, -1), swizzle_bytes=32),
    "5d steps": Case("f64", (6, 9, 8, 7, 6), (2, 5, 4, 3, 2), (2, 3, 2, 1, 0), (1, 2, 3, 2, 2)),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def check_load(case: Case, seed: int, address: int) -> None:
    tensor = case.tensor(seed)
    shared = np.full(SHARED_BYTES, 0xA5, np.uint8)
    raw = case.expected_bytes(tensor)
    expected = shared.copy()
    expected[tensor_boxes.place(raw, address, case.swizzle_bytes)] = raw
    numeric().load_box(case.encoded(tensor), case.corner5, shared, address, 1)
    if case.fill == "nan":  # any NaN will do
        places = tensor_boxes.place(raw, address, case.swizzle_bytes)
        dtype = NUMPY_TYPES[case.type]
        np.testing.assert_array_equal(
            shared[places].view(dtype).astype(np.float64), raw.view(dtype).astype(np.float64)
        )
        shared[places] = raw
    np.testing.assert_array_equal(shared, expected)


@each_case
def test_a_load_fills_shared_memory_as_the_oracle_does(case: Case, seed: int) -> None:
    for address in (0, 1024, 1024 + 384):
        check_load(case, seed, address)


@each_case
def test_a_store_writes_what_is_in_bounds_and_nothing_else(case: Case, seed: int) -> None:
    tensor = case.tensor(seed)
    before = tensor.copy()
    shared = np.random.default_rng(seed).integers(0, 100, SHARED_BYTES, np.uint8)
    raw = np.zeros(numeric().box_bytes(case.encoded(tensor)), np.uint8)
    raw[:] = shared[tensor_boxes.place(raw, 2048, case.swizzle_bytes)]
    values = raw.view(tensor.dtype)
    numeric().store_box(case.encoded(tensor), case.corner5, shared, 2048, 1)
    coordinates = tensor_boxes.elements(case.corner, case.box, case.steps_or_ones)
    for index, value in zip(coordinates, values, strict=True):
        place = tuple(reversed(index))
        if all(0 <= i < n for i, n in zip(place, tensor.shape, strict=True)):
            before[place] = value
    assert np.array_equal(tensor.tobytes(), before.tobytes())
    written, fresh = tensor.base, case.tensor(seed).base
    assert written is not None
    assert fresh is not None
    padding = np.s_[..., case.sizes[0] :]
    np.testing.assert_array_equal(written[padding], fresh[padding])


@each_case
def test_ranges_are_the_bytes_in_bounds(case: Case, seed: int) -> None:
    tensor = case.tensor(seed)
    expected = set()
    for index in tensor_boxes.elements(case.corner, case.box, case.steps_or_ones):
        place = tuple(reversed(index))
        if all(0 <= i < n for i, n in zip(place, tensor.shape, strict=True)):
            start = tensor.ctypes.data + sum(
                i * s for i, s in zip(place, tensor.strides, strict=True)
            )
            expected |= set(range(start, start + tensor.itemsize))
    ranges = numeric().box_ranges(case.encoded(tensor), case.corner5)
    actual = [byte for start, count in ranges for byte in range(start, start + count)]
    assert len(actual) == len(set(actual))
    assert set(actual) == expected


def test_ranges_of_touching_rows_are_joined() -> None:
    tensor = np.zeros((8, 16), np.float32)
    case = Case("f32", (16, 8), (16, 8), (0, 0))
    assert numeric().box_ranges(case.encoded(tensor), (0,) * 5) == [(tensor.ctypes.data, 512)]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    box=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    corner=st.lists(st.integers(-6, 12), min_size=5, max_size=5),
    steps=st.lists(st.integers(1, 8), min_size=4, max_size=4),
    swizzle_bytes=st.sampled_from((0, 32, 64, 128)),
)
def test_any_box_of_any_tensor_is_loaded_right(
    sizes: list[int], box: list[int], corner: list[int], steps: list[int], swizzle_bytes: int
) -> None:
    rank = len(sizes) + 1
    inner = (swizzle_bytes or 48) // 2
    case = Case(
        "u16",
        (11, *sizes),
        (inner, *box[: rank - 1]),
        tuple(corner[:rank]),
        (1, *steps[: rank - 1]),
        swizzle_bytes,
    )
    check_load(case, 3, 256)


def test_the_largest_coordinates_stay_out_of_bounds() -> None:
    tensor = np.ones((4, 16), np.float32)
    case = Case("f32", (16, 4), (16, 4), (0, 0))
    for corner in ((2**31 - 1, 0), (-(2**31), 0), (0, 2**31 - 1), (0, -(2**31))):
        shared = np.full(SHARED_BYTES, 0xA5, np.uint8)
        numeric().load_box(case.encoded(tensor), (*corner, 0, 0, 0), shared, 0, 1)
        assert not shared[:256].any()
        assert numeric().box_ranges(case.encoded(tensor), (*corner, 0, 0, 0)) == []


def test_a_box_must_fit_in_shared_memory_at_a_multiple_of_128() -> None:
    tensor = np.zeros((8, 32), np.float32)
    encoded = Case("f32", (32, 8), (32, 8), (0, 0), swizzle_bytes=128).encoded(tensor)
    shared = np.zeros(2048, np.uint8)
    numeric().load_box(encoded, (0,) * 5, shared, 1024, 1)
    for address in (1152, 2**32 - 128):
        with pytest.raises(RuntimeError, match="out of bounds: a tensor copy of 1024 bytes"):
            numeric().load_box(encoded, (0,) * 5, shared, address, 1)
    with pytest.raises(RuntimeError, match="misaligned: a tensor copy"):
        numeric().store_box(encoded, (0,) * 5, shared, 16, 1)


@given(st.binary(min_size=128, max_size=128))
def test_no_bytes_pass_for_a_map_but_a_map(raw: bytes) -> None:
    with pytest.raises(RuntimeError, match="magic number"):
        numeric().box_bytes(raw)


@given(st.integers(8, 110), st.integers(0, 255))
def test_a_damaged_map_is_refused_or_still_a_map(place: int, value: int) -> None:
    case = CASES["2d 64"]
    damaged = bytearray(case.encoded(case.tensor(0)))
    damaged[place] = value
    try:
        num_bytes = numeric().box_bytes(bytes(damaged))
    except RuntimeError as error:
        assert "a tensor map must" in str(error)  # noqa: PT017 (refusing is one of two outcomes)
    else:
        assert 0 < num_bytes <= 256**2 * 64


def test_a_swizzle_wider_than_the_rows_is_refused() -> None:
    case = Case("u8", (100, 40), (32, 8), (0, 0), swizzle_bytes=128)
    with pytest.raises(RuntimeError, match="box rows as wide as its swizzle"):
        numeric().box_bytes(case.encoded(case.tensor(0)))


REDUCTIONS = [
    *((op, t) for op in ("add", "min", "max") for t in ("u32", "s32", "u64", "f16", "bf16")),
    *((op, "s64") for op in ("min", "max")),
    *(("add", t) for t in ("f32", "f64")),
    *((op, t) for op in ("and", "or", "xor") for t in ("u32", "s32", "u64", "s64")),
]
UFUNCS = {
    "add": np.add,
    "min": np.fmin,
    "max": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


@pytest.mark.parametrize(("op", "name"), REDUCTIONS)
def test_reductions_agree_with_numpy(op: str, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype = np.dtype(NUMPY_TYPES[name])
    raw = rng.integers(0, 256, (2, 4096 * dtype.itemsize), np.uint8)
    old, new = raw[0].view(dtype), raw[1].view(dtype)
    with np.errstate(all="ignore"):
        wide = np.float64 if dtype.itemsize == 2 else dtype
        expected = UFUNCS[op](old.astype(wide), new.astype(wide)).astype(dtype)
        tiny = np.finfo(np.float32).tiny
        if name == "f32":
            flushed = [np.where(np.abs(x) < tiny, np.float32(0), x) for x in (old, new)]
            expected = flushed[0] + flushed[1]
            expected = np.where(np.abs(expected) < tiny, np.float32(0), expected)
    numeric().reduce(op, name, raw[0], raw[1])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(
            raw[0].view(dtype).astype(wide), expected.astype(wide), strict=True
        )


def test_what_cp_reduce_does_not_have_is_refused() -> None:
    cells = np.zeros(16, np.uint8)
    for op, name in (("add", "u8"), ("min", "f32"), ("and", "f16"), ("add", "s64")):
        with pytest.raises(RuntimeError, match="there is no such reduction of this type"):
            numeric().reduce(op, name, cells, cells)


def test_minimum_and_maximum_tell_zeros_apart_and_prefer_numbers() -> None:
    cells = {"zero": 0x0000, "minus zero": 0x8000, "nan": 0x7E00, "one": 0x3C00}

    def reduced(op: str, old: str, new: str) -> int:
        to, value = (np.array([cells[key]], np.uint16).view(np.uint8) for key in (old, new))
        numeric().reduce(op, "f16", to, value)
        return int(to.view(np.uint16)[0])

    for old, new in (("zero", "minus zero"), ("minus zero", "zero")):
        assert reduced("min", old, new) == 0x8000
        assert reduced("max", old, new) == 0x0000
    for op in ("min", "max"):
        assert reduced(op, "nan", "one") == reduced(op, "one", "nan") == 0x3C00
        assert reduced(op, "nan", "nan") == 0x7FFF


def test_a_reducing_store_adds_only_in_bounds() -> None:
    tensor = np.ones((9, 20), np.float32)
    case = Case("f32", (20, 9), (16, 4), (12, 6))
    shared = np.full(1024, 2.0, np.float32).view(np.uint8)
    numeric().reduce_box(case.encoded(tensor), case.corner5, shared, 0, "add")
    expected = np.ones((9, 20), np.float32)
    expected[6:, 12:] = 3
    np.testing.assert_array_equal(tensor, expected)
