"""Which of the ranges on a thread is the innermost, at any time and around each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.trace.model import NONE, Floats, Ints

# Profilers write nanoseconds; ranges that touch may overlap by as much as rounding makes of that.
_RESOLUTION_US = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Nesting:
    """Ranges of one thread, and which of them is the innermost from when on.

    At any time this is the one that began last of those that have not ended: ranges that overlap
    without one inside the other, as asynchronous ones do, are welcome.

    Attributes:
        parent: [n] int64 — index of the innermost range when this one began, or NONE.
        change_us: [m] float64 — ascending; when the innermost range changes. First -inf.
        owner: [m] int64 — index of the innermost range from then on, or NONE.
        slack_us: how far a range may reach into the next and still only touch it.
    """

    parent: Ints
    change_us: Floats
    owner: Ints
    slack_us: float

    def at(self, time_us: Floats) -> Ints:
        """Index of the innermost range at each of the times, or NONE; ends are excluded."""
        return self.owner[np.searchsorted(self.change_us, time_us, side="right") - 1]

    def stretches(self) -> tuple[Ints, Floats, Floats]:
        """When each range was the innermost: its index, the begin, the duration, as columns."""
        begin_us, duration_us, owner = self.change_us[1:-1], np.diff(self.change_us)[1:], self.owner
        kept = (owner[1:-1] != NONE) & (duration_us > self.slack_us)
        return owner[1:-1][kept], begin_us[kept], duration_us[kept]


def nest(begin_us: Floats, duration_us: Floats) -> Nesting:
    """Nests ranges in the order of their begin, outer before inner.

    Args:
        begin_us: [n] float64, ascending; of ranges with the same begin the longest comes first.
        duration_us: [n] float64, not negative.
    """
    begins, ends = begin_us.tolist(), (begin_us + duration_us).tolist()
    slack = _slack(begin_us + duration_us)
    parents, changes, owners = [], [float("-inf")], [NONE]
    stack: list[int] = []

    def close_until(time: float) -> None:
        """Ends the ranges that are over, and notes what they were in."""
        while stack and ends[stack[-1]] <= time + slack:
            over = ends[stack.pop()]
            while stack and ends[stack[-1]] <= over:
                stack.pop()
            changes.append(min(over, time))
            owners.append(stack[-1] if stack else NONE)

    for range_idx, begin in enumerate(begins):
        close_until(begin)
        parents.append(stack[-1] if stack else NONE)
        stack.append(range_idx)
        changes.append(begin)
        owners.append(range_idx)
    close_until(float("inf"))
    return Nesting(
        np.array(parents, dtype=np.int64),
        np.array(changes, dtype=np.float64),
        np.array(owners, dtype=np.int64),
        slack,
    )


def nesting_order(begin_us: Floats, duration_us: Floats) -> Ints:
    """The order that `nest` asks for; of equal ranges the first stays first."""
    return np.lexsort((-duration_us, begin_us))


def _slack(end_us: Floats) -> float:
    """The resolution, or what a float64 makes of it: since 1970 a quarter of a microsecond."""
    largest = float(np.max(np.abs(end_us), initial=0.0))
    return max(_RESOLUTION_US, 2 * float(np.spacing(largest)))
