"""Plans made without regard to what lies where now: one search, or one per node."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eplb.bound import lower_bound
from eplb.groups import Node, assign_groups, nodes_of
from eplb.plan import EMPTY, Floats, Ints
from eplb.search import search
from eplb.start import place, replicate
from eplb.topology import Topology

_GOOD_ENOUGH = 5e-4  # above the lower bound, as a share of it: the search leaves such a layer alone


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Experts of some layers that share the GPUs of one node (or of all nodes).

    Attributes:
        node: the GPUs.
        layers: [P] the layer of each problem.
        experts: [P, n] the experts of each problem.
    """

    node: Node
    layers: Ints
    experts: Ints


def plan_from_scratch(
    loads: Floats, topology: Topology, *, hierarchical: bool, budget_s: float
) -> tuple[Ints, Floats]:
    """([L, R] the expert in each slot, [L] the lower bound of max/mean).

    Args:
        loads: [num_windows, L, num_experts] in units of the mean load of a GPU.
        topology: with a slot for every expert; for a hierarchical plan, with nodes that have room
            for all groups.
        hierarchical: keep each group of experts inside one node.
        budget_s: time that the search may take.
    """
    deadline = time.perf_counter() + budget_s
    parts, bound = _parts(loads, topology, hierarchical=hierarchical)
    slots = np.full((loads.shape[1], topology.num_slots), EMPTY)
    # Problems of equal shape are solved together, whichever nodes they belong to.
    shapes = defaultdict(list)
    for part in parts:
        shapes[part.node.slots, part.experts.shape[1]].append(part)
    left = sum(len(part.layers) for part in parts)
    for batch in shapes.values():
        layers = np.concatenate([part.layers for part in batch])
        experts = np.concatenate([part.experts for part in batch])
        now = time.perf_counter()
        until = now + max(0.0, deadline - now) * len(layers) / max(1, left)
        left -= len(layers)
        target = bound[layers] * (1 + _GOOD_ENOUGH)
        gpu_slots = np.array(batch[0].node.slots)
        chosen = _solve(loads[:, layers[:, None], experts], gpu_slots, target, until)
        experts = np.pad(experts, ((0, 0), (0, 1)), constant_values=EMPTY)
        found = np.take_along_axis(experts, chosen, axis=1)  # EMPTY is -1: the column just added
        for part in batch:
            own = np.concatenate([_slots_of(topology, gpu) for gpu in part.node.gpus])
            slots[part.layers[:, None], own], found = np.split(found, [len(part.layers)])
    return slots, bound


def _parts(
    loads: Floats, topology: Topology, *, hierarchical: bool
) -> tuple[Sequence[_Part], Floats]:
    num_layers, num_experts = loads.shape[1:]
    if not hierarchical:
        alive = topology.alive
        everywhere = Node(alive, tuple(topology.slots[gpu] for gpu in alive))
        experts = np.tile(np.arange(num_experts), (num_layers, 1))
        bound = lower_bound(loads, topology.num_slots, len(alive))
        return [_Part(everywhere, np.arange(num_layers), experts)], bound
    node_of, bound = assign_groups(loads, topology)
    return list(_node_parts(node_of, num_experts, topology)), bound


def _node_parts(node_of: Ints, num_experts: int, topology: Topology) -> Iterator[_Part]:
    """The layers in which a node has the same number of groups, node by node."""
    expert_node = np.repeat(node_of, num_experts // topology.num_groups, axis=1)
    for number, node in enumerate(nodes_of(topology)):
        held = (expert_node == number).sum(axis=1)
        for size in sorted(set(held.tolist()) - {0}):
            layers = np.flatnonzero(held == size)
            experts = np.nonzero(expert_node[layers] == number)[1].reshape(len(layers), size)
            yield _Part(node, layers, experts)


def _solve(loads: Floats, gpu_slots: Ints, target: Floats, deadline: float) -> Ints:
    counts = replicate(loads, int(gpu_slots.sum()), len(gpu_slots))
    return search(loads, place(loads, counts, gpu_slots), gpu_slots, target, deadline)


def _slots_of(topology: Topology, gpu: int) -> Ints:
    return np.arange(topology.first_slots[gpu], topology.first_slots[gpu + 1])
