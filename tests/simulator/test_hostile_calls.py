"""Calls, stacks and printing of kernels that mean harm: each is one clear error."""

import re

import pytest
import torch

from csrc import simulator
from tests.simulator.running import run, source

_PRINT = """.extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
.global .align 1 .b8 format[32] = {%s};
"""
_CALL_PRINT = """{ .reg .b64 f, a; mov.u64 f, format; mov.u64 a, %rd0; LOOP:
call (%r1), vprintf, (f, a); """


def _printing(form: str) -> str:
    return _PRINT % ", ".join(str(byte) for byte in form.encode() + b"\0")


def test_a_call_by_address_of_what_no_function_takes() -> None:
    """Its arguments have no place to go to, so they go nowhere."""
    own = torch.zeros(1, dtype=torch.int64)
    body = """.param .align 8 .b8 big[65536]; mov.u64 %rd1, 64; bra CALL;
    SHAPE: .callprototype (.param .align 8 .b8 _[65536]) _ (.param .align 8 .b8 _[65536]);
    CALL: call (big), %rd1, (big), SHAPE;"""
    with pytest.raises(RuntimeError, match=r"wrong call: .* calls address 64, where no function"):
        run(body, [own], module=".func none() { ret; }")


def test_arguments_of_a_wide_alignment() -> None:
    """They lie on no variable of a function that hands them on."""
    result = torch.zeros(2, dtype=torch.int64)
    module = """.func (.reg .b64 %o) last (.param .align 32768 .b64 y) {
    ld.param.b64 %o, [y]; ret; }
    .func (.reg .b64 %o, .reg .b64 %k) first (.reg .b64 %x) { .local .align 32768 .b64 kept;
    st.local.u64 [kept], 99; call (%o), last, (%x); ld.local.u64 %k, [kept]; ret; }"""
    body = """.local .b64 own; mov.u64 %rd1, 4;
    call (%rd2, %rd3), first, (%rd1);
    st.global.u64 [%rd0], %rd2; st.global.u64 [%rd0+8], %rd3;"""
    run(body, [result], module=module, block=1)
    assert result.tolist() == [4, 99]


@pytest.mark.parametrize("align", [0, 3, -8, 2**62, 2**21])
def test_an_allocation_of_no_alignment(align: int) -> None:
    module = simulator.load(source(f"alloca.u64 %rd1, 8, {align};"))
    with pytest.raises(NotImplementedError, match=rf"power of two up to 1048576, got {align}"):
        module["kernel"]


@pytest.mark.parametrize("pointer", ["-1", "9223372036854775807", "100000000"])
def test_a_stack_that_begins_anywhere(pointer: str) -> None:
    body = f"stackrestore.u64 {pointer}; alloca.u64 %rd1, 8, 1048576; st.local.u64 [%rd1], 1;"
    with pytest.raises(RuntimeError, match=r"stack overflow: thread .* wants 8 bytes"):
        run(body)


def test_calls_that_are_too_deep() -> None:
    deep = ".func f0() { ret; }\n"
    deep += "".join(f".func f{i}() {{ call f{i - 1}; ret; }}\n" for i in range(1, 3000))
    module = simulator.load(source("call f2999;", module=deep))
    with pytest.raises(NotImplementedError, match="kernel kernel has calls within more than 256"):
        module["kernel"]


@pytest.mark.parametrize("form", ["%9999d", "%.99999f", "%*d", "%99999999999999999999s"])
def test_a_field_that_is_too_wide(form: str) -> None:
    wide = torch.tensor([-(2**31), 0, 0, 0], dtype=torch.int32)
    with pytest.raises(RuntimeError, match=r"^printf: a field of more than 4096 char.* thread \("):
        run(_CALL_PRINT + "}", [wide], module=_printing(form), block=1)


def test_a_conversion_that_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    """It is printed as it is; no part of it reaches the host's printf."""
    run(_CALL_PRINT + "}", [torch.zeros(4)], module=_printing("%1.2.3d %n%k%"), block=1)
    assert capfd.readouterr().out == "%1.2.3d %n%k%"


@pytest.mark.parametrize("grid", [1, 64])
def test_a_run_that_prints_without_end(grid: int, capfd: pytest.CaptureFixture[str]) -> None:
    """In one cluster, or in all together."""
    count = 2**13 if grid == 1 else 2**8
    body = f"mov.u32 %r2, 0; {_CALL_PRINT} add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, {count};"
    body += "@%p1 bra LOOP; }"
    text = re.escape(f"the run prints more than {2**24} bytes")
    with pytest.raises(NotImplementedError, match=f"^{text}$"):
        run(body, [torch.zeros(4)], module=_printing("%4000d"), block=1, grid=grid)
    assert len(capfd.readouterr().out) < 2**25
