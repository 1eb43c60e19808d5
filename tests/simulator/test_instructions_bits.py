"""Shifts, bit fields, permutations and choices, against Python's integers."""

from collections.abc import Callable

import pytest

from csrc import simulator
from tests.simulator.instructions import columns, evaluate, integers, signed, width_of
from tests.simulator.running import source

_COUNTS = [0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 2**31, 2**32 - 1]


@pytest.mark.parametrize(
    "name",
    [
        "shl.b16",
        "shl.b32",
        "shl.b64",
        "shr.b16",
        "shr.b32",
        "shr.b64",
        "shr.u16",
        "shr.u32",
        "shr.u64",
        "shr.s16",
        "shr.s32",
        "shr.s64",
    ],
)
def test_shifts(name: str) -> None:
    opcode, ptx_type = name.split(".")
    width = width_of(ptx_type)
    values = columns([integers(width), _COUNTS], [width, 32], seed=1)
    found = evaluate(f"{name} %x, %a, %b;", *values, widths=[width, 32], out=width)
    for a, b, result in zip(*values, found, strict=True):
        number, by = signed(a, width) if ptx_type[0] == "s" else a, min(b, 64)
        expected = number << by if opcode == "shl" else number >> by
        assert result == expected % 2**width, (a, b)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
@pytest.mark.parametrize("side", ["l", "r"])
def test_funnel_shifts(side: str, mode: str) -> None:
    values = columns([integers(32), integers(32), _COUNTS], [32] * 3, seed=2)
    found = evaluate(f"shf.{side}.{mode}.b32 %x, %a, %b, %c;", *values, widths=[32] * 3, out=32)
    for low, high, count, result in zip(*values, found, strict=True):
        by = count % 32 if mode == "wrap" else min(count, 32)
        both = high << 32 | low
        expected = (both << by) >> 32 if side == "l" else both >> by
        assert result == expected % 2**32, (low, high, count)


def _highest(bits: int, width: int, *, is_signed: bool) -> int:
    """The position of the highest bit unlike the sign, or -1."""
    if is_signed and bits >> (width - 1):
        bits ^= 2**width - 1
    return bits.bit_length() - 1


_COUNTING: dict[str, Callable[[int, int], int]] = {
    "popc.b32": lambda a, _: a.bit_count(),
    "popc.b64": lambda a, _: a.bit_count(),
    "clz.b32": lambda a, w: w - a.bit_length(),
    "clz.b64": lambda a, w: w - a.bit_length(),
    "bfind.u32": lambda a, w: _highest(a, w, is_signed=False),
    "bfind.s32": lambda a, w: _highest(a, w, is_signed=True),
    "bfind.u64": lambda a, w: _highest(a, w, is_signed=False),
    "bfind.s64": lambda a, w: _highest(a, w, is_signed=True),
}


@pytest.mark.parametrize("name", _COUNTING)
def test_counts(name: str) -> None:
    width = width_of(name.split(".")[1])
    values = columns([[*integers(width), *(1 << i for i in range(width))]], [width], seed=3)
    found = evaluate(f"{name} %x, %a;", *values, widths=[width], out=32)
    assert found == [_COUNTING[name](a, width) % 2**32 for a in values[0]]


@pytest.mark.parametrize("ptx_type", ["u32", "s32", "u64", "s64"])
def test_the_distance_of_the_highest_bit(ptx_type: str) -> None:
    width = width_of(ptx_type)
    values = columns([integers(width)], [width], seed=4)
    found = evaluate(f"bfind.shiftamt.{ptx_type} %x, %a;", *values, widths=[width], out=32)
    for a, result in zip(*values, found, strict=True):
        highest = _highest(a, width, is_signed=ptx_type[0] == "s")
        assert result == (width - 1 - highest if highest >= 0 else 2**32 - 1), a


_FIELDS = [0, 1, 4, 15, 28, 31, 32, 33, 63, 64, 255, 256 + 3]


@pytest.mark.parametrize("ptx_type", ["u32", "s32", "u64", "s64"])
def test_bit_fields_are_extracted(ptx_type: str) -> None:
    """Bit by bit, as the PTX manual's pseudo code has it; positions and lengths have 8 bits."""
    width = width_of(ptx_type)
    values = columns([integers(width)[:8], _FIELDS, _FIELDS], [width, 32, 32], seed=5)
    found = evaluate(f"bfe.{ptx_type} %x, %a, %b, %c;", *values, widths=[width, 32, 32], out=width)
    for a, b, c, result in zip(*values, found, strict=True):
        position, length = b & 255, c & 255
        last = a >> min(position + length - 1, width - 1) & 1 if length else 0
        sign = last if ptx_type[0] == "s" else 0
        bits = [
            a >> (position + i) & 1 if i < length and position + i < width else sign
            for i in range(width)
        ]
        assert result == sum(bit << i for i, bit in enumerate(bits)), (a, b, c)


