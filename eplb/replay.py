"""Recorded loads played again, to choose window, interval and number of replicas beforehand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from eplb.baseline import contiguous
from eplb.checks import checked_loads
from eplb.loads import LoadWindow
from eplb.plan import (
    DEEPSEEK_V3_EXPERT_BYTES,
    Floats,
    Ints,
    Plan,
    even_shares,
    imbalance_of,
    loads_of_gpus,
    num_moved,
)
from eplb.topology import Topology

Planner = Callable[[Floats, Topology, Plan | None], Plan]
Statistic = Callable[[LoadWindow], Floats]
Progress = Callable[[int, int], None]

_CHUNK = 64  # iterations whose loads per slot are in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """How one choice of window, interval and slots would have done.

    Attributes:
        topology: the GPUs and their slots.
        window: iterations that a plan looks back on, at most.
        interval: iterations from one plan to the next.
        expert_bytes: the size of one expert's weights in one layer.
        imbalance: [num_iterations] float64 — max/mean load of the working GPUs, tokens split evenly
            over replicas; the mean over the layers.
        num_moved: [num_plans] int64 — replicas, in all layers, that came to a GPU which did not
            hold their expert; those of the first plan included.
        planning_s: [num_plans] float64 — the time the planner took.
    """

    topology: Topology
    window: int
    interval: int
    expert_bytes: int
    imbalance: Floats
    num_moved: Ints
    planning_s: Floats

    @property
    def planned(self) -> Floats:
        """`imbalance` since the first plan, whose time depends on `interval`; without one, all."""
        return self.imbalance[self.interval :] if len(self.planning_s) else self.imbalance

    @property
    def mean(self) -> float:
        """The mean of max/mean since the first plan."""
        return float(self.planned.mean())

    @property
    def p99(self) -> float:
        """What max/mean stays below in 99 % of the iterations since the first plan."""
        return float(np.percentile(self.planned, 99))

    @property
    def moved_bytes(self) -> int:
        """What came to GPUs after the first plan, which had to fill all spare slots."""
        return int(self.num_moved[1:].sum()) * self.expert_bytes


@dataclass(slots=True)
class _Deployment:
    """What lies in the slots at the moment, and what it took to get there."""

    topology: Topology
    slots: Ints
    plan: Plan | None = None
    num_moved: list[int] = field(default_factory=list)
    planning_s: list[float] = field(default_factory=list)

    def change(self, planner: Planner, loads: Floats) -> None:
        start = time.perf_counter()
        plan = planner(loads, self.topology, self.plan)
        self.planning_s.append(time.perf_counter() - start)
        moved = num_moved(plan.slots, self.topology, self.slots, self.topology)
        self.num_moved.append(int(moved.sum()))
        self.plan, self.slots = plan, plan.slots

    def imbalance(self, loads: Floats) -> Floats:
        """[num_iterations] of loads [num_iterations, num_layers, num_experts]."""
        shares = even_shares(self.slots, loads.shape[2])
        gpu_loads = loads_of_gpus(self.topology, self.slots, shares, loads)
        return np.array([imbalance_of(self.topology, each[None]).mean() for each in gpu_loads])


def replay(
    loads: Floats,
    topology: Topology,
    planner: Planner,
    *,
    window: int,
    interval: int,
    statistic: Statistic = LoadWindow.mean,
    expert_bytes: int = DEEPSEEK_V3_EXPERT_BYTES,
    progress: Progress | None = None,
) -> Replay:
    """Plays recorded loads through a deployment that makes a new plan every `interval` iterations.

    It begins with the experts in order, one replica of each. A plan is in force from the iteration
    at which it is made, and is made from the iterations before it alone. Transfers take no time.

    Args:
        loads: [num_iterations, num_layers, num_experts] integers or floats — tokens per expert.
        topology: GPUs and slots.
        planner: gets the loads to plan for, the topology and the plan in force (None for the first
            one), such as `lambda loads, topology, previous: rebalance(loads, topology,
            previous=previous)`.
        window: how many iterations a plan looks back on; fewer at the beginning.
        interval: iterations between two plans; with more than there are, no plan is made.
        statistic: what to plan for after these iterations, a method of `LoadWindow`.
        expert_bytes: the size of one expert's weights in one layer.
        progress: called with the iterations done and their number.

    Raises:
        TypeError: `loads` holds no numbers.
        ValueError: `loads` has another shape or impossible values, `window` or `interval` is not
            positive, or there are fewer slots than experts.
    """
    history = checked_loads("replay", loads)
    num_iterations, num_layers, num_experts = history.shape
    for name, value in (("window", window), ("interval", interval)):
        if value < 1:
            raise ValueError(f"replay: {name} must be at least 1 iteration, got {value}")
    recorder = LoadWindow(num_layers, num_experts, window=window)
    deployment = _Deployment(topology, contiguous(topology, num_layers, num_experts))
    imbalance = np.empty(num_iterations)
    for first in range(0, num_iterations, interval):
        if first:
            deployment.change(planner, statistic(recorder))
        end = min(first + interval, num_iterations)
        for start in range(first, end, _CHUNK):
            stretch = slice(start, min(start + _CHUNK, end))
            imbalance[stretch] = deployment.imbalance(history[stretch])
            for counts in history[stretch]:
                recorder.add(counts)
            if progress is not None:
                progress(stretch.stop, num_iterations)
    return Replay(
        topology,
        window,
        interval,
        expert_bytes,
        imbalance,
        np.array(deployment.num_moved, dtype=np.int64),
        np.array(deployment.planning_s, dtype=np.float64),
    )


def sweep(
    loads: Floats,
    topologies: Iterable[Topology],
    planner: Planner,
    *,
    windows: Sequence[int],
    intervals: Sequence[int],
    statistic: Statistic = LoadWindow.mean,
    expert_bytes: int = DEEPSEEK_V3_EXPERT_BYTES,
    progress: Progress | None = None,
) -> list[Replay]:
    """`replay` for every combination of topology, window and interval, in this order.

    Args:
        loads: [num_iterations, num_layers, num_experts] integers or floats — tokens per expert.
        topologies: the same GPUs with more and fewer slots, for example.
        planner: as of `replay`.
        windows: values of `window`.
        intervals: values of `interval`.
        statistic: as of `replay`.
        expert_bytes: the size of one expert's weights in one layer.
        progress: called with the iterations done and their number, of all replays together.

    Raises:
        TypeError: as `replay`.
        ValueError: as `replay`.
    """
    choices = [(t, w, i) for t in topologies for w in windows for i in intervals]
    replays = []
    for number, (topology, window, interval) in enumerate(choices):
        show = partial(_show_all, progress, number, len(choices)) if progress else None
        replays.append(
            replay(
                loads, topology, planner, window=window, interval=interval, statistic=statistic,
                expert_bytes=expert_bytes, progress=show,
            )
        )  # fmt: skip
    return replays


def _show_all(progress: Progress, number: int, count: int, done: int, total: int) -> None:
    progress(number * total + done, count * total)
