"""Every form of mbarrier, and the copies of single lanes that mbarriers count."""

import re

import pytest
import torch
from torch import Tensor

from tests.simulator.running import run

_MODULE = """
.shared .align 16 .b8 buffer[1024];
.shared .align 8 .b64 barrier;
"""
_INIT = """
setp.eq.u32 %p1, %r0, 0;
mov.u32 %r1, buffer;
mov.u32 %r2, barrier;
@%p1 mbarrier.init.shared::cta.b64 [%r2], {count};
@%p1 fence.mbarrier_init.release.cluster;
bar.sync 0;
"""


def _report(body: str, count: int, *, block: int = 32, seed: int = 0) -> list[int]:
    """What thread 0 leaves in %r20 to %r23."""
    found = torch.zeros(4, dtype=torch.int32)
    stores = "\n".join(f"@%p1 st.global.u32 [%rd0+{4 * i}], %r{20 + i};" for i in range(4))
    run(_INIT.format(count=count) + body + stores, [found], module=_MODULE, block=block, seed=seed)
    return found.tolist()


def _test(state: str, to: str) -> str:
    return (
        f"@%p1 mbarrier.test_wait.shared::cta.b64 %p2, [%r2], {state}; "
        f"@%p1 selp.u32 {to}, 1, 0, %p2;"
    )


def test_a_state_tells_of_its_phase_and_what_was_missing(seed: int) -> None:
    body = f"""
    @%p1 mbarrier.arrive.shared::cta.b64 %rd10, [%r2], 2;
    {_test("%rd10", "%r20")}
    @%p1 mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %rd11, [%r2], 1;
    @%p1 mbarrier.pending_count.b64 %r21, %rd11;
    @%p1 mbarrier.arrive.release.cta.shared.b64 %rd12, [%r2], 4;
    @%p1 mbarrier.pending_count.b64 %r22, %rd12;
    {_test("%rd12", "%r23")}
    """
    assert _report(body, 7, seed=seed) == [0, 5, 4, 1]


def test_a_state_of_an_earlier_phase_counts_as_ended() -> None:
    body = f"""
    @%p1 mbarrier.arrive.shared::cta.b64 %rd10, [%r2];
    @%p1 mbarrier.arrive.shared::cta.b64 %rd11, [%r2];
    {_test("%rd10", "%r20")}
    {_test("%rd11", "%r21")}
    @%p1 mbarrier.arrive.shared::cta.b64 %rd12, [%r2];
    {_test("%rd12", "%r22")}
    """
    assert _report(body, 2) == [1, 1, 0, 0]


@pytest.mark.parametrize("wait", ["test_wait", "try_wait"])
@pytest.mark.parametrize("order", ["", ".acquire.cta", ".relaxed.cluster"])
def test_waits_by_parity(wait: str, order: str) -> None:
    hint = ", 1000" if wait == "try_wait" else ""
    lines = []
    for i, (parity, arrives) in enumerate([(1, False), (0, False), (0, True), (1, False)]):
        if arrives:
            lines.append("@%p1 mbarrier.arrive.shared::cta.b64 _, [%r2];")
        lines.append(
            f"@%p1 mbarrier.{wait}.parity{order}.shared::cta.b64 %p2, [%r2], {parity}{hint};"
        )
        lines.append(f"@%p1 selp.u32 %r{20 + i}, 1, 0, %p2;")
    assert _report("\n".join(lines), 1) == [1, 0, 1, 0]


def test_who_drops_out_is_not_expected_again(seed: int) -> None:
    # Four warps; warp 3 drops out in the first phase, warp 2 in the second, with bytes.
    body = """
    shr.u32 %r3, %r0, 5;
    setp.eq.u32 %p3, %r3, 3;
    setp.eq.u32 %p4, %r3, 2;
    and.b32 %r4, %r0, 31;
    setp.ne.u32 %p5, %r4, 0;
    @%p5 bra END;
    @%p3 mbarrier.arrive_drop.shared::cta.b64 _, [%r2];
    @%p3 bra END;
    mbarrier.arrive.shared::cta.b64 _, [%r2];
    FIRST: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra FIRST;
    @!%p4 bra STAYS;
    mbarrier.arrive_drop.expect_tx.shared::cta.b64 _, [%r2], 8;
    mbarrier.complete_tx.shared::cta.relaxed.cluster.b64 [%r2], 8;
    bra END;
    STAYS: mbarrier.arrive.shared::cta.b64 _, [%r2];
    SECOND: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 1;
    @!%p2 bra SECOND;
    mbarrier.arrive.shared::cta.b64 %rd12, [%r2];
    THIRD: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra THIRD;
    @%p1 mbarrier.arrive.shared::cta.b64 %rd12, [%r2];
    @%p1 mbarrier.pending_count.b64 %r20, %rd12;
    END: bar.sync 0;
    """
    assert _report(body, 4, block=128, seed=seed) == [2, 0, 0, 0]


