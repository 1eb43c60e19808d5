"""The greedy balancer by definition: one layer, one item, one number after the other, in float32.

Equal values are taken in the order of their indices.
"""

import numpy as np
import torch

Row = list[np.float32]


def pack(weights: Row, num_packs: int) -> list[tuple[int, int]]:
    """(pack, position in it) of each item: heavy items first, each into the lightest open pack."""
    room = len(weights) // num_packs
    if room == 1:
        return [(item, 0) for item in range(num_packs)]
    members: list[list[int]] = [[] for _ in range(num_packs)]
    totals = [np.float32(0)] * num_packs
    for item in sorted(range(len(weights)), key=lambda item: (-weights[item], item)):
        free = [pack for pack in range(num_packs) if len(members[pack]) < room]
        lightest = min(free, key=lambda pack: (totals[pack], pack))
        members[lightest].append(item)
        totals[lightest] = np.float32(totals[lightest] + weights[item])
    return [
        next((p, inside.index(item)) for p, inside in enumerate(members) if item in inside)
        for item in range(len(weights))
    ]


def replicate(weights: Row, num_replicas: int) -> list[tuple[int, int]]:
    """(expert, how many it had before) of each replica, in the order in which they are made."""
    made = [(expert, 0) for expert in range(len(weights))]
    counts = [1] * len(weights)
    while len(made) < num_replicas:
        each = [np.float32(w / np.float32(n)) for w, n in zip(weights, counts, strict=True)]
        expert = each.index(max(each))
        made.append((expert, counts[expert]))
        counts[expert] += 1
    return made


def one_layer(
    weights: Row, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> list[tuple[int, int]]:
    """(expert, its replica) in each slot."""
    size = len(weights) // num_groups
    groups = [list(range(first, first + size)) for first in range(0, len(weights), size)]
    # The sum of a group as torch rounds it: that is part of the contract.
    sums = torch.from_numpy(np.array(weights)).reshape(num_groups, size).sum(1).numpy()
    homes = pack(list(sums), num_nodes)
    slots: list[tuple[int, int]] = []
    for node in range(num_nodes):
        held = sorted(
            (homes[group][1], group) for group in range(num_groups) if homes[group][0] == node
        )
        experts = [expert for _, group in held for expert in groups[group]]
        made = replicate([weights[expert] for expert in experts], num_replicas // num_nodes)
        counts = [sum(local == other for other, _ in made) for local in range(len(experts))]
        loads = [
            np.float32(weights[experts[local]] / np.float32(counts[local])) for local, _ in made
        ]
        gpus = num_gpus // num_nodes
        room = len(made) // gpus
        here: list[tuple[int, int]] = [(-1, -1)] * len(made)
        for (local, rank), (gpu, position) in zip(made, pack(loads, gpus), strict=True):
            here[gpu * room + position] = (experts[local], rank)
        slots += here
    return slots


def rebalance_experts(
    weight: torch.Tensor, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """phy2log, log2phy and logcnt, all int64."""
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    num_experts = weight.shape[1]
    rows = [list(row) for row in weight.float().numpy()]
    layers = [one_layer(row, num_replicas, num_groups, num_nodes, num_gpus) for row in rows]
    phy2log = torch.tensor([[expert for expert, _ in slots] for slots in layers])
    logcnt = torch.stack([torch.bincount(row, minlength=num_experts) for row in phy2log])
    log2phy = torch.full((len(layers), num_experts, int(logcnt.max())), -1)
    for layer, slots in enumerate(layers):
        for slot, (expert, rank) in enumerate(slots):
            log2phy[layer, expert, rank] = slot
    return phy2log, log2phy, logcnt
