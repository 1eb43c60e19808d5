"""Misused mbarriers and instructions that part of a warp or warpgroup executes are found."""

import re

import pytest
import torch

from csrc import simulator
from tests.simulator.planted import SEEDS, Launch, assert_clean, assert_found, found, names, places
from tests.simulator.running import source

pytestmark = pytest.mark.compile

_CLUSTER = Launch(grid=2, cluster=2)
_WARPS = Launch(block=64)
_WARPGROUP = Launch(block=128)
_WARPGROUPS = Launch(block=384)

_THREAD = r"thread \(\d+, 0, 0\) of CTA \([01], 0, 0\) at "
_NO_OBJECT = r".* uses shared address 0, where no mbarrier was initialised$"
_UNORDERED = r".*\(phase 0, 1 of 1 arrivals and 0 bytes missing\), and no barrier of threads is bet"
_IN_USE = r".* of CTA rank 0 \(phase \d, .*\), which is in use: "
_OBJECT = r".* touches the bytes of the mbarrier at shared address 0$"
_OVERFLOW = r".* more bytes than the 1048575 that a barrier counts, at the mbarrier at shared addr"

_MBARRIERS = {
    "use_before_init": (Launch(), r"mbarrier\.arrive" + _NO_OBJECT),
    "use_without_barrier": (_WARPS, rf"mbarrier\.arrive({_NO_OBJECT}|{_UNORDERED})"),
    "init_without_fence": (
        _CLUSTER,
        (
            r"cp\.async\.bulk.* lets a copy use the mbarrier at shared address 0 of CTA rank 1 "
            r"\(phase 0, 0 of 1 arrivals and 1024 bytes missing\), and no fence\.mbarrier_init"
        ),
    ),
    "remote_without_barrier": (_CLUSTER, rf"mbarrier\.arrive({_NO_OBJECT}|{_UNORDERED})"),
    "init_in_use": (_WARPS, rf"mbarrier\.(init{_IN_USE}nothing orders|try_wait.* no barrier of)"),
    "init_under_copy": (_WARPS, rf"mbarrier\.init{_IN_USE}1024 bytes of copies are under way$"),
    "invalidate_in_use": (
        _WARPS,
        rf"mbarrier\.(inval{_IN_USE}nothing orders this|try_wait{_NO_OBJECT})",
    ),
    "use_after_invalidate": (_WARPS, r"mbarrier\.arrive" + _NO_OBJECT),
    "load_of_object": (_WARPS, r"ld\.\S*shared" + _OBJECT),
    "store_to_object": (_WARPS, r"st\.\S*shared" + _OBJECT),
    "too_few_bytes": (
        _WARPS,
        (
            r"cp\.async\.bulk.* ends a phase of the mbarrier at shared address 0 of CTA rank 0 .*"
            r"while 1024 bytes of its copies are still under way: fewer bytes are expected"
        ),
    ),
    "expects_overflow": (_WARPS, r"mbarrier\.expect_tx.* announces" + _OVERFLOW),
    "arrival_overflows": (_WARPS, r"mbarrier\.arrive\.expect_tx.* announces" + _OVERFLOW),
    "completes_underflow": (_WARPS, r"mbarrier\.complete_tx.* brings" + _OVERFLOW),
    "too_many_arrivals": (
        _WARPS,
        (
            r"mbarrier\.arrive.* arrives 1 times at the mbarrier at shared address 0 of CTA rank 0 "
            r"\(phase 0, 0 of 63 arrivals and 16 bytes missing\)$"
        ),
    ),
    "no_arrival_expected": (_WARPS, r"mbarrier\.init.* expects 0 arrivals$"),
}

# What a wrong phase leads to depends on who comes first, but it always leads to something.
_DEADLOCK = r"deadlock: every warp waits\n"
_UNREADY = r"(still filling|uninitialised|data race): thread \(\d+, 0, 0\) of CTA \(0, 0, 0\) at ld"
_REFILLED = rf"overwrite in flight: {_THREAD}cp\.async|mbarrier misuse: {_THREAD}mbarrier\.arrive"
_PHASES = {
    "fewer_bytes": _DEADLOCK + r".* 0 of 1 arrivals and -16 bytes missing",
    "too_many_bytes": _DEADLOCK + r".* 0 of 1 arrivals and 16 bytes missing",
    "too_few_arrivals_expected": _UNREADY,
    "consumer_ahead": f"{_DEADLOCK}|{_UNREADY}",
    "consumer_stays": f"{_DEADLOCK}|{_UNREADY}",
    "consumer_skips": _UNREADY,
    "consumer_forgets": _UNREADY,
    "producer_behind": _DEADLOCK,
    "producer_stays": f"{_DEADLOCK}|{_REFILLED}",
    "producer_forgets": _REFILLED,
    "reader_ahead": f"{_DEADLOCK}|{_UNREADY}",
}