@pytest.mark.parametrize("width", [32, 64])
def test_bit_fields_are_inserted(width: int) -> None:
    edges = [0, 2**width - 1, 0x5A]
    values = columns([edges, edges, _FIELDS, _FIELDS], [width, width, 32, 32], seed=6)
    text = f"bfi.b{width} %x, %a, %b, %c, %d;"
    found = evaluate(text, *values, widths=[width, width, 32, 32], out=width)
    for a, b, c, d, result in zip(*values, found, strict=True):
        field = ((1 << (d & 255)) - 1) << (c & 255)
        assert result == (b & ~field | a << (c & 255) & field) % 2**width, (a, b, c, d)


# Bytes from the highest to the lowest, for c = 0 to 3: the table of the PTX manual.
_PERMUTATIONS = {
    "f4e": ("3210", "4321", "5432", "6543"),
    "b4e": ("5670", "6701", "7012", "0123"),
    "rc8": ("0000", "1111", "2222", "3333"),
    "ecl": ("3210", "3211", "3222", "3333"),
    "ecr": ("0000", "1110", "2210", "3210"),
    "rc16": ("1010", "3232", "1010", "3232"),
}


@pytest.mark.parametrize("mode", ["", *_PERMUTATIONS])
def test_bytes_are_permuted(mode: str) -> None:
    words = [0x83828180, 0x07060504, 0xFF7F0180, 0]
    values = columns([words, words, [0, 1, 2, 3, 0x3210, 0x7654, 0xFEDC, 0xBA98]], [32] * 3, seed=7)
    name = f"prmt.b32.{mode}" if mode else "prmt.b32"
    found = evaluate(f"{name} %x, %a, %b, %c;", *values, widths=[32] * 3, out=32)
    for a, b, c, result in zip(*values, found, strict=True):
        source_bytes = (b << 32 | a).to_bytes(8, "little")
        picks = [int(p) for p in reversed(_PERMUTATIONS[mode][c & 3])] if mode else []
        picks = picks or [c >> 4 * i & 15 for i in range(4)]
        expected = []
        for pick in picks:
            byte = source_bytes[pick & 7]
            expected.append((255 if byte & 128 else 0) if pick & 8 else byte)
        assert result == int.from_bytes(bytes(expected), "little"), (a, b, c)


def test_every_function_of_three_bits() -> None:
    a, b, c = 0xF0CCAA55, 0x33F0CC99, 0x0FAA5577
    for table in range(256):
        (result,) = evaluate(
            f"lop3.b32 %x, %a, %b, %c, {table};", [a], [b], [c], widths=[32] * 3, out=32
        )
        for bit in range(32):
            entry = (a >> bit & 1) * 4 + (b >> bit & 1) * 2 + (c >> bit & 1)
            assert result >> bit & 1 == table >> entry & 1, (table, bit)


@pytest.mark.parametrize("join", ["and", "or"])
@pytest.mark.parametrize("negated", [False, True])
def test_a_function_of_three_bits_also_tells_whether_it_is_zero(
    join: str, *, negated: bool
) -> None:
    values = columns([[0, 1, 0xFF00], [0, 1, 0xFF], [0, 1]], [32] * 3, seed=8)
    text = f"""setp.ne.u32 %p1, %c, 0; lop3.{join}.b32 %t1|%p2, %a, %b, 0, 0xC0, {"!" * negated}%p1;
    selp.b32 %x, 256, 0, %p2; xor.b32 %x, %x, %t1;
    lop3.{join}.b32 _|%p3, %a, %b, 0, 0xC0, {"!" * negated}%p1; @%p3 xor.b32 %x, %x, 512;"""
    found = evaluate(text, *values, widths=[32] * 3, out=32)
    for a, b, c, result in zip(*values, found, strict=True):
        other = (c != 0) != negated
        both = (a & b != 0 and other) if join == "and" else (a & b != 0 or other)
        assert result == (a & b) ^ (256 + 512 if both else 0), (a, b, c)


def _limited(value: int, mode: str) -> int:
    return value % 32 if mode == "wrap" else min(value, 32)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_masks_are_made(mode: str) -> None:
    values = columns([_COUNTS, _COUNTS], [32, 32], seed=9)
    found = evaluate(f"bmsk.{mode}.b32 %x, %a, %b;", *values, widths=[32, 32], out=32)
    for a, b, result in zip(*values, found, strict=True):
        expected = ((1 << _limited(b, mode)) - 1) << _limited(a, mode)
        assert result == expected % 2**32, (a, b)


@pytest.mark.parametrize("ptx_type", ["u32", "s32"])
@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_numbers_of_few_bits_are_extended(mode: str, ptx_type: str) -> None:
    values = columns([integers(32), _COUNTS], [32, 32], seed=10)
    found = evaluate(f"szext.{mode}.{ptx_type} %x, %a, %b;", *values, widths=[32, 32], out=32)
    for a, b, result in zip(*values, found, strict=True):
        width = _limited(b, mode)
        low = a & ((1 << width) - 1)
        expected = signed(low, width) if ptx_type == "s32" and width else low
        assert result == expected % 2**32, (a, b)


