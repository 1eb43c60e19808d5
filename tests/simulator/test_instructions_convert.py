"""cvt, cvt.pack, mov and cvta as instructions; test_formats.py has the numbers."""

import itertools
import math
from fractions import Fraction

import pytest

from csrc import simulator
from tests.oracles.float_arithmetic import clamp
from tests.oracles.number_formats import Value, bits_of, rounded, value_of
from tests.simulator.instructions import columns, evaluate, integers, signed, width_of
from tests.simulator.running import source
from tests.simulator.test_instructions_float import flushed, samples

_INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
_FLOATS = ("f16", "bf16", "f32", "f64")
_ROUNDINGS = ("rn", "rz", "rm", "rp")


def _number(bits: int, ptx_type: str) -> int:
    return signed(bits, width_of(ptx_type)) if ptx_type[0] == "s" else bits


def _within(value: int, ptx_type: str) -> int:
    width = width_of(ptx_type)
    low = -(1 << (width - 1)) if ptx_type[0] == "s" else 0
    return min(max(value, low), low + (1 << width) - 1)


def _check(text: str, values: list[int], width: int, expected: list[int], out: int) -> None:
    found = evaluate(text, values, widths=[width], out=out)
    for bits, got, want in zip(values, found, expected, strict=True):
        assert got == want, (text, hex(bits), hex(got), hex(want))


@pytest.mark.parametrize("to", _INTEGERS)
@pytest.mark.parametrize("source_type", _INTEGERS)
def test_integers_to_integers(source_type: str, to: str) -> None:
    """They wrap around, or stop at the limits; a wider register gets the value, sign and all."""
    width, out = width_of(source_type), width_of(to)
    (values,) = columns([integers(width)], [width], seed=1)
    numbers = [_number(bits, source_type) for bits in values]
    wrapped = [number % 2**out for number in numbers]
    _check(f"cvt.{to}.{source_type} %x, %a;", values, width, wrapped, out)
    limited = [_within(number, to) for number in numbers]
    if limited != numbers:  # else there is no such form
        expected = [number % 2**out for number in limited]
        _check(f"cvt.sat.{to}.{source_type} %x, %a;", values, width, expected, out)
    if out < 32:
        wide = [_number(bits, to) % 2**32 for bits in wrapped]
        _check(f"cvt.{to}.{source_type} %x, %a;", values, width, wide, 32)


@pytest.mark.parametrize("rounding", _ROUNDINGS)
@pytest.mark.parametrize("to", _FLOATS)
@pytest.mark.parametrize("source_type", _INTEGERS)
def test_integers_to_floats(source_type: str, to: str, rounding: str) -> None:
    if to == "bf16" and source_type in {"u8", "s8"}:
        return  # there is no such form
    width = width_of(source_type)
    (values,) = columns([integers(width)], [width], seed=2)
    numbers = [_number(bits, source_type) for bits in values]
    expected = [bits_of(to, Fraction(n) if n else 0.0, rounding) for n in numbers]
    text = f"cvt.{rounding}.{to}.{source_type} %x, %a;"
    _check(text, values, width, expected, width_of(to))


def _to_integer(value: Value, to: str, rounding: str, *, wide: bool) -> int:
    width = width_of(to)
    if isinstance(value, float) and math.isnan(value):
        return 1 << (width - 1) if wide or width == 64 else 0
    if isinstance(value, float) and math.isinf(value):
        return _within(2**99 if value > 0 else -(2**99), to) % 2**width
    return _within(rounded(Fraction(value), rounding), to) % 2**width


@pytest.mark.parametrize("rounding", _ROUNDINGS)
@pytest.mark.parametrize("to", _INTEGERS)
@pytest.mark.parametrize("source_type", ["f16", "bf16", "f32", "ftz.f32", "f64"])
def test_floats_to_integers(source_type: str, to: str, rounding: str) -> None:
    *modes, form = source_type.split(".")
    if form == "bf16" and to in {"u8", "s8"}:
        return  # there is no such form
    (values,) = samples(form, 1, seed=3)
    given = [flushed(form, bits) if modes else bits for bits in values]
    wide = form == "f64"
    expected = [_to_integer(value_of(form, b), to, rounding, wide=wide) for b in given]
    ftz = ".ftz" if modes else ""
    text = f"cvt.{rounding}i{ftz}.{to}.{form} %x, %a;"
    _check(text, values, width_of(form), expected, width_of(to))


# (from, to): those to wider formats, and from one to itself, do not round.
_ROUNDED = [("f64", "f32"), ("f64", "f16"), ("f64", "bf16"), ("f32", "f16"), ("f32", "bf16")]
_ROUNDED += [("f16", "bf16"), ("bf16", "f16")]
_EXACT = [("f16", "f32"), ("f16", "f64"), ("bf16", "f32"), ("bf16", "f64"), ("f32", "f64")]
_EXACT += [("f32", "f32"), ("f16", "f16"), ("f64", "f64")]
_CONVERSIONS = [
    (form, to, rounding, modes)
    for form, to in (*_ROUNDED, *_EXACT)
    for rounding in (_ROUNDINGS if (form, to) in _ROUNDED else ("",))
    for modes in ("", ".ftz", ".sat", ".ftz.sat")
    if ("ftz" not in modes or "f32" in {form, to})
    and ("sat" not in modes or "bf16" not in {form, to})
    and (modes or form != to)
]


