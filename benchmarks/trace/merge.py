"""Several ranks side by side: one clock for all, distinct titles, and the figures across them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.trace.analysis import Analysis, Figures
from benchmarks.trace.model import Trace, Work


@dataclass(frozen=True, slots=True)
class Across:
    """A figure of all ranks.

    Attributes:
        name: the field of `Figures` it is.
        values: one per rank.
    """

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


def across(analyses: Sequence[Analysis]) -> tuple[Across, ...]:
    """Returns every figure of all ranks, in the order of `Figures`."""
    return tuple(
        Across(field.name, tuple(getattr(one.figures, field.name) for one in analyses))
        for field in dataclasses.fields(Figures)
    )


def slowest(analyses: Sequence[Analysis]) -> Analysis:
    """Returns the rank with the longest span; of equal ones that with the most compute."""
    return max(analyses, key=lambda one: (one.figures.span_us, one.figures.compute_us))


def align(files: Sequence[Sequence[Trace]]) -> list[list[Trace]]:
    """Puts the traces of several files on one clock; those of one file share theirs.

    Files share a clock if all were at work at the same time for more than half of the shortest
    span. Those that do not share the first file's are shifted, together if they share another one,
    so that the first phase that all have begins together, or the first work where they have no
    phase in common; a note in their traces says so.
    """
    clocks = _clocks(files)
    ranks = [[trace for file in clock for trace in files[file]] for clock in clocks]
    begins = [_phase_begins(traces) for traces in ranks]
    common = set(begins[0]).intersection(*begins[1:])
    phase = min(common, key=lambda name: begins[0][name], default=None)
    moments = [
        times[phase] if phase is not None else _work_begin(traces)
        for times, traces in zip(begins, ranks, strict=True)
    ]
    event = "first work" if phase is None else f"begin of {phase!r}"
    note = f"clock shifted: {event} is that of {ranks[0][0].title}"
    aligned = [list(traces) for traces in files]
    for clock, moment in zip(clocks, moments, strict=True):
        if moment != moments[0]:
            for file in clock:
                aligned[file] = [
                    _shifted(trace, moments[0] - moment, note) for trace in files[file]
                ]
    return aligned


def _clocks(files: Sequence[Sequence[Trace]]) -> list[list[int]]:
    """Returns the files of each clock."""
    clocks: list[list[int]] = []
    for number, ranks in enumerate(files):
        for clock in clocks:
            if _share_a_clock([*(files[other] for other in clock), ranks]):
                clock.append(number)
                break
        else:
            clocks.append([number])
    return clocks


def distinct_titles(files: Sequence[tuple[str, Sequence[Trace]]]) -> list[list[Trace]]:
    """Puts file names before the titles of traces if two of them were called the same.

    Args:
        files: name and traces of each file.
    """
    titles = [trace.title for _, ranks in files for trace in ranks]
    if len(set(titles)) == len(titles):
        return [list(ranks) for _, ranks in files]
    return [
        [
            trace
            if trace.title == name
            else dataclasses.replace(trace, title=f"{name}: {trace.title}")
            for trace in ranks
        ]
        for name, ranks in files
    ]


def _share_a_clock(files: Sequence[Sequence[Trace]]) -> bool:
    spans = [
        (_work_begin(ranks), max(float(work.end_us.max()) for work in _works(ranks)))
        for ranks in files
        if _works(ranks)
    ]
    if len(spans) < 2:
        return True
    shortest = min(end - begin for begin, end in spans)
    together = min(end for _, end in spans) - max(begin for begin, _ in spans)
    return together > shortest / 2


def _works(ranks: Sequence[Trace]) -> list[Work]:
    return [trace.work for trace in ranks if len(trace.work)]


def _work_begin(ranks: Sequence[Trace]) -> float:
    return min((float(work.begin_us[0]) for work in _works(ranks)), default=0.0)


def _phase_begins(ranks: Sequence[Trace]) -> dict[str, float]:
    """Returns when the first phase of each name began on any of these ranks."""
    begins: dict[str, float] = {}
    for trace in ranks:
        names, first = np.unique(trace.phases.name, return_index=True)
        for name, begin_us in zip(names, trace.phases.begin_us[first].tolist(), strict=True):
            begins[trace.names[name]] = min(begin_us, begins.get(trace.names[name], begin_us))
    return begins


def _shifted(trace: Trace, by_us: float, note: str) -> Trace:
    work = dataclasses.replace(trace.work, begin_us=trace.work.begin_us + by_us)
    phases = dataclasses.replace(trace.phases, begin_us=trace.phases.begin_us + by_us)
    return dataclasses.replace(trace, work=work, phases=phases, notes=(*trace.notes, note))
