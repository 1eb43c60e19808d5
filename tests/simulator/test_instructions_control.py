"""Branches, ends and instructions that only advise."""

import numpy as np
import pytest
import torch

from csrc import simulator
from tests.simulator.running import per_thread, run, source


def test_indexed_branches(seed: int) -> None:
    """Each lane to its own place; a guard keeps some where they are."""
    found = torch.zeros(32, dtype=torch.int32)
    body = """rem.u32 %r1, %r0, 3; mov.b32 %r2, 7; setp.lt.u32 %p1, %r0, 30;
    to: .branchtargets A, B, A; @%p1 brx.idx %r1, to; bra.uni END;
    A: mov.b32 %r2, 1; bra.uni END; B: mov.b32 %r2, 2;
    END: mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.b32 [%rd5], %r2;"""
    run(body, [found], seed=seed)
    assert found.tolist() == [7 if i >= 30 else 2 if i % 3 == 1 else 1 for i in range(32)]


def test_an_index_beyond_the_targets_is_found() -> None:
    with pytest.raises(RuntimeError, match=r"out of bounds: brx.idx with index 5 of 1 targets"):
        run("mov.b32 %r1, 5; to: .branchtargets A; brx.idx %r1, to; A: ret;")


@pytest.mark.parametrize("how", ["exit", "ret", "ret.uni"])
def test_threads_end_one_by_one(how: str) -> None:
    found = torch.zeros(32, dtype=torch.int32)
    body = f"""setp.lt.u32 %p1, %r0, 9; @%p1 {how}; mad.wide.u32 %rd5, %r0, 4, %rd0;
    st.global.b32 [%rd5], 1;"""
    run(body, [found])
    assert found.tolist() == [0] * 9 + [1] * 23


@pytest.mark.parametrize("how", ["trap", "brkpt"])
def test_a_kernel_stops_itself(how: str) -> None:
    with pytest.raises(RuntimeError, match=r"trap: the kernel stopped itself, CTA \(0, 0, 0\)"):
        run(f"setp.eq.u32 %p1, %r0, 3; @%p1 {how};")
    run(f"setp.eq.u32 %p1, %r0, 77; @%p1 {how};")


def test_advice_changes_nothing() -> None:
    memory = torch.arange(64, dtype=torch.int32)
    body = """prefetch.global.L2 [%rd0]; prefetchu.L1 [%rd0]; prefetch.global.L2::evict_last [%rd0];
    applypriority.global.L2::evict_normal [%rd0], 128; pmevent 3; nanosleep.u32 %r0;
    createpolicy.fractional.L2::evict_last.b64 %rd5, 1.0;
    ld.global.L2::cache_hint.b32 %r1, [%rd0+8], %rd5; st.global.b32 [%rd0+4], %r1;"""
    run(body, [memory], block=1)
    assert memory.tolist() == [0, 2, *range(2, 64)]


def test_a_launch_alone_waits_for_no_other() -> None:
    memory = torch.zeros(1, dtype=torch.int32)
    body = "griddepcontrol.wait; griddepcontrol.launch_dependents; st.global.b32 [%rd0], 5;"
    run(body, [memory], block=1)
    assert memory.tolist() == [5]


def test_registers_go_from_one_warpgroup_to_others(seed: int) -> None:
    """The others wait until the first has given up enough; if it does not, for ever."""
    memory = torch.zeros(384, dtype=torch.int32)
    body = """setp.lt.u32 %p1, %r0, 128; mov.b32 %r1, 1; @%p1 bra FIRST;
    setmaxnreg.inc.sync.aligned.u32 240; mov.b32 %r1, 2; bra.uni END;
    FIRST: setmaxnreg.dec.sync.aligned.u32 24;
    END: mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.b32 [%rd5], %r1;"""
    run(body, [memory], block=384, seed=seed)
    assert memory.tolist() == [1] * 128 + [2] * 256
    with pytest.raises(RuntimeError, match="deadlock: every warp waits"):
        run(
            body.replace("dec.sync.aligned.u32 24", "dec.sync.aligned.u32 160"), [memory], block=384
        )
    with pytest.raises(RuntimeError, match="register budget: setmaxnreg asks for 240 registers"):
        run("setmaxnreg.dec.sync.aligned.u32 240;", block=384)


