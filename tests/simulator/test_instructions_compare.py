"""Comparisons of every type, against Python's."""

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest

from csrc import simulator
from tests.oracles.number_formats import FORMATS, value_of
from tests.simulator.instructions import evaluate, integers, signed, width_of
from tests.simulator.running import source
from tests.simulator.test_instructions_float import edges, flushed

Compare = Callable[[Any, Any], bool]

_ORDERED: dict[str, Compare] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_NAMED: dict[str, Compare] = {
    "lo": operator.lt,
    "ls": operator.le,
    "hi": operator.gt,
    "hs": operator.ge,
}
_JOINS: dict[str, Compare] = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}
_UNSIGNED, _SIGNED = ("u16", "u32", "u64"), ("s16", "s32", "s64")
_BITS, _FLOATS = ("b16", "b32", "b64"), ("f32", "f64", "f16", "bf16")
_INTEGER_CASES = [
    *itertools.product(_ORDERED, (*_UNSIGNED, *_SIGNED)),
    *itertools.product(("eq", "ne"), _BITS),
    *itertools.product(_NAMED, _UNSIGNED),
]
_FLOAT_NAMES = [*_ORDERED, *(f"{name}u" for name in _ORDERED), "num", "nan"]
_FLOAT_CASES = [
    *itertools.product(_FLOAT_NAMES, _FLOATS),
    *((f"{name}.ftz", form) for name in _FLOAT_NAMES for form in ("f32", "f16")),
]
_PAIR_CASES = [(name, form) for name, form in _FLOAT_CASES if form in {"f16", "bf16"}]


def _holds(comparison: str, form: str, a: int, b: int) -> bool:
    """Of two floats by their bits."""
    name, _, ftz = comparison.partition(".")
    x, y = (value_of(form, flushed(form, bits) if ftz else bits) for bits in (a, b))
    unordered = any(isinstance(v, float) and math.isnan(v) for v in (x, y))
    if name in {"num", "nan"}:
        return unordered == (name == "nan")
    if unordered:
        return name.endswith("u")
    return _ORDERED[name[:2]](x, y)


def _check(
    text: str, ptx_type: str, values: list[list[int]], expected: list[int], out: int
) -> None:
    found = evaluate(text, *values, widths=[width_of(ptx_type)] * len(values), out=out)
    for row, got, want in zip(zip(*values, strict=True), found, expected, strict=True):
        assert got == want, (text, [hex(bits) for bits in row], hex(got), hex(want))


def _columns(values: list[int]) -> list[list[int]]:
    return [list(column) for column in zip(*itertools.product(values, repeat=2), strict=True)]


_BOTH = "setp.{c}.{t} %p1|%p2, %a, %b; selp.b32 %x, 1, 0, %p1; @%p2 or.b32 %x, %x, 2;"


_ONE = "setp.{c}.{t} %p1, %a, %b; selp.b32 %x, 1, 2, %p1;"


@pytest.mark.parametrize(("comparison", "ptx_type"), _INTEGER_CASES)
def test_integers_are_compared(comparison: str, ptx_type: str) -> None:
    width = width_of(ptx_type)
    values = _columns(integers(width))
    compare = _ORDERED.get(comparison) or _NAMED[comparison]
    expected = []
    for row in zip(*values, strict=True):
        a, b = (signed(v, width) if ptx_type[0] == "s" else v for v in row)
        expected.append(1 if compare(a, b) else 2)
    _check(_BOTH.format(c=comparison, t=ptx_type), ptx_type, values, expected, 32)
    text = f"set.{comparison}.u32.{ptx_type} %x, %a, %b;"
    _check(text, ptx_type, values, [2**32 - 1 if e == 1 else 0 for e in expected], 32)


@pytest.mark.parametrize(("comparison", "ptx_type"), _FLOAT_CASES)
def test_floats_are_compared(comparison: str, ptx_type: str) -> None:
    values = _columns(edges(ptx_type))
    holds = [_holds(comparison, ptx_type, a, b) for a, b in zip(*values, strict=True)]
    text = _ONE if width_of(ptx_type) == 16 else _BOTH
    text = text.format(c=comparison, t=ptx_type)
    _check(text, ptx_type, values, [1 if yes else 2 for yes in holds], 32)


