"""Registers that wgmma works with: touched too soon, or handed over without a fence."""

import re
from collections.abc import Callable

import pytest
import torch

from csrc import simulator
from tests.simulator.planted_memory import SEEDS
from tests.simulator.running import source

# A and B in shared memory, one 64 x 8 x 16 product without swizzle; or A in registers.
_SHARED = ".shared .align 128 .b8 operands[2304];"
_HEAD = f"""
{_SHARED}
mov.u32 %r1, operands;
mad.lo.u32 %r2, %r0, 16, %r1;
mov.u32 %r3, 1065369472;
st.shared.v4.b32 [%r2], {{%r3, %r3, %r3, %r3}};
setp.lt.u32 %p1, %r0, 16;
@%p1 st.shared.v4.b32 [%r2+2048], {{%r3, %r3, %r3, %r3}};
fence.proxy.async.shared::cta;
bar.sync 0;
setp.eq.u32 %p2, %r0, %r0;
shr.u32 %r4, %r1, 4;
cvt.u64.u32 %rd2, %r4;
mov.u64 %rd3, 0x0000001000080000;
or.b64 %rd4, %rd2, %rd3;
add.u64 %rd5, %rd4, 128;
mov.f32 %f0, 0f00000000;
mov.f32 %f1, %f0;
mov.f32 %f2, %f0;
mov.f32 %f3, %f0;
mov.f32 %f4, %f0;
mov.f32 %f5, %f0;
mov.f32 %f6, %f0;
mov.f32 %f7, %f0;
mov.b32 %r10, %r3;
mov.b32 %r11, %r3;
mov.b32 %r12, %r3;
mov.b32 %r13, %r3;
wgmma.fence.sync.aligned;
"""
_OP = "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16"
_PRODUCT = f"{_OP} {{%f0, %f1, %f2, %f3}}, %rd4, %rd5, %p2, 1, 1, 0, 0;"
_SECOND = f"{_OP} {{%f4, %f5, %f6, %f7}}, %rd4, %rd5, %p2, 1, 1, 0, 0;"
_FROM_REGISTERS = f"{_OP} {{%f0, %f1, %f2, %f3}}, {{%r10, %r11, %r12, %r13}}, %rd5, %p2, 1, 1, 0;"
_COMMIT = "wgmma.commit_group.sync.aligned;"
_WAIT = "wgmma.wait_group.sync.aligned {};"
_FENCE = "wgmma.fence.sync.aligned;"
_STORE = "st.global.f32 [%rd1], %f0;"
_END = f"{_WAIT.format(0)}\nmad.wide.u32 %rd1, %r0, 4, %rd0;\nst.global.f32 [%rd1], %f0;"

# name: (finding, the kernel for whether it is repaired). Lines end in marks as in planted.cuh.
_PLANTED: dict[str, tuple[str, Callable[[bool], str]]] = {
    "sum read before the wait": (
        "accumulator in flight",
        lambda repaired: (
            f"""
        {_PRODUCT} // [earlier]
        {_COMMIT}
        {_WAIT.format(0) if repaired else ""}
        add.f32 %f8, %f0, %f1; // [later]
        {_END}"""
        ),
    ),
    "sum read after a wait for too few": (
        "accumulator in flight",
        lambda repaired: (
            f"""
        {_PRODUCT}
        {_COMMIT}
        {_SECOND} // [earlier]
        {_COMMIT}
        {_WAIT.format(0 if repaired else 1)}
        add.f32 %f8, %f0, %f1;
        add.f32 %f8, %f4, %f5; // [later]
        {_END}"""
        ),
    ),
    "sum not committed": (
        "accumulator in flight",
        lambda repaired: (
            f"""
        {_PRODUCT} // [earlier]
        {_COMMIT if repaired else ""}
        {_WAIT.format(0)}
        add.f32 %f8, %f0, %f1; // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
    "sum written under the product": (
        "accumulator in flight",
        lambda repaired: (
            f"""
        {_PRODUCT} // [earlier]
        {_COMMIT}
        {_WAIT.format(0) if repaired else ""}
        mov.f32 %f3, 0f00000000; // [later]
        {_END}"""
        ),
    ),
    "operand written under the product": (
        "register in flight",
        lambda repaired: (
            f"""
        {_FROM_REGISTERS} // [earlier]
        {_COMMIT}
        {_WAIT.format(0) if repaired else ""}
        mov.b32 %r12, 0; // [later]
        {_END}"""
        ),
    ),
    "operand is the sum of another": (
        "accumulator in flight",
        lambda repaired: (
            f"""
        {_SECOND} // [earlier]
        {_COMMIT}
        {_WAIT.format(0) if repaired else ""}
        {_FENCE}
        {_FROM_REGISTERS.replace("%r10", "%f4")} // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
    "sum goes to the operand of another": (
        "register in flight",
        lambda repaired: (
            f"""
        {_FROM_REGISTERS} // [earlier]
        {_COMMIT}
        {_WAIT.format(0) if repaired else ""}
        {_SECOND.replace("%f5", "%r11")} // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
    "sum touched without a fence": (
        "missing wgmma.fence",
        lambda repaired: (
            f"""
        mov.f32 %f2, 0f3F800000; // [earlier]
        {_FENCE if repaired else ""}
        {_PRODUCT} // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
    "sum read without a fence": (
        "missing wgmma.fence",
        lambda repaired: (
            f"""
        {_PRODUCT}
        {_COMMIT}
        {_WAIT.format(0)}
        add.f32 %f8, %f0, %f1; // [earlier]
        {_FENCE if repaired else ""}
        {_PRODUCT} // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
    "operand touched without a fence": (
        "missing wgmma.fence",
        lambda repaired: (
            f"""
        mov.b32 %r13, %r3; // [earlier]
        {_FENCE if repaired else ""}
        {_FROM_REGISTERS} // [later]
        {_COMMIT}
        {_END}"""
        ),
    ),
}


def _run(text: str, seed: int) -> torch.Tensor:
    result = torch.zeros(128)
    with simulator.Machine(seed=seed) as machine:
        machine.launch(simulator.load(text)["kernel"], 1, 128, args=[result])
        machine.run()
    return result


@pytest.mark.parametrize("name", _PLANTED)
def test_is_found(name: str) -> None:
    finding, body = _PLANTED[name]
    text = source(_HEAD + body(False), 1)
    marked = [i for i, line in enumerate(text.splitlines(), 1) if "// [" in line]
    assert len(marked) == 2
    for seed in SEEDS:
        with pytest.raises(RuntimeError) as raised:
            _run(text, seed)
        message = str(raised.value)
        assert message.startswith(finding + ": "), message
        for line in marked:
            assert re.search(rf"at line {line} of the PTX", message), f"line {line}: {message}"


@pytest.mark.parametrize("name", _PLANTED)
def test_repaired_is_clean(name: str) -> None:
    _, body = _PLANTED[name]
    text = source(_HEAD + body(True), 1)
    for seed in SEEDS:
        assert _run(text, seed).any()
