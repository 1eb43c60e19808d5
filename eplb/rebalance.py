"""`rebalance`: from measured loads, and perhaps the plan in force, to the next plan."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from eplb.baseline import greedy
from eplb.checks import checked_loads
from eplb.groups import nodes_of, room
from eplb.migrate import improve, relabel, repair
from eplb.plan import (
    EMPTY,
    Floats,
    Ints,
    Plan,
    even_shares,
    imbalance_of,
    loads_of_gpus,
    num_moved,
)
from eplb.routing import best_shares
from eplb.scratch import plan_from_scratch
from eplb.topology import Topology
from eplb.transfer import align_slots

POLICIES = ("auto", "hierarchical", "global")
MIGRATION_SLACK = 0.02  # how much worse than a new plan one with few moves may be
_SEARCH_SHARE = 0.8  # of the time budget; the rest is for what follows the search


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What has to be planned: loads in units of the mean load of a GPU."""

    loads: Floats
    topology: Topology
    hierarchical: bool

    def imbalance(self, slots: Ints) -> Floats:
        shares = even_shares(slots, self.loads.shape[2])
        return imbalance_of(self.topology, loads_of_gpus(self.topology, slots, shares, self.loads))

    def layers(self, chosen: Ints) -> _Task:
        return _Task(self.loads[:, chosen], self.topology, self.hierarchical)


def rebalance(
    loads: Tensor | NDArray[np.generic],
    topology: Topology,
    *,
    policy: str = "auto",
    previous: Plan | None = None,
    max_moves: int | None = None,
    min_gain: float | None = None,
    time_budget_ms: float = 50.0,
) -> Plan:
    """Plans which experts get how many replicas, and where they lie.

    Replica counts and placement are searched for together; no GPU gets two replicas of an expert.
    The result is never worse than that of `rebalance_experts`. Where that one puts replicas of an
    expert together on a GPU, which amounts to an uneven split of its tokens, this may need
    `Plan.shares`.

    With a previous plan, layers keep what they hold and change as little as brings them within 2 %
    of a plan made anew; where small changes do not get there, the new plan is taken, on those GPUs
    that already hold most of it.

    The search is limited by time, so two machines may find different plans: compute a plan on one
    rank and send it to the others.

    Args:
        loads: [num_layers, num_experts] or [num_windows, num_layers, num_experts], integers or
            floats — tokens per expert, any unit. With several windows the worst one counts.
        topology: GPUs, nodes, slots, expert groups.
        policy: "hierarchical" keeps every expert group inside one node, "global" does not; "auto"
            is hierarchical if there are several nodes, whose number divides the number of groups,
            and all groups fit on them.
        previous: the plan in force, for a topology with as many GPUs.
        max_moves: per layer, the most replicas that may come to a GPU that did not hold their
            expert; what failed GPUs make necessary is not counted. Needs `previous`.
        min_gain: a layer changes only if its max/mean falls by this share at least. Needs
            `previous`.
        time_budget_ms: per layer, all layers being planned together; the search ends earlier where
            it finds nothing better.

    Raises:
        TypeError: `loads`, `topology` or `previous` is something else.
        ValueError: an argument breaks a rule above; or there are fewer slots than experts.
    """
    start = time.perf_counter()
    windows = checked_loads("rebalance", loads)
    _check_topology(topology, windows.shape[2])
    hierarchical = _is_hierarchical(policy, topology, windows.shape[2])
    _check_budget(time_budget_ms)
    _check_previous(previous, max_moves, min_gain, windows, topology)
    idle = windows.sum(axis=(0, 2)) == 0
    even = np.where(idle[:, None], 1.0, windows)  # a layer without load is planned as an even one
    task = _Task(_per_mean(even, len(topology.alive)), topology, hierarchical)
    deadline = start + _SEARCH_SHARE * time_budget_ms * 1e-3 * windows.shape[1]

    if previous is None:
        slots, bound = _best_new_plan(task, deadline)
        moved = np.zeros(len(slots), dtype=np.int64)
    else:
        slots, bound = _migrate(task, previous, max_moves, min_gain or 0.0, deadline)
        slots = align_slots(slots, previous.slots, topology, previous.topology)
        moved = num_moved(slots, topology, previous.slots, previous.topology)
    name = "hierarchical" if hierarchical else "global"
    shares = best_shares(slots, task.loads, topology)
    bound = np.where(idle, 1.0, bound)
    return Plan(topology, name, windows, slots, shares, bound, moved)


def _best_new_plan(task: _Task, deadline: float) -> tuple[Ints, Floats]:
    """The better of a search and of what `rebalance_experts` does, layer by layer."""
    slots, bound = plan_from_scratch(
        task.loads,
        task.topology,
        hierarchical=task.hierarchical,
        budget_s=max(0.0, deadline - time.perf_counter()),
    )
    original = greedy(task.topology, task.loads, hierarchical=task.hierarchical)
    if original is not None:
        ours, theirs = task.imbalance(slots), task.imbalance(original)
        apart = _without_duplicates(original, task.topology)
        for layer in np.flatnonzero(theirs < ours):
            clean = (apart[layer] == original[layer]).all()
            if clean or _weighted(task, slots, int(layer)) > theirs[layer]:
                slots[layer] = apart[layer]
    return slots, bound


