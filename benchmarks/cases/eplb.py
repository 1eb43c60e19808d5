"""The greedy balancer, beside a port that follows the published loops item by item."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Peer, TensorCase
from benchmarks.roofline import Work
from benchmarks.timing import Inputs

Plan = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Balance:
    """A model's routed experts and the GPUs that they are spread over; 8 groups of experts."""

    layers: int
    experts: int
    replicas: int
    nodes: int
    gpus: int


def _inputs(shape: Balance, device: torch.device, seed: int) -> Inputs:
    """Lognormal loads: the most loaded of 256 experts gets about ten times the mean."""
    generator = torch.Generator().manual_seed(seed)
    loads = torch.randn(shape.layers, shape.experts, generator=generator).exp()
    return {"weight": loads.to(device), "sizes": (shape.replicas, 8, shape.nodes, shape.gpus)}


def _ours(inputs: Inputs) -> Plan:
    rebalance_experts = import_module("eplb.greedy").rebalance_experts
    plan: Plan = rebalance_experts(inputs["weight"], *inputs["sizes"])
    return plan


def per_item(inputs: Inputs) -> Plan:
    """The same algorithm as one scalar step of torch after the other."""
    num_replicas, num_groups, num_nodes, num_gpus = inputs["sizes"]
    weight = inputs["weight"].float().cpu()
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    num_layers, num_experts = weight.shape
    members = torch.arange(num_experts).view(num_groups, -1)
    phy2log = torch.empty(num_layers, num_replicas, dtype=torch.int64)
    logcnt = torch.empty(num_layers, num_experts, dtype=torch.int64)
    ranks = torch.empty_like(phy2log)
    for layer in range(num_layers):
        groups = _pack(weight[layer].view(num_groups, -1).sum(1), num_nodes).argsort()
        for node, own in enumerate(groups.view(num_nodes, -1)):
            experts = members[own].flatten()
            local, rank, counts = _replicate(weight[layer, experts], num_replicas // num_nodes)
            order = _pack((weight[layer, experts] / counts)[local], num_gpus // num_nodes).argsort()
            here = slice(node * len(order), (node + 1) * len(order))
            phy2log[layer, here], ranks[layer, here] = experts[local[order]], rank[order]
            logcnt[layer, experts] = counts
    log2phy = torch.full((num_layers, num_experts, int(logcnt.max())), -1)
    layers = torch.arange(num_layers)[:, None]
    log2phy[layers, phy2log, ranks] = torch.arange(num_replicas).expand_as(phy2log)
    return phy2log, log2phy, logcnt


def _pack(weights: Tensor, num_packs: int) -> Tensor:
    """[num_items] the place of each item, pack by pack."""
    room = len(weights) // num_packs
    if room == 1:
        return torch.arange(num_packs)
    places = torch.empty(len(weights), dtype=torch.int64)
    totals = [torch.zeros(()) for _ in range(num_packs)]
    sizes = [0] * num_packs
    for item in weights.sort(descending=True, stable=True).indices:
        lightest = min((p for p in range(num_packs) if sizes[p] < room), key=totals.__getitem__)
        places[item] = lightest * room + sizes[lightest]
        totals[lightest] = totals[lightest] + weights[item]
        sizes[lightest] += 1
    return places


def _replicate(weights: Tensor, num_replicas: int) -> Plan:
    """Expert and rank of each replica, and the replicas of each expert."""
    num_experts = len(weights)
    experts, ranks = torch.arange(num_replicas), torch.zeros(num_replicas, dtype=torch.int64)
    counts = torch.ones(num_experts, dtype=torch.int64)
    for replica in range(num_experts, num_replicas):
        heaviest = (weights / counts).max(0).indices
        experts[replica], ranks[replica] = heaviest, counts[heaviest]
        counts[heaviest] += 1
    return experts, ranks, counts


def _difference(actual: Plan, expected: Plan) -> float:
    """0 if every index is the same, else infinity: a plan is right or wrong."""
    same = all(torch.equal(ours, true) for ours, true in zip(actual, expected, strict=True))
    return 0.0 if same else math.inf


def _work(shape: Balance) -> Work:
    """Loads in, three tables out; the greedy choice itself is no arithmetic to speak of."""
    rows = 4 * shape.experts + 8 * (2 * shape.replicas + shape.experts)
    return Work(0, shape.layers * rows, "fp32")


CASES: tuple[TensorCase[Any], ...] = (
    TensorCase(
        name="eplb",
        title="rebalance_experts: replicas and their GPUs for all layers of a model",
        devices=("cpu",),
        needs=("eplb.greedy.rebalance_experts",),
        shapes={
            "tiny": (Balance(1, 8, 8, 1, 2), Balance(2, 16, 24, 2, 4), Balance(3, 24, 32, 3, 8)),
            "real": (
                Balance(58, 256, 288, 4, 32),
                Balance(58, 256, 320, 8, 64),
                Balance(58, 256, 288, 1, 32),
                Balance(58, 256, 384, 16, 128),
            ),
            "sweep": tuple(Balance(8, 256, 256 + 2**power, 1, 32) for power in range(5, 9)),
        },
        work=_work,
        tolerance=0.0,
        peers={"per-item-torch": Peer(per_item, devices=("cpu",))},
        inputs=_inputs,
        ours=_ours,
        oracle=per_item,
        error=_difference,
    ),
)