_WARP = r"CTA \(0, 0, 0\) warp \d+: "
_HALVES = rf"divergent warp: {_WARP}16 lanes at {{}}.* wait for the warp's other lanes.*; 16 lanes "
_PART = rf"divergent warpgroup: {{}} by part of a warp, {_WARP}16 lanes at {{}}"
_ENDS = (
    r"divergent warpgroup: warp \d executes {}.*, and warp \d of its warpgroup ends without it, "
    r"CTA \(0, 0, 0\)$"
)
_DESCRIPTORS = rf"divergent warpgroup: the warps of a warpgroup give different .*, {_WARP}32 lanes"
_BUDGET = rf"register budget: setmaxnreg asks for {{}} .* the 168 that it has, {_WARP}32 lanes at"
_GROWTH = (
    _DEADLOCK + r".*32 lanes at setmaxnreg\.inc.* wait for {} more registers a thread \({} are free"
)
_DIVERGENCE = {
    "wgmma_by_half_a_warp": (_WARPGROUP, _HALVES.format("wgmma")),
    "wgmma_by_the_rest": (_WARPGROUP, _PART.format("wgmma", "wgmma")),
    "wgmma_by_one_warp": (_WARPGROUP, _ENDS.format("wgmma")),
    "wgmma_by_three_warps": (
        _WARPGROUP,
        _DEADLOCK + r".*32 lanes at wgmma\.wait_group.* wait for the other warps of the warpgroup",
    ),
    "wgmma_descriptors_of_warps": (_WARPGROUP, _DESCRIPTORS),
    "wgmma_descriptors_of_lanes": (
        _WARPGROUP,
        rf"divergent warpgroup: the lanes of a warp give different descriptors, {_WARP}32 lanes at",
    ),
    "wgmma_accumulates_in_one_warp": (_WARPGROUP, _DESCRIPTORS),
    "wgmma_accumulates_in_some_lanes": (
        _WARPGROUP,
        rf"divergent warpgroup: 1 lanes accumulate and others do not, {_WARP}32 lanes at wgmma",
    ),
    "registers_of_one_warp": (_WARPGROUPS, _ENDS.format("setmaxnreg")),
    "registers_of_half_a_warp": (_WARPGROUPS, _HALVES.format("setmaxnreg")),
    "registers_of_the_rest": (_WARPGROUPS, _PART.format("setmaxnreg", "setmaxnreg")),
    "registers_differ": (
        _WARPGROUPS,
        rf"divergent warpgroup: setmaxnreg to 4[08] registers, another warp .* to 4[08], {_WARP}",
    ),
    "registers_beyond_budget": (_WARPGROUPS, _GROWTH.format(72, r"\d+")),
    "registers_nobody_gave": (_WARPGROUPS, _GROWTH.format(64, 0)),
    "registers_grow_to_less": (_WARPGROUPS, _BUDGET.format(160)),
    "registers_shrink_to_more": (_WARPGROUPS, _BUDGET.format(176)),
    "barrier_in_both_branches": (_WARPS, _HALVES.format("bar.sync")),
    "barrier_in_one_branch": (_WARPS, _HALVES.format("bar.sync")),
    "barrier_with_predicate": (
        _WARPS,
        rf"divergent warp: the predicate holds for 16 of the lanes, {_WARP}32 lanes at bar\.sync",
    ),
    "barrier_counts_differ": (
        _WARPS,
        rf"barrier misuse: {_THREAD}bar\.sync.* expects (64 threads, others expect 96|96.* 64)$",
    ),
    "barrier_counts_differ_from_all": (
        _WARPS,
        rf"barrier misuse: {_THREAD}bar\.sync.* expects (64 threads, others expect 96|96.* 64)$",
    ),
    "barrier_too_many_threads": (
        _WARPS,
        (
            rf"barrier misuse: {_THREAD}barrier\.sync.* is one of 48 threads that have arrived "
            rf"at barrier 1, where 32 are .*|{_DEADLOCK}.* wait for barrier 1 \(16 of 32 threads"
        ),
    ),
    "cluster_barrier_divergent": (Launch(), _HALVES.format("barrier.cluster.arrive")),
    "cluster_barrier_twice": (
        Launch(),
        rf"barrier misuse: a thread arrives twice at the cluster's barrier, {_WARP}32 lanes at bar",
    ),
    "matrix_by_half_a_warp": (Launch(), _HALVES.format("stmatrix")),
}