@pytest.mark.parametrize(("comparison", "form"), _PAIR_CASES)
def test_pairs_are_compared_half_by_half(comparison: str, form: str) -> None:
    halves = _columns(edges(form))
    values = [[high << 16 | low for low, high in zip(c, reversed(c), strict=True)] for c in halves]
    expected, masks = [], []
    for a, b in zip(*values, strict=True):
        low = _holds(comparison, form, a & 0xFFFF, b & 0xFFFF)
        high = _holds(comparison, form, a >> 16, b >> 16)
        expected.append(low + 2 * high)
        masks.append(0xFFFF * low + 0xFFFF0000 * high)
    _check(_BOTH.format(c=comparison, t=f"{form}x2"), "b32", values, expected, 32)
    text = f"set.{comparison}.u32.{form}x2 %x, %a, %b;"
    _check(text, "b32", values, masks, 32)
    one = {"f16": 0x3C00, "bf16": 0x3F80}[form]
    text = f"set.{comparison}.{form}x2.{form}x2 %x, %a, %b;"
    _check(text, "b32", values, [mask & (one << 16 | one) for mask in masks], 32)


_RESULTS = {"f32": 0x3F800000, "u32": 2**32 - 1, "s32": 2**32 - 1}
_HALF_RESULTS = {"f16": 0x3C00, "bf16": 0x3F80, "u16": 0xFFFF, "s16": 0xFFFF}


_WIDE_TYPES = ("f32", "f64", "s32", "u64", "b16")
_SET_CASES = [
    *itertools.product(("f32", "f16", "bf16"), _WIDE_TYPES),
    *itertools.product(("u32", "s32"), (*_WIDE_TYPES, "f16", "bf16")),
    *itertools.product(("u16", "s16"), ("f16", "bf16")),
    ("f16", "f16"),
    ("bf16", "bf16"),
]


@pytest.mark.parametrize(("result", "ptx_type"), _SET_CASES)
@pytest.mark.parametrize("join", ["", *_JOINS])
def test_values_are_set(join: str, ptx_type: str, result: str) -> None:
    """A true comparison is 1.0 or all ones; it is joined with a predicate, negated or not."""
    width, out = width_of(ptx_type), 16 if result in _HALF_RESULTS else 32
    is_float = ptx_type in _FLOATS
    values = _columns(edges(ptx_type) if is_float else integers(width))
    yes = (_RESULTS | _HALF_RESULTS)[result]
    expected = []
    for a, b in zip(*values, strict=True):
        holds = _holds("ne", ptx_type, a, b) if is_float else a != b
        other = bool(a >> (width - 1))
        expected.append(yes if (_JOINS[join](holds, not other) if join else holds) else 0)
    sign = f"shr.b{width} %c, %a, {width - 1}; setp.ne.b{width} %p3, %c, 0;"
    name = f"set.ne.{join}.{result}.{ptx_type}" if join else f"set.ne.{result}.{ptx_type}"
    text = f".reg .b{width} %c; {sign} {name} %x, %a, %b{', !%p3' * bool(join)};"
    _check(text, ptx_type, values, expected, out)


@pytest.mark.parametrize("join", _JOINS)
def test_both_predicates_are_joined(join: str) -> None:
    values = _columns(integers(32))
    text = f"""setp.ne.u32 %p3, %a, 0; setp.lt.{join}.s32 %p3|%p4, %a, %b, %p3;
    selp.b32 %x, 1, 0, %p3; @%p4 or.b32 %x, %x, 2;"""
    expected = []
    for a, b in zip(*values, strict=True):
        less, other = signed(a, 32) < signed(b, 32), a != 0
        expected.append(_JOINS[join](less, other) + 2 * _JOINS[join](not less, other))
    _check(text, "s32", values, expected, 32)


@pytest.mark.parametrize(
    "text",
    [
        "setp.lt.b8 %p1, %x, %x",
        "setp.lt.e4m3x2 %p1, %x, %x",
        "setp.lt.f16 %p1|%p2, %h1, %h1",
        "setp.s32 %p1, %x, %x",
        "set.lt.u64.u32 %x, %x, %x",
        "set.lt.f16.f16x2 %h1, %x, %x",
        "setp.lt.nand.s32 %p1, %x, %x",
    ],
)
def test_comparisons_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{{ .reg .b32 %x; {text}; }}"))
    with pytest.raises(NotImplementedError):
        module["kernel"]


def test_edges_are_of_both_signs() -> None:
    """What the tables rest on: -0, the least and the largest numbers and NaN are in them."""
    for form in _FLOATS:
        values = [value_of(form, bits) for bits in edges(form)]
        width = FORMATS[form].width
        assert {0, 1 << (width - 1), (1 << (width - 1)) + 1} <= set(edges(form))
        assert {math.inf, -math.inf} <= set(values)
        assert any(math.isnan(v) for v in values)
