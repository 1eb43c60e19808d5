"""Warps, barriers and memory of the simulated machine, and what it says of kernels that err."""

import re

import numpy as np
import pytest
import torch

from csrc import simulator
from tests.simulator.running import per_thread, run, source


def _wrap(values: np.ndarray) -> list[int]:
    return [int(v) & 0xFFFFFFFF for v in values]


_SHUFFLES = {
    "up": (3, 0, lambda lane: lane - 3 if lane >= 3 else lane),
    "down": (5, 31, lambda lane: lane + 5 if lane + 5 < 32 else lane),
    "bfly": (6, 31, lambda lane: lane ^ 6),
    "idx": (9, 31, lambda _: 9),
}


@pytest.mark.parametrize("mode", _SHUFFLES)
def test_shuffles(mode: str) -> None:
    by, clamp, source_of = _SHUFFLES[mode]
    body = f"shfl.sync.{mode}.b32 %r1, %r0, {by}, {clamp}, -1; cvt.u64.u32 %rd20, %r1;"
    found = per_thread(body, out=torch.int32)
    assert found.tolist() == [source_of(lane) for lane in range(32)]


def test_votes_matches_and_reductions() -> None:
    body = """
    setp.lt.u32 %p1, %r0, 10;
    vote.sync.ballot.b32 %r1, %p1, -1;
    and.b32 %r2, %r0, 1;
    match.any.sync.b32 %r3, %r2, -1;
    redux.sync.add.s32 %r4, %r0, -1;
    @%p1 bra FEW;
    add.s32 %r4, %r4, 1000;
    FEW:
    xor.b32 %r6, %r1, %r3;
    add.s32 %r6, %r6, %r4;
    cvt.u64.u32 %rd20, %r6;
    """
    found = per_thread(body, out=torch.int32)
    expected = []
    for lane in range(32):
        same = 0xAAAAAAAA if lane & 1 else 0x55555555
        expected.append(((0x3FF ^ same) + 496 + (0 if lane < 10 else 1000)) & 0xFFFFFFFF)
    assert _wrap(found.numpy()) == expected


def test_lanes_that_diverge_make_progress_against_each_other(seed: int) -> None:
    """A spin lock among the lanes of one warp: whoever holds it needs its turn."""
    counter = torch.zeros(2, dtype=torch.int32)
    body = """
    add.u64 %rd1, %rd0, 4;
    AGAIN:
    atom.global.cas.b32 %r1, [%rd1], 0, 1;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra AGAIN;
    ld.volatile.global.u32 %r2, [%rd0];
    add.u32 %r2, %r2, 1;
    st.volatile.global.u32 [%rd0], %r2;
    st.volatile.global.u32 [%rd1], 0;
    """
    run(body, [counter], grid=3, block=96, seed=seed)
    assert counter.tolist() == [3 * 96, 0]


