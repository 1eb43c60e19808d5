"""A deadlock is told: each warp, what it waits for, in which state that is, and the line."""

import re

import pytest

from tests.simulator.planted import (
    SEEDS,
    Launch,
    assert_clean,
    found,
    names,
    places,
    ptx,
)

pytestmark = pytest.mark.compile

_SOURCE = "deadlock.cu"
_CLUSTER = Launch(grid=2, cluster=2)
_WAIT = "mbarrier.try_wait.parity"
_MISSING = "phase {}, {} of {} arrivals and {} bytes missing"

# By pair: the launch, and for each warp that is stuck its CTA and number, the instruction, the
# mark of its line, and what it waits for.
_STUCK = {
    "all_kinds": (
        Launch(block=96),
        [
            (
                0,
                0,
                _WAIT,
                "arrivals",
                f"mbarrier at 0 of CTA rank 0 ({_MISSING.format(0, 1, 3, 0)})",
            ),
            (0, 1, _WAIT, "bytes", f"mbarrier at 8 of CTA rank 0 ({_MISSING.format(1, 0, 1, 48)})"),
            (0, 2, "bar.sync", "named", "barrier 5 (32 of 96 threads have arrived)"),
        ],
    ),
    "missing_warp": (
        Launch(block=96),
        [
            (0, 0, "bar.sync", "", "barrier 2 (64 of 96 threads have arrived)"),
            (0, 2, "bar.sync", "", "barrier 2 (64 of 96 threads have arrived)"),
        ],
    ),
    "cluster_and_message": (
        _CLUSTER,
        [
            (
                0,
                0,
                "barrier.cluster.wait",
                "cluster",
                "the cluster's barrier (32 of 64 threads have arrived)",
            ),
            (
                1,
                0,
                _WAIT,
                "mbarrier",
                f"mbarrier at 0 of CTA rank 1 ({_MISSING.format(0, 1, 1, 0)})",
            ),
        ],
    ),
    "circle_of_ctas": (
        _CLUSTER,
        [
            (cta, 0, _WAIT, "", f"mbarrier at 0 of CTA rank {cta} ({_MISSING.format(0, 1, 1, 0)})")
            for cta in (0, 1)
        ],
    ),
    "registers": (
        Launch(block=256),
        [
            *((0, i, "bar.sync", "given", "barrier 0 (128 of all threads") for i in range(4)),
            *(
                (0, i, "setmaxnreg.inc", "wanted", "8 more registers a thread (0 are free)")
                for i in range(4, 8)
            ),
        ],
    ),
}


def test_each_pair_has_its_report() -> None:
    assert sorted([*_STUCK, "lanes_of_a_warp"]) == sorted(names(_SOURCE))


@pytest.mark.parametrize("name", _STUCK)
def test_each_warp_is_listed_with_what_it_waits_for(name: str) -> None:
    launch, stuck = _STUCK[name]
    for seed in SEEDS:
        headline, *lines = found(_SOURCE, name, launch, seed).split("\n")
        assert headline == "deadlock: every warp waits"
        assert len(lines) == len(stuck), lines
        for line, (cta, warp, opcode, mark, what) in zip(lines, stuck, strict=True):
            assert line.startswith(f"  CTA ({cta}, 0, 0) warp {warp}: 32 lanes at {opcode}"), line
            assert f" wait for {what}" in line.replace("for the mbarrier", "for mbarrier"), line
            (place,) = places(_SOURCE, f"{name}: {mark}" if mark else name)
            assert re.search(rf"{place}\b", line), line
            (ptx_line,) = re.findall(r"at line (\d+) of the PTX", line)
            assert opcode in ptx(_SOURCE).splitlines()[int(ptx_line) - 1]


@pytest.mark.parametrize("name", _STUCK)
def test_the_repaired_kernel_ends(name: str) -> None:
    assert_clean(_SOURCE, name, _STUCK[name][0])


def test_lanes_of_one_warp_are_listed_apart() -> None:
    waits, whole = (places(_SOURCE, f"lanes_of_a_warp: {m}")[0] for m in ("waits", "whole warp"))
    for seed in SEEDS:
        _, line = found(_SOURCE, "lanes_of_a_warp", Launch(), seed).split("\n")
        lone, rest = sorted(line.removeprefix("  CTA (0, 0, 0) warp 0: ").split("; "))
        assert lone.startswith(f"1 lanes at {_WAIT}"), line
        assert waits in lone, line
        assert _MISSING.format(0, 1, 1, 0) in lone, line
        assert rest.startswith("31 lanes at bar.warp.sync"), line
        assert whole in rest, line
        assert rest.endswith("wait for the warp's other lanes (divergent)"), line
    assert_clean(_SOURCE, "lanes_of_a_warp", Launch())