@pytest.mark.parametrize(("form", "to", "rounding", "modes"), _CONVERSIONS)
def test_floats_to_floats(form: str, to: str, rounding: str, modes: str) -> None:
    (values,) = samples(form, 1, seed=4)
    expected = []
    for bits in values:
        flushes = "ftz" in modes
        value = value_of(form, flushed(form, bits) if flushes and form == "f32" else bits)
        result = bits_of(to, clamp(value) if "sat" in modes else value, rounding or "rn")
        expected.append(flushed(to, result) if flushes and to == "f32" else result)
    text = f"cvt{'.' * bool(rounding)}{rounding}{modes}.{to}.{form} %x, %a;"
    _check(text, values, width_of(form), expected, width_of(to))


@pytest.mark.parametrize("rounding", _ROUNDINGS)
@pytest.mark.parametrize("form", _FLOATS)
def test_floats_to_whole_numbers(form: str, rounding: str) -> None:
    (values,) = samples(form, 1, seed=5)
    expected = []
    for bits in values:
        value = value_of(form, bits)
        if isinstance(value, Fraction):
            value = Fraction(rounded(value, rounding)) or math.copysign(0.0, value)
        expected.append(bits_of(form, value, rounding))
    _check(
        f"cvt.{rounding}i.{form}.{form} %x, %a;", values, width_of(form), expected, width_of(form)
    )


def _narrowed(form: str, value: Value, modes: str) -> int:
    rounding = modes.split(".")[1]
    if "relu" in modes and value <= 0:
        value = 0.0
    return bits_of(form, value, rounding, satfinite="satfinite" in modes)


@pytest.mark.parametrize(
    "name",
    [f"cvt{m}.{t}.f32" for m in (".rn", ".rz", ".rn.relu", ".rz.relu") for t in ("f16x2", "bf16x2")]
    + [f"cvt.rn.satfinite{m}.{t}.f32" for m in ("", ".relu") for t in ("e4m3x2", "e5m2x2")],
)
def test_two_floats_become_a_pair(name: str) -> None:
    """The first source is the high half."""
    modes, pair, _ = name.rsplit(".", maxsplit=2)
    form = pair.removesuffix("x2")
    values = samples("f32", 2, seed=6)
    width = width_of(pair) // 2
    found = evaluate(f"{name} %x, %a, %b;", *values, widths=[32, 32], out=2 * width)
    for a, b, result in zip(*values, found, strict=True):
        high, low = (_narrowed(form, value_of("f32", bits), modes) for bits in (a, b))
        assert result == high << width | low, (name, hex(a), hex(b))


@pytest.mark.parametrize("modes", [".rn", ".rn.relu"])
@pytest.mark.parametrize("form", ["e4m3", "e5m2"])
def test_pairs_become_pairs(form: str, modes: str) -> None:
    halves = samples("f16", 2, seed=7)
    values = [a << 16 | b for a, b in zip(*halves, strict=True)]
    text = f"cvt{modes.replace('.rn', '.rn.satfinite')}.{form}x2.f16x2 %x, %a;"
    expected = []
    for a, b in zip(*halves, strict=True):
        high, low = (_narrowed(form, value_of("f16", h), modes + ".satfinite") for h in (a, b))
        expected.append(high << 8 | low)
    _check(text, values, 32, expected, 16)
    pairs = [a << 8 | b for a, b in itertools.product(range(0, 256, 5), range(1, 256, 3))]
    expected = []
    for pair in pairs:
        high, low = (_narrowed("f16", value_of(form, b), modes) for b in (pair >> 8, pair & 255))
        expected.append(high << 16 | low)
    _check(f"cvt{modes}.f16x2.{form}x2 %x, %a;", pairs, 16, expected, 32)


@pytest.mark.parametrize("modes", [".rna", ".rn", ".rz", ".rn.relu", ".rz.relu"])
def test_tf32_has_ten_bits_after_the_point(modes: str) -> None:
    (values,) = samples("f32", 1, seed=8)
    expected = [_narrowed("tf32", value_of("f32", bits), modes) for bits in values]
    _check(f"cvt{modes}.tf32.f32 %x, %a;", values, 32, expected, 32)


@pytest.mark.parametrize("modes", [".rn.relu", ".rz.relu", ".rn.relu.satfinite"])
@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_the_negative_half_is_cut_off(to: str, modes: str) -> None:
    (values,) = samples("f32", 1, seed=9)
    expected = [_narrowed(to, value_of("f32", bits), modes) for bits in values]
    _check(f"cvt{modes}.{to}.f32 %x, %a;", values, 32, expected, 16)


