"""How each expert's tokens are split over its replicas, so that the heaviest GPU gets least."""

from __future__ import annotations

import numpy as np

from eplb.plan import EMPTY, Floats, Ints, even_shares, imbalance_of, loads_of_gpus
from eplb.topology import Topology

_LEAST_GAIN = 1e-3  # an uneven split has to lower max/mean by this share of it
_TOLERANCE = 1e-6  # how far above the optimum the heaviest GPU may stay, as a share of the mean
_ROUNDING = 1e-9  # what is less, as a share of the mean, counts as nothing
_ROUNDS_PER_GPU = 20  # many more than a flow takes

# Of the descent for several windows: how sharply the heaviest GPU counts at first and at last, and
# how much of a step the next one repeats.
_STEPS, _SHARPNESS, _MOMENTUM = 200, (20.0, 400.0), 0.9


def best_shares(slots: Ints, loads: Floats, topology: Topology) -> Floats:
    """[num_layers, num_slots]: the share of its expert's tokens that each slot should get.

    With one window the heaviest GPU of a layer gets as little as any split allows. With several
    windows the worst one counts, and the optimum is approached, as a rule to 0.5 %.

    Args:
        slots: [num_layers, num_slots] int64 — the expert in each slot; -1 if empty.
        loads: [num_windows, num_layers, num_experts] float64 — any unit.
        topology: of `slots`.

    Returns:
        [num_layers, num_slots] float64: at least 0; those of an expert sum to 1. Even in layers
        where that does not lower max/mean by 0.1 %; 0 in empty slots.
    """
    even = even_shares(slots, loads.shape[2])
    if len(loads) == 1:
        uneven = _Flow(slots, loads[0], topology).shares()
    else:
        uneven = _descend(slots, loads, topology)
    before, after = (
        imbalance_of(topology, loads_of_gpus(topology, slots, shares, loads))
        for shares in (even, uneven)
    )
    return np.where((after < before * (1 - _LEAST_GAIN))[:, None], uneven, even)


def _descend(slots: Ints, loads: Floats, topology: Topology) -> Floats:
    """[num_layers, num_slots]: the best split met on the way down a smooth maximum of GPU loads.

    Shares are multiplied by what makes those on heavy GPUs smaller, and scaled so that they sum to
    1 (mirror descent with the entropy: A. Nemirovski and D. Yudin, 1983; here with momentum).
    """
    num_layers, num_experts = loads.shape[1:]
    layers = np.arange(num_layers)[:, None]
    alive = list(topology.alive)
    total = loads.sum(axis=2, keepdims=True)
    scaled = np.divide(loads, total, out=np.zeros_like(loads), where=total > 0)[:, layers, slots]
    scaled *= slots != EMPTY
    heaviest = scaled.max(axis=0)
    relative = np.divide(scaled, heaviest, out=np.zeros_like(scaled), where=heaviest > 0)
    owners = (layers * (num_experts + 1) + np.where(slots == EMPTY, num_experts, slots)).ravel()
    firsts = np.array(topology.first_slots)[alive]
    gpu_of = np.repeat(np.arange(len(alive)), np.array(topology.slots)[alive])
    shares = even_shares(slots, num_experts)
    best, lowest = shares.copy(), np.full(num_layers, np.inf)
    slope = np.zeros(shares.shape)
    for sharpness in np.geomspace(*_SHARPNESS, _STEPS):
        totals = np.add.reduceat(shares * scaled, firsts, axis=2)
        peak = totals.max(axis=(0, 2))
        better = peak < lowest
        best[better], lowest[better] = shares[better], peak[better]
        from_peak = totals / np.where(peak > 0, peak, 1.0)[:, None] - 1
        weight = np.exp(sharpness * from_peak)[:, :, gpu_of]
        slope = _MOMENTUM * slope + (weight * relative).sum(axis=0)
        shares = shares * np.exp(-slope / sharpness)
        sums = np.bincount(owners, shares.ravel(), minlength=num_layers * (num_experts + 1))
        shares /= np.where(slots == EMPTY, 1.0, sums[owners].reshape(slots.shape))
    return best