def _weighted(task: _Task, slots: Ints, layer: int) -> float:
    """max/mean of a layer if tokens are split in the best way."""
    one = task.layers(np.array([layer]))
    rows = slots[layer : layer + 1]
    shares = best_shares(rows, one.loads, task.topology)
    gpu_loads = loads_of_gpus(task.topology, rows, shares, one.loads)
    return float(imbalance_of(task.topology, gpu_loads)[0])


def _without_duplicates(slots: Ints, topology: Topology) -> Ints:
    """The same placement with EMPTY for every further replica of an expert on a GPU."""
    gpu_of = np.array(topology.gpu_of_slot)
    same = (slots[:, :, None] == slots[:, None, :]) & (gpu_of[:, None] == gpu_of)
    return np.where(np.tril(same, -1).any(axis=2), EMPTY, slots)


def _migrate(
    task: _Task, previous: Plan, max_moves: int | None, min_gain: float, deadline: float
) -> tuple[Ints, Floats]:
    topology = task.topology
    kept = repair(
        previous.slots, previous.topology, topology, task.loads, hierarchical=task.hierarchical
    )
    _, bound = plan_from_scratch(task.loads, topology, hierarchical=task.hierarchical, budget_s=0.0)

    def improved(layers: Ints, wanted: Floats) -> Ints:
        return improve(
            kept[layers],
            task.loads[:, layers],
            topology,
            target_imbalance=wanted * (1 + MIGRATION_SLACK),
            max_moves=max_moves,
            hierarchical=task.hierarchical,
        )

    slots = improved(np.arange(len(kept)), bound)
    # Where the lower bound is out of reach, only a plan made anew tells what can be reached.
    stalled = np.flatnonzero(task.imbalance(slots) > bound * (1 + MIGRATION_SLACK))
    if len(stalled):
        part = task.layers(stalled)
        anew, _ = _best_new_plan(part, deadline)
        wanted = part.imbalance(anew)
        less = improved(stalled, wanted)
        anew = relabel(anew, kept[stalled], topology, hierarchical=task.hierarchical)
        short = part.imbalance(less) > wanted * (1 + MIGRATION_SLACK)
        if max_moves is not None:
            short &= num_moved(anew, topology, kept[stalled], topology) <= max_moves
        slots[stalled] = np.where(short[:, None], anew, less)
    gain = 1 - task.imbalance(slots) / task.imbalance(kept)
    return np.where((gain < min_gain)[:, None], kept, slots), bound


def _per_mean(windows: Floats, num_gpus: int) -> Floats:
    """Loads in units of the mean load of a GPU, in each window that has any."""
    total = windows.sum(axis=2, keepdims=True)
    unit = np.divide(num_gpus, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(windows * unit)


def _check_topology(topology: Topology, num_experts: int) -> None:
    if not isinstance(topology, Topology):
        raise TypeError(
            f"rebalance: topology must be a Topology, got {type(topology).__name__} "
            "(Topology.regular makes the usual ones)"
        )
    if topology.num_slots < num_experts:
        raise ValueError(
            f"rebalance: topology must have a slot for each of the {num_experts} experts, got "
            f"{topology.num_slots} slots (add slots or GPUs)"
        )
    if num_experts % topology.num_groups:
        raise ValueError(
            f"rebalance: num_groups must divide the {num_experts} experts, got "
            f"{topology.num_groups}"
        )


def _is_hierarchical(policy: str, topology: Topology, num_experts: int) -> bool:
    if policy not in POLICIES:
        raise ValueError(f"rebalance: policy must be one of {', '.join(POLICIES)}, got {policy!r}")
    fits = sum(room(topology, num_experts)) >= topology.num_groups
    if policy == "hierarchical" and not fits:
        raise ValueError(
            f"rebalance: policy hierarchical needs nodes with room for all {topology.num_groups} "
            f"groups of {num_experts // topology.num_groups} experts, got room for "
            f"{sum(room(topology, num_experts))} (add slots, or use global)"
        )
    if policy == "auto":
        return (
            fits and len(nodes_of(topology)) > 1 and topology.num_groups % topology.num_nodes == 0
        )
    return policy == "hierarchical"


def _check_budget(time_budget_ms: float) -> None:
    if not (time_budget_ms >= 0 and math.isfinite(time_budget_ms)):
        raise ValueError(
            f"rebalance: time_budget_ms must be finite and not negative, got {time_budget_ms}"
        )


def _check_previous(
    previous: Plan | None,
    max_moves: int | None,
    min_gain: float | None,
    windows: Floats,
    topology: Topology,
) -> None:
    limits = {"max_moves": max_moves, "min_gain": min_gain}
    for name, value in limits.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"rebalance: {name} must be finite and not negative, got {value}")
        if value is not None and previous is None:
            raise ValueError(
                f"rebalance: {name} needs previous, the plan that it limits the changes of"
            )
    if previous is None:
        return
    if not isinstance(previous, Plan):
        raise TypeError(f"rebalance: previous must be a Plan, got {type(previous).__name__}")
    wanted = {
        "layers": (windows.shape[1], previous.num_layers),
        "experts": (windows.shape[2], previous.num_experts),
        "GPUs": (topology.num_gpus, previous.topology.num_gpus),
    }
    for what, (here, before) in wanted.items():
        if here != before:
            raise ValueError(
                f"rebalance: previous must have {here} {what} like loads and topology, got "
                f"{before} (a GPU that is gone keeps its number and has 0 slots)"
            )
