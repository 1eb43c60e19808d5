"""wgmma, mma.sync, ldmatrix and stmatrix against sums in float64 over every layout of operands."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.oracles import matrix_units
from tests.simulator.numeric import numeric

DTYPES = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
}
SIZES = {"f16": 2, "bf16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1}
SHARED_BYTES = 1 << 18
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """A descriptor's fields, and the major dim."""

    start: int
    leading: int
    stride: int
    swizzle_bytes: int
    mn_major: bool = False

    @property
    def fields(self) -> tuple[int, int, int, int]:
        return self.start, self.leading, self.stride, self.swizzle_bytes

    @property
    def bits(self) -> int:
        return matrix_units.descriptor(*self.fields)


K_MAJOR = {
    "swizzle 128": Layout(0x4000, 16, 1024, 128),
    "swizzle 128, second k": Layout(0x4020, 16, 1024, 128),
    "swizzle 64": Layout(0x4000, 16, 512, 64),
    "swizzle 64, second k": Layout(0x4020, 16, 512, 64),
    "swizzle 32": Layout(0x4000, 16, 256, 32),
    "no swizzle": Layout(0x4000, 128, 256, 0),
    "no swizzle, far": Layout(0x4010, 8192, 128, 0),
    "swizzle 128, off the 1024": Layout(0x4080, 16, 1024, 128),
}
MN_MAJOR = {
    "swizzle 128": Layout(0x4000, 2048, 1024, 128, mn_major=True),
    "swizzle 64": Layout(0x4000, 1024, 512, 64, mn_major=True),
    "swizzle 32": Layout(0x4000, 512, 256, 32, mn_major=True),
    "no swizzle": Layout(0x4000, 128, 256, 0, mn_major=True),
}


def random_matrix(rng: np.random.Generator, rows: int, k: int, element: str) -> Array:
    """Normal values that the format has exactly."""
    values = rng.standard_normal((rows, k)).astype(DTYPES[element])
    if element == "tf32":
        values = (values.view(np.uint32) & 0xFFFFE000).view(np.float32)
    return values.astype(np.float64)


def place_shared(
    shared: NDArray[np.uint8], matrix: Array, element: str, layout: Layout
) -> set[int]:
    """Writes the matrix and returns the granules that it fills."""
    size = SIZES[element]
    raw = matrix.astype(DTYPES[element]).view(np.uint8).reshape(*matrix.shape, size)
    granules = set()
    for row, k in np.ndindex(matrix.shape):
        address = matrix_units.element_address(
            row, k, size, layout.fields, mn_major=layout.mn_major
        )
        shared[address : address + size] = raw[row, k]
        granules.add(address & ~15)
    return granules