class _Flow:
    """A maximum flow from experts through their slots to GPUs, of all layers at once.

    Every GPU has the same capacity, first the mean. What a GPU has too much goes along shortest
    paths to GPUs with less than the capacity (A. V. Goldberg and R. E. Tarjan, 1988; distances
    are exact here). GPUs from which no path is left have their load among themselves, however it
    is split: its mean is the next capacity (W. Dinkelbach, 1967), and the last one is the optimum.

    Slots are numbered through all layers, as are GPUs and experts; those with no slot have no
    number.

    Attributes:
        gpu_of, expert_of: [num_layers * num_slots] the GPU and the expert of each slot.
        by_expert: the slots, ordered by expert; `expert_starts` says where each begins.
        amounts: [num_layers * num_slots] what each slot gets.
        capacity: [num_layers] a lower bound of the heaviest GPU's load.
        mean: [GPUs] the mean load in the layer of each.
        nothing: [num_layers * num_slots] an amount too small to count.
    """

    def __init__(self, slots: Ints, load: Floats, topology: Topology) -> None:
        num_layers, num_slots = slots.shape
        alive = topology.alive
        layers = np.arange(num_layers)[:, None]
        self.num_gpus = len(alive)
        self.shape = slots.shape
        self.even = even_shares(slots, load.shape[1])
        self.load = np.where(slots == EMPTY, 0.0, load[layers, slots]).ravel()
        self.amounts = self.even.ravel() * self.load
        firsts = np.array([topology.first_slots[gpu] for gpu in alive])
        self.gpu_starts = (layers * num_slots + firsts).ravel()
        sizes = np.tile([topology.slots[gpu] for gpu in alive], num_layers)
        self.gpu_of = np.repeat(np.arange(num_layers * self.num_gpus), sizes)
        # An empty slot counts as one of an expert without load.
        keys = (
            layers * (load.shape[1] + 1) + np.where(slots == EMPTY, load.shape[1], slots)
        ).ravel()
        self.by_expert = np.argsort(keys, kind="stable")
        begins = np.diff(keys[self.by_expert], prepend=-1) != 0
        self.expert_starts = np.flatnonzero(begins)
        self.expert_of = np.empty_like(keys)
        self.expert_of[self.by_expert] = np.cumsum(begins) - 1
        self.capacity = load.sum(axis=1) / self.num_gpus
        self.mean = np.repeat(self.capacity, self.num_gpus)
        self.nothing = _ROUNDING * self.mean[self.gpu_of]

    def shares(self) -> Floats:
        """[num_layers, num_slots]: the optimal split."""
        for _ in range(_ROUNDS_PER_GPU * self.num_gpus):
            totals = np.add.reduceat(self.amounts, self.gpu_starts)
            excess = totals - np.repeat(self.capacity, self.num_gpus)
            too_much = excess > _TOLERANCE * self.mean
            if not too_much.any():
                break
            distance = self._distances(excess < -_ROUNDING * self.mean)
            stuck = np.isinf(distance).reshape(-1, self.num_gpus)
            full = (stuck & too_much.reshape(stuck.shape)).any(axis=1)
            self._raise_capacity(full, stuck, totals.reshape(stuck.shape))
            self._push(np.where(np.repeat(full, self.num_gpus), 0.0, excess), distance)
        even = self.even.ravel()
        shares = np.divide(self.amounts, self.load, out=even.copy(), where=self.load > 0)
        return shares.reshape(self.shape)

    def _distances(self, below: np.ndarray) -> Floats:
        """[GPUs]: over how many replicas load can get from each to a GPU that is `below`."""
        distance = np.where(below, 0.0, np.inf)
        gives = self.amounts > self.nothing
        while True:
            nearest = self._nearest(distance)[self.expert_of]
            through = np.where(gives, nearest + 1, np.inf)
            shorter = np.minimum(distance, np.minimum.reduceat(through, self.gpu_starts))
            if (shorter == distance).all():
                return distance
            distance = shorter

    def _nearest(self, distance: Floats) -> Floats:
        """[experts]: the least distance of a GPU that has one of its replicas."""
        return np.minimum.reduceat(distance[self.gpu_of[self.by_expert]], self.expert_starts)

    def _raise_capacity(self, full: np.ndarray, stuck: np.ndarray, totals: Floats) -> None:
        among = (totals * stuck).sum(axis=1)[full] / stuck.sum(axis=1)[full]
        self.capacity[full] = among

    def _push(self, excess: Floats, distance: Floats) -> None:
        """Moves what GPUs have too much to replicas on GPUs that are one step nearer."""
        own = distance[self.gpu_of]
        nearest = self._nearest(distance)[self.expert_of]
        nearer = (own == nearest + 1) & np.isfinite(own) & (self.amounts > self.nothing)
        movable = np.where(nearer, self.amounts, 0.0)
        # A GPU gives from its first slots first.
        before = np.cumsum(movable) - movable
        before -= before[self.gpu_starts][self.gpu_of]
        given = np.clip(excess[self.gpu_of] - before, 0.0, movable)
        hits = np.flatnonzero(own == nearest)
        target = np.empty(len(self.expert_starts), dtype=np.int64)
        target[self.expert_of[hits]] = hits
        self.amounts -= given
        self.amounts += np.bincount(target[self.expert_of], given, minlength=len(given))