def test_each_pair_has_its_finding() -> None:
    assert sorted([*_MBARRIERS, *_PHASES]) == sorted(names("barriers.cu"))
    assert sorted(_DIVERGENCE) == sorted(names("divergence.cu"))


@pytest.mark.parametrize("name", _MBARRIERS)
def test_misuse_of_an_mbarrier_is_found(name: str) -> None:
    launch, pattern = _MBARRIERS[name]
    assert_found("barriers.cu", name, launch, f"mbarrier misuse: {_THREAD}{pattern}")


@pytest.mark.parametrize("name", _MBARRIERS)
def test_proper_use_of_an_mbarrier_is_clean(name: str) -> None:
    assert_clean("barriers.cu", name, _MBARRIERS[name][0])


@pytest.mark.parametrize("name", _PHASES)
def test_a_wrong_phase_is_never_silent(name: str) -> None:
    for seed in SEEDS:
        text = found("barriers.cu", name, _WARPS, seed)
        assert re.match(_PHASES[name], text, re.DOTALL), f"seed {seed}: {text or 'nothing found'}"


def test_each_copy_of_an_unrolled_loop_names_its_own_wait() -> None:
    (empty,), (full,) = (places("barriers.cu", f"ring: {name}") for name in ("empty", "full"))
    texts = [found("barriers.cu", "consumer_stays", _WARPS, seed) for seed in SEEDS]
    stuck = [line for text in texts if text.startswith("deadlock") for line in text.split("\n")[1:]]
    assert stuck
    for line in stuck:
        mine, other = (empty, full) if "warp 0:" in line else (full, empty)
        assert mine in line, line
        assert other not in line, line


@pytest.mark.parametrize("name", _PHASES)
def test_the_right_phase_is_clean(name: str) -> None:
    for memory in assert_clean("barriers.cu", name, _WARPS):
        if name.startswith(("consumer", "producer")):
            # The sixth box is the second of the tensor's four.
            assert memory.data[:32].tolist() == list(range(256, 288))
        elif name == "reader_ahead":
            assert memory.data[:32].tolist() == [5] * 32


@pytest.mark.parametrize("name", _DIVERGENCE)
def test_divergence_is_found(name: str) -> None:
    launch, pattern = _DIVERGENCE[name]
    assert_found("divergence.cu", name, launch, pattern)


@pytest.mark.parametrize("name", _DIVERGENCE)
def test_convergence_is_clean(name: str) -> None:
    assert_clean("divergence.cu", name, _DIVERGENCE[name][0])


@pytest.mark.parametrize("count", [20, 41, 44, 257, 264])
@pytest.mark.parametrize("way", ["inc", "dec"])
def test_a_number_of_registers_that_cannot_be(count: int, way: str) -> None:
    module = simulator.load(source(f"setmaxnreg.{way}.sync.aligned.u32 {count};"))
    with pytest.raises(
        NotImplementedError, match=rf"line \d+: setmaxnreg\.{way}.* from 24 to 256, a multiple of 8"
    ):
        module["kernel"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_warp_may_end_before_a_barrier_of_all(seed: int) -> None:
    """Hopper waits for the threads that have not ended, and some kernels rely on it."""
    body = """
    setp.gt.u32 %p1, %r0, 40;
    @%p1 exit;
    bar.sync 0;
    mad.wide.u32 %rd1, %r0, 4, %rd0;
    st.global.u32 [%rd1], 1;
    """
    memory = torch.zeros(64, dtype=torch.int32)
    loaded = simulator.load(source(body, 1))["kernel"]
    with simulator.Machine(seed=seed) as machine:
        machine.launch(loaded, 1, 96, args=[memory])
        machine.run()
    assert memory.tolist() == [1] * 41 + [0] * 23


def test_the_check_of_findings_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="seed 0: mbarrier misuse"):
        assert_found("barriers.cu", "no_arrival_expected", _WARPS, "data race")
    with pytest.raises(AssertionError, match="seed 0: mbarrier misuse"):
        assert_found("barriers.cu", "no_arrival_expected", _WARPS, "", "use_before_init")
    monkeypatch.setattr("tests.simulator.planted.found", lambda *_: "")
    with pytest.raises(AssertionError, match="seed 0: nothing found"):
        assert_found("barriers.cu", "no_arrival_expected", _WARPS, "mbarrier")
    with pytest.raises(AssertionError, match="must mark"):
        assert_found("barriers.cu", "consumer_ahead", _WARPS, "")
