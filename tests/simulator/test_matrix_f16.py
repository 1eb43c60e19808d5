"""Accumulators of 16 bits: what is rounded once at the end, at the edges of the format."""

import numpy as np
from numpy.typing import NDArray

from tests.simulator.numeric import numeric
from tests.simulator.test_matrix import (
    K_MAJOR,
    SHARED_BYTES,
    a_registers,
    accumulators,
    matrix_of,
    place_shared,
)

_LAYOUT = K_MAJOR["swizzle 128"]
_N = 256
_K = 16


def _multiplied(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each of 64 a with each of n b: no sum is rounded before the end."""
    rows, columns = np.zeros((64, _K)), np.zeros((_N, _K))
    rows[:, 3], columns[:, 3] = a, b
    shared = np.zeros(SHARED_BYTES, np.uint8)
    place_shared(shared, columns, "f16", _LAYOUT)
    op = numeric().MatrixOp("f16", "f16", f16_accumulator=True)
    d = accumulators(np.zeros((64, _N)), f16=True)
    registers = a_registers(rows, "f16", 4)
    numeric().wgmma(op, registers, _LAYOUT.bits, _N, False, False, shared, False, d)
    return matrix_of(d, _N, f16=True)


def _patterns(count: int, seed: int) -> NDArray[np.float64]:
    """Finite values of any magnitude, subnormal ones among them."""
    bits = np.random.default_rng(seed).integers(0, 0x7C00, count, dtype=np.uint16)
    signs = np.random.default_rng(seed + 1).integers(0, 2, count, dtype=np.uint16) << 15
    return (bits | signs).astype(np.uint16).view(np.float16).astype(np.float64)


def test_products_of_any_magnitude_are_rounded_once(seed: int) -> None:
    a, b = _patterns(64, seed), _patterns(_N, seed + 2)
    with np.errstate(over="ignore"):
        expected = np.outer(a, b).astype(np.float16).astype(np.float64)
    np.testing.assert_array_equal(_multiplied(a, b), expected)


def test_ties_go_to_the_even_neighbour() -> None:
    # Odd multiples of half the step, for normal and for subnormal results, and beyond the largest.
    a = np.arange(1025, 1153, 2).astype(np.float64)
    a[:8] = np.arange(1, 16, 2) / 2
    a[8:10] = 65504, -65504
    b = np.full(_N, 1.5)  # 1025 to 1151 become halves
    b[1::3], b[2::3] = 2.0**-24, 1 + 2.0**-10
    with np.errstate(over="ignore"):
        expected = np.outer(a, b).astype(np.float16).astype(np.float64)
    assert np.isinf(expected).any()
    np.testing.assert_array_equal(_multiplied(a, b), expected)


def test_every_accumulator_comes_back() -> None:
    patterns = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    op = numeric().MatrixOp("f16", "f16", f16_accumulator=True)
    shared = np.zeros(SHARED_BYTES, np.uint8)
    place_shared(shared, np.zeros((_N, _K)), "f16", _LAYOUT)
    nothing = a_registers(np.zeros((64, _K)), "f16", 4)
    with np.errstate(invalid="ignore"):  # signalling NaN
        blocks = patterns.reshape(4, 64, _N).astype(np.float64)
    for block in blocks:
        with np.errstate(invalid="ignore"):
            d = accumulators(block, f16=True)
        numeric().wgmma(op, nothing, _LAYOUT.bits, _N, False, False, shared, True, d)
        np.testing.assert_array_equal(matrix_of(d, _N, f16=True), block)
        if np.isnan(block).any():  # one NaN for all
            halves = d.view(np.uint16)
            assert set(halves[(halves & 0x7FFF) > 0x7C00].tolist()) == {0x7FFF}
