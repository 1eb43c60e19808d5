"""Kernels that mean harm: each ends with one error, and a run ends when it is told to."""

import gc
import os
import re
import resource
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from csrc import simulator
from csrc.tensor_map import TensorMap
from tests.simulator.running import run, source

_ONE = "setp.eq.u32 %p1, %r0, 0;"
_SHARED = f"""{_ONE}
.shared .align 128 .b8 buffer[1024];
mov.u32 %r1, buffer;
@%p1 mbarrier.init.shared::cta.b64 [%r1], 1;
bar.sync 0;
"""
_TO_SHARED = "cp.async.bulk.shared::cluster.{}.mbarrier::complete_tx::bytes [%r1+128]"
_REDUCE = "cp.reduce.async.bulk.global.shared::cta.bulk_group"
_FINDINGS = {
    "a bulk copy of 2 GiB in shared memory": (
        f"{_SHARED} @%p1 {_TO_SHARED.format('shared::cta')}, [%r1+256], 2147483648, [%r1];",
        "out of bounds: .* touches 2147483648 bytes at 0x80: the CTA has 1024 bytes",
    ),
    "a bulk copy of 4 GiB into shared memory": (
        f"{_SHARED} @%p1 {_TO_SHARED.format('global')}, [%rd0], -16, [%r1];",
        "out of bounds: .* touches 4294967280 bytes at 0x80: the CTA has 1024 bytes",
    ),
    "a bulk copy of 2 GiB out of shared memory": (
        f"{_SHARED} @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r1], 2147483648;",
        "out of bounds: .* touches 2147483648 bytes at 0x0: the CTA has 1024 bytes",
    ),
    "a bulk copy to the end of the addresses": (
        f"{_SHARED} @%p1 cp.async.bulk.global.shared::cta.bulk_group [-16], [%r1], 64;",
        "out of bounds: .* touches 64 bytes at 0xfffffffffffffff0",
    ),
    "a reduction that is none": (
        f"{_SHARED} @%p1 {_REDUCE}.and.f32 [%rd0], [%r1+16], 16;",
        r"^line \d+: cp.reduce.async.bulk\S+.and.f32: there is no such reduction of this type",
    ),
    "an address that wraps around": (
        "mov.u64 %rd1, -4; st.global.b64 [%rd1], %rd1;",
        "misaligned: .* touches 0xfffffffffffffffc",
    ),
    "an address at the last bytes": (
        "mov.u64 %rd1, -8; ld.global.b64 %rd1, [%rd1];",
        "out of bounds: .* touches 8 bytes at 0xfffffffffffffff8",
    ),
    "an offset that wraps around": (
        "ld.global.b32 %r1, [%rd0+9223372036854775804];",
        r"(out of bounds|misaligned): .* 0x",
    ),
    "a negative shared address": (
        "mov.u32 %r1, -16; ld.shared.b32 %r1, [%r1];",
        "out of bounds: .* the cluster has no CTA of rank 255",
    ),
    "local memory that is not there": (
        ".local .b8 own[8]; mov.u64 %rd1, -4; ld.local.b32 %r1, [%rd1];",
        "out of bounds: .* the thread has 8 bytes of local memory",
    ),
    "parameters that are not there": (
        "ld.param.b32 %r1, [p0+8];",
        "out of bounds: .* the kernel has 8 bytes of parameters",
    ),
    "null": ("mov.u64 %rd1, 0; atom.add.u32 %r1, [%rd1], 1;", "out of bounds: .* at 0x0: "),
    "a special register": (
        "mov.u32 %r1, %reserved_smem_offset_begin;",
        r"^line \d+: %reserved_smem_offset_begin: the simulator does not know this",
    ),
}


@pytest.mark.parametrize("name", _FINDINGS)
def test_a_kernel_reaches_only_what_is_its_own(name: str) -> None:
    body, message = _FINDINGS[name]
    guarded = torch.full((4096,), 0x5A, dtype=torch.uint8)
    with pytest.raises(RuntimeError) as raised:
        run(body, [guarded[2048:2112]])
    assert re.search(message, str(raised.value)), str(raised.value)
    assert (guarded == 0x5A).all()


