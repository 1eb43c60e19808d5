"""The best split of experts' tokens over their replicas, as a linear program (scipy's HiGHS)."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog


def lowest_imbalance(
    slots: Sequence[int], gpu_of_slot: Sequence[int], loads: Sequence[Sequence[float]]
) -> float:
    """The smallest max/mean of one layer, of the worst window, over all splits.

    Args:
        slots: the expert in each slot; -1 if empty.
        gpu_of_slot: the GPU of each slot.
        loads: [num_windows][num_experts]; no window without load.
    """
    gpus = sorted(set(gpu_of_slot))
    num_slots = len(slots)
    # Variables: the share of each slot, then the peak, which is to be smallest.
    limits = []
    for window in loads:
        mean = sum(window) / len(gpus)
        for gpu in gpus:
            row = np.zeros(num_slots + 1)
            for slot, expert in enumerate(slots):
                if gpu_of_slot[slot] == gpu and expert >= 0:
                    row[slot] = window[expert] / mean
            row[-1] = -1.0
            limits.append(row)
    totals = []
    for expert in range(len(loads[0])):
        row = np.zeros(num_slots + 1)
        row[[slot for slot, held in enumerate(slots) if held == expert]] = 1.0
        totals.append(row)
    objective = np.zeros(num_slots + 1)
    objective[-1] = 1.0
    result = linprog(
        objective,
        A_ub=np.array(limits),
        b_ub=np.zeros(len(limits)),
        A_eq=np.array(totals),
        b_eq=np.ones(len(totals)),
        bounds=(0, None),
        method="highs",
    )
    assert result.success, result.message
    return float(result.fun)
