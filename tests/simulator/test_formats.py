"""Conversions between number formats against exact fractions, numpy and ml_dtypes."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.oracles.number_formats import FORMATS, bits_of, rounded, value_of
from tests.simulator.numeric import numeric

ROUNDINGS = ("rn", "rz", "rm", "rp", "rna")
NARROW = ("f16", "bf16", "e4m3", "e5m2", "tf32")
INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
DTYPES = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "f32": np.float32,
    "f64": np.float64,
}
Bits = NDArray[np.uint64]


def convert(to: str, source: str, values: object, **how: object) -> Bits:
    result: Bits = numeric().convert(to, source, np.asarray(values, np.uint64), **how)
    return result


def f32_bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def all_patterns(name: str) -> Bits:
    """Every bit pattern of a format of up to 16 bits; of tf32, some with the low bits 0."""
    form = FORMATS[name]
    step = 1 if form.width <= 16 else 61
    patterns = range(0, 1 << form.width, step << form.unused_bits)
    return np.array(patterns, np.uint64)


def numpy_bits(name: str, values: NDArray[np.float64]) -> Bits:
    """What numpy or ml_dtypes makes of f32 values, its NaN made the one of cvt."""
    width = FORMATS[name].width // 8
    with np.errstate(all="ignore"):
        bits = values.astype(np.float32).astype(DTYPES[name]).view(f"u{width}").astype(np.uint64)
    return np.where(np.isnan(values), np.uint64(bits_of(name, math.nan, "rn")), bits)


def hard_f32(name: str) -> list[int]:
    """f32 values on, and next to, the numbers of a format and the middles between them."""
    form = FORMATS[name]
    shift = 23 - form.mantissa_bits
    middles = []
    fields = {0, 1, 2, 2 ** (form.exponent_bits - 1), 2**form.exponent_bits - 3}
    fields |= {2**form.exponent_bits - 2, 2**form.exponent_bits - 1}
    for field in sorted(fields):
        for mantissa in {0, 1, 2, 2 ** (form.mantissa_bits - 1), 2**form.mantissa_bits - 1}:
            bits = (field << form.mantissa_bits | mantissa) << form.unused_bits
            value = value_of(name, bits)
            if isinstance(value, float):
                continue
            exact = f32_bits(float(value)) if value < 2**127 else 0x7F7FFFFF
            half = 1 << (shift - 1)
            middles += [exact + d for d in (-half - 1, -half, -1, 0, 1, half - 1, half, half + 1)]
    extremes = [0, 1, 2, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC12345]
    magnitudes = [bits for bits in [*middles, *extremes] if 0 <= bits <= 0x7FFFFFFF]
    return magnitudes + [bits | 1 << 31 for bits in magnitudes]


@pytest.mark.parametrize("to", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("source", NARROW)
def test_every_narrow_number_to_every_wider_format(source: str, to: str) -> None:
    patterns = all_patterns(source)
    if to == "f64":  # the same decoding, and exact: a sample will do
        patterns = patterns[::257]
    expected = [bits_of(to, value_of(source, int(bits)), "rn") for bits in patterns]
    np.testing.assert_array_equal(convert(to, source, patterns), expected)


@pytest.mark.parametrize("name", NARROW)
def test_every_narrow_number_survives_the_way_through_f32(name: str) -> None:
    patterns = all_patterns(name)
    numbers = [not math.isnan(value_of(name, int(bits))) for bits in patterns]
    back = convert(name, "f32", convert("f32", name, patterns))
    np.testing.assert_array_equal(back[numbers], patterns[numbers])


@pytest.mark.parametrize("satfinite", [False, True])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("to", NARROW)
def test_hard_f32_values_round_as_fractions_do(to: str, rounding: str, satfinite: bool) -> None:
    values = hard_f32(to)
    expected = [
        bits_of(to, value_of("f32", bits), rounding, satfinite=satfinite) for bits in values
    ]
    actual = convert(to, "f32", values, rounding=rounding, satfinite=satfinite)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("to", ["f16", "bf16", "e5m2"])
def test_f32_to_narrow_agrees_with_numpy_on_a_walk_through_all_exponents(to: str) -> None:
    values = np.arange(0, 2**32, 65521, dtype=np.uint64)  # a prime: all low bits occur
    with np.errstate(invalid="ignore"):
        floats = values.astype(np.uint32).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(convert(to, "f32", values), numpy_bits(to, floats))


def test_e4m3_saturates_where_ml_dtypes_has_nan() -> None:
    values = np.concatenate([np.arange(0, 600, 0.25), [1e30, np.inf, 2.0**-10, 2.0**-9 * 1.5]])
    source = values.astype(np.float32).view(np.uint32)
    expected = numpy_bits("e4m3", np.minimum(values, 448))
    np.testing.assert_array_equal(convert("e4m3", "f32", source, satfinite=True), expected)


@given(bits=st.integers(0, 2**64 - 1), rounding=st.sampled_from(ROUNDINGS))
def test_any_f64_rounds_as_its_fraction_does(bits: int, rounding: str) -> None:
    for to in ("f32", *NARROW):
        expected = bits_of(to, value_of("f64", bits), rounding)
        assert convert(to, "f64", [bits], rounding=rounding)[0] == expected, to


@given(bits=st.integers(0, 2**32 - 1), rounding=st.sampled_from(ROUNDINGS))
def test_any_f32_rounds_as_its_fraction_does(bits: int, rounding: str) -> None:
    for to in NARROW:
        expected = bits_of(to, value_of("f32", bits), rounding)
        assert convert(to, "f32", [bits], rounding=rounding)[0] == expected, to


@given(
    value=st.integers(-(2**63), 2**64 - 1),
    to=st.sampled_from(("f16", "bf16", "f32", "f64")),
    rounding=st.sampled_from(ROUNDINGS),
)
def test_integers_round_once_on_the_way_to_floats(value: int, to: str, rounding: str) -> None:
    source = "u64" if value >= 0 else "s64"
    expected = bits_of(to, Fraction(value), rounding) if value else 0
    assert convert(to, source, [value % 2**64], rounding=rounding)[0] == expected


@pytest.mark.parametrize("to", ["f16", "bf16", "f32", "f64"])
def test_the_lowest_bit_of_a_long_integer_breaks_a_tie(to: str) -> None:
    middle = (1 << 63) + (1 << (62 - FORMATS[to].mantissa_bits))
    for value in (middle - 1, middle, middle + 1):
        expected = bits_of(to, Fraction(value), "rn")
        assert convert(to, "u64", [value])[0] == expected, value - middle


def clamped(value: int, integer: str) -> int:
    """Within the range of the integer type, as its bits."""
    width = int(integer[1:])
    half = 1 << (width - 1)
    low, high = (0, 2 * half - 1) if integer[0] == "u" else (-half, half - 1)
    return min(max(value, low), high) & (2 * half - 1)


EDGES = [0.0, 0.5, 1.5, 2.5, 0.49999997, 126.5, 127.5, 128.5, 254.5, 255.5, 32767.5, 65535.5]
EDGES += [65504.0, 2.0**31 - 128, 2.0**31, 2.0**32, 2.0**63, 2.0**64, 1e30, math.inf, 1e-40]


@pytest.mark.parametrize("rounding", ROUNDINGS[:4])
@pytest.mark.parametrize("to", INTEGERS)
@pytest.mark.parametrize("source", ["f16", "bf16", "f32", "f64"])
def test_floats_to_integers_round_and_clamp(source: str, to: str, rounding: str) -> None:
    for magnitude in EDGES:
        for number in (magnitude, -magnitude):
            exact = Fraction(number) if math.isfinite(number) and number else number
            bits = bits_of(source, exact, "rn")
            value = value_of(source, bits)
            if value in {math.inf, -math.inf}:
                expected = clamped(2**99 if value > 0 else -(2**99), to)
            else:
                expected = clamped(rounded(Fraction(value), rounding), to)
            assert convert(to, source, [bits], rounding=rounding)[0] == expected, number


def test_nan_becomes_zero_or_the_top_bit_of_wide_integers() -> None:
    nan32, nan64 = 0x7FC00000, 0xFFF8000000000000
    for to in INTEGERS[:6]:
        assert convert(to, "f32", [nan32])[0] == 0
    assert convert("s64", "f32", [nan32])[0] == 1 << 63
    assert convert("u64", "f16", [0x7E00])[0] == 1 << 63
    assert convert("s32", "f64", [nan64])[0] == 1 << 31


@pytest.mark.parametrize("to", INTEGERS)
@pytest.mark.parametrize("source", INTEGERS)
def test_integers_wrap_or_saturate(source: str, to: str) -> None:
    width = int(source[1:])
    low, high = (0, 2**width) if source[0] == "u" else (-(2 ** (width - 1)), 2 ** (width - 1))
    for value in (low, low + 1, 0, 1, 127, 128 % high, high - 1):
        bits = value % 2**width
        assert convert(to, source, [bits])[0] == value % 2 ** int(to[1:])
        assert convert(to, source, [bits], sat=True)[0] == clamped(value, to)


@pytest.mark.parametrize("rounding", ROUNDINGS[:4])
@pytest.mark.parametrize("name", ["f16", "f32", "f64"])
def test_rounding_to_integers_within_a_float_format(name: str, rounding: str) -> None:
    for number in (0.0, 0.25, 0.5, 0.75, 1.5, 2.5, 1023.5, 2048.0, math.inf):
        for value in (number, -number):
            exact = Fraction(value) if math.isfinite(value) and value else value
            bits = bits_of(name, exact, "rn")
            whole: Fraction | float = exact
            if isinstance(exact, Fraction):
                steps = rounded(exact, rounding)
                whole = Fraction(steps) if steps else math.copysign(0.0, value)
            actual = convert(name, name, [bits], rounding=rounding, integral=True)[0]
            assert actual == bits_of(name, whole, "rn"), value


def test_ftz_flushes_f32_alone_and_keeps_the_sign() -> None:
    subnormal, minus = 0x000FFFFF, 0x800FFFFF
    assert convert("f32", "f32", [subnormal, minus], ftz=True).tolist() == [0, 1 << 31]
    assert convert("f64", "f32", [minus], ftz=True)[0] == 1 << 63
    assert convert("s32", "f32", [subnormal], ftz=True, rounding="rp")[0] == 0
    assert convert("s32", "f32", [subnormal], rounding="rp")[0] == 1
    tiny64 = int(np.float64(-1e-40).view(np.uint64))
    assert convert("f32", "f64", [tiny64], ftz=True)[0] == 1 << 31
    assert convert("f16", "f32", [f32_bits(2.0**-24)], ftz=True)[0] == 1  # subnormal in f16 only
    assert convert("f32", "f16", [1], ftz=True)[0] == f32_bits(2.0**-24)


def test_sat_clamps_floats_to_zero_and_one() -> None:
    cases = {-1.0: 0.0, -0.0: 0.0, 0.25: 0.25, 1.0: 1.0, 1.5: 1.0, math.inf: 1.0}
    cases |= {-math.inf: 0.0, math.nan: 0.0, 2.0**-149: 2.0**-149}
    for value, expected in cases.items():
        actual = convert("f32", "f32", [f32_bits(value)], sat=True)[0]
        assert actual == f32_bits(expected), value


@pytest.mark.parametrize("to", ["f16", "bf16", "e4m3", "e5m2", "tf32"])
def test_relu_drops_the_negative_half_and_keeps_nan(to: str) -> None:
    negative = [f32_bits(value) for value in (-1.0, -0.0, -math.inf, -1e-30)]
    assert not convert(to, "f32", negative, relu=True).any()
    kept = [f32_bits(value) for value in (1.0, 0.3, math.nan)]
    np.testing.assert_array_equal(convert(to, "f32", kept, relu=True), convert(to, "f32", kept))