def test_a_copy_that_brings_less_than_nothing() -> None:
    """A source of -1 bytes is one of 2^32 - 1, and none that a copy of 16 takes."""
    x = torch.zeros(128, dtype=torch.int32)
    body = """
    .shared .align 16 .b8 buffer[512];
    mov.u32 %r1, buffer; mad.lo.u32 %r1, %r0, 16, %r1; mad.wide.u32 %rd2, %r0, 16, %rd0;
    and.b32 %r2, %r0, 1; sub.u32 %r2, 0, %r2;
    cp.async.cg.shared.global [%r1], [%rd2], 16, %r2;
    """
    with pytest.raises(RuntimeError, match=r"thread \(1, 0, 0\) .* 4294967295 bytes to copy 16"):
        run(body, [x])


def _map_kernel() -> simulator.Kernel:
    body = f"""{_SHARED}
    mov.b64 %rd1, map;
    @%p1 cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%rd1, {{0, 0, 0, 0, 0}}], [%r1+128];
    """
    text = source(body).replace("kernel()", "kernel(.param .align 64 .b8 map[128])")
    return simulator.load(text.replace("%rd1, map", "%rd1, map; cvta.param.u64 %rd1, %rd1"))[
        "kernel"
    ]


def test_a_tensor_map_whose_box_is_larger_than_any_memory() -> None:
    """Its bytes are 2^40: as 32 bits they would be none."""
    x = torch.zeros(16, dtype=torch.uint8)
    encoded = bytearray(
        TensorMap.of(x.view(1, 1, 1, 1, 16), (1, 1, 1, 1, 16)).encode_for_simulator()
    )
    encoded[96:106] = (256).to_bytes(2, "little") * 5
    machine = simulator.Machine()
    machine.launch(_map_kernel(), 1, 32, args=[bytes(encoded)], memory=[x])
    with pytest.raises(RuntimeError, match=r"a box of no more bytes than shared.*at line \d+"):
        machine.run()


_ENDLESS = {
    "a branch to itself": "AGAIN: bra AGAIN;",
    "atomics that change memory": "AGAIN: atom.global.add.u32 %r1, [%rd0], 1; bra AGAIN;",
    "stores": "AGAIN: st.local.u32 [own], 1; bra AGAIN;",
    "sleep": "AGAIN: nanosleep.u32 1000; bra AGAIN;",
    "a read that waits": "AGAIN: ld.acquire.gpu.u32 %r1, [%rd0]; bra AGAIN;",
    "barriers": "AGAIN: bar.sync 0; bra AGAIN;",
    "lanes apart": f"{_ONE} AGAIN: activemask.b32 %r1; @%p1 bra AGAIN; bra AGAIN;",
    "one of many clusters": "mov.u32 %r1, %ctaid.x; setp.ne.u32 %p1, %r1, 2; @%p1 exit;"
    "AGAIN: bra AGAIN;",
}


def _machine(body: str, limit: int, block: int = 32) -> simulator.Machine:
    text = source(".local .b32 own;" + body, 1)
    machine = simulator.Machine(sms=2, max_instructions=limit)
    memory = torch.zeros(16, dtype=torch.int32)
    machine.launch(simulator.load(text)["kernel"], 4, block, args=[memory])
    return machine


@pytest.mark.parametrize("name", _ENDLESS)
def test_a_run_ends_after_so_many_instructions(name: str) -> None:
    with pytest.raises(RuntimeError, match=r"^endless: .* max_instructions, 30000\n  CTA "):
        _machine(_ENDLESS[name], 30_000).run()


# What each leaves behind has to end at some time, or be no more than a number.
_GROWING = {
    "groups of bulk copies": "AGAIN: cp.async.bulk.commit_group; bra AGAIN;",
    "bulk copies": """.shared .align 16 .b8 buffer[512];
    mov.u32 %r1, buffer; mad.lo.u32 %r2, %r0, 4, %r1; st.shared.u32 [%r2], %r0;
    fence.proxy.async; bar.sync 0;
    AGAIN: cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%rd0], [%r1], 16;
    cp.async.bulk.commit_group; bra AGAIN;""",
}