def test_the_nth_set_bit_is_found() -> None:
    masks = [0, 1, 0x80000000, 0xFFFFFFFF, 0x00F0A501]
    offsets = [0, 1, 2, 5, 32, 33, -1, -2, -5, -33]
    values = columns([masks, [0, 1, 7, 8, 31], offsets], [32] * 3, seed=11)
    found = evaluate("fns.b32 %x, %a, %b, %c;", *values, widths=[32] * 3, out=32)
    for mask, base, bits, result in zip(*values, found, strict=True):
        offset = signed(bits % 2**32, 32)
        ahead = range(base, 32) if offset >= 0 else range(min(base, 31), -1, -1)
        places = [i for i in ahead if base < 32 and mask >> i & 1]
        if offset == 0:
            places = [base] if places[:1] == [base] else []
        nth = max(abs(offset), 1) - 1
        assert result == (places[nth] if nth < len(places) else 2**32 - 1), (mask, base, offset)


@pytest.mark.parametrize(
    "ptx_type", ["b16", "b32", "b64", "u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64"]
)
def test_choices(ptx_type: str) -> None:
    """By a predicate, by the sign of an integer and by that of a float."""
    width = width_of(ptx_type)
    floats = [0, 1 << 31, 0x3F800000, 0xBF800000, 1, 0x80000001, 0x7FC00000, 0xFF800000]
    values = columns(
        [integers(width)[:3], integers(width)[3:6], floats], [width, width, 32], seed=12
    )
    widths = [width, width, 32]
    by_sign = evaluate(f"slct.{ptx_type}.s32 %x, %a, %b, %c;", *values, widths=widths, out=width)
    by_float = evaluate(f"slct.{ptx_type}.f32 %x, %a, %b, %c;", *values, widths=widths, out=width)
    flushed = evaluate(
        f"slct.ftz.{ptx_type}.f32 %x, %a, %b, %c;", *values, widths=widths, out=width
    )
    text = f"setp.lt.u32 %p1, %c, 2; selp.{ptx_type} %x, %a, %b, %p1;"
    chosen = evaluate(text, *values, widths=widths, out=width)
    for i, (a, b, c) in enumerate(zip(*values, strict=True)):
        magnitude = c & 0x7FFFFFFF
        at_least_zero = magnitude <= 0x7F800000 and (c < 2**31 or magnitude == 0)
        tiny = magnitude < 0x00800000
        assert by_sign[i] == (a if c < 2**31 else b), (a, b, c)
        assert by_float[i] == (a if at_least_zero else b), (a, b, c)
        assert flushed[i] == (a if at_least_zero or tiny else b), (a, b, c)
        assert chosen[i] == (a if c < 2 else b), (a, b, c)


def test_logic_of_predicates() -> None:
    values = columns([[0, 1], [0, 1]], [32, 32], seed=13)
    values = [[value & 1 for value in column] for column in values]
    text = """setp.ne.u32 %p1, %a, 0; setp.ne.u32 %p2, %b, 0; mov.b32 %x, 0;
    and.pred %p3, %p1, %p2; @%p3 or.b32 %x, %x, 1;
    or.pred %p3, %p1, !%p2; @%p3 or.b32 %x, %x, 2;
    xor.pred %p3, %p1, %p2; @%p3 or.b32 %x, %x, 4;
    not.pred %p3, %p1; @%p3 or.b32 %x, %x, 8;
    mov.pred %p3, %p2; @!%p3 or.b32 %x, %x, 16;"""
    found = evaluate(text, *values, widths=[32, 32], out=32)
    for a, b, result in zip(*values, found, strict=True):
        bits = [a & b, a | (1 - b), a ^ b, 1 - a, 1 - b]
        assert result == sum(bit << i for i, bit in enumerate(bits)), (a, b)


@pytest.mark.parametrize(
    "text",
    [
        "shl.u32 %x, %x, 1",
        "shr.f32 %x, %x, 1",
        "shf.l.wrap.u32 %x, %x, %x, 1",
        "brev.b16 %h1, %h1",
        "popc.u32 %x, %x",
        "clz.s32 %x, %x",
        "bfind.b32 %x, %x",
        "bfe.b32 %x, %x, 1, 1",
        "bfi.u32 %x, %x, %x, 1, 1",
        "prmt.u32 %x, %x, %x, 1",
        "lop3.u32 %x, %x, %x, %x, 1",
        "lop3.b32 %x|%p1, %x, %x, %x, 1",
        "fns.u32 %x, %x, 1, 1",
        "bmsk.wrap.u32 %x, %x, 1",
        "bmsk.b32 %x, %x, 1",
        "szext.wrap.b32 %x, %x, 1",
        "slct.b32.u32 %x, %x, %x, %x",
    ],
)
def test_other_types_and_forms_are_errors(text: str) -> None:
    module = simulator.load(source(f"{{ .reg .b32 %x; {text}; }}"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