def a_registers(matrix: Array, element: str, num_registers: int) -> NDArray[np.uint32]:
    size = SIZES[element]
    raw = matrix.astype(DTYPES[element]).view(np.uint8).reshape(*matrix.shape, size)
    cells = np.full((len(matrix) // 16, num_registers, 32, 4), 0xFF, np.uint8)
    for row, k in np.ndindex(matrix.shape):
        warp, register, lane, byte = matrix_units.a_place(row, k, size)
        cells[warp, register, lane, byte : byte + size] = raw[row, k]
    return cells.view(np.uint32).reshape(-1, num_registers, 32)


def b_registers(matrix: Array, element: str, num_registers: int) -> NDArray[np.uint32]:
    size = SIZES[element]
    raw = matrix.astype(DTYPES[element]).view(np.uint8).reshape(*matrix.shape, size)
    cells = np.full((num_registers, 32, 4), 0xFF, np.uint8)
    for column, k in np.ndindex(matrix.shape):
        register, lane, byte = matrix_units.b_place(column, k, size)
        cells[register, lane, byte : byte + size] = raw[column, k]
    return cells.view(np.uint32).reshape(num_registers, 32)


def accumulators(matrix: Array, *, f16: bool = False) -> NDArray[np.uint32]:
    """The registers [warp, register, lane] that hold the matrix."""
    rows, n = matrix.shape
    cells = np.zeros((rows // 16, n // 2, 32), np.float32)
    for row, column in np.ndindex(rows, n):
        cells[matrix_units.accumulator_place(row, column)] = matrix[row, column]
    if not f16:
        return cells.view(np.uint32)
    pairs = np.moveaxis(cells.reshape(rows // 16, n // 4, 2, 32), 2, 3)
    return np.ascontiguousarray(pairs).astype(np.float16).view(np.uint32)[..., 0]


def matrix_of(registers: NDArray[np.uint32], n: int, *, f16: bool = False) -> Array:
    cells: NDArray[np.floating] = registers.view(np.float32)
    if f16:
        pairs = np.ascontiguousarray(registers)[..., None].view(np.float16)
        cells = np.moveaxis(pairs, 3, 2).reshape(len(registers), n // 2, 32)
    result = np.zeros((16 * len(registers), n))
    for row, column in np.ndindex(result.shape):
        result[row, column] = cells[matrix_units.accumulator_place(row, column)]
    return result


def assert_close(actual: Array, a: Array, b: Array, c: Array, epsilon: float = 2.0**-24) -> None:
    """Every element within the bound of so many roundings of partial sums."""
    steps = a.shape[1] + 1
    bound = steps * epsilon * (np.abs(a) @ np.abs(b).T + np.abs(c))
    worst = np.abs(actual - (a @ b.T + c)) - bound
    assert not np.isnan(actual).any()
    assert worst.max() <= 0, np.unravel_index(worst.argmax(), worst.shape)


def shared_of_nan() -> NDArray[np.uint8]:
    return np.full(SHARED_BYTES, 0xFF, np.uint8)


@dataclass(frozen=True)
class Operands:
    """Random A, B, D and a shared memory of NaN."""

    a: Array
    b: Array
    d: Array
    shared: NDArray[np.uint8]


def operands(seed: int, element: str, n: int) -> Operands:
    rng = np.random.default_rng(seed)
    k = 32 // SIZES[element]
    a, b = random_matrix(rng, 64, k, element), random_matrix(rng, n, k, element)
    d = rng.standard_normal((64, n)).astype(np.float16).astype(np.float64)
    return Operands(a, b, d, shared_of_nan())


def run_wgmma(
    given: Operands, op: object, a: object, b: Layout, *, accumulate: bool = True, f16: bool = False
) -> Array:
    """D as a matrix; `a` is a layout or registers."""
    n = len(given.b)
    d = accumulators(given.d, f16=f16)
    a_mn_major = isinstance(a, Layout) and a.mn_major
    numeric().wgmma(
        op,
        a.bits if isinstance(a, Layout) else a,
        b.bits,
        n,
        a_mn_major,
        b.mn_major,
        given.shared,
        accumulate,
        d,
    )
    return matrix_of(d, n, f16=f16)


@pytest.mark.parametrize("layout", K_MAJOR.values(), ids=K_MAJOR)
@pytest.mark.parametrize("element", DTYPES)
def test_wgmma_of_k_major_operands_in_every_swizzle(
    element: str, layout: Layout, seed: int
) -> None:
    given = operands(seed, element, 40)  # no multiple of 16
    a_layout = Layout(0x10000 + layout.start % 0x1000, *layout.fields[1:])
    place_shared(given.shared, given.a, element, a_layout)
    place_shared(given.shared, given.b, element, layout)
    actual = run_wgmma(given, numeric().MatrixOp(element, element), a_layout, layout)
    assert_close(actual, given.a, given.b, given.d)


@pytest.mark.parametrize("layout", MN_MAJOR.values(), ids=MN_MAJOR)
@pytest.mark.parametrize("element", ["f16", "bf16"])
def test_wgmma_of_mn_major_operands_in_every_swizzle(
    element: str, layout: Layout, seed: int
) -> None:
    given = operands(seed, element, 128)
    a_layout = Layout(0x10000, *layout.fields[1:], mn_major=True)
    place_shared(given.shared, given.a, element, a_layout)
    place_shared(given.shared, given.b, element, layout)
    actual = run_wgmma(given, numeric().MatrixOp(element, element), a_layout, layout)
    assert_close(actual, given.a, given.b, given.d)


@pytest.mark.parametrize("n", [*range(8, 257, 56), 16, 24, 256])
@pytest.mark.parametrize("element", DTYPES)
def test_wgmma_with_a_in_registers_for_every_width(element: str, n: int, seed: int) -> None:
    given = operands(seed, element, n)
    layout = K_MAJOR["swizzle 128"]
    place_shared(given.shared, given.b, element, layout)
    op = numeric().MatrixOp(element, element)
    actual = run_wgmma(given, op, a_registers(given.a, element, 4), layout)
    assert_close(actual, given.a, given.b, given.d)


def test_wgmma_without_accumulation_ignores_what_the_registers_hold(seed: int) -> None:
    given = operands(seed, "bf16", 16)
    given.d[:] = np.nan
    layout = K_MAJOR["swizzle 64"]
    place_shared(given.shared, given.b, "bf16", layout)
    op = numeric().MatrixOp("bf16", "bf16")
    registers = a_registers(given.a, "bf16", 4)
    actual = run_wgmma(given, op, registers, layout, accumulate=False)
    assert_close(actual, given.a, given.b, np.zeros((64, 16)))


def test_wgmma_negates_the_product_but_not_the_accumulator(seed: int) -> None:
    given = operands(seed, "f16", 16)
    layout = K_MAJOR["swizzle 64"]
    place_shared(given.shared, given.b, "f16", layout)
    op = numeric().MatrixOp("f16", "f16", negate=True)
    actual = run_wgmma(given, op, a_registers(given.a, "f16", 4), layout)
    assert_close(actual, -given.a, given.b, given.d)


@pytest.mark.parametrize(("a_type", "b_type"), [("e4m3", "e5m2"), ("e5m2", "e4m3")])
def test_wgmma_takes_both_fp8_types_at_once(a_type: str, b_type: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_matrix(rng, 64, 32, a_type), random_matrix(rng, 16, 32, b_type)
    given = Operands(a, b, np.zeros((64, 16)), shared_of_nan())
    layout = K_MAJOR["swizzle 128"]
    place_shared(given.shared, b, b_type, layout)
    op = numeric().MatrixOp(a_type, b_type)
    assert_close(run_wgmma(given, op, a_registers(a, a_type, 4), layout), a, b, given.d)


@pytest.mark.parametrize("element", ["f16", "e4m3", "e5m2"])
def test_wgmma_with_f16_accumulators_rounds_once_per_instruction(element: str, seed: int) -> None:
    given = operands(seed, element, 24)
    layout = K_MAJOR["swizzle 128"]
    place_shared(given.shared, given.b, element, layout)
    op = numeric().MatrixOp(element, element, f16_accumulator=True)
    actual = run_wgmma(given, op, a_registers(given.a, element, 4), layout, f16=True)
    exact = given.a @ given.b.T + given.d
    slack = 2.0**-18 * (np.abs(given.a) @ np.abs(given.b).T + np.abs(given.d))
    assert (np.abs(actual - exact) <= 2.0**-11 * np.abs(exact) + slack).all()
    assert (actual == actual.astype(np.float16)).all()


@pytest.mark.parametrize("element", DTYPES)
def test_every_bit_pattern_of_an_operand_has_its_value(element: str) -> None:
    size = SIZES[element]
    count = 256 if size == 1 else 65536
    patterns = np.arange(count, dtype=np.uint32) << np.uint32(16 if size == 4 else 0)
    k = 32 // size
    with np.errstate(invalid="ignore"):  # signalling NaN
        values = patterns.astype(f"u{size}").view(DTYPES[element]).astype(np.float64)
    op = numeric().MatrixOp(element, element)
    layout = K_MAJOR["swizzle 32"]
    # Row r of A is patterns r * k ... ; B picks column c: D[r, c] = A[r, c].
    shared = np.zeros(SHARED_BYTES, np.uint8)
    place_shared(shared, np.eye(k if k % 8 == 0 else 8, k), element, layout)
    for start in range(0, len(values), 16 * k):
        block = np.zeros(16 * k)
        chunk = values[start : start + 16 * k]
        block[: len(chunk)] = chunk
        finite = np.where(np.isfinite(block), block, 0).reshape(16, k)
        a = np.tile(finite, (4, 1))
        d = accumulators(np.zeros((64, k)))
        numeric().wgmma(
            op, a_registers(a, element, 4), layout.bits, k, False, False, shared, False, d
        )
        np.testing.assert_array_equal(matrix_of(d, k), a)


def test_the_low_13_bits_of_a_tf32_operand_are_ignored(seed: int) -> None:
    given = operands(seed, "tf32", 8)
    layout = K_MAJOR["swizzle 128"]
    place_shared(given.shared, given.b, "tf32", layout)
    clean = a_registers(given.a, "tf32", 4)
    op = numeric().MatrixOp("tf32", "tf32")
    expected = run_wgmma(given, op, clean, layout)
    np.testing.assert_array_equal(run_wgmma(given, op, clean | 0x1FFF, layout), expected)


@pytest.mark.parametrize("element", DTYPES)
def test_nan_and_infinities_spread_as_in_float64(element: str) -> None:
    k = 32 // SIZES[element]
    a = np.zeros((64, k))
    a[0, 0] = np.nan
    b = np.ones((8, k))
    b[1, 0] = -1
    if element != "e4m3":
        a[1, 1] = np.inf
        b[2, 1] = 0
    shared = np.zeros(SHARED_BYTES, np.uint8)
    layout = K_MAJOR["swizzle 128"]
    place_shared(shared, b, element, layout)
    registers = a_registers(a, element, 4)
    for fourteen_bits in (False, True):
        d = accumulators(np.zeros((64, 8)))
        op = numeric().MatrixOp(element, element, fourteen_bits=fourteen_bits)
        numeric().wgmma(op, registers, layout.bits, 8, False, False, shared, False, d)
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(matrix_of(d, 8), a @ b.T)


@pytest.mark.parametrize("element", ["e4m3", "e5m2"])
def test_fourteen_bit_sums_are_those_of_the_model(element: str, seed: int) -> None:
    given = operands(seed, element, 24)
    given.a[3] = 0
    given.d[3] *= 2.0**-20
    given.d[4] *= 2.0**20
    layout = K_MAJOR["swizzle 128"]
    place_shared(given.shared, given.b, element, layout)
    op = numeric().MatrixOp(element, element, fourteen_bits=True)
    actual = run_wgmma(given, op, a_registers(given.a, element, 4), layout)
    expected = [
        [matrix_units.fourteen_bits(a, b, c) for b, c in zip(given.b, row, strict=True)]
        for a, row in zip(given.a, given.d, strict=True)
    ]
    np.testing.assert_array_equal(actual, expected)


def test_fourteen_bit_sums_lose_what_two_level_accumulation_keeps() -> None:
    # 1 + 4096 x 2^-14 is 1.25; in 14 bits nothing of it arrives.
    d = accumulators(np.ones((64, 8)))
    a, b = np.full((64, 32), 2.0**-7), np.full((8, 32), 2.0**-8)
    shared = np.zeros(SHARED_BYTES, np.uint8)
    layout = K_MAJOR["swizzle 128"]
    place_shared(shared, b, "e4m3", layout)
    op = numeric().MatrixOp("e4m3", "e4m3", fourteen_bits=True)
    registers = a_registers(a, "e4m3", 4)
    for _ in range(128):
        numeric().wgmma(op, registers, layout.bits, 8, False, False, shared, True, d)
    assert (matrix_of(d, 8) == 1).all()


@pytest.mark.parametrize("element", DTYPES)
@pytest.mark.parametrize("k_bytes", [16, 32])
def test_mma_sync_of_every_type(element: str, k_bytes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = k_bytes // SIZES[element]
    a, b = random_matrix(rng, 16, k, element), random_matrix(rng, 8, k, element)
    c = rng.standard_normal((16, 8)).astype(np.float32).astype(np.float64)
    d = np.zeros((1, 4, 32), np.uint32)
    numeric().mma(
        numeric().MatrixOp(element, element),
        k_bytes,
        a_registers(a, element, k_bytes // 8),
        b_registers(b, element, k_bytes // 16),
        accumulators(c),
        d,
    )
    assert_close(matrix_of(d, 8), a, b, c)


def test_mma_sync_with_f16_accumulators_may_write_over_its_operands(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_matrix(rng, 16, 16, "f16"), random_matrix(rng, 8, 16, "f16")
    registers = a_registers(a, "f16", 4)
    c = np.zeros((1, 2, 32), np.uint32)
    op = numeric().MatrixOp("f16", "f16", f16_accumulator=True)
    numeric().mma(op, 32, registers, b_registers(b, "f16", 2), c, registers)
    actual = matrix_of(registers[:, :2], 8, f16=True)
    np.testing.assert_allclose(actual, a @ b.T, rtol=2.0**-11, atol=2.0**-12)


@pytest.mark.parametrize("layout", [*K_MAJOR.values(), *MN_MAJOR.values()], ids=str)
@pytest.mark.parametrize("rows", [64, 128])
def test_granules_are_the_bytes_that_the_operand_has(layout: Layout, rows: int) -> None:
    expected = place_shared(shared_of_nan(), np.zeros((rows, 16)), "bf16", layout)
    actual = numeric().granules(layout.bits, rows, layout.mn_major, SHARED_BYTES)
    assert len(actual) == 2 * rows
    assert set(actual) == expected


def test_an_operand_beyond_the_shared_memory_is_an_error() -> None:
    layout = K_MAJOR["swizzle 128"]
    end = layout.start + 8 * 1024
    assert numeric().granules(layout.bits, 64, False, end)
    with pytest.raises(RuntimeError, match="out of bounds: wgmma reads 16 bytes at shared address"):
        numeric().granules(layout.bits, 64, False, end - 16)


def test_what_no_document_describes_is_refused(seed: int) -> None:
    layout = K_MAJOR["swizzle 128"]
    with pytest.raises(RuntimeError, match="base offset"):
        numeric().granules(layout.bits | 1 << 49, 64, False, SHARED_BYTES)
    given = operands(seed, "e4m3", 16)
    op = numeric().MatrixOp("e4m3", "e4m3")
    with pytest.raises(RuntimeError, match="only 16-bit elements can be MN-major"):
        run_wgmma(given, op, a_registers(given.a, "e4m3", 4), MN_MAJOR["swizzle 128"])
    for a_type, b_type in (("f32", "f32"), ("bf16", "e4m3")):
        with pytest.raises(RuntimeError, match="matrix: elements"):
            run_wgmma(
                given, numeric().MatrixOp(a_type, b_type), a_registers(given.a, "e4m3", 4), layout
            )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix_map_each_cell(count: int, transposed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, 256, 2048, np.uint8)
    addresses = (rng.permutation(128)[: 8 * count] * 16).tolist()
    registers = np.zeros((count, 32), np.uint32)
    numeric().ldmatrix(count, transposed, shared, addresses, registers)
    halves = registers[..., None].view(np.uint16)
    for matrix, row, column in np.ndindex(count, 8, 8):
        address = addresses[8 * matrix + row] + 2 * column
        cell = shared[address : address + 2].view(np.uint16)[0]
        r, c = (column, row) if transposed else (row, column)
        assert halves[matrix, 4 * r + c // 2, c % 2] == cell
    copy = np.zeros_like(shared)
    numeric().stmatrix(count, transposed, copy, addresses, registers)
    for address in addresses:
        np.testing.assert_array_equal(copy[address : address + 16], shared[address : address + 16])
    assert np.count_nonzero(copy) <= 16 * len(addresses)
