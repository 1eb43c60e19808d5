"""The planner under its original name: `rebalance_experts`, greedy, without a search."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eplb.checks import check_values
from eplb.plan import Ints

Singles = NDArray[np.float32]


def rebalance_experts(
    weight: Tensor, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Replicates experts and places the replicas on GPUs, by DeepSeek's greedy algorithm.

    If `num_groups` is a multiple of `num_nodes` the plan is hierarchical: groups of neighbouring
    experts are packed onto nodes, each node replicates its own experts, and their replicas are
    packed onto its GPUs. Otherwise groups and nodes are left out of account.

    Replicating gives one more replica, again and again, to the expert with the largest load per
    replica. Packing goes through the items from heavy to light and puts each on the lightest GPU
    (or node) with room. Equal values are taken in the order of their indices, so that equal inputs
    have equal plans on every machine.

    >>> phy2log, log2phy, logcnt = rebalance_experts(
    ...     torch.tensor([[90, 132, 40, 61]]), num_replicas=6, num_groups=1, num_nodes=1, num_gpus=2
    ... )
    >>> phy2log.tolist(), logcnt.tolist()
    ([[1, 3, 2, 1, 0, 0]], [[2, 2, 1, 1]])

    Args:
        weight: [num_layers, num_experts] integers or floats, on any device — the load of each
            expert, any unit. It is used as float32.
        num_replicas: replicas of all experts together, per layer; a multiple of `num_gpus`.
        num_groups: groups of experts; for a hierarchical plan it must divide `num_experts`.
        num_nodes: nodes of equal size; for a hierarchical plan it must divide `num_gpus`.
        num_gpus: GPUs in all nodes together.

    Returns:
        int64 tensors on the CPU. With X = the most replicas that any expert of any layer has:
        - phy2log [num_layers, num_replicas]: the expert in each slot, GPU by GPU.
        - log2phy [num_layers, num_experts, X]: the slots of each expert in the order in which its
          replicas were made, then -1.
        - logcnt [num_layers, num_experts]: how many replicas each expert has.
        Without a layer they are empty, with X = 1.

    Raises:
        TypeError: `weight` is no tensor of numbers.
        ValueError: a size breaks a rule above, or a weight is NaN, infinite or negative.

    Source: DeepSeek, Expert Parallelism Load Balancer (the README of EPLB).
    """
    weights = _checked_weights(weight)
    num_layers, num_experts = weights.shape
    hierarchical = _check_sizes(num_experts, num_replicas, num_groups, num_nodes, num_gpus)
    if not hierarchical:
        num_groups = num_nodes = 1
    experts = _experts_by_node(weights, num_groups, num_nodes)
    per_node: Singles = np.take_along_axis(weights.numpy(), experts, axis=1).reshape(
        num_layers * num_nodes, num_experts // num_nodes
    )
    local_experts, ranks, counts, loads = _replicate(per_node, num_replicas // num_nodes)
    slots = _pack(np.take_along_axis(loads, local_experts, axis=1), num_gpus // num_nodes)

    layers = np.arange(num_layers)[:, None]
    rows = np.arange(len(per_node))[:, None]
    shape = (num_layers, num_replicas)
    first_expert = (rows % num_nodes) * per_node.shape[1]
    replicated = experts[layers, (local_experts + first_expert).reshape(shape)]
    first_slot = (rows % num_nodes) * (num_replicas // num_nodes)
    placed = (slots + first_slot).reshape(shape)
    phy2log = np.empty(shape, np.int64)
    phy2log[layers, placed] = replicated
    logcnt = np.empty((num_layers, num_experts), np.int64)
    logcnt[layers, experts] = counts.reshape(num_layers, num_experts)
    log2phy = np.full((num_layers, num_experts, logcnt.max(initial=1)), -1)
    log2phy[layers, replicated, ranks.reshape(shape)] = placed
    return torch.from_numpy(phy2log), torch.from_numpy(log2phy), torch.from_numpy(logcnt)


def _experts_by_node(weights: Tensor, num_groups: int, num_nodes: int) -> Ints:
    """[num_layers, num_experts]: the experts, node by node, after groups were packed on nodes."""
    num_layers, num_experts = weights.shape
    grouped = weights.view(num_layers, num_groups, num_experts // num_groups)
    places = _pack(grouped.sum(2).numpy(), num_nodes)
    groups = np.empty_like(places)
    groups[np.arange(num_layers)[:, None], places] = np.arange(num_groups)
    members = np.arange(num_experts).reshape(num_groups, -1)
    return members[groups].reshape(num_layers, num_experts)


def _replicate(weights: Singles, num_replicas: int) -> tuple[Ints, Ints, Ints, Singles]:
    """Gives out replicas until there are `num_replicas`, in every row by itself.

    Args:
        weights: [num_rows, num_experts].
        num_replicas: how many there shall be in a row.

    Returns:
        Of each replica [num_rows, num_replicas] its expert and its rank among that expert's
        replicas; of each expert [num_rows, num_experts] how many replicas it has, and the load of
        one of them.
    """
    num_rows, num_experts = weights.shape
    experts = np.empty((num_rows, num_replicas), np.int64)
    experts[:, :num_experts] = np.arange(num_experts)
    ranks = np.zeros_like(experts)
    # Flat views: indexing them by one array costs half of indexing by rows and columns.
    flat_weights, counts = weights.ravel(), np.ones(weights.size, np.int64)
    loads = weights.copy()
    flat_loads = loads.ravel()
    row_starts = np.arange(num_rows) * num_experts
    for replica in range(num_experts, num_replicas):
        heaviest = loads.argmax(axis=1)
        experts[:, replica] = heaviest
        heaviest += row_starts
        ranks[:, replica] = count = counts[heaviest]
        counts[heaviest] = count = count + 1
        flat_loads[heaviest] = flat_weights[heaviest] / count.astype(np.float32)
    return experts, ranks, counts.reshape(num_rows, num_experts), loads


def _pack(weights: Singles, num_packs: int) -> Ints:
    """Spreads the items of each row over packs with equal numbers of items.

    Args:
        weights: [num_rows, num_items].
        num_packs: must divide num_items.

    Returns:
        [num_rows, num_items] the place of each item: pack * (num_items / num_packs) + how many
        items came into that pack before.
    """
    num_rows, num_items = weights.shape
    room = num_items // num_packs
    if room <= 1:
        return np.broadcast_to(np.arange(num_items), weights.shape).copy()
    order = np.argsort(-weights, axis=1, kind="stable")
    upcoming = np.ascontiguousarray(np.take_along_axis(weights, order, axis=1).T)
    packs = np.zeros((num_rows, num_packs), np.float32)  # their loads; a full one weighs infinity
    flat_packs, sizes = packs.ravel(), np.zeros(packs.size, np.int64)
    row_starts = np.arange(num_rows) * num_packs
    places = np.empty((num_items, num_rows), np.int64)
    for item in range(num_items):
        lightest = packs.argmin(axis=1)
        lightest += row_starts
        size = sizes[lightest]
        places[item] = lightest * room + size
        size += 1
        sizes[lightest] = size
        total = flat_packs[lightest] + upcoming[item]
        total[size == room] = np.inf
        flat_packs[lightest] = total
    result = np.empty((num_rows, num_items), np.int64)
    np.put_along_axis(result, order, places.T - (row_starts * room)[:, None], axis=1)
    return result


def _checked_weights(weight: Tensor) -> Tensor:
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"rebalance_experts: weight must be a tensor, got {type(weight).__name__} "
            "(use torch.as_tensor)"
        )
    if weight.dtype is torch.bool or weight.is_complex():
        raise TypeError(
            f"rebalance_experts: weight must hold integers or floats, got {weight.dtype} "
            "(count tokens per expert)"
        )
    if weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(
            "rebalance_experts: weight must have 2 dimensions [num_layers, num_experts] and an "
            f"expert, got shape {list(weight.shape)}"
        )
    weights = weight.detach().float().cpu().contiguous()
    check_values("rebalance_experts", weights.numpy(), "weight")
    return weights


def _check_sizes(
    num_experts: int, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> bool:
    """Raises ValueError for sizes that do not fit together; returns whether to use groups."""
    sizes = {"num_groups": num_groups, "num_nodes": num_nodes, "num_gpus": num_gpus}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"rebalance_experts: {name} must be at least 1, got {size}")
    hierarchical = num_groups % num_nodes == 0
    if num_replicas < num_experts:
        raise ValueError(
            f"rebalance_experts: num_replicas must be at least num_experts={num_experts}, "
            f"got {num_replicas} (every expert needs one)"
        )
    if num_replicas % num_gpus:
        raise ValueError(
            f"rebalance_experts: num_replicas must be a multiple of num_gpus={num_gpus}, "
            f"got {num_replicas} (eplb.rebalance takes GPUs with unequal numbers of slots)"
        )
    if hierarchical and num_gpus % num_nodes:
        raise ValueError(
            f"rebalance_experts: num_gpus must be a multiple of num_nodes={num_nodes}, "
            f"got {num_gpus} (eplb.rebalance takes nodes of unequal sizes)"
        )
    if hierarchical and num_experts % num_groups:
        raise ValueError(
            f"rebalance_experts: num_groups must divide num_experts={num_experts}, "
            f"got {num_groups} (num_groups=1 and num_nodes=1 balance without groups)"
        )
    return hierarchical
