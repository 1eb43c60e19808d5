"""Sums, products, quotients and roots of floating-point numbers by exact fractions.

Values are those of tests/oracles/number_formats.py; results are exact but for the root, which is
so close to the exact one that rounding it gives the same.
"""

import math
from fractions import Fraction

from tests.oracles.number_formats import Value

_ROOT_BITS = 700  # subnormal numbers of f64 have many zeros


def _is_nan(value: Value) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_infinite(value: Value) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _sign(value: Value) -> float:
    return math.copysign(1.0, value) if isinstance(value, float) else (1.0 if value > 0 else -1.0)


def add(x: Value, y: Value, rounding: str) -> Value:
    if _is_nan(x) or _is_nan(y):
        return math.nan
    infinities = [value for value in (x, y) if _is_infinite(value)]
    if infinities:
        return infinities[0] if len(set(infinities)) == 1 else math.nan
    total = Fraction(x) + Fraction(y)
    if total:
        return total
    if x == 0 and _sign(x) == _sign(y):
        return x if isinstance(x, float) else 0.0
    return -0.0 if rounding == "rm" else 0.0


def negate(x: Value) -> Value:
    return -x


def multiply(x: Value, y: Value) -> Value:
    if _is_nan(x) or _is_nan(y):
        return math.nan
    sign = _sign(x) * _sign(y)
    if _is_infinite(x) or _is_infinite(y):
        return math.nan if 0 in {x, y} else math.copysign(math.inf, sign)
    return Fraction(x) * Fraction(y) or math.copysign(0.0, sign)


def divide(x: Value, y: Value) -> Value:
    if _is_nan(x) or _is_nan(y):
        return math.nan
    sign = _sign(x) * _sign(y)
    if (_is_infinite(x) and _is_infinite(y)) or (x == 0 and y == 0):
        return math.nan
    if _is_infinite(x) or y == 0:
        return math.copysign(math.inf, sign)
    if _is_infinite(y) or x == 0:
        return math.copysign(0.0, sign)
    return Fraction(x) / Fraction(y)


def root(x: Value) -> Value:
    if _is_nan(x) or x == 0:
        return x
    if x < 0:
        return math.nan
    if isinstance(x, float):
        return x
    scaled = x * 4**_ROOT_BITS
    below = math.isqrt(math.floor(scaled))
    exact = below * below == scaled
    # A little more than the integer below, so that it lies on the same side of every tie.
    return (Fraction(below) + (0 if exact else Fraction(1, 2))) / 2**_ROOT_BITS


def clamp(x: Value) -> Value:
    """To [0, 1], as .sat does: NaN is 0."""
    if _is_nan(x) or x <= 0:
        return 0.0
    return Fraction(1) if x > 1 else x
