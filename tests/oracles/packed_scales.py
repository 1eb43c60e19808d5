"""Powers of two as bytes, four to a number: in plain Python, one by one."""

import math

Rows = list[list[float]]


def exponent_byte(value: float) -> int:
    """The exponent of a power of two, biased as in float32; 0 for 0."""
    if value == 0:
        return 0
    mantissa, exponent = math.frexp(value)
    assert mantissa == 0.5, f"{value} is no power of two"
    return exponent - 1 + 127


def packed(rows: Rows) -> list[list[int]]:
    """Each row's bytes, the first of four the lowest; what a row does not fill is 0."""
    result = []
    for row in rows:
        numbers = []
        for start in range(0, len(row), 4):
            four = [exponent_byte(value) for value in row[start : start + 4]]
            number = sum(byte << (8 * place) for place, byte in enumerate(four))
            numbers.append(number - 2**32 if number >= 2**31 else number)
        result.append(numbers)
    return result