def test_what_is_discarded_is_lost() -> None:
    memory = torch.zeros(96, dtype=torch.int32)
    begin = (-memory.data_ptr() % 128) // 4  # of the words of a line of 128 bytes
    run(f"discard.global.L2 [%rd0+{4 * begin}], 128;", [memory], block=1)
    lost = np.flatnonzero(memory.numpy() != 0)
    assert lost.tolist() == list(range(begin, begin + 32))
    with pytest.raises(RuntimeError, match=r"misaligned: .* must be a multiple of 128"):
        run(f"discard.global.L2 [%rd0+{4 * begin + 4}], 128;", [memory], block=1)


def test_addresses_of_a_cluster_tell_their_rank() -> None:
    found = torch.zeros(4, dtype=torch.int32)
    body = """.shared .b32 mine; mov.u32 %r1, mine; mov.u32 %r2, %cluster_ctarank;
    xor.b32 %r3, %r2, 1; mapa.shared::cluster.u32 %r4, %r1, %r3;
    getctarank.shared::cluster.u32 %r5, %r4;
    cvt.u64.u32 %rd6, %r4; cvta.shared::cluster.u64 %rd6, %rd6; getctarank.u64 %r6, %rd6;
    isspacep.shared::cta %p1, %rd6; isspacep.shared::cluster %p2, %rd6; selp.b32 %r7, 100, 0, %p1;
    selp.b32 %r8, 1000, 0, %p2; mad.lo.u32 %r5, %r6, 10, %r5; add.u32 %r5, %r5, %r7;
    add.u32 %r5, %r5, %r8; mov.u32 %r9, %ctaid.x; mad.wide.u32 %rd5, %r9, 4, %rd0;
    st.global.b32 [%rd5], %r5;"""
    run(body, [found], grid=4, block=1, cluster=2)
    assert found.tolist() == [1011, 1000, 1011, 1000]


def test_one_lane_of_a_mask_is_elected() -> None:
    """The lowest of those that run; all learn which."""
    found = torch.zeros(32, dtype=torch.int32)
    body = """mov.b32 %r2, -1; setp.ge.u32 %p1, %r0, 5; @!%p1 bra OUT;
    elect.sync %r2|%p2, 0xFFFFFFE0; @%p2 add.u32 %r2, %r2, 100;
    OUT: mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.b32 [%rd5], %r2;"""
    run(body, [found])
    assert found.tolist() == [-1] * 5 + [105] + [5] * 26


def test_registers_are_written_in_the_lanes_that_run_alone() -> None:
    body = """mov.b64 %rd20, 1; setp.lt.u32 %p1, %r0, 5; @%p1 add.u64 %rd20, %rd20, 8;
    @!%p1 bra REST; add.u64 %rd20, %rd20, 16; REST: """
    assert per_thread(body, out=torch.int64).tolist() == [25] * 5 + [1] * 27


@pytest.mark.parametrize(
    "text",
    [
        "bra.weird A; A: ret",
        "brx A; A: ret",
        "ret.now",
        "exit.now",
        "trap.now",
        "discard.L1 [%rd1], 128",
        "discard.global.L2 [%rd1], 64",
        "applypriority.global.L2::evict_last [%rd1], 128",
        "isspacep.shared::other %p1, %rd1",
        "prefetchu.L2 [%rd1]",
        "alloca.f32 %f1, %f2",
    ],
)
def test_forms_that_are_not_there(text: str) -> None:
    module = simulator.load(source(f"{text};"))
    with pytest.raises(NotImplementedError):
        module["kernel"]
