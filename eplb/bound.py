"""What no plan can beat, however it places and counts replicas."""

from __future__ import annotations

import numpy as np

from eplb.plan import Floats
from eplb.start import replicate

_HALVINGS = 20


def lower_bound(loads: Floats, num_slots: int, num_gpus: int) -> Floats:
    """[num_problems]: the heaviest GPU of no plan is lighter than this, in its worst window.

    The largest of three bounds: the mean load of a GPU; the heaviest replica, if counts are chosen
    to make it as light as possible; and the least load T at which the replicas heavier than T / 2,
    of which a GPU can take one only, are not more than there are GPUs.

    Args:
        loads: [num_windows, num_problems, num_experts].
        num_slots: of all GPUs together.
        num_gpus: those that have slots.
    """
    mean = loads.sum(axis=2).max(axis=0) / num_gpus
    replica = (loads.max(axis=0) / replicate(loads, num_slots, num_gpus)).max(axis=1)
    bound = np.maximum(mean, replica)
    for window in loads:
        bound = np.maximum(bound, _big_replicas_bound(window, num_slots, num_gpus, bound))
    return np.asarray(bound)


def _big_replicas_bound(loads: Floats, num_slots: int, num_gpus: int, low: Floats) -> Floats:
    """[num_problems]: by bisection from `low`, a bound already, up to twice of it.

    At 2 `low` there are counts without any replica heavier than half of it: those that `low` knows.
    """
    infeasible, feasible = low.copy(), 2 * low
    for _ in range(_HALVINGS):
        middle = (infeasible + feasible) / 2
        fits = _fits(loads, middle, num_slots, num_gpus)
        feasible = np.where(fits, middle, feasible)
        infeasible = np.where(fits, infeasible, middle)
    return infeasible


def _fits(loads: Floats, limit: Floats, num_slots: int, num_gpus: int) -> np.ndarray:
    """[num_problems] bool: whether counts may exist with at most one big replica per GPU.

    An expert has either the fewest replicas that are not above the limit, which may be big, or so
    many that none is big. Starting from the fewest, those are made small that cost the fewest slots
    for each big replica that disappears; the last one as a fraction, so this errs to "fits".
    """
    share = loads / np.where(limit > 0, limit, 1.0)[:, None]
    # A hair of tolerance, so that rounding can only lower the bound.
    fewest = np.maximum(1, np.ceil(share * (1 - 1e-9)))
    small = np.maximum(1, np.ceil(2 * share * (1 - 1e-9)))
    big = np.where(fewest < small, fewest, 0.0)
    price = np.where(small <= num_gpus, (small - fewest) / fewest, np.inf)
    price = np.where(big > 0, price, np.inf)
    order = np.argsort(price, axis=1)
    price, big_sorted = (np.take_along_axis(a, order, axis=1) for a in (price, big))
    to_go = np.maximum(0.0, big.sum(axis=1) - num_gpus)
    taken = np.clip(to_go[:, None] - (np.cumsum(big_sorted, axis=1) - big_sorted), 0, big_sorted)
    cost = np.where(taken > 0, price, 0.0) * taken
    within = (fewest <= num_gpus).all(axis=1)
    return np.asarray(within & (fewest.sum(axis=1) + cost.sum(axis=1) <= num_slots + 1e-6))