def test_remote_arrivals_count_and_order(seed: int) -> None:
    # CTA 1 writes to CTA 0's buffer, then arrives at its mbarrier, once by a drop.
    body = f"""
    {_INIT.format(count=34)}
    mov.u32 %r9, %cluster_ctarank;
    setp.eq.u32 %p3, %r9, 0;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    mad.lo.u32 %r3, %r0, 4, %r1;
    @%p3 bra RECEIVE;
    mapa.shared::cluster.u32 %r4, %r3, 0;
    mapa.shared::cluster.u32 %r5, %r2, 0;
    st.shared::cluster.u32 [%r4], %r0;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r5];
    @%p1 mbarrier.arrive_drop.release.cluster.shared::cluster.b64 _, [%r5];
    @%p1 mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, [%r5], 16;
    @%p1 mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r5], 16;
    bra END;
    RECEIVE: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra RECEIVE;
    ld.shared.u32 %r6, [%r3];
    mad.wide.u32 %rd5, %r0, 4, %rd0;
    st.global.u32 [%rd5], %r6;
    END: barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    """
    found = torch.zeros(32, dtype=torch.int32)
    run(body, [found], module=_MODULE, grid=2, cluster=2, seed=seed)
    assert found.tolist() == list(range(32))


_OF_PEER = """
mapa.shared::cluster.u32 %r5, %r2, 1;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
_MISUSES = {
    "noComplete completes": (
        "@%p1 mbarrier.arrive.noComplete.shared::cta.b64 %rd10, [%r2], 2;",
        r"mbarrier misuse: .* ends the phase of .*, which .noComplete rules out",
    ),
    "drops more than are expected": (
        "@%p1 mbarrier.arrive_drop.shared::cta.b64 _, [%r2], 3;",
        r"mbarrier misuse: .* drops 3 arrivals of .*phase 0, 2 of 2 arrivals",
    ),
    "arrives after all have dropped out": (
        """@%p1 mbarrier.arrive_drop.shared::cta.b64 _, [%r2], 2;
        @%p1 mbarrier.arrive.shared::cta.b64 _, [%r2];""",
        r"mbarrier misuse: .* arrives 1 times",
    ),
    "waits at another CTA's": (
        _OF_PEER + "mbarrier.test_wait.parity.shared.b64 %p2, [%r5], 0;",
        r"mbarrier misuse: .* waits for an mbarrier of CTA rank 1: only its own CTA may",
    ),
}


@pytest.mark.parametrize("name", _MISUSES)
def test_misuse_is_found(name: str) -> None:
    body, message = _MISUSES[name]
    with pytest.raises(RuntimeError) as raised:
        run(_INIT.format(count=2) + body, module=_MODULE, grid=2, cluster=2)
    assert re.match(message, str(raised.value)), str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "mbarrier.arrive.release.cluster.shared::cluster.b64 %rd1, [%r2];",
        "mbarrier.arrive.noComplete.release.cluster.shared::cluster.b64 _, [%r2], 1;",
        "mbarrier.test_wait.parity.shared::cluster.b64 %p1, [%r2], 0;",
        "mbarrier.test_wait.parity.shared::cta.b64 %p1, [%r2], 0, 1000;",
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 8, 8;",
        "mbarrier.arrive.expect_arrivals.shared::cta.b64 _, [%r2];",
        "cp.async.mbarrier.leave.shared::cta.b64 [%r2];",
    ],
)
def test_forms_that_are_not_there_are_refused(line: str) -> None:
    with pytest.raises(NotImplementedError, match=r"^line \d+: (mbarrier|cp.async.mbarrier)\."):
        run(line, module=_MODULE)


# Warp 0 copies 16 bytes a lane, warp 1 waits for them and writes them out.
_LANE_COPIES = """
and.b32 %r4, %r0, 31;
mad.lo.u32 %r3, %r4, 16, %r1;
mad.wide.u32 %rd5, %r4, 16, %rd0;
mad.wide.u32 %rd6, %r4, 16, %rd1;
setp.ge.u32 %p3, %r0, 32;
@%p3 bra WAIT;
cp.async.cg.shared.global [%r3], [%rd5], 16;
{arrive}
cp.async.cg.shared.global [%r3+512], [%rd5+512], 16;
bra END;
WAIT: {wait}
ld.shared.v2.u64 {{%rd8, %rd9}}, [%r3];
st.global.v2.u64 [%rd6], {{%rd8, %rd9}};
END: bar.sync 0;
cp.async.wait_all;
"""
_UNTIL = "mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0; @!%p2 bra WAIT;"
_ARRIVE = "cp.async.mbarrier.arrive{}.shared::cta.b64 [%r2];"


def _lane_copies(arrive: str, count: int, wait: str = _UNTIL, seed: int = 0) -> None:
    values = torch.randint(2**62, (128,))
    found = torch.zeros(64, dtype=torch.int64)
    body = _INIT.format(count=count) + _LANE_COPIES.format(arrive=arrive, wait=wait)
    run(body, [values, found], module=_MODULE, block=64, seed=seed)
    assert torch.equal(found, values[:64])


def test_an_mbarrier_counts_the_copies_of_lanes() -> None:
    own = "mbarrier.arrive.shared::cta.b64 _, [%r2];"
    for seed in range(20):
        _lane_copies(_ARRIVE.format(".noinc"), 32, seed=seed)
        # Without .noinc the phase waits for what it does not expect, and for the others as ever.
        _lane_copies(_ARRIVE.format("") + own, 32, seed=seed)
        _lane_copies("cp.async.commit_group;" + _ARRIVE.format(".noinc"), 32, seed=seed)


def test_copies_that_nobody_counts_are_still_under_way() -> None:
    own = "mbarrier.arrive.shared::cta.b64 _, [%r2];"
    for seed in range(6):
        # The lanes arrive themselves, and the copies may be late.
        with pytest.raises(RuntimeError, match=r"still filling: .* ld.shared.v2.u64"):
            _lane_copies(own, 32, seed=seed)
        # The arrival is for what was copied before it.
        with pytest.raises(RuntimeError, match=r"still filling: .* ld.shared.v2.u64"):
            _lane_copies(_ARRIVE.format(".noinc"), 32, _UNTIL + "add.u32 %r3, %r3, 512;", seed)
        with pytest.raises(RuntimeError, match=r"still filling|uninitialised|overwrite in flight"):
            _lane_copies(_ARRIVE.format(".noinc"), 32, "", seed)


def test_a_phase_waits_for_as_many_arrivals_as_are_counted() -> None:
    with pytest.raises(RuntimeError, match=r"^deadlock: "):
        _lane_copies(_ARRIVE.format(""), 32)  # .noinc is missing
    for seed in range(6):
        with pytest.raises(RuntimeError, match=r"still filling: .* ld.shared.v2.u64"):
            _lane_copies(_ARRIVE.format(".noinc"), 31, seed=seed)


def _groups(wait: str, offset: int) -> Tensor:
    values, found = torch.arange(96, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    body = f"""
    mad.lo.u32 %r3, %r0, 4, %r1;
    mad.wide.u32 %rd5, %r0, 4, %rd0;
    mad.wide.u32 %rd6, %r0, 4, %rd1;
    cp.async.ca.shared.global [%r3], [%rd5], 4;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r3+128], [%rd5+128], 4;
    cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r2];
    cp.async.commit_group;
    cp.async.ca.shared.global [%r3+256], [%rd5+256], 4;
    {wait}
    ld.shared.u32 %r5, [%r3+{offset}];
    st.global.u32 [%rd6], %r5;
    cp.async.wait_all;
    """
    run(_INIT.format(count=32) + body, [values, found], module=_MODULE)
    return found


def test_groups_are_waited_for_beside_an_mbarrier() -> None:
    expected = torch.arange(96, dtype=torch.int32).view(3, 32)
    assert torch.equal(_groups("cp.async.wait_group 1;", 0), expected[0])
    assert torch.equal(_groups("cp.async.wait_group 0;", 128), expected[1])
    assert torch.equal(_groups("cp.async.wait_all;", 256), expected[2])
    for wait, offset in (("1", 128), ("0", 256)):
        with pytest.raises(RuntimeError, match=r"still filling: .* ld.shared.u32"):
            _groups(f"cp.async.wait_group {wait};", offset)


def test_copies_after_a_wait_for_all_are_not_waited_for() -> None:
    body = """
    mad.lo.u32 %r3, %r0, 4, %r1;
    mad.wide.u32 %rd5, %r0, 4, %rd0;
    cp.async.ca.shared.global [%r3], [%rd5], 4;
    cp.async.wait_all;
    ld.shared.u32 %r5, [%r3];
    cp.async.ca.shared.global [%r3+128], [%rd5], 4;
    {wait}
    ld.shared.u32 %r5, [%r3+128];
    """
    wait = "cp.async.wait_all;"
    run(_INIT.format(count=1) + body.format(wait=wait), [torch.zeros(32)], module=_MODULE)
    with pytest.raises(RuntimeError, match=r"still filling: .* ld.shared.u32"):
        run(_INIT.format(count=1) + body.format(wait=""), [torch.zeros(32)], module=_MODULE)


def test_a_fence_covers_what_was_written_before_it() -> None:
    body = """
    mad.lo.u32 %r3, %r0, 4, %r1;
    {before}
    fence.proxy.async.shared::cta;
    {after}
    bar.sync 0;
    @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r1], 128;
    @%p1 cp.async.bulk.commit_group;
    @%p1 cp.async.bulk.wait_group 0;
    """
    store = "st.shared.u32 [%r3], %r0;"
    found = torch.zeros(32, dtype=torch.int32)
    run(_INIT.format(count=1) + body.format(before=store, after=""), [found], module=_MODULE)
    assert found.tolist() == list(range(32))
    with pytest.raises(RuntimeError, match=r"missing proxy fence: .* cp.async.bulk"):
        run(_INIT.format(count=1) + body.format(before=store, after=store), [found],
            module=_MODULE)  # fmt: skip
