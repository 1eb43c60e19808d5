"""The hierarchical policy's first step: which node takes which groups of experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eplb.plan import Floats, Ints
from eplb.start import replicate
from eplb.topology import Topology

_MAX_CHOICES = 20_000  # combinations of groups that are tried one by one


@dataclass(frozen=True, slots=True)
class Node:
    """The working GPUs of a node.

    Attributes:
        gpus: their numbers.
        slots: of each of them.
    """

    gpus: tuple[int, ...]
    slots: tuple[int, ...]


def nodes_of(topology: Topology) -> list[Node]:
    """The nodes that have a working GPU."""
    nodes = []
    for number in range(topology.num_nodes):
        gpus = tuple(gpu for gpu in topology.alive if topology.node_of[gpu] == number)
        if gpus:
            nodes.append(Node(gpus, tuple(topology.slots[gpu] for gpu in gpus)))
    return nodes


def room(topology: Topology, num_experts: int) -> list[int]:
    """How many whole groups fit on each node that has a working GPU."""
    group_size = num_experts // topology.num_groups
    return [sum(node.slots) // group_size for node in nodes_of(topology)]


def assign_groups(loads: Floats, topology: Topology) -> tuple[Ints, Floats]:
    """([L, num_groups] the node of each group, [L] what no assignment can beat).

    The cost of a set of groups on a node is a lower bound of its heaviest GPU: the mean, or the
    heaviest replica. If there are few enough ways to distribute the groups, the one whose costliest
    node is cheapest is found exactly; else heavy groups go first, to the lightest node with room.

    Args:
        loads: [num_windows, L, num_experts] in units of the mean load of a GPU.
        topology: whose nodes have room for all groups.
    """
    num_windows, num_layers, num_experts = loads.shape
    groups = topology.num_groups
    by_group = loads.reshape(num_windows, num_layers, groups, num_experts // groups)
    nodes, capacity = nodes_of(topology), room(topology, num_experts)
    exact = _cheapest(by_group, nodes, capacity)
    if exact is not None:
        return exact
    lightest = by_group.sum(axis=3).max(axis=0)
    largest_node = max(len(node.gpus) for node in nodes)
    return _heavy_first(lightest, nodes, capacity), np.maximum(
        1.0, lightest.max(axis=1) / largest_node
    )


def _cheapest(
    by_group: Floats, nodes: Sequence[Node], capacity: Sequence[int]
) -> tuple[Ints, Floats] | None:
    """Dynamic programming over nodes and the set of groups (a bit mask) placed so far."""
    num_layers, num_groups = by_group.shape[1:3]
    everything = (1 << num_groups) - 1
    costs: dict[tuple[tuple[int, ...], int], Floats] = {}
    # (groups placed: cost of the costliest node, what the node took from which set), node by node
    reached: dict[int, Floats] = {0: np.zeros(num_layers)}
    choices: list[dict[int, Ints]] = []
    tried = 0
    for number, node in enumerate(nodes):
        rest = sum(capacity[number + 1 :])
        best: dict[int, Floats] = {}
        taken: dict[int, Ints] = {}
        for placed, cost_so_far in reached.items():
            free = [group for group in range(num_groups) if not placed >> group & 1]
            sizes = range(max(0, len(free) - rest), min(capacity[number], len(free)) + 1)
            for mine in (groups for size in sizes for groups in combinations(free, size)):
                tried += 1
                if tried > _MAX_CHOICES:
                    return None
                mask = sum(1 << group for group in mine)
                key = (node.slots, mask)
                if key not in costs:
                    costs[key] = _cost(by_group[:, :, list(mine)], node)
                cost = np.maximum(cost_so_far, costs[key])
                old = best.get(placed | mask)
                if old is None:
                    best[placed | mask] = cost
                    taken[placed | mask] = np.full(num_layers, mask)
                else:
                    taken[placed | mask][cost < old] = mask
                    best[placed | mask] = np.minimum(old, cost)
        reached = best
        choices.append(taken)
    node_of = np.zeros((num_layers, num_groups), dtype=np.int64)
    for layer in range(num_layers):
        placed = everything
        for number in reversed(range(len(nodes))):
            mask = int(choices[number][placed][layer])
            node_of[layer, [group for group in range(num_groups) if mask >> group & 1]] = number
            placed ^= mask
    return node_of, np.maximum(1.0, reached[everything])


def _cost(loads: Floats, node: Node) -> Floats:
    """[L]: what the heaviest GPU of the node carries at least with these groups [W, L, n, size]."""
    num_windows, num_layers, num_groups, size = loads.shape
    flat = loads.reshape(num_windows, num_layers, num_groups * size)
    if flat.shape[2] == 0:
        return np.zeros(num_layers)
    counts = replicate(flat, sum(node.slots), len(node.gpus))
    mean = flat.sum(axis=2).max(axis=0) / len(node.gpus)
    return np.asarray(np.maximum(mean, (flat.max(axis=0) / counts).max(axis=1)))


def _heavy_first(group_loads: Floats, nodes: Sequence[Node], capacity: Sequence[int]) -> Ints:
    num_layers, num_groups = group_loads.shape
    layers = np.arange(num_layers)
    sizes = np.array([len(node.gpus) for node in nodes])
    left = np.tile(np.array(capacity), (num_layers, 1))
    totals = np.zeros((num_layers, len(nodes)))
    node_of = np.zeros((num_layers, num_groups), dtype=np.int64)
    for group in np.argsort(-group_loads, axis=1, kind="stable").T:
        weight = group_loads[layers, group]
        after = (totals + weight[:, None]) / sizes
        node = np.where(left > 0, after, np.inf).argmin(axis=1)
        node_of[layers, group] = node
        totals[layers, node] += weight
        left[layers, node] -= 1
    return node_of