@pytest.mark.parametrize("name", _GROWING)
def test_a_run_without_end_takes_no_memory_without_end(name: str) -> None:
    machine = _machine(_GROWING[name], 2_000_000 if name != "bulk copies" else 100_000, block=128)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + (1 << 28)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        with pytest.raises(RuntimeError, match=r"^endless: "):
            machine.run()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_the_instructions_of_all_clusters_count(seed: int) -> None:
    """Clusters that run apart take turns in no order, but one seed is one report."""
    body = "mov.u32 %r1, 0; AGAIN: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 300; @%p1 bra AGAIN;"
    kernel = simulator.load(source(body))["kernel"]
    needed = 50 * (2 + 3 * 300 + 1)
    for limit, ends in ((needed, True), (needed - 1, False)):
        machine = simulator.Machine(seed=seed, max_instructions=limit)
        machine.launch(kernel, 50, 32, args=[])
        if ends:
            assert machine.run()["num_instructions"] == needed
            continue
        with pytest.raises(RuntimeError, match=f"^endless: .* max_instructions, {limit}$"):
            machine.run()


def test_a_loop_in_which_nothing_happens_is_a_deadlock() -> None:
    with pytest.raises(RuntimeError, match=r"^deadlock: warps spin, and nothing has changed for a"):
        run("AGAIN: bra AGAIN;")


@pytest.mark.parametrize("apart", [True, False])
def test_an_interrupt_ends_a_run(*, apart: bool) -> None:
    """Long before its instructions are used up: each cluster counts its own."""
    counts = torch.zeros(4, dtype=torch.int32)
    order = "" if apart else "fence.acq_rel.gpu; ld.relaxed.gpu.global.u32 %r3, [%rd1];"
    body = f"""mov.u32 %r1, %ctaid.x; mad.wide.u32 %rd1, %r1, 4, %rd0; mov.u32 %r2, 0;
    AGAIN: add.u32 %r2, %r2, 1; st.global.u32 [%rd1], %r2; {order} bra AGAIN;"""
    kernel = simulator.load(source(body, 1))["kernel"]
    machine = simulator.Machine(max_instructions=10**9)
    machine.launch(kernel, 4, 1, args=[counts])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    timer.join()
    assert 0 < counts.max() < 10**8
    with pytest.raises(RuntimeError, match="nothing is launched"):
        machine.run()


def _store() -> simulator.Kernel:
    body = "mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.u32 [%rd5], %r0;"
    return simulator.load(source(body, 1))["kernel"]


def test_a_tensor_that_nobody_else_has_lives_until_the_run_has_ended() -> None:
    machine = simulator.Machine()
    tensor = torch.zeros(32, dtype=torch.int32)
    storage = tensor.untyped_storage()
    alive = weakref.ref(tensor)
    machine.launch(_store(), 1, 32, args=[tensor])
    del tensor
    gc.collect()
    assert alive() is not None
    machine.run()
    gc.collect()
    assert alive() is None
    assert torch.tensor([], dtype=torch.int32).set_(storage).tolist() == list(range(32))


@pytest.mark.parametrize("memory", [False, True])
def test_a_tensor_that_has_lost_its_memory(*, memory: bool) -> None:
    def launch(machine: simulator.Machine, tensor: torch.Tensor) -> None:
        options: dict[str, Any] = {"args": [tensor]}
        if memory:
            options = {"args": [torch.zeros(32)], "memory": [tensor]}
        machine.launch(_store(), 1, 32, **options)

    name = "memory" if memory else "args"
    machine = simulator.Machine()
    tensor = torch.zeros(32)
    launch(machine, tensor)
    tensor.untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=rf"^run: {name}\[0\] has been resized or moved since"):
        machine.run()
    with pytest.raises(ValueError, match=rf"^launch: {name}\[0\] must have memory, its storage"):
        launch(machine, tensor)
    tensor = torch.zeros(32)
    launch(machine, tensor)
    tensor.resize_(1 << 20)
    with pytest.raises(ValueError, match=rf"^run: {name}\[0\] has been resized or moved since"):
        machine.run()
