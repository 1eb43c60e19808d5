"""Integer and bit instructions of every type, against Python's integers."""

import itertools
from collections.abc import Callable

import pytest

from csrc import simulator
from tests.simulator.instructions import columns, evaluate, integers, signed, width_of
from tests.simulator.running import source

_ALL = ("u16", "s16", "u32", "s32", "u64", "s64")
_WORDS = ("u32", "s32")
_LONG = ("u32", "s32", "u64", "s64")
_SIGNED = ("s16", "s32", "s64")
_BITS = ("b16", "b32", "b64")
_WIDE = ("u16", "s16", "u32", "s32")

Oracle = Callable[..., int]


def _quotient(a: int, b: int) -> int:
    return (abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def _clamp(value: int) -> int:
    return min(max(value, -(2**31)), 2**31 - 1)


def _unsigned24(a: int, b: int) -> int:
    return (a & 0xFFFFFF) * (b & 0xFFFFFF)


def _signed24(a: int, b: int) -> int:
    return signed(a & 0xFFFFFF, 24) * signed(b & 0xFFFFFF, 24)


# Instruction: (types, number of sources, oracle of the width and of the sources as integers of the
# type). Results wrap around.
_ARITHMETIC: dict[str, tuple[tuple[str, ...], int, Oracle]] = {
    "add.{t}": (_ALL, 2, lambda _, a, b: a + b),
    "sub.{t}": (_ALL, 2, lambda _, a, b: a - b),
    "mul.lo.{t}": (_ALL, 2, lambda _, a, b: a * b),
    "mul.hi.{t}": (_ALL, 2, lambda w, a, b: a * b >> w),
    "mad.lo.{t}": (_ALL, 3, lambda _, a, b, c: a * b + c),
    "mad.hi.{t}": (_ALL, 3, lambda w, a, b, c: (a * b >> w) + c),
    "div.{t}": (_ALL, 2, lambda _, a, b: _quotient(a, b)),
    "rem.{t}": (_ALL, 2, lambda _, a, b: a - b * _quotient(a, b)),
    "sad.{t}": (_ALL, 3, lambda _, a, b, c: c + abs(a - b)),
    "min.{t}": (_ALL, 2, lambda _, a, b: min(a, b)),
    "max.{t}": (_ALL, 2, lambda _, a, b: max(a, b)),
    "min.relu.{t}": (("s32",), 2, lambda _, a, b: max(0, min(a, b))),
    "max.relu.{t}": (("s32",), 2, lambda _, a, b: max(0, a, b)),
    "abs.{t}": (_SIGNED, 1, lambda _, a: abs(a)),
    "neg.{t}": (_SIGNED, 1, lambda _, a: -a),
    "add.sat.{t}": (("s32",), 2, lambda _, a, b: _clamp(a + b)),
    "sub.sat.{t}": (("s32",), 2, lambda _, a, b: _clamp(a - b)),
    "mad.hi.sat.{t}": (("s32",), 3, lambda _, a, b, c: _clamp((a * b >> 32) + c)),
    "mul24.lo.u32": (("u32",), 2, lambda _, a, b: _unsigned24(a, b)),
    "mul24.lo.s32": (("s32",), 2, lambda _, a, b: _signed24(a, b)),
    "mul24.hi.u32": (("u32",), 2, lambda _, a, b: _unsigned24(a, b) >> 16),
    "mul24.hi.s32": (("s32",), 2, lambda _, a, b: _signed24(a, b) >> 16),
    "mad24.lo.u32": (("u32",), 3, lambda _, a, b, c: _unsigned24(a, b) + c),
    "mad24.lo.s32": (("s32",), 3, lambda _, a, b, c: _signed24(a, b) + c),
    "mad24.hi.u32": (("u32",), 3, lambda _, a, b, c: (_unsigned24(a, b) >> 16) + c),
    "mad24.hi.s32": (("s32",), 3, lambda _, a, b, c: (_signed24(a, b) >> 16) + c),
    "mad24.hi.sat.s32": (("s32",), 3, lambda _, a, b, c: _clamp((_signed24(a, b) >> 16) + c)),
    "and.{t}": (_BITS, 2, lambda _, a, b: a & b),
    "or.{t}": (_BITS, 2, lambda _, a, b: a | b),
    "xor.{t}": (_BITS, 2, lambda _, a, b: a ^ b),
    "not.{t}": (_BITS, 1, lambda _, a: ~a),
    "cnot.{t}": (_BITS, 1, lambda _, a: int(a == 0)),
    "brev.{t}": (("b32", "b64"), 1, lambda w, a: int(f"{a:0{w}b}"[::-1], 2)),
}


@pytest.mark.parametrize(
    ("name", "ptx_type"), [(name, t) for name, (types, *_) in _ARITHMETIC.items() for t in types]
)
def test_arithmetic(name: str, ptx_type: str) -> None:
    _, count, oracle = _ARITHMETIC[name]
    width = width_of(ptx_type)
    edges = integers(width) if count < 3 else integers(width)[::2]
    values = columns([edges] * count, [width] * count, seed=len(name))
    if name[:3] in {"div", "rem"}:  # by zero anything may come out
        values[1] = [divisor or 7 for divisor in values[1]]
    text = f"{name.format(t=ptx_type)} {', '.join(['%x', '%a', '%b', '%c'][: count + 1])};"
    found = evaluate(text, *values, widths=[width] * count, out=width)
    for row, result in zip(zip(*values, strict=True), found, strict=True):
        numbers = [signed(v, width) if ptx_type[0] == "s" else v for v in row]
        assert result == oracle(width, *numbers) % 2**width, (text, row)


_MANY_TYPES = ("b8", "u8", "s8", "u16x2", "s16x2", "b16", "f32", "f64", *_ALL, *_BITS)


@pytest.mark.parametrize("name", [name for name in _ARITHMETIC if name.endswith("{t}")])
def test_no_other_type_is_accepted(name: str) -> None:
    """So that there is none that is not tested, here or with the floats."""
    opcode = name.split(".", maxsplit=1)[0]
    tested = set(_ARITHMETIC[name][0])
    if opcode in {"add", "min", "max"}:
        tested |= {"u16x2", "s16x2"}
    if opcode in {"add", "sub", "div", "min", "max", "abs", "neg"}:
        tested |= {"f32", "f64"}
    for ptx_type in set(_MANY_TYPES) - tested:
        register = f".reg .b{max(width_of(ptx_type), 16)} %x;"
        text = f"{{ {register} {name.format(t=ptx_type)} {', '.join(['%x'] * 4)}; }}"
        module = simulator.load(source(text))
        with pytest.raises(NotImplementedError):
            module["kernel"]


@pytest.mark.parametrize("ptx_type", _WIDE)
@pytest.mark.parametrize("adds", [False, True])
def test_wide_products(ptx_type: str, *, adds: bool) -> None:
    width = width_of(ptx_type)
    widths = [width, width, 2 * width][: 3 if adds else 2]
    values = columns([integers(w) for w in widths], widths, seed=1)
    text = f"mad.wide.{ptx_type} %x, %a, %b, %c;" if adds else f"mul.wide.{ptx_type} %x, %a, %b;"
    found = evaluate(text, *values, widths=widths, out=2 * width)
    for row, result in zip(zip(*values, strict=True), found, strict=True):
        a, b = (signed(v, width) if ptx_type[0] == "s" else v for v in row[:2])
        assert result == (a * b + sum(row[2:])) % 2 ** (2 * width), row


_PAIRS: dict[str, Callable[[int, int], int]] = {
    "add.u16x2": lambda a, b: a + b,
    "add.s16x2": lambda a, b: a + b,
    "min.u16x2": min,
    "max.u16x2": max,
    "min.s16x2": min,
    "max.s16x2": max,
    "min.relu.s16x2": lambda a, b: max(0, min(a, b)),
    "max.relu.s16x2": lambda a, b: max(0, a, b),
}


@pytest.mark.parametrize("name", _PAIRS)
def test_pairs_of_16_bits(name: str) -> None:
    halves = integers(16)
    both = [high << 16 | low for high, low in zip(halves, reversed(halves), strict=True)]
    values = columns([both, both[::-1]], [32, 32], seed=2)
    found = evaluate(f"{name} %x, %a, %b;", *values, widths=[32, 32], out=32)

    def half(word: int, shift: int) -> int:
        bits = word >> shift & 0xFFFF
        return signed(bits, 16) if ".s16" in name else bits

    for a, b, result in zip(*values, found, strict=True):
        expected = [_PAIRS[name](half(a, s), half(b, s)) & 0xFFFF for s in (16, 0)]
        assert result == expected[0] << 16 | expected[1], (a, b)


@pytest.mark.parametrize("ptx_type", ["u32", "s32", "u64", "s64"])
def test_carries_go_through_chains_of_sums_and_differences(ptx_type: str) -> None:
    """Of numbers of two words; the third word is what is left of the carry."""
    width = width_of(ptx_type)
    values = columns([integers(width)[::2]] * 4, [width] * 4, seed=3)
    for add, addc, sign in (("add", "addc", 1), ("sub", "subc", -1)):
        for part in range(3):
            text = f"""{{ .reg .b{width} %y<3>;
            {add}.cc.{ptx_type} %y0, %a, %c; {addc}.cc.{ptx_type} %y1, %b, %d;
            {addc}.{ptx_type} %y2, 0, 0; mov.b{width} %x, %y{part}; }}"""
            found = evaluate(text, *values, widths=[width] * 4, out=width)
            for a, b, c, d, result in zip(*values, found, strict=True):
                total = (b << width | a) + sign * (d << width | c)
                assert result == total >> (part * width) & (2**width - 1), (add, a, b, c, d)


@pytest.mark.parametrize("ptx_type", ["u32", "u64"])
def test_carries_go_through_a_product_of_two_words_each(ptx_type: str) -> None:
    width = width_of(ptx_type)
    values = columns([integers(width)[::2]] * 4, [width] * 4, seed=4)
    t = ptx_type
    chain = f"""
    mul.lo.{t} %y0, %a, %c; mul.hi.{t} %y1, %a, %c; mov.b{width} %y3, 0;
    mad.lo.cc.{t} %y1, %a, %d, %y1; madc.hi.{t} %y2, %a, %d, 0;
    mad.lo.cc.{t} %y1, %b, %c, %y1; madc.hi.cc.{t} %y2, %b, %c, %y2; addc.{t} %y3, 0, 0;
    mad.lo.cc.{t} %y2, %b, %d, %y2; madc.hi.{t} %y3, %b, %d, %y3;"""
    for part in range(4):
        text = f"{{ .reg .b{width} %y<4>; {chain} mov.b{width} %x, %y{part}; }}"
        found = evaluate(text, *values, widths=[width] * 4, out=width)
        for a, b, c, d, result in zip(*values, found, strict=True):
            product = (b << width | a) * (d << width | c)
            assert result == product >> (part * width) & (2**width - 1), (part, a, b, c, d)


@pytest.mark.parametrize("ptx_type", ["s32", "s64"])
def test_signed_products_of_a_chain(ptx_type: str) -> None:
    width = width_of(ptx_type)
    values = columns([integers(width)] * 3, [width] * 3, seed=5)
    for part, shift in (("lo", 0), ("hi", width)):
        text = f"""{{ .reg .b{width} %y; add.cc.{ptx_type} %y, %a, %b;
        madc.{part}.cc.{ptx_type} %x, %a, %b, %c; }}"""
        found = evaluate(text, *values, widths=[width] * 3, out=width)
        for a, b, c, result in zip(*values, found, strict=True):
            product = signed(a, width) * signed(b, width) >> shift
            assert result == (product + c + (a + b >> width)) % 2**width, (part, a, b, c)


def _part(word: int, index: int, bits: int, ptx_type: str) -> int:
    value = word >> (index * bits) & ((1 << bits) - 1)
    return signed(value, bits) if ptx_type == "s32" else value


@pytest.mark.parametrize("types", list(itertools.product(_WORDS, _WORDS)))
@pytest.mark.parametrize("name", ["dp4a", "dp2a.lo", "dp2a.hi"])
def test_dot_products(name: str, types: tuple[str, str]) -> None:
    words = [0, 0x80808080, 0x7F7F7F7F, 0xFF01FE80, 0x8000FFFF]
    values = columns([words, words, [0, 0xFFFFFFFF, 0x80000000]], [32] * 3, seed=6)
    found = evaluate(
        f"{name}.{types[0]}.{types[1]} %x, %a, %b, %c;", *values, widths=[32] * 3, out=32
    )
    count, bits, first = (4, 8, 0) if name == "dp4a" else (2, 16, 2 if name[-2:] == "hi" else 0)
    for a, b, c, result in zip(*values, found, strict=True):
        terms = [
            _part(a, i, bits, types[0]) * _part(b, first + i, 8, types[1]) for i in range(count)
        ]
        assert result == (c + sum(terms)) % 2**32, (a, b, c)


@pytest.mark.parametrize("types", list(itertools.product(_WORDS, _WORDS)))
@pytest.mark.parametrize(("opcode", "count"), [("vabsdiff2", 2), ("vabsdiff4", 4)])
@pytest.mark.parametrize("adds", [False, True])
def test_differences_of_parts(
    types: tuple[str, str], opcode: str, count: int, *, adds: bool
) -> None:
    words = [0, 0x80808080, 0x7F7F7F7F, 0xFF01FE80, 0x8000FFFF]
    values = columns([words, words, [0, 0xFFFFFFFF]], [32] * 3, seed=7)
    name = f"{opcode}.u32.{types[0]}.{types[1]}" + ".add" * adds
    found = evaluate(f"{name} %x, %a, %b, %c;", *values, widths=[32] * 3, out=32)
    bits = 32 // count
    for a, b, c, result in zip(*values, found, strict=True):
        parts = [
            abs(_part(a, i, bits, types[0]) - _part(b, i, bits, types[1])) for i in range(count)
        ]
        if adds:
            assert result == (c + sum(parts)) % 2**32, (a, b, c)
        else:
            assert result == sum(p % 2**bits << i * bits for i, p in enumerate(parts)), (a, b)
