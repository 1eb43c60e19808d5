"""Where wgmma and mma.sync keep their elements, one at a time, and what they compute, in float64.

Shared memory is an array of bytes; a matrix is [rows, k] as float64.
"""

import numpy as np
from numpy.typing import NDArray

SWIZZLE_CODES = {0: 0, 128: 1, 64: 2, 32: 3}


def descriptor(start: int, leading: int, stride: int, swizzle_bytes: int) -> int:
    """The 64 bits of a wgmma matrix descriptor."""
    code = SWIZZLE_CODES[swizzle_bytes]
    return start >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | code << 62


def swizzled(address: int, swizzle_bytes: int) -> int:
    """Bit 4 ^= bit 7, and so on for as many bits as the swizzle has."""
    for bit in range({0: 0, 32: 1, 64: 2, 128: 3}[swizzle_bytes]):
        address ^= (address >> (7 + bit) & 1) << (4 + bit)
    return address


def element_address(
    row: int, k: int, size: int, layout: tuple[int, int, int, int], *, mn_major: bool
) -> int:
    """Address of an element of `size` bytes; layout is what `descriptor` takes."""
    start, leading, stride, swizzle_bytes = layout
    if mn_major:
        if swizzle_bytes == 0:
            offset = row // 8 * stride + k // 8 * leading + k % 8 * 16 + row % 8 * size
        else:
            across = swizzle_bytes // size
            offset = row // across * leading + k // 8 * stride
            offset += k % 8 * swizzle_bytes + row % across * size
    elif swizzle_bytes == 0:
        byte = k * size
        offset = row // 8 * stride + byte // 16 * leading + row % 8 * 16 + byte % 16
    else:
        offset = row // 8 * stride + row % 8 * swizzle_bytes + k * size
    return swizzled(start + offset, swizzle_bytes)


def accumulator_place(row: int, column: int) -> tuple[int, int, int]:
    """(warp, register, lane) of an element of a 64 x n f32 accumulator."""
    register = column // 8 * 4 + row % 16 // 8 * 2 + column % 2
    return row // 16, register, row % 8 * 4 + column % 8 // 2


def a_place(row: int, k: int, size: int) -> tuple[int, int, int, int]:
    """(warp, register, lane, byte) of an element of A in registers."""
    per_word = 4 // size
    word = k // per_word
    register = word // 4 * 2 + row % 16 // 8
    return row // 16, register, row % 8 * 4 + word % 4, k % per_word * size


def b_place(column: int, k: int, size: int) -> tuple[int, int, int]:
    """(register, lane, byte) of an element of B of mma.sync."""
    per_word = 4 // size
    word = k // per_word
    return word // 4, column * 4 + word % 4, k % per_word * size


def fourteen_bits(a: NDArray[np.float64], b: NDArray[np.float64], c: float) -> float:
    """Sums a * b and c, all and the result cut to 13 bits below the leading one of the largest."""
    terms = [*(a * b), c]
    largest = max(abs(term) for term in terms)
    if largest == 0:
        return 0.0
    unit = 2.0 ** (np.frexp(largest)[1] - 1 - 13)
    total = sum(int(term / unit) for term in terms)  # int() cuts towards zero
    drop = max(abs(total).bit_length() - 14, 0)
    kept = abs(total) >> drop << drop
    return float(np.copysign(kept * unit, total)) if kept else 0.0
