"""Pipeline schedules by definition: what must happen, and when at the earliest, in exact fractions.

A schedule is a list of rows, one per rank, of steps as text: `2F0`, or `(0F7;7B3)OVERLAP_F_B`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Rows = list[list[str]]
Part = tuple[int, str, int]  # stage, kind, micro-batch
Times = list[list[tuple[Fraction, Fraction]]]  # start and end of every step


def parts(step: str) -> list[Part]:
    """The one or two actions of a step."""
    return [(int(s), kind, int(m)) for s, kind, m in re.findall(r"(\d+)([FBIW])(\d+)", step)]


@dataclass
class Durations:
    """Per stage, and for pairs and transfers; everything exact."""

    forward: Sequence[Fraction]
    input_grad: Sequence[Fraction]
    weight_grad: Sequence[Fraction]
    overlap_factor: Fraction
    communication: Fraction

    def of(self, step: str) -> Fraction:
        """How long a step takes."""
        total = Fraction(0)
        for stage, kind, _ in parts(step):
            total += self.forward[stage] if kind == "F" else 0
            total += self.input_grad[stage] if kind in "BI" else 0
            total += self.weight_grad[stage] if kind in "BW" else 0
        return total * self.overlap_factor if "OVERLAP" in step else total


def owner(placement: str, sizes: tuple[int, int], stage: int, microbatch: int) -> int:
    """The rank that runs a stage for a micro-batch; sizes: ranks, micro-batches."""
    num_ranks, num_microbatches = sizes
    if placement == "v":
        return stage if stage < num_ranks else 2 * num_ranks - 1 - stage
    if placement == "bidirectional" and microbatch >= num_microbatches // 2:
        return num_ranks - 1 - stage
    return stage


def needs(part: Part) -> list[Part]:
    """The actions whose results an action uses, in both of the forms that a backward can take."""
    stage, kind, microbatch = part
    if kind == "F":
        return [(stage - 1, "F", microbatch)]
    if kind == "W":
        return [(stage, "I", microbatch)]
    return [(stage, "F", microbatch), *((stage + 1, form, microbatch) for form in "BI")]


def earliest_times(rows: Rows, durations: Durations) -> Times | None:
    """(start, end) of every step: the smallest times that satisfy every wait; None on deadlock.

    Bellman-Ford: all starts are 0 at first, and grow until nothing is violated. Without a circle of
    waits each of S steps is final after S rounds at most.
    """
    places: dict[Part, list[tuple[int, int]]] = {}
    for rank, row in enumerate(rows):
        for index, step in enumerate(row):
            for part in parts(step):
                places.setdefault(part, []).append((rank, index))
    starts = [[Fraction(0)] * len(row) for row in rows]
    lengths = [[durations.of(step) for step in row] for row in rows]
    waits = [
        [
            [
                place
                for part in parts(step)
                for need in needs(part)
                for place in places.get(need, [])
            ]
            for step in row
        ]
        for row in rows
    ]
    for _ in range(sum(map(len, rows)) + 1):
        changed = False
        for rank, row in enumerate(rows):
            for index in range(len(row)):
                bounds = [starts[rank][index]]
                if index:
                    bounds.append(starts[rank][index - 1] + lengths[rank][index - 1])
                for other, place in waits[rank][index]:
                    arrival = starts[other][place] + lengths[other][place]
                    bounds.append(arrival + (durations.communication if other != rank else 0))
                changed |= max(bounds) > starts[rank][index]
                starts[rank][index] = max(bounds)
        if not changed:
            return [
                [(start, start + length) for start, length in zip(*pair, strict=True)]
                for pair in zip(starts, lengths, strict=True)
            ]
    return None


def peak_held(row: list[str], times: list[tuple[Fraction, Fraction]]) -> int:
    """The most activations alive at once on a rank: from an F's start to the end of its B or W."""
    births: dict[tuple[int, int], Fraction] = {}
    deaths: dict[tuple[int, int], Fraction] = {}
    for step, (start, end) in zip(row, times, strict=True):
        for stage, kind, microbatch in parts(step):
            if kind == "F":
                births[stage, microbatch] = start
            elif kind in "BW":
                deaths[stage, microbatch] = end
    return max(
        sum(births[key] <= moment < deaths[key] for key in births) for moment in births.values()
    )


def is_valid(rows: Rows, placement: str, num_stages: int, num_microbatches: int) -> bool:
    """Whether every stage handles every micro-batch once, in place and order, without deadlock."""
    sizes = len(rows), num_microbatches
    seen: dict[tuple[int, int], str] = {}
    for rank, row in enumerate(rows):
        for step in row:
            if "OVERLAP" in step and [kind for _, kind, _ in parts(step)] != ["F", "B"]:
                return False
            for stage, kind, microbatch in parts(step):
                if not (stage < num_stages and microbatch < num_microbatches):
                    return False
                if owner(placement, sizes, stage, microbatch) != rank:
                    return False
                seen[stage, microbatch] = seen.get((stage, microbatch), "") + kind
    work = [
        seen.get((stage, microbatch), "")
        for stage in range(num_stages)
        for microbatch in range(num_microbatches)
    ]
    ones = [Fraction(1)] * num_stages
    durations = Durations(ones, ones, ones, Fraction(1), Fraction(0))
    return all(kinds in ("FB", "FIW") for kinds in work) and (
        earliest_times(rows, durations) is not None
    )
