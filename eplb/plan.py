"""A plan: which expert every slot holds, how its tokens are split, and how good that is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eplb.topology import Topology

if TYPE_CHECKING:
    from eplb.transfer import Transfer

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The three matrices of a routed expert of DeepSeek-V3 (hidden 7168, intermediate 2048) in FP8.
DEEPSEEK_V3_EXPERT_BYTES = 3 * 7168 * 2048

EMPTY = -1  # the content of a slot that no expert needs


@dataclass(frozen=True, eq=False)
class Plan:
    """Which expert each slot of a topology holds, layer by layer.

    Attributes:
        topology: the GPUs and their slots.
        policy: "hierarchical" or "global", what the plan was made with.
        loads: [num_windows, num_layers, num_experts] float64 — the load planned for, any unit.
        slots: [num_layers, num_slots] int64 — the expert in each slot, GPU by GPU; -1 if empty.
        shares: [num_layers, num_slots] float64 — the share of its expert's tokens that a replica
            should get; those of an expert sum to 1. Where an uneven split does not help they are
            all 1 / (number of replicas).
        lower_bound: [num_layers] float64 — no plan under the same policy that splits tokens evenly
            can have a smaller max/mean than this.
        num_moved: [num_layers] int64 — replicas whose GPU did not hold that expert before; 0 where
            there was no plan before.
    """

    topology: Topology
    policy: str
    loads: Floats
    slots: Ints
    shares: Floats
    lower_bound: Floats
    num_moved: Ints

    @property
    def num_layers(self) -> int:
        return len(self.slots)

    @property
    def num_experts(self) -> int:
        return int(self.loads.shape[2])

    @cached_property
    def counts(self) -> Ints:
        """[num_layers, num_experts] int64: how many replicas each expert has."""
        return count_replicas(self.slots, self.num_experts)

    @cached_property
    def phy2log(self) -> Tensor:
        """[num_layers, num_slots] int64: the expert in each slot, GPU by GPU; -1 if empty."""
        return torch.from_numpy(self.slots.copy())

    @cached_property
    def log2phy(self) -> Tensor:
        """[num_layers, num_experts, X] int64: the slots of each expert, in order, then -1.

        X is the largest number of replicas of any expert in any layer.
        """
        return torch.from_numpy(slots_of_experts(self.slots, self.num_experts))

    @cached_property
    def logcnt(self) -> Tensor:
        """[num_layers, num_experts] int64: how many replicas each expert has."""
        return torch.from_numpy(self.counts.copy())

    @cached_property
    def routing_weights(self) -> Tensor:
        """[num_layers, num_experts, X] float64: the share of each slot in `log2phy`; 0 for -1."""
        slots = self.log2phy.numpy()
        layers = np.arange(self.num_layers)[:, None, None]
        return torch.from_numpy(np.where(slots == EMPTY, 0.0, self.shares[layers, slots]))

    def transfer(self, previous: Plan, *, expert_bytes: int = DEEPSEEK_V3_EXPERT_BYTES) -> Transfer:
        """Which experts go from which GPU to which, in rounds; see `plan_transfer`."""
        from eplb.transfer import plan_transfer  # noqa: PLC0415 - that module is made of plans

        return plan_transfer(self, previous, expert_bytes=expert_bytes)

    def gpu_loads(self, loads: Floats | None = None, *, even: bool = True) -> Floats:
        """[num_windows, num_layers, num_gpus] float64: what each GPU gets.

        Args:
            loads: [num_windows, num_layers, num_experts] or [num_layers, num_experts] — by default
                the loads that were planned for.
            even: split an expert's tokens evenly; else by `shares`.
        """
        given = self.loads if loads is None else loads.reshape(-1, *loads.shape[-2:])
        shares = even_shares(self.slots, self.num_experts) if even else self.shares
        return loads_of_gpus(self.topology, self.slots, shares, given)

    @cached_property
    def imbalance(self) -> Floats:
        """[num_layers] float64: max/mean load of the working GPUs, worst window, even split."""
        return imbalance_of(self.topology, self.gpu_loads())

    @cached_property
    def weighted_imbalance(self) -> Floats:
        """[num_layers] float64: the same with tokens split by `shares`."""
        return imbalance_of(self.topology, self.gpu_loads(even=False))

    @property
    def gap(self) -> Floats:
        """[num_layers] float64: how far max/mean is above the lower bound, as a share of it."""
        return self.imbalance / self.lower_bound - 1


def count_replicas(slots: Ints, num_experts: int) -> Ints:
    """[num_layers, num_experts]: replicas of each expert in slots [num_layers, num_slots]."""
    num_layers = slots.shape[0]
    keys = (np.arange(num_layers)[:, None] * num_experts + slots)[slots != EMPTY]
    return np.bincount(keys, minlength=num_layers * num_experts).reshape(num_layers, num_experts)


def even_shares(slots: Ints, num_experts: int) -> Floats:
    """[num_layers, num_slots]: 1 / (number of replicas of the slot's expert); 0 if empty."""
    layers = np.arange(slots.shape[0])[:, None]
    counts = np.maximum(count_replicas(slots, num_experts), 1)
    return np.where(slots == EMPTY, 0.0, 1.0 / counts[layers, slots])


def slots_of_experts(slots: Ints, num_experts: int) -> Ints:
    """[num_layers, num_experts, X]: the slots of each expert in ascending order, then -1."""
    num_layers, num_slots = slots.shape
    counts = count_replicas(slots, num_experts)
    table = np.full((num_layers, num_experts, max(1, int(counts.max(initial=0)))), EMPTY)
    order = np.argsort(np.where(slots == EMPTY, num_experts, slots), axis=1, kind="stable")
    layers = np.arange(num_layers)[:, None]
    experts = slots[layers, order]
    starts = np.cumsum(counts, axis=1) - counts
    used = experts != EMPTY
    ranks = np.arange(num_slots) - starts[layers, experts]
    table[np.broadcast_to(layers, used.shape)[used], experts[used], ranks[used]] = order[used]
    return table


def loads_of_gpus(topology: Topology, slots: Ints, shares: Floats, loads: Floats) -> Floats:
    """[num_windows, num_layers, num_gpus]: what each GPU gets of loads [W, L, E]."""
    layers = np.arange(slots.shape[0])[:, None]
    per_slot = loads[:, layers, slots] * shares
    totals = np.zeros((*loads.shape[:2], topology.num_gpus))
    gpus = list(topology.alive)
    firsts = [topology.first_slots[gpu] for gpu in gpus]
    totals[..., gpus] = np.add.reduceat(per_slot, firsts, axis=2)
    return totals


def imbalance_of(topology: Topology, gpu_loads: Floats) -> Floats:
    """[num_layers]: max/mean of the working GPUs in the worst window; 1 where there is no load."""
    working = gpu_loads[..., list(topology.alive)]
    mean = working.mean(axis=2)
    ratio = np.divide(working.max(axis=2), mean, out=np.ones_like(mean), where=mean > 0)
    return np.asarray(ratio.max(axis=0))


def held(slots: Ints, topology: Topology, num_experts: int) -> NDArray[np.bool_]:
    """[num_layers, num_gpus, num_experts]: whether a GPU has a replica of an expert."""
    table = np.zeros((len(slots), topology.num_gpus, num_experts + 1), dtype=bool)
    layers = np.arange(len(slots))[:, None]
    table[layers, np.array(topology.gpu_of_slot), slots] = True  # EMPTY is the last column
    return table[..., :-1]


def num_moved(slots: Ints, topology: Topology, before: Ints, topology_before: Topology) -> Ints:
    """[num_layers]: replicas on GPUs that did not hold their expert before."""
    num_experts = int(max(slots.max(initial=0), before.max(initial=0))) + 1
    had = held(before, topology_before, num_experts)
    has = held(slots, topology, num_experts)
    return np.asarray((has & ~had).sum(axis=(1, 2)))
