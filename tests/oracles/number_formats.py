"""Binary floating-point formats by exact fractions: slow, and with one rule for all of them."""

import math
from dataclasses import dataclass
from fractions import Fraction

Value = Fraction | float  # a float stands for what has no fraction: infinities, NaN, zeros


@dataclass(frozen=True, slots=True)
class Format:
    """1 sign bit, exponent bits, mantissa bits, low bits that are ignored."""

    exponent_bits: int
    mantissa_bits: int
    infinities: bool = True
    unused_bits: int = 0

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits + self.unused_bits

    @property
    def bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - 1


FORMATS = {
    "f16": Format(5, 10),
    "bf16": Format(8, 7),
    "tf32": Format(8, 10, unused_bits=13),
    "e4m3": Format(4, 3, infinities=False),
    "e5m2": Format(5, 2),
    "f32": Format(8, 23),
    "f64": Format(11, 52),
}


def value_of(name: str, bits: int) -> Value:
    """What the bits mean; a signed zero is a float."""
    form = FORMATS[name]
    bits >>= form.unused_bits
    sign = -1 if bits >> (form.exponent_bits + form.mantissa_bits) & 1 else 1
    field = bits >> form.mantissa_bits & (2**form.exponent_bits - 1)
    mantissa = bits & (2**form.mantissa_bits - 1)
    if field == 2**form.exponent_bits - 1:
        if form.infinities:
            return math.nan if mantissa else sign * math.inf
        if mantissa == 2**form.mantissa_bits - 1:
            return math.nan
    unit = Fraction(2) ** (max(field, 1) - form.bias - form.mantissa_bits)
    number = sign * unit * (mantissa + (2**form.mantissa_bits if field else 0))
    return number or math.copysign(0.0, sign)


def rounded(value: Fraction, rounding: str) -> int:
    """The integer that the rounding chooses."""
    below = math.floor(value)
    rest = value - below
    if rounding == "rm":
        return below
    if rounding == "rp":
        return math.ceil(value)
    if rounding == "rz":
        return math.trunc(value)
    if rest == Fraction(1, 2):
        away = below + (value > 0)
        return away if rounding == "rna" else below + below % 2
    return below + (rest > Fraction(1, 2))


def bits_of(name: str, value: Value, rounding: str, *, satfinite: bool = False) -> int:
    """The bits of the format's number that the rounding chooses; one NaN, all ones but the sign."""
    form = FORMATS[name]
    if isinstance(value, float) and math.isnan(value):
        return (1 << (form.width - 1)) - 1
    negative = math.copysign(1.0, value) < 0 if isinstance(value, float) else value < 0
    sign = int(negative) << (form.width - 1)
    infinity = ((1 << form.exponent_bits) - 1) << form.mantissa_bits
    largest = infinity - 1 if form.infinities else infinity + (1 << form.mantissa_bits) - 2
    if value == 0:
        return sign
    if isinstance(value, float):
        top = largest if satfinite or not form.infinities else infinity
        return sign | top << form.unused_bits
    magnitude = _magnitude(form, value, rounding)
    if magnitude > largest:
        directed = {"rz": False, "rm": negative, "rp": not negative}
        outward = directed.get(rounding, True) and form.infinities and not satfinite
        magnitude = infinity if outward else largest
    return sign | magnitude << form.unused_bits


def _magnitude(form: Format, value: Fraction, rounding: str) -> int:
    """Exponent and mantissa of |value|, as if there were exponents enough."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    exponent = max(exponent, 1 - form.bias)
    steps = abs(rounded(value / Fraction(2) ** (exponent - form.mantissa_bits), rounding))
    if steps >= 2 ** (form.mantissa_bits + 1):
        return (exponent + form.bias + 1) << form.mantissa_bits
    return steps + ((exponent + form.bias - 1) << form.mantissa_bits)
