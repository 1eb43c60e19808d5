"""Two traces side by side: what became longer, what shorter, and what only one of them has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.trace.analysis import Analysis
from benchmarks.trace.merge import across


@dataclass(frozen=True, slots=True)
class Difference:
    """One time in A and B, us; None where one of them has no such thing.

    Attributes:
        section: "figure", "phase" or "operation".
        name: what took the time.
        a_us: mean of the ranks of A for a figure, their sum for a phase or an operation.
        b_us: so in B.
        a_share: part of A's span (of the sum of its ranks' spans for a sum).
        b_share: part of B's.
    """

    section: str
    name: str
    a_us: float | None
    b_us: float | None
    a_share: float
    b_share: float

    @property
    def difference_us(self) -> float:
        return (self.b_us or 0.0) - (self.a_us or 0.0)

    @property
    def ratio(self) -> float | None:
        """B / A; None where that says nothing."""
        return self.b_us / self.a_us if self.a_us and self.b_us is not None else None


def compare(a: Sequence[Analysis], b: Sequence[Analysis]) -> tuple[Difference, ...]:
    """Lays the ranks of A beside those of B.

    Returns:
        The figures in their own order, then phases (when their work ran) and operations (their
        communication, and of it the exposed part), what changed most first.
    """
    spans = [sum(one.figures.span_us for one in ranks) for ranks in (a, b)]
    sections = {"phase": _phase_times, "operation": _operation_times}
    rows = _side_by_side(
        "figure", _figure_means(a), _figure_means(b), spans[0] / len(a), spans[1] / len(b)
    )
    for section, times in sections.items():
        changed = _side_by_side(section, times(a), times(b), *spans)
        rows += sorted(changed, key=lambda row: -abs(row.difference_us))
    return tuple(rows)


def _side_by_side(
    section: str, a: Mapping[str, float], b: Mapping[str, float], span_a: float, span_b: float
) -> list[Difference]:
    return [
        Difference(
            section,
            name,
            a.get(name),
            b.get(name),
            a_share=a.get(name, 0.0) / span_a if span_a else 0.0,
            b_share=b.get(name, 0.0) / span_b if span_b else 0.0,
        )
        for name in {**a, **b}
    ]


def _figure_means(ranks: Sequence[Analysis]) -> dict[str, float]:
    return {
        figure.name.removesuffix("_us").replace("_", " "): figure.mean for figure in across(ranks)
    }


def _phase_times(ranks: Sequence[Analysis]) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for row in (row for one in ranks for row in one.phases):
        times[row.name or "(no phase)"] += row.busy_us
    return times


def _operation_times(ranks: Sequence[Analysis]) -> dict[str, float]:
    times: dict[str, float] = defaultdict(float)
    for row in (row for one in ranks for row in one.operation_rows):
        times[row.operation] += row.communication_us
        times[f"{row.operation}, exposed"] += row.exposed_us
    return times
