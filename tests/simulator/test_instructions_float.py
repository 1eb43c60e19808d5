"""Arithmetic on floating-point numbers of every format, against exact fractions."""

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from csrc import simulator
from tests.oracles.float_arithmetic import add, clamp, divide, multiply, negate, root
from tests.oracles.number_formats import FORMATS, Value, bits_of, value_of
from tests.simulator.instructions import evaluate, width_of
from tests.simulator.running import source

_ROUNDINGS = ("rn", "rz", "rm", "rp")


def edges(name: str) -> list[int]:
    """Numbers of a format that go wrong first, both signs of each, and NaN."""
    form = FORMATS[name]
    one = bits_of(name, Fraction(1), "rn")
    least = 1 << form.mantissa_bits
    infinity = ((1 << form.exponent_bits) - 1) << form.mantissa_bits
    positive = [0, 1, least - 1, least, one - 1, one, one + 1, one + least // 2, infinity - 1]
    positive += [infinity, (form.mantissa_bits + form.bias) << form.mantissa_bits]
    return [*positive, *(bits | 1 << (form.width - 1) for bits in positive), infinity + 1]


def samples(name: str, count: int, seed: int) -> list[list[int]]:
    """Columns of numbers: edges with edges, anything, and numbers of about the same size."""
    rng = np.random.default_rng(seed)
    width = FORMATS[name].width
    hard = edges(name)
    rows = list(itertools.product(hard, repeat=min(count, 2)))
    if count == 3:
        rows = [(*row, hard[rng.integers(len(hard))]) for row in rows]
    near = FORMATS[name].bias
    for i in range(200):
        bits = [int.from_bytes(rng.bytes(width // 8), "little") for _ in range(count)]
        if i % 2:
            low = (1 << FORMATS[name].mantissa_bits) - 1
            bits = [
                b & low | (near + int(rng.integers(-4, 4))) << FORMATS[name].mantissa_bits
                for b in bits
            ]
        rows.append(tuple(bits))
    return [list(column) for column in zip(*rows, strict=True)]


def flushed(name: str, bits: int) -> int:
    """A subnormal number becomes zero and keeps its sign."""
    form = FORMATS[name]
    sign = 1 << (form.width - 1)
    return bits & sign if bits & (sign - 1) < 1 << form.mantissa_bits else bits


def _fma(r: str, a: Value, b: Value, c: Value) -> Value:
    return add(multiply(a, b), c, r)


Oracle = Callable[..., Value]
_OPERATIONS: dict[str, tuple[int, Oracle]] = {
    "add": (2, lambda r, a, b: add(a, b, r)),
    "sub": (2, lambda r, a, b: add(a, negate(b), r)),
    "mul": (2, lambda _, a, b: multiply(a, b)),
    "fma": (3, _fma),
    "mad": (3, _fma),
    "div": (2, lambda _, a, b: divide(a, b)),
    "rcp": (1, lambda _, a: divide(Fraction(1), a)),
    "sqrt": (1, lambda _, a: root(a)),
}
_MODES = [
    f"{op}.{rounding}{ftz}{sat}.{t}"
    for op, rounding, t in itertools.product(_OPERATIONS, _ROUNDINGS, ("f32", "f64"))
    for ftz in (("", ".ftz") if t == "f32" else ("",))
    for sat in (("", ".sat") if t == "f32" and op in {"add", "sub", "mul", "fma", "mad"} else ("",))
]
_HALF_MODES = [
    f"{op}.rn{modes}.{t}"
    for op, t in itertools.product(("add", "sub", "mul", "fma"), ("f16", "bf16", "f16x2", "bf16x2"))
    for modes in ("", ".ftz", ".sat", ".ftz.sat", ".relu", ".ftz.relu")
    if ("relu" not in modes or op == "fma") and (t[0] == "f" or modes in {"", ".relu"})
]


def check(
    text: str, form: str, pairs: int, values: Sequence[Sequence[int]], expected: list[int]
) -> None:
    """Runs `text` on the values, two in a register if `pairs`, and compares bits."""
    width = FORMATS[form].width
    columns, wanted = [list(column) for column in values], expected
    if pairs == 2:
        if len(expected) % 2:
            columns, wanted = [c[:-1] for c in columns], expected[:-1]
        columns = [[h << 16 | low for low, h in zip(c[::2], c[1::2], strict=True)] for c in columns]
        wanted = [h << 16 | low for low, h in zip(wanted[::2], wanted[1::2], strict=True)]
    widths = [width * pairs] * len(columns)
    found = evaluate(text, *columns, widths=widths, out=width * pairs)
    if form == "f64":  # which NaN is left open
        found = [
            (1 << 63) - 1 if value_of(form, bits) != value_of(form, bits) else bits
            for bits in found
        ]
    for row, got, want in zip(zip(*columns, strict=True), found, wanted, strict=True):
        assert got == want, (text, [hex(bits) for bits in row], hex(got), hex(want))


@pytest.mark.parametrize("name", [*_MODES, *_HALF_MODES])
def test_results_are_those_of_exact_arithmetic_rounded_once(name: str) -> None:
    opcode, rounding, *modes, ptx_type = name.split(".")
    form, pairs = ptx_type.removesuffix("x2"), 2 if ptx_type.endswith("x2") else 1
    count, oracle = _OPERATIONS[opcode]
    values = samples(form, count, seed=len(name))
    expected = []
    for row in zip(*values, strict=True):
        flushes = "ftz" in modes
        exact = oracle(rounding, *(value_of(form, flushed(form, b) if flushes else b) for b in row))
        if "sat" in modes:
            exact = clamp(exact)
        if "relu" in modes and exact < 0:
            exact = 0.0
        bits = bits_of(form, exact, rounding)
        bits = flushed(form, bits) if flushes else bits
        expected.append(0 if "relu" in modes and bits == 1 << (FORMATS[form].width - 1) else bits)
    operands = ", ".join(["%x", "%a", "%b", "%c"][: count + 1])
    check(f"{name} {operands};", form, pairs, values, expected)


_EXTREME_MODES = [
    f"{op}{modes}.{t}"
    for op, t in itertools.product(("min", "max"), ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2"))
    for modes in ("", ".ftz", ".NaN", ".ftz.NaN", ".xorsign.abs", ".NaN.xorsign.abs")
    if (t != "f64" or not modes) and (t[0] == "f" or "ftz" not in modes)
]


def _extreme(form: str, modes: list[str], opcode: str, a: int, b: int) -> int:
    """By the order of the bits, which of numbers of one sign is theirs."""
    sign = 1 << (FORMATS[form].width - 1)
    negative = "abs" in modes and bool((a ^ b) & sign)
    if "abs" in modes:
        a, b = a & ~sign, b & ~sign
    nans = [
        bits for bits in (a, b) if isinstance(v := value_of(form, bits), float) and math.isnan(v)
    ]
    if len(nans) == 2 or ("NaN" in modes and nans):
        return sign - 1
    if nans:
        a = b = b if a in nans else a
    chosen = (max if opcode == "max" else min)(
        (a, b), key=lambda x: -(x & ~sign) - 1 if x & sign else x
    )
    return chosen | sign if negative else chosen


@pytest.mark.parametrize("name", _EXTREME_MODES)
def test_extremes(name: str) -> None:
    opcode, *modes, ptx_type = name.split(".")
    form, pairs = ptx_type.removesuffix("x2"), 2 if ptx_type.endswith("x2") else 1
    values = samples(form, 2, seed=len(name))
    given = [[flushed(form, b) if "ftz" in modes else b for b in column] for column in values]
    expected = [_extreme(form, modes, opcode, a, b) for a, b in zip(*given, strict=True)]
    check(f"{name} %x, %a, %b;", form, pairs, values, expected)


_SIGN_TYPES = ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2")


@pytest.mark.parametrize("ptx_type", [*_SIGN_TYPES, "ftz.f32", "ftz.f16", "ftz.f16x2"])
@pytest.mark.parametrize("opcode", ["abs", "neg"])
def test_signs(opcode: str, ptx_type: str) -> None:
    *modes, last = ptx_type.split(".")
    form, pairs = last.removesuffix("x2"), 2 if last.endswith("x2") else 1
    sign = 1 << (FORMATS[form].width - 1)
    values = [edges(form)[:-1]]
    given = [flushed(form, b) if modes else b for b in values[0]]
    expected = [b & ~sign if opcode == "abs" else b ^ sign for b in given]
    check(f"{opcode}.{ptx_type} %x, %a;", form, pairs, values, expected)


@pytest.mark.parametrize("form", ["f32", "f64"])
def test_signs_are_copied(form: str) -> None:
    sign = 1 << (FORMATS[form].width - 1)
    values = [list(c) for c in zip(*itertools.product(edges(form), repeat=2), strict=True)]
    expected = [b & ~sign | a & sign for a, b in zip(*values, strict=True)]
    numbers = [i for i, bits in enumerate(expected) if value_of(form, bits) == value_of(form, bits)]
    values = [[column[i] for i in numbers] for column in values]
    check(f"copysign.{form} %x, %a, %b;", form, 1, values, [expected[i] for i in numbers])


_KINDS: dict[str, Callable[[Value, bool], bool]] = {
    "finite": lambda v, _: not isinstance(v, float) or v == 0,
    "infinite": lambda v, _: isinstance(v, float) and math.isinf(v),
    "number": lambda v, _: not math.isnan(v),
    "notanumber": lambda v, _: math.isnan(v),
    "normal": lambda v, subnormal: not isinstance(v, float) and not subnormal,
    "subnormal": lambda v, subnormal: not isinstance(v, float) and subnormal,
}


@pytest.mark.parametrize("form", ["f32", "f64"])
@pytest.mark.parametrize("kind", _KINDS)
def test_kinds_of_numbers(kind: str, form: str) -> None:
    (values,) = samples(form, 1, seed=3)
    text = f"testp.{kind}.{form} %p1, %a; selp.b32 %x, 1, 0, %p1;"
    found = evaluate(text, values, widths=[width_of(form)], out=32)
    for bits, result in zip(values, found, strict=True):
        assert result == _KINDS[kind](value_of(form, bits), flushed(form, bits) != bits), hex(bits)


@pytest.mark.parametrize(
    "text",
    [
        "add.relu.f32 %x, %x, %x",
        "add.NaN.f32 %x, %x, %x",
        "min.rn.f32 %x, %x, %x",
        "fma.lo.s32 %x, %x, %x, %x",
        "div.rn.f16 %h1, %h1, %h1",
        "sqrt.rn.f16 %h1, %h1",
        "max.f32 %x, %x, %x, %x",
        "copysign.f16 %h1, %h1, %h1",
        "testp.finite.f16 %p1, %h1",
        "add.e4m3x2 %h1, %h1, %h1",
        "min.xorsign.f32 %x, %x, %x",
        "testp.f32 %p1, %x",
    ],
)
def test_forms_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{{ .reg .b32 %x; {text}; }}"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
