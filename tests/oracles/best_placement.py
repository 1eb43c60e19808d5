"""The best placement of tiny problems, by trying all of them."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations


def best_peak(loads: Sequence[Sequence[int]], gpu_slots: Sequence[int]) -> Fraction:
    """The lightest heaviest GPU (of the worst window) that any placement reaches.

    Every expert is somewhere, no GPU has one twice, and all slots are full.

    Args:
        loads: [num_windows][num_experts] integers.
        gpu_slots: slots of each GPU, not more than there are experts.
    """
    num_experts = len(loads[0])
    return min(
        peak(loads, placement)
        for placement in _placements(num_experts, gpu_slots)
        if len(set().union(*placement)) == num_experts
    )


def peak(loads: Sequence[Sequence[int]], placement: Sequence[Sequence[int]]) -> Fraction:
    """The load of the heaviest GPU in its worst window, tokens split evenly."""
    counts = [sum(expert in gpu for gpu in placement) for expert in range(len(loads[0]))]
    return max(
        sum((Fraction(window[expert], counts[expert]) for expert in gpu), Fraction(0))
        for window in loads
        for gpu in placement
    )


def _placements(
    num_experts: int, gpu_slots: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    if not gpu_slots:
        yield ()
        return
    for rest in _placements(num_experts, gpu_slots[1:]):
        for mine in combinations(range(num_experts), gpu_slots[0]):
            yield (mine, *rest)
