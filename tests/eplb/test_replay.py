"""Replays: what is planned from which iterations, and the figures against plain loops."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from eplb.baseline import contiguous, greedy
from eplb.loads import LoadWindow
from eplb.plan import EMPTY, Floats, Ints, Plan, even_shares
from eplb.replay import replay, sweep
from eplb.topology import Topology

TOPOLOGY = Topology.regular(num_gpus=4, num_replicas=12)


def record(num_iterations: int, num_layers: int = 2, num_experts: int = 8) -> Floats:
    """Loads that drift, so that it matters when a plan was made."""
    rng = np.random.default_rng(num_iterations)
    drift = np.cumsum(rng.normal(0, 0.3, (num_iterations, num_layers, num_experts)), axis=0)
    return np.round(np.exp(drift) * 100)


@dataclass
class GreedyPlanner:
    """Plans with `rebalance_experts` and remembers what it was asked."""

    asked: list[Floats] = field(default_factory=list)
    previous: list[Plan | None] = field(default_factory=list)

    def __call__(self, loads: Floats, topology: Topology, previous: Plan | None) -> Plan:
        self.asked.append(loads)
        self.previous.append(previous)
        windows = loads if loads.ndim == 3 else loads[None]
        slots = greedy(topology, windows, hierarchical=False)
        assert slots is not None
        shares = even_shares(slots, windows.shape[2])
        rows = len(slots)
        return Plan(
            topology, "global", windows, slots, shares, np.ones(rows), np.zeros(rows, np.int64)
        )


def imbalance_by_loops(slots: Ints, counts: Floats) -> float:
    """The mean over layers of max/mean, slot by slot; three slots on each of four GPUs."""
    ratios = []
    for row, load in zip(slots.tolist(), counts.tolist(), strict=True):
        gpus = [0.0] * 4
        for slot, expert in enumerate(row):
            if expert != EMPTY:
                gpus[slot // 3] += load[expert] / row.count(expert)
        ratios.append(max(gpus) / (sum(gpus) / 4))
    return sum(ratios) / len(ratios)


def moved_by_loops(slots: Ints, before: Ints) -> int:
    moved = 0
    for row, old in zip(slots.tolist(), before.tolist(), strict=True):
        for gpu in range(4):
            here = slice(3 * gpu, 3 * gpu + 3)
            moved += len(set(row[here]) - set(old[here]) - {EMPTY})
    return moved


@pytest.mark.parametrize("interval", [1, 3, 5, 7])
@pytest.mark.parametrize("window", [1, 4, 100])
def test_figures_are_those_of_loops(window: int, interval: int) -> None:
    loads, planner = record(7), GreedyPlanner()
    played = replay(loads, TOPOLOGY, planner, window=window, interval=interval, expert_bytes=10)
    slots = contiguous(TOPOLOGY, 2, 8)
    expected, moved = [], []
    for iteration, counts in enumerate(loads):
        if iteration and iteration % interval == 0:
            past = loads[max(0, iteration - window) : iteration]
            plan = GreedyPlanner()(past.mean(axis=0).astype(np.float32), TOPOLOGY, None)
            moved.append(moved_by_loops(plan.slots, slots))
            slots = plan.slots
        expected.append(imbalance_by_loops(slots, counts))
    np.testing.assert_allclose(played.imbalance, expected)
    assert played.num_moved.tolist() == moved
    assert len(played.planning_s) == len(moved)
    assert (played.planning_s >= 0).all()
    assert played.moved_bytes == 10 * sum(moved[1:])
    planned = expected[interval:] or expected
    assert played.mean == pytest.approx(np.mean(planned))
    assert played.p99 == pytest.approx(np.percentile(planned, 99))


@pytest.mark.parametrize("change_at", [1, 4, 5, 9])
def test_no_plan_knows_the_future(change_at: int) -> None:
    loads = record(10)
    other = loads.copy()
    other[change_at:] = loads[change_at:, :, ::-1] * 1000 + 1
    one, two = GreedyPlanner(), GreedyPlanner()
    first = replay(loads, TOPOLOGY, one, window=4, interval=2)
    second = replay(other, TOPOLOGY, two, window=4, interval=2)
    np.testing.assert_array_equal(first.imbalance[:change_at], second.imbalance[:change_at])
    planned_before = sum(at <= change_at for at in range(2, 10, 2))
    for ours, theirs in zip(one.asked[:planned_before], two.asked, strict=False):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(one.asked[planned_before:], two.asked[planned_before:], strict=True):
        assert not np.array_equal(ours, theirs)


def test_the_planner_gets_the_plan_in_force() -> None:
    planner = GreedyPlanner()
    replay(record(7), TOPOLOGY, planner, window=2, interval=2)
    assert planner.previous[0] is None
    for previous, loads in zip(planner.previous[1:], planner.asked, strict=False):
        assert previous is not None
        np.testing.assert_array_equal(previous.loads[0], loads)


def test_the_statistic_decides_what_is_planned_for() -> None:
    loads, planner = record(6), GreedyPlanner()
    replay(loads, TOPOLOGY, planner, window=4, interval=4, statistic=lambda seen: seen.windows(2))
    np.testing.assert_allclose(planner.asked[0], loads[:4].reshape(2, 2, 2, 8).mean(axis=1))
    replay(loads, TOPOLOGY, planner, window=4, interval=4, statistic=LoadWindow.mean)
    np.testing.assert_allclose(planner.asked[1], loads[:4].mean(axis=0))


def test_without_a_plan_experts_stay_in_order() -> None:
    loads, planner = record(5), GreedyPlanner()
    played = replay(loads, TOPOLOGY, planner, window=2, interval=6)
    assert planner.asked == []
    assert played.moved_bytes == 0
    slots = contiguous(TOPOLOGY, 2, 8)
    np.testing.assert_allclose(played.imbalance, [imbalance_by_loops(slots, at) for at in loads])


def test_stretches_longer_than_a_chunk() -> None:
    loads = record(150, num_layers=1)
    played = replay(loads, TOPOLOGY, GreedyPlanner(), window=3, interval=140)
    slots = contiguous(TOPOLOGY, 1, 8)
    expected = [imbalance_by_loops(slots, counts) for counts in loads[:140]]
    np.testing.assert_allclose(played.imbalance[:140], expected)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    replay(
        record(5), TOPOLOGY, GreedyPlanner(), window=2, interval=2,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_sweep_is_every_combination_in_order() -> None:
    loads = record(6)
    topologies = [TOPOLOGY, Topology.regular(num_gpus=4, num_replicas=16)]
    told: list[tuple[int, int]] = []
    played = sweep(
        loads, topologies, GreedyPlanner(), windows=[1, 4], intervals=[2, 3], expert_bytes=7,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [(each.topology, each.window, each.interval) for each in played] == [
        (topology, window, interval)
        for topology in topologies
        for window in (1, 4)
        for interval in (2, 3)
    ]
    alone = replay(loads, topologies[1], GreedyPlanner(), window=4, interval=3, expert_bytes=7)
    np.testing.assert_array_equal(played[-1].imbalance, alone.imbalance)
    assert played[-1].moved_bytes == alone.moved_bytes
    assert told == sorted(told)
    assert told[-1] == (48, 48)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"window": 0}, "replay: window must be at least 1 iteration, got 0"),
        ({"interval": -1}, "replay: interval must be at least 1 iteration, got -1"),
        ({"loads": np.full((3, 2, 8), np.nan)}, "replay: loads must be finite and not negative"),
        ({"loads": np.ones(3)}, "replay: loads must have 2 dimensions"),
        ({"loads": np.ones((3, 0, 8))}, "num_layers must be at least 1"),
        ({"topology": Topology.regular(4, 4)}, "a slot for each of the 8 experts, got 4 slots"),
    ],
)
def test_mistakes_are_named(changed: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"loads": record(3), "topology": TOPOLOGY, "window": 1}
    with pytest.raises(ValueError, match=message):
        replay(**{"planner": GreedyPlanner(), "interval": 1, **arguments, **changed})


CONTIGUOUS = {
    "even": (Topology((3, 3), (0, 0)), 4, [0, 1, EMPTY, 2, 3, EMPTY]),
    "full": (Topology((2, 2), (0, 0)), 4, [0, 1, 2, 3]),
    "one expert": (Topology((2, 2), (0, 0)), 1, [EMPTY, EMPTY, 0, EMPTY]),
    "unequal": (Topology((1, 3), (0, 0)), 2, [EMPTY, 0, 1, EMPTY]),
    "a failed GPU": (Topology((2, 0, 2), (0, 0, 0)), 3, [0, EMPTY, 1, 2]),
}


@pytest.mark.parametrize(("topology", "num_experts", "row"), CONTIGUOUS.values(), ids=CONTIGUOUS)
def test_experts_in_order(topology: Topology, num_experts: int, row: list[int]) -> None:
    assert contiguous(topology, 2, num_experts).tolist() == [row, row]


@pytest.mark.parametrize(
    ("topology", "hierarchical"),
    [
        (Topology((3, 2), (0, 0)), False),
        (Topology((2, 0, 2), (0, 0, 1)), False),
        (Topology.regular(4, 8, num_nodes=2, num_groups=3), True),
        (Topology.regular(6, 12, num_nodes=2, num_groups=3), True),
        (Topology((2, 2, 2, 2), (0, 1, 0, 1), 2), True),
        (Topology.regular(2, 2), False),
    ],
    ids=["unequal", "failed", "groups", "groups on nodes", "nodes mixed", "too few"],
)
def test_where_the_greedy_planner_cannot(topology: Topology, hierarchical: bool) -> None:
    assert greedy(topology, np.ones((1, 1, 4)), hierarchical=hierarchical) is None
