"""Texts that no compiler writes: each is one clear error or runs, and none takes all memory."""

import re

import pytest
import torch

from csrc import simulator
from tests.simulator.parsing import HEADER, entry
from tests.simulator.running import run, source

_MODULE_LIMIT = "the module has more than 4294967296 bytes of .global and .const variables"
_ACCUMULATOR = "{" + ", ".join(["_"] * 128) + "}"
_NARROW_WGMMA = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16"
_WIDE_WGMMA = (
    f"wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {_ACCUMULATOR}, %rd0, %rd1, 1, 1, 1, "
    "0, 0;"
)


def _module(body: str) -> str:
    return source(".reg .b128 %q<4>;\n" + body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("mov.b32 {}, %r1;", "the parts do not make up the whole"),
        ("mov.b64 {%r1, %r2, %r3}, %rd1;", "the parts do not make up the whole"),
        ("mov.b64 %rd1, {%h1, %h2, %h3};", "the parts do not make up the whole"),
        ("mov.b128 {%r1, %r2}, %q1;", "the destination has another width than the type"),
        ("mov.b64 {%rd1, %rd2}, %rd1;", "the destination has another width than the type"),
        ("mov.b128 %q1, %tid.x;", "a special register is narrower than the type"),
        ("ld.global.b64 %q1, [%rd0];", "the destination is wider than the type"),
        ("st.global.b64 [%rd0], %q1;", "an operand is wider than the type"),
        ("ld.global.b32 %r1, [%q1];", "an operand is wider than the type"),
        ("ld.global.v2.b32 {%r1}, [%rd0];", "a vector of 2 is expected"),
        ("atom.global.add.u64 %rd1, [%rd0], %r1;", "a register is narrower than the type"),
        ("atom.global.exch.b64 %r1, [%rd0], %rd1;", "a register is narrower than the type"),
        ("cvt.u32.u64 %r1, %q1;", "an operand is wider than the type"),
        ("and.b128 %q1, %q1, %q1;", "there is no such instruction for this type"),
        ("selp.b128 %q1, %q1, %q1, %p1;", "there is no such instruction for 128 bits"),
        ("match.any.sync.b128 %r1, %q1, -1;", "there is no such instruction for 128 bits"),
        ("redux.sync.add.u64 %rd1, %rd1, -1;", "reduces .s32, .u32 and .b32 alone"),
        ("mbarrier.try_wait.parity.shared::cta.b64 %p1, [%r1];", "its parity is missing"),
        ("mbarrier.test_wait.shared::cta.b64 %p1, [%r1];", "the phase or its parity is missing"),
        ("ldmatrix.sync.aligned.m8n8.shared.b16 {%r1}, [%r1];", ".x1, .x2 or .x4 is missing"),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {}, {%r1, %r2}, {%r3}, {};",
            "d has another number of registers",
        ),
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.bf16.e4m3.f32 {}, {%r1, %r2}, {%r3}, {};",
            "a and b must have types of one size",
        ),
        (
            f"{_NARROW_WGMMA}.bf16 {{%f1, %f2, %f3, %f4}}, {{%r1}}, %rd1, 1, 1, 1, 0;",
            "a has another number of registers than 4",
        ),
        (
            f"{_NARROW_WGMMA}.e4m3 {{%f1, %f2, %f3, %f4}}, %rd1, %rd1, 1, 1, 1, 0, 0;",
            "a and b must have types of one size",
        ),
        ("cp.async.ca.shared.global [%r1], [%rd0], 5;", "the size must be 4, 8 or 16"),
        ("cp.async.ca.shared.global [%r1], [%rd0], 0;", "the size must be 4, 8 or 16"),
        ("cp.async.ca.shared.global [%r1], [%rd0], -16;", "the size must be 4, 8 or 16"),
        ("cp.async.wait_group %r1;", "how many groups may be under way must be a constant"),
        ("cp.async.bulk.wait_group -1;", "how many groups may be under way must be a constant"),
    ],
)
def test_an_instruction_that_is_none(body: str, message: str) -> None:
    module = simulator.load(_module(body))
    with pytest.raises(NotImplementedError, match=rf"^line \d+: \S+: .*{re.escape(message)}"):
        module["kernel"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (".local .b8 big[1073741824];", "kernel has 1073741824 bytes of local variables"),
        (".shared .b8 big[1048576];", "kernel has 1048576 bytes of shared variables"),
        (_WIDE_WGMMA * 1100, "bytes of registers and constants in a warp, more than 16777216"),
    ],
    ids=["local", "shared", "registers"],
)
def test_a_kernel_that_wants_too_much(body: str, message: str) -> None:
    module = simulator.load(_module(body))
    with pytest.raises(NotImplementedError, match=message):
        module["kernel"]


