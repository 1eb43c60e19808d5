"""Where a search begins: how many replicas each expert gets, and a first placement of them."""

from __future__ import annotations

import numpy as np

from eplb.plan import EMPTY, Floats, Ints


def replicate(loads: Floats, num_slots: int, num_gpus: int) -> Ints:
    """[num_problems, num_experts]: the replica counts with the lightest heaviest replica.

    Every expert starts with one replica, then the heaviest replica of all is split once more, until
    no slot is left. No other counts have a lighter heaviest replica: an optimal choice would have
    to split it too. An expert on every GPU is not split further.

    Args:
        loads: [num_windows, num_problems, num_experts], of which the heaviest window counts.
        num_slots: how many replicas there is room for, at least num_experts.
        num_gpus: the most replicas an expert may have.
    """
    heaviest = loads.max(axis=0)
    counts = np.ones(heaviest.shape, dtype=np.int64)
    if num_gpus == 1:
        return counts
    replica = heaviest.copy()
    problems = np.arange(len(heaviest))
    for _ in range(min(num_slots, heaviest.shape[1] * num_gpus) - heaviest.shape[1]):
        expert = replica.argmax(axis=1)
        counts[problems, expert] += 1
        count = counts[problems, expert]
        split = heaviest[problems, expert] / count
        replica[problems, expert] = np.where(count < num_gpus, split, -1.0)
    return counts


def place(loads: Floats, counts: Ints, gpu_slots: Ints) -> Ints:
    """[num_problems, num_slots]: replicas in slots, the heaviest first onto the lightest GPU.

    No GPU gets two replicas of an expert. A replica for which only such GPUs have room left is
    dropped, so slots may stay EMPTY; the first replica of an expert always finds room.

    Args:
        loads: [num_windows, num_problems, num_experts].
        counts: [num_problems, num_experts], at least 1 each, at most the number of slots together.
        gpu_slots: [num_gpus] the slots of each GPU.
    """
    num_windows, num_problems, num_experts = loads.shape
    problems = np.arange(num_problems)
    replica = loads / counts
    order = np.argsort(-replica.max(axis=0), axis=1, kind="stable")
    # Column k: the expert of each problem's k-th replica, or num_experts after the last one.
    ends = np.cumsum(np.take_along_axis(counts, order, axis=1), axis=1)
    ranks = np.arange(int(ends[:, -1].max(initial=0)))
    owner = (ranks[None, :, None] >= ends[:, None, :]).sum(axis=2)
    experts = np.take_along_axis(np.pad(order, ((0, 0), (0, 1)), constant_values=-1), owner, axis=1)

    firsts = np.cumsum(gpu_slots) - gpu_slots
    slots = np.full((num_problems, int(gpu_slots.sum())), EMPTY)
    used = np.zeros((num_problems, len(gpu_slots)), dtype=np.int64)
    totals = np.zeros((num_windows, num_problems, len(gpu_slots)))
    holds = np.zeros((num_problems, num_experts, len(gpu_slots)), dtype=bool)
    for expert in experts.T:
        full = used >= gpu_slots
        weight = np.where(holds[problems, expert] | full, np.inf, totals.max(axis=0))
        gpu = weight.argmin(axis=1)
        ok = np.flatnonzero(np.isfinite(weight[problems, gpu]) & (expert >= 0))
        to, what = gpu[ok], expert[ok]
        slots[ok, firsts[to] + used[ok, to]] = what
        used[ok, to] += 1
        holds[ok, what, to] = True
        totals[:, ok, to] += replica[:, ok, what]
    return slots