def test_loops_end_for_each_lane_by_itself() -> None:
    body = """
    mov.u32 %r1, 0;
    mov.u32 %r2, 0;
    LOOP:
    setp.ge.u32 %p1, %r2, %r0;
    @%p1 bra DONE;
    add.u32 %r1, %r1, %r2;
    add.u32 %r2, %r2, 1;
    bra LOOP;
    DONE:
    cvt.u64.u32 %rd20, %r1;
    """
    assert per_thread(body, out=torch.int32).tolist() == [n * (n - 1) // 2 for n in range(32)]


_SHARED = ".shared .align 16 .b8 buffer[4096];"


@pytest.mark.parametrize("block", [32, 64, 100, 256])
def test_a_block_reverses_through_shared_memory(block: int, seed: int) -> None:
    x = torch.arange(block, dtype=torch.int32)
    result = torch.zeros(block, dtype=torch.int32)
    body = f"""
    {_SHARED}
    mov.u32 %r1, buffer;
    shl.b32 %r2, %r0, 2;
    cvt.u64.u32 %rd5, %r2;
    add.u64 %rd6, %rd0, %rd5;
    ld.global.u32 %r3, [%rd6];
    add.u32 %r4, %r1, %r2;
    st.shared.u32 [%r4], %r3;
    bar.sync 0;
    sub.u32 %r5, {4 * (block - 1)}, %r2;
    add.u32 %r5, %r5, %r1;
    ld.shared.u32 %r6, [%r5];
    add.u64 %rd7, %rd1, %rd5;
    st.global.u32 [%rd7], %r6;
    """
    run(body, [x, result], block=block, seed=seed)
    assert result.tolist() == list(reversed(range(block)))


def test_a_cluster_reads_its_neighbours_memory(seed: int) -> None:
    result = torch.zeros(8, dtype=torch.int32)
    body = f"""
    {_SHARED}
    mov.u32 %r1, buffer;
    mov.u32 %r2, %cluster_ctarank;
    mov.u32 %r9, %ctaid.x;
    mul.lo.u32 %r3, %r9, 10;
    st.shared.u32 [%r1], %r3;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    xor.b32 %r4, %r2, 1;
    mapa.shared::cluster.u32 %r5, %r1, %r4;
    ld.shared::cluster.u32 %r6, [%r5];
    mad.wide.u32 %rd5, %r9, 4, %rd0;
    st.global.u32 [%rd5], %r6;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    """
    run(body, [result], grid=8, cluster=4, seed=seed)
    assert result.tolist() == [10, 0, 30, 20, 50, 40, 70, 60]


def test_the_same_seed_runs_the_same_way() -> None:
    def order(seed: int) -> list[int]:
        tickets = torch.zeros(65, dtype=torch.int32)
        body = """
        atom.global.add.u32 %r1, [%rd0], 1;
        mov.u32 %r2, %ctaid.x;
        mad.lo.u32 %r2, %r2, 32, %r0;
        mad.wide.u32 %rd1, %r2, 4, %rd0;
        st.global.u32 [%rd1+4], %r1;
        """
        run(body, [tickets], grid=2, block=32, seed=seed)
        return tickets.tolist()

    assert order(3) == order(3)
    assert any(order(3) != order(seed) for seed in range(4, 12))


_GLOBAL_STORE = "mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.u32 [%rd5], %r0;"
_FINDINGS = {
    "out of bounds: global": (
        _GLOBAL_STORE,
        (
            r"out of bounds: thread \(16, 0, 0\) of CTA \(0, 0, 0\) at st.global.u32 at line \d+ .*"
            r" touches 4 bytes at 0x\w+: 0 bytes behind args\[0\]"
        ),
    ),
    "out of bounds: shared": (
        f"{_SHARED} mov.u32 %r1, buffer; st.shared.u32 [%r1+4096], %r0;",
        r"out of bounds: .* st.shared.u32 .* the CTA has 4096 bytes of shared memory",
    ),
    "out of bounds: another CTA's": (
        f"{_SHARED} mov.u32 %r1, buffer; mapa.shared::cluster.u32 %r2, %r1, 5;",
        r"out of bounds: mapa names CTA 5 of 1",
    ),
    "misaligned": (
        "st.global.u32 [%rd0+2], %r0;",
        r"misaligned: thread \(0, 0, 0\) .* which must be a multiple of 4",
    ),
    "deadlock": (
        "mov.u32 %r1, 64; setp.eq.u32 %p1, %r0, 99; bar.sync 1, 64;",
        r"deadlock: every warp waits\n  CTA \(0, 0, 0\) warp 0: 32 lanes at bar.sync at line",
    ),
    "trap": ("trap;", r"trap: the kernel stopped itself"),
    "mbarrier: before init": (
        f"{_SHARED} mov.u32 %r1, buffer; mbarrier.arrive.shared::cta.b64 _, [%r1];",
        r"mbarrier misuse: .* where no mbarrier was initialised",
    ),
    "mbarrier: too many": (
        f"""{_SHARED} mov.u32 %r1, buffer; setp.eq.u32 %p1, %r0, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r1], 20; bar.sync 0;
        @%p1 mbarrier.arrive.shared::cta.b64 _, [%r1], 21;""",
        r"mbarrier misuse: .* arrives 21 times at the mbarrier .*phase 0, 20 of 20 arrivals",
    ),
    "mbarrier: nobody comes": (
        f"""{_SHARED} mov.u32 %r1, buffer; setp.eq.u32 %p1, %r0, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r1], 1; bar.sync 0;
        WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0; @!%p2 bra WAIT;""",
        r"deadlock: .*mbarrier.try_wait",
    ),
    "cluster barrier": ("barrier.cluster.wait.aligned;", r"waits at the cluster's barrier before"),
    "barrier: no multiple of 32": ("bar.sync 0, 40;", r"expects 40 threads, which is no multiple"),
}


@pytest.mark.parametrize("name", _FINDINGS)
def test_what_no_kernel_may_do_is_found(name: str) -> None:
    body, message = _FINDINGS[name]
    memory = torch.zeros(16, dtype=torch.int32)
    with pytest.raises(RuntimeError) as raised:
        run(body, [memory])
    assert re.search(message, str(raised.value), re.DOTALL), str(raised.value)


def test_a_machine_goes_on_after_an_error() -> None:
    memory = torch.zeros(32, dtype=torch.int32)
    good = simulator.load(source(_GLOBAL_STORE, 1))["kernel"]
    bad = simulator.load(source("trap;", 1))["kernel"]
    with simulator.Machine() as machine:
        machine.launch(bad, 1, 32, args=[memory])
        with pytest.raises(RuntimeError, match="trap"):
            machine.run()
        machine.launch(good, 1, 32, args=[memory])
        assert machine.run()["num_ctas"] == 1
    assert memory.tolist() == list(range(32))


def test_what_the_simulator_does_not_know_is_an_error() -> None:
    module = simulator.load(source("add.s32.what %r1, %r0, 1;"))
    with pytest.raises(NotImplementedError, match=r"line \d+: add.s32.what: .*know .what here"):
        module["kernel"]
    module = simulator.load(source("tcgen05.alloc.cta_group::1.b32 [%rd0], 1;"))
    with pytest.raises(NotImplementedError, match=r"tcgen05.* does not know this instruction"):
        module["kernel"]
    with pytest.raises(ValueError, match="line 1"):
        simulator.load("no ptx at all")