def test_parameters_that_are_too_large() -> None:
    text = entry("ret;").replace(".u64 pointer", ".b8 big[2147483647]")
    with pytest.raises(NotImplementedError, match="has 2147483647 bytes of parameters, more than"):
        simulator.load(text)["kernel"]


def test_variables_that_are_too_large() -> None:
    four = "".join(f".global .b8 big{i}[2147483647];\n" for i in range(3))
    with pytest.raises(NotImplementedError, match=f"^{_MODULE_LIMIT}, with big2$"):
        simulator.load(HEADER + four)
    with pytest.raises(ValueError, match=r"^line 4, column 28: expected a variable of at most 4"):
        simulator.load(HEADER + ".global .b8 big[1073741824][1073741824];")
    with pytest.raises(
        ValueError, match=r"^line 4, column 16: expected a number from 1 to 1048576"
    ):
        simulator.load(HEADER + ".global .align 1099511627776 .b8 big;")


def test_large_variables_cost_what_is_touched() -> None:
    """And lie where they have to, with room between them."""
    result = torch.zeros(2, dtype=torch.int64)
    module = """.global .b8 first;
    .global .align 1048576 .b8 big[2147483647];
    .global .u32 last = 7;"""
    body = """
    mov.u64 %rd1, big; and.b64 %rd2, %rd1, 1048575; st.global.u64 [%rd0], %rd2;
    add.u64 %rd1, %rd1, 2147483640; ld.global.u8 %r1, [%rd1]; ld.global.u32 %r2, [last];
    add.u32 %r1, %r1, %r2; cvt.u64.u32 %rd3, %r1; st.global.u64 [%rd0+8], %rd3;
    """
    run(body, [result], module=module, block=1)
    assert result.tolist() == [0, 7]


def test_registers_come_into_being_when_they_are_used() -> None:
    result = torch.zeros(1, dtype=torch.int32)
    body = ".reg .b32 %big<2000000000>; mov.u32 %big999999999, 5; st.global.u32 [%rd0], "
    run(body + "%big999999999;", [result], block=1)
    assert result.tolist() == [5]


@pytest.mark.parametrize(
    "body",
    ["", "@%p1 ret;", "bra END; END:", "@!%p1 bra END; add.u32 %r1, %r1, 1; END:", "{ { } }"],
)
def test_lanes_end_behind_the_last_statement(body: str) -> None:
    text = _module(body).replace("\nret;\n}", "\n}")
    assert "\nret;" not in text
    with simulator.Machine() as machine:
        machine.launch(simulator.load(text)["kernel"], 2, 64, args=[])
        assert machine.run()["num_ctas"] == 2


def test_a_text_that_is_too_long() -> None:
    with pytest.raises(ValueError, match=r"^line 1, column 1: expected a text of at most 32 MiB"):
        simulator.load(HEADER + " " * 2**25)


def test_blocks_that_are_too_deep() -> None:
    with pytest.raises(ValueError, match=r"line 5, column 64: expected at most 64 nested blocks"):
        simulator.load(entry("{" * 100_000))


def test_a_kernel_of_too_many_instructions() -> None:
    """The history of accesses has so many bits for an instruction."""
    with pytest.raises(ValueError, match=r"^line 5, .*: expected at most 1048576 instructions\n"):
        simulator.load(entry("ret;" * (2**20 + 1)))
    most = simulator.load(entry("mov.u64 %rd1, 1;" * 2**20).replace("{", "{ .reg .b64 %rd1;", 1))
    with pytest.raises(NotImplementedError, match=r"^kernel kernel has 1048577 instructions, more"):
        most["kernel"]