@pytest.mark.parametrize("to", ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"])
def test_integers_are_packed(to: str) -> None:
    size = int(to[1:])
    limits = [-(2**31), 2**31 - 1, *range(-9, 10), -129, 127, 128, 255, 256, 40000]
    words = [n % 2**32 for n in limits]
    values = columns([words, words[::3], [0, 0x89ABCDEF]], [32] * 3, seed=10)
    low = -(1 << (size - 1)) if to[0] == "s" else 0

    def part(bits: int) -> int:
        return min(max(signed(bits, 32), low), low + 2**size - 1) % 2**size

    appended = [part(a) << size | part(b) for a, b, _ in zip(*values, strict=True)]
    if size == 16:
        found = evaluate(f"cvt.pack.sat.{to}.s32 %x, %a, %b;", *values, widths=[32] * 3, out=32)
        assert found == appended
        return
    text = f"cvt.pack.sat.{to}.s32.b32 %x, %a, %b, %c;"
    found = evaluate(text, *values, widths=[32] * 3, out=32)
    for c, pair, result in zip(values[2], appended, found, strict=True):
        assert result == (c << 2 * size | pair) % 2**32


@pytest.mark.parametrize(
    "text",
    [
        "mov.b32 {%h1, %h2}, %a; mov.b32 %x, {%h2, %h1};",
        "{ .reg .b8 %y<4>; mov.b32 {%y0, %y1, %y2, %y3}, %a; mov.b32 %x, {%y2, %y3, %y0, %y1}; }",
        """{ .reg .b128 %q; cvt.u64.u32 %rd8, %a; mov.b128 %q, {%rd8, %rd8};
        mov.b128 {_, %rd9}, %q; shr.u64 %rd8, %rd9, 16; shl.b64 %rd9, %rd9, 16;
        or.b64 %rd9, %rd9, %rd8; cvt.u32.u64 %x, %rd9; }""",
    ],
    ids=["halves", "bytes", "words"],
)
def test_values_are_taken_apart_and_put_together(text: str) -> None:
    values = columns([integers(32)], [32], seed=11)[0]
    _check(text, values, 32, [(a << 16 | a >> 16) % 2**32 for a in values], 32)


def test_generic_addresses_tell_where_they_point() -> None:
    module = ".const .b32 fixed = 7; .global .b32 table[4];"
    spaces = ("shared", "local", "const", "global", "shared::cluster", "param::entry")
    tests = "".join(
        f"isspacep.{space} %q, %p{i}; @%q or.b32 %x, %x, %t2; shl.b32 %t2, %t2, 1;"
        for i in range(1, 6)
        for space in spaces
    )
    text = f"""{{ .shared .b32 mine; .local .b32 own; .reg .b64 %p<6>; .reg .pred %q;
    cvta.shared.u64 %p1, mine; cvta.local.u64 %p2, own; cvta.const.u64 %p3, fixed;
    cvta.global.u64 %p4, table; mov.b64 %p5, %rd0; mov.b32 %x, 0; mov.b32 %t2, 1; {tests} }}"""
    here = {(1, "shared"), (1, "shared::cluster"), (2, "local"), (3, "const")}
    here |= {(4, "global"), (5, "global")}
    bits = [(i, space) in here for i in range(1, 6) for space in spaces]
    (found,) = evaluate(text, [0], widths=[32], out=32, module=module)
    assert found == sum(bit << i for i, bit in enumerate(bits))


def test_a_generic_address_and_that_of_its_space_are_one_memory() -> None:
    module = ".const .b32 fixed = 7;"
    text = """{ .shared .b32 mine; .local .b32 own; .reg .b64 %p<4>; .reg .b64 %q<4>;
    cvta.shared.u64 %p1, mine; cvta.to.shared.u64 %q1, %p1; st.shared.b32 [%q1], 1;
    cvta.local.u64 %p2, own; cvta.to.local.u64 %q2, %p2; st.local.b32 [%q2], 20;
    cvta.const.u64 %p3, fixed; ld.b32 %x, [%p1]; ld.b32 %t2, [%p2]; add.u32 %x, %x, %t2;
    ld.b32 %t2, [%p3]; mad.lo.u32 %x, %t2, 100, %x;
    cvta.to.const.u64 %q3, %p3; ld.const.b32 %t2, [%q3]; mad.lo.u32 %x, %t2, 1000, %x; }"""
    assert evaluate(text, [0], widths=[32], out=32, module=module) == [7721]


@pytest.mark.parametrize(
    "text",
    [
        "cvt.rn.f16x2.f64 %x, %rd1, %rd1",
        "cvt.f32.f16x2 %x, %x",
        "cvt.pack.u8.s32.b32 %x, %x, %x, %x",
        "cvt.pack.sat.u8.s32 %x, %x, %x",
        "cvt.rn.e4m3x2.f64 %h1, %rd1, %rd1",
        "mov.b64 {%rd1, %rd2}, %rd3",
    ],
)
def test_conversions_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{{ .reg .b32 %x; {text}; }}"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
