"""From a plan in force to the next.

`repair` keeps what can stay, `improve` changes what has to change, and `relabel` puts a plan made
anew where most of it lies already.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from eplb.assignment import assign
from eplb.groups import Node, nodes_of, room
from eplb.improve import improve
from eplb.plan import EMPTY, Floats, Ints, count_replicas, even_shares, held, loads_of_gpus
from eplb.topology import Topology
from eplb.transfer import align_slots, by_gpu

__all__ = ["improve", "relabel", "repair"]

_FORBIDDEN = -1e6  # far below the value of any assignment


def relabel(slots: Ints, previous_slots: Ints, topology: Topology, *, hierarchical: bool) -> Ints:
    """Gives the contents of GPUs to other GPUs so that as many replicas as possible stay.

    GPUs with equal numbers of slots are alike, and so are nodes with equal GPUs: a plan is as good
    whichever of them gets which content. The assignment is the best there is: between all GPUs, or,
    for a hierarchical plan, between whole nodes and between the GPUs inside them.

    Args:
        slots: [num_layers, num_slots] int64 — a new plan; -1 if empty.
        previous_slots: [num_layers, num_slots] int64 — what the slots hold now.
        topology: of both.
        hierarchical: keep together what is on one node.

    Returns:
        [num_layers, num_slots] int64: the plan's contents on other GPUs.
    """
    num_experts = int(max(slots.max(initial=0), previous_slots.max(initial=0))) + 1
    new = held(slots, topology, num_experts).astype(np.float32)
    old = held(previous_slots, topology, num_experts).astype(np.float32)
    stays = (new @ old.transpose(0, 2, 1)).astype(np.float64)  # [L, new GPU, old GPU]
    everything = Node(topology.alive, tuple(topology.slots[gpu] for gpu in topology.alive))
    alike = defaultdict(list)
    for node in nodes_of(topology) if hierarchical else [everything]:
        alike[tuple(sorted(node.slots))].append(node)
    table = by_gpu(slots, topology)
    relabelled = table.copy()
    layers = np.arange(len(slots))[:, None]
    for nodes in alike.values():
        gpus = np.array([node.gpus for node in nodes])
        target = _best_permutation(stays, gpus, np.array(topology.slots))
        relabelled[layers, target.reshape(len(slots), -1)] = table[:, gpus.ravel()]
    exists = np.arange(table.shape[2]) < np.array(topology.slots)[:, None]
    return relabelled[:, exists]


def _best_permutation(stays: Floats, gpus: Ints, sizes: Ints) -> Ints:
    """[L, num_nodes, n]: the GPU that is to take the content of each of `gpus` [num_nodes, n]."""
    num_layers = len(stays)
    num_nodes, width = gpus.shape
    # [L, from node, to node, from GPU, to GPU]
    values = stays[:, gpus[:, None, :, None], gpus[None, :, None, :]]
    unlike = sizes[gpus][:, None, :, None] != sizes[gpus][None, :, None, :]
    values = np.where(unlike, _FORBIDDEN, values)
    inside = assign(values.reshape(-1, width, width)).reshape(values.shape[:4])
    worth = np.take_along_axis(values, inside[..., None], axis=4).sum(axis=(3, 4))
    node = assign(worth)  # [L, from node]
    layers, nodes = np.arange(num_layers)[:, None], np.arange(num_nodes)
    return gpus[node[:, :, None], inside[layers, nodes, node]]


def repair(
    previous_slots: Ints,
    previous_topology: Topology,
    topology: Topology,
    loads: Floats,
    *,
    hierarchical: bool,
) -> Ints:
    """What is left of a plan after GPUs, slots or the policy have changed, made whole again.

    Replicas stay where they are as far as there is a slot. Second replicas of an expert on a GPU
    go, and, for a hierarchical plan, those outside the node on which most of their group is, as far
    as there is room for groups. Of a GPU that lost slots those replicas go that are missed least.
    Experts that have no replica any more get one, the heaviest first, in an empty slot or else that
    of a spare replica. Slots that are then free stay empty: `improve` fills those that help.

    Args:
        previous_slots: [num_layers, num_slots before] int64 — what the slots hold now.
        previous_topology: of `previous_slots`.
        topology: the same GPUs, perhaps with other slots; with a slot for every expert, and nodes
            that have room for all groups if `hierarchical`.
        loads: [num_windows, num_layers, num_experts] float64 — any unit.
        hierarchical: keep each group of experts inside one node.

    Returns:
        [num_layers, num_slots] int64: every expert is somewhere, none twice on a GPU.
    """
    total = loads.sum(axis=2, keepdims=True)
    heaviest = np.divide(loads, total, out=np.zeros_like(loads), where=total > 0).max(axis=0)
    table = _survivors(by_gpu(previous_slots, previous_topology), topology)
    homes = np.zeros(heaviest.shape, dtype=np.int64)
    node_of = np.zeros(topology.num_gpus, dtype=np.int64)
    if hierarchical:
        for number, node in enumerate(nodes_of(topology)):
            node_of[list(node.gpus)] = number
        homes = _homes(table, topology, node_of, heaviest.shape[1])
        layers = np.arange(len(table))[:, None, None]
        table = np.where(homes[layers, table] == node_of[:, None], table, EMPTY)
    slots = _fit(table, topology, heaviest)
    slots = align_slots(slots, previous_slots, topology, previous_topology)
    return _place_lost(slots, topology, heaviest, homes, node_of)


def _survivors(table: Ints, topology: Topology) -> Ints:
    """[L, G, S]: `table` without the GPUs that are gone and without copies on the same GPU."""
    same = (table[..., :, None] == table[..., None, :]) & (table[..., None] != EMPTY)
    copies = np.tril(same, -1).any(axis=3)
    gone = np.array(topology.slots)[:, None] == 0
    return np.where(copies | gone, EMPTY, table)


def _homes(table: Ints, topology: Topology, node_of: Ints, num_experts: int) -> Ints:
    """[L, E]: the node, of those with working GPUs, for each expert's group: most experts stay."""
    num_groups, num_layers = topology.num_groups, len(table)
    capacity = room(topology, num_experts)
    there = np.zeros((num_layers, len(capacity), num_experts + 1), dtype=bool)
    there[np.arange(num_layers)[:, None, None], node_of[:, None], table] = True
    groups = there[..., :-1].reshape(num_layers, len(capacity), num_groups, -1)
    # A column per group that a node has room for, and rows for those that get no group.
    values = np.repeat(groups.sum(axis=3), capacity, axis=1).transpose(0, 2, 1)
    values = np.pad(values, ((0, 0), (0, sum(capacity) - num_groups), (0, 0)))
    node = np.repeat(np.arange(len(capacity)), capacity)
    chosen = node[assign(values.astype(np.float64))[:, :num_groups]]
    return np.repeat(chosen, num_experts // num_groups, axis=1)


def _fit(table: Ints, topology: Topology, heaviest: Floats) -> Ints:
    """[L, num_slots]: the contents of each GPU, without those for which it has no slot any more."""
    num_layers, num_experts = heaviest.shape
    layers = np.arange(num_layers)
    table = table.copy()
    for gpu in topology.alive:
        while len(full := np.flatnonzero((table[:, gpu] != EMPTY).sum(1) > topology.slots[gpu])):
            counts = count_replicas(table[full].reshape(len(full), -1), num_experts)
            count = counts[layers[: len(full), None], table[full, gpu]]
            load = heaviest[full[:, None], table[full, gpu]]
            # What its other replicas would get more; an expert's only replica goes last.
            missed = np.where(count > 1, load / np.maximum(count * (count - 1), 1), 1.0 + load)
            missed[table[full, gpu] == EMPTY] = np.inf
            table[full, gpu, missed.argmin(axis=1)] = EMPTY
    width = max(topology.slots)
    table = np.pad(table, ((0, 0), (0, 0), (0, max(0, width - table.shape[2]))), constant_values=-1)
    order = np.argsort(table == EMPTY, axis=2, kind="stable")[..., :width]
    table = np.take_along_axis(table, order, axis=2)
    return table[:, np.arange(width) < np.array(topology.slots)[:, None]]


def _place_lost(
    slots: Ints, topology: Topology, heaviest: Floats, homes: Ints, node_of: Ints
) -> Ints:
    """Gives each expert without a replica one, in an empty slot or that of a spare replica."""
    slots = slots.copy()
    gpu_of = np.array(topology.gpu_of_slot)
    num_experts = heaviest.shape[1]
    while True:
        counts = count_replicas(slots, num_experts)
        rows = np.flatnonzero((counts == 0).any(axis=1))
        if not len(rows):
            return slots
        expert = np.where(counts[rows] == 0, heaviest[rows], -1.0).argmax(axis=1)
        shares = even_shares(slots[rows], num_experts)
        totals = loads_of_gpus(topology, slots[rows], shares, heaviest[None, rows])[0]
        count = counts[rows[:, None], slots[rows]]
        replica = heaviest[rows[:, None], slots[rows]] * shares
        grows = replica / np.maximum(count - 1, 1)
        home = node_of[gpu_of] == homes[rows, expert][:, None]
        empty = home & (slots[rows] == EMPTY)
        spare = home & (slots[rows] != EMPTY) & (count > 1)
        possible = np.where(empty.any(axis=1)[:, None], empty, spare)
        after = np.where(possible, totals[:, gpu_of] - replica + grows, np.inf)
        slots[rows, after.argmin(axis=1)] = expert
