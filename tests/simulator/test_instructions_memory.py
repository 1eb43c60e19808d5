"""Loads, stores and atomic operations of every type."""

import itertools
from collections.abc import Callable

import pytest
import torch

from csrc import simulator
from tests.oracles.float_arithmetic import add
from tests.oracles.number_formats import bits_of, value_of
from tests.simulator.instructions import columns, evaluate, integers, signed, width_of
from tests.simulator.running import run, source
from tests.simulator.test_instructions_float import flushed, samples

_AT = "mad.wide.u32 %rd9, %t0, {bytes}, %rd0;"
_IN_SHARED = """.shared .align 8 .b8 room[2048]; .reg .b32 %room; mov.u32 %room, room;
mad.lo.u32 %room, %r0, {bytes}, %room; cvt.u64.u32 %rd9, %room; st.shared.b{width} [%rd9], %a;"""

_INTEGER: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda old, value, _: old + value,
    "min": lambda old, value, _: min(old, value),
    "max": lambda old, value, _: max(old, value),
    "and": lambda old, value, _: old & value,
    "or": lambda old, value, _: old | value,
    "xor": lambda old, value, _: old ^ value,
    "exch": lambda _, value, __: value,
    "cas": lambda old, value, other: other if old == value else old,
    "inc": lambda old, value, _: 0 if old >= value else old + 1,
    "dec": lambda old, value, _: value if old == 0 or old > value else old - 1,
}
_CASES = [
    *itertools.product(("min", "max"), ("u32", "s32", "u64", "s64")),
    *itertools.product(("add",), ("u32", "s32", "u64")),
    *itertools.product(("and", "or", "xor", "exch", "cas"), ("b32", "b64")),
    *itertools.product(("inc", "dec"), ("u32",)),
    ("cas", "b16"),
]


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize(("operation", "ptx_type"), _CASES)
def test_atomic_operations_on_integers(operation: str, ptx_type: str, space: str) -> None:
    """What they find, and what they and their like without a result leave."""
    width = width_of(ptx_type)
    values = columns([integers(width)] * 2, [width] * 2, seed=1)
    values.append([a ^ b ^ 5 for a, b in zip(*values, strict=True)])
    start = (_AT if space == "global" else _IN_SHARED).format(bytes=width // 8, width=width)
    name, last = f"{space}.{operation}.{ptx_type}", ", %c" if operation == "cas" else ""
    fetch = f"ld.{space}.b{width} %x, [%rd9];"
    forms = [f"atom.{name} %x, [%rd9], %b{last};", f"atom.{name} %x, [%rd9], %b{last};{fetch}"]
    if operation not in {"exch", "cas"}:
        forms.append(f"red.{name} [%rd9], %b;{fetch}")
    expected = []
    for row in zip(*values, strict=True):
        numbers = [signed(v, width) if ptx_type[0] == "s" else v for v in row]
        expected.append(_INTEGER[operation](*numbers) % 2**width)
    for i, form in enumerate(forms):
        found = evaluate(start + form, *values, widths=[width] * 3, out=width)
        assert found == (values[0] if i == 0 else expected), form


@pytest.mark.parametrize("space", ["global", "shared"])
@pytest.mark.parametrize("ptx_type", ["f32", "f64", "f16", "bf16", "f16x2", "bf16x2"])
def test_atomic_sums_of_floats(ptx_type: str, space: str) -> None:
    """Of f32 in global memory, without the subnormal numbers (PTX ISA, atom)."""
    form, pairs = ptx_type.removesuffix("x2"), 2 if ptx_type.endswith("x2") else 1
    values = samples(form, 2, seed=2)
    flush = flushed if (form, space) == ("f32", "global") else lambda _, bits: bits
    sums = []
    for row in zip(*values, strict=True):
        a, b = (value_of(form, flush(form, bits)) for bits in row)
        sums.append(flush(form, bits_of(form, add(a, b, "rn"), "rn")))
    numbers = [i for i, bits in enumerate(sums) if value_of(form, bits) == value_of(form, bits)]
    wanted = [[column[i] for i in numbers] for column in (*values, sums)]
    width = width_of(form)
    if pairs == 2:
        wanted = [[v << width | w for v, w in zip(c, reversed(c), strict=True)] for c in wanted]
        width *= 2
    noftz = ".noftz" if width_of(form) == 16 else ""
    text = f"atom.{space}.add{noftz}.{ptx_type} %x, [%rd9], %b; ld.{space}.b{width} %x, [%rd9];"
    start = (_AT if space == "global" else _IN_SHARED).format(bytes=width // 8, width=width)
    found = evaluate(start + text, *wanted[:2], widths=[width] * 2, out=width)
    assert found == wanted[2]


def test_lanes_add_one_after_the_other() -> None:
    memory = torch.zeros(33, dtype=torch.int32)
    body = """atom.global.add.u32 %r1, [%rd0], %r0; mad.wide.u32 %rd5, %r0, 4, %rd0;
    st.global.b32 [%rd5+4], %r1; red.global.max.u32 [%rd0], 9;"""
    run(body, [memory])
    sums = [sum(range(i)) for i in range(33)]
    assert memory.tolist() == [sums[32], *sums[:32]]


@pytest.mark.parametrize("opcode", ["ld", "ldu"])
@pytest.mark.parametrize("ptx_type", ["u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32"])
def test_narrow_values_are_extended_to_their_register(opcode: str, ptx_type: str) -> None:
    width = width_of(ptx_type)
    (values,) = columns([integers(width)], [width], seed=3)
    text = _AT.format(bytes=width // 8) + f"{opcode}.global.{ptx_type} %x, [%rd9];"
    found = evaluate(text, values, widths=[width], out=64)
    expected = [signed(v, width) if ptx_type[0] == "s" else v for v in values]
    assert found == [v % 2**64 for v in expected]


@pytest.mark.parametrize("space", ["global", "shared", "local"])
@pytest.mark.parametrize(
    ("count", "width"), [(2, 8), (4, 8), (2, 16), (4, 16), (2, 32), (4, 32), (2, 64)]
)
def test_vectors_are_one_access(space: str, count: int, width: int) -> None:
    """Element i lies i elements behind the first; only a whole vector must be aligned."""
    registers = ", ".join(f"%v{i}" for i in range(count))
    backwards = ", ".join(f"%v{i}" for i in reversed(range(count)))
    step = count * width // 8
    room = f".{space} .align 16 .b8 room[{32 * step}]; mov.u64 %rd6, room;"
    offset = f"mul.lo.u32 %r1, %r0, {step}; cvt.u64.u32 %rd7, %r1; add.u64 %rd6, %rd6, %rd7;"
    if space == "global":
        room = "mov.u64 %rd6, %rd1;"
    if space == "local":
        offset = ""
    body = f"""{room} {offset} .reg .b{max(width, 16)} %v<4>; mul.lo.u32 %r1, %r0, {step};
    cvt.u64.u32 %rd7, %r1; add.u64 %rd5, %rd0, %rd7; add.u64 %rd8, %rd2, %rd7;
    ld.global.v{count}.b{width} {{{registers}}}, [%rd5];
    st.{space}.v{count}.b{width} [%rd6], {{{backwards}}};
    ld.{space}.v{count}.b{width} {{{registers}}}, [%rd6];
    st.global.v{count}.b{width} [%rd8], {{{registers}}};"""
    memory = [torch.arange(32 * step, dtype=torch.int64).to(torch.uint8) for _ in range(3)]
    run(body, memory)
    expected = memory[0].view(32, count, width // 8).flip(1).reshape(-1)
    assert torch.equal(memory[2], expected)
    aligned = f"ld.global.v{count}.b{width} {{{registers}}}, [%rd0+{width // 8}];"
    with pytest.raises(RuntimeError, match=f"misaligned: .* must be a multiple of {step}"):
        run(f".reg .b{max(width, 16)} %v<4>; {aligned}", memory)


@pytest.mark.parametrize(
    "fence",
    ["membar.cta", "membar.gl", "membar.sys"]
    + [f"fence.{order}.{scope}" for order in ("sc", "acq_rel") for scope in ("cta", "gpu", "sys")],
)
def test_fences_change_no_value(fence: str) -> None:
    memory = torch.zeros(2, dtype=torch.int32)
    body = f"st.global.b32 [%rd0], 3; {fence}; ld.global.b32 %r1, [%rd0];"
    run(body + "st.global.b32 [%rd0+4], %r1;", [memory], block=1)
    assert memory.tolist() == [3, 3]


@pytest.mark.parametrize(
    "text",
    [
        "atom.global.what.u32 %r1, [%rd0], 1",
        "atom.global.add.u8 %r1, [%rd0], 1",
        "ld.global.v3.b32 {%r1, %r2, %r3}, [%rd0]",
        "ld.global.v2.b32 %r1, [%rd0]",
        "ld.nowhere.b32 %r1, [%rd0]",
        "st.global.b64 [%rd0], %r1",
        "membar.what",
        "fence.sc",
        "red.global.add.what.u32 [%rd0], 1",
        "ld.global.b32 %r1, [%rd0], %rd1",
    ],
)
def test_forms_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{text};"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
