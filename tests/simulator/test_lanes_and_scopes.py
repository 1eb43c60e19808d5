"""Where the order of lanes, of scopes and of readers meet: what is ordered, and what is not."""

import pytest
import torch

from tests.simulator.running import run

_SEEDS = range(20)

# Lane 0 tells lane 1 of its own warp; {release} and {acquire} are what orders the two.
_LANES = """
setp.eq.u32 %p1, %r0, 0;
setp.ne.u32 %p2, %r0, 1;
@%p1 bra WRITER;
@%p2 bra DONE;
AWAIT: ld.relaxed.gpu.global.u32 %r8, [%rd1];
setp.eq.u32 %p3, %r8, 0;
@%p3 bra AWAIT;
{acquire}
ld.global.u32 %r9, [%rd0];
st.global.u32 [%rd2], %r9;
bra DONE;
WRITER: st.global.u32 [%rd0], 7;
{release}
st.relaxed.gpu.global.u32 [%rd1], 1;
DONE:
"""
_FENCE = "fence.acq_rel.gpu;"


def _lanes(release: str, acquire: str, seed: int) -> int:
    data, flag, found = (torch.zeros(1, dtype=torch.int32) for _ in range(3))
    run(_LANES.format(release=release, acquire=acquire), [data, flag, found], seed=seed)
    return int(found)


def test_fences_around_relaxed_accesses_order_lanes_of_one_warp() -> None:
    assert [_lanes(_FENCE, _FENCE, seed) for seed in _SEEDS] == [7] * len(_SEEDS)


@pytest.mark.parametrize(("release", "acquire"), [("", ""), (_FENCE, ""), ("", _FENCE)])
def test_one_fence_orders_no_lanes(release: str, acquire: str) -> None:
    for seed in _SEEDS:
        with pytest.raises(RuntimeError, match=r"data race: .* lane 0 of warp 0"):
            _lanes(release, acquire, seed)


# CTA 0 reads %rd0 and raises a flag, which orders nothing; CTA 1 then writes.
_OVERWRITE = """
mov.u32 %r1, %ctaid.x;
setp.ne.u32 %p1, %r0, 0;
@%p1 bra DONE;
setp.ne.u32 %p2, %r1, 0;
@%p2 bra WRITER;
ld.relaxed.{read}.global.u32 %r2, [%rd0];
st.relaxed.gpu.global.u32 [%rd1], 1;
bra DONE;
WRITER: ld.relaxed.gpu.global.u32 %r8, [%rd1];
setp.eq.u32 %p3, %r8, 0;
@%p3 bra WRITER;
st.relaxed.{write}.global.u32 [%rd0], 1;
DONE:
"""


def _overwritten(read: str, write: str, seed: int) -> None:
    tensors = [torch.zeros(1, dtype=torch.int32) for _ in range(2)]
    run(_OVERWRITE.format(read=read, write=write), tensors, grid=2, seed=seed)


@pytest.mark.parametrize(("read", "write"), [("cta", "gpu"), ("gpu", "cta"), ("cluster", "sys")])
def test_an_atomic_write_races_with_a_read_of_too_narrow_a_scope(read: str, write: str) -> None:
    for seed in _SEEDS:
        with pytest.raises(RuntimeError, match=r"data race: .* read, .*\(both are atomic, in a sc"):
            _overwritten(read, write, seed)


@pytest.mark.parametrize(("read", "write"), [("gpu", "gpu"), ("sys", "gpu"), ("gpu", "sys")])
def test_an_atomic_write_may_follow_a_read_of_its_scope(read: str, write: str) -> None:
    for seed in _SEEDS:
        _overwritten(read, write, seed)
