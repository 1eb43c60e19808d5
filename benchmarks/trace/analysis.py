"""What overlapped with what in one rank's trace: figures, tables, and who waited for whom.

Definitions, of device work alone (of CPU operators where a trace has no device work):

- span: from the first begin to the last end.
- compute: when at least one piece of compute ran, or of work that no rule knows.
- communication: when at least one piece of payload (it moves data between ranks) or of waiting (for
  other ranks: notify, barrier) ran, or a window was open: data under way without a kernel, from
  the end of a low-latency kernel that sends to the begin of the one that receives. An open window
  counts as payload, the receiving kernel as waiting.
- hidden: communication while compute ran. exposed: communication while no compute ran.
- copies are neither: a memcpy moves data within a rank, but occupies no SM, so it hides nothing and
  nothing hides it. "copy alone" is when copies ran, and neither compute nor communication.
- idle: the rest of the span. So span = compute + exposed + copy alone + idle.
- overlap speed-up: (compute + communication + copy alone + idle) / span, how much longer the span
  had been with communication after compute instead of beside it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.trace import breakdown, windows
from benchmarks.trace.breakdown import NameRow, OperationRow, PhaseRow, Pieces, StreamRow
from benchmarks.trace.gaps import Gap, longest_gaps
from benchmarks.trace.intervals import Spans, difference, intersection, measure, union
from benchmarks.trace.model import NONE, Ints, Kind, Trace, Work
from benchmarks.trace.rules import Rule, classify
from benchmarks.trace.windows import WindowRow, Windows


@dataclass(frozen=True, slots=True)
class Figures:
    """Times in us; the module says what each means."""

    span_us: float = 0.0
    compute_us: float = 0.0
    communication_us: float = 0.0
    payload_us: float = 0.0
    waiting_us: float = 0.0
    copy_us: float = 0.0
    hidden_us: float = 0.0
    exposed_us: float = 0.0
    copy_alone_us: float = 0.0
    idle_us: float = 0.0

    @property
    def overlap_speedup(self) -> float:
        """How many times the span a run without overlap had taken; 1.0 without work."""
        return 1.0 + self.hidden_us / self.span_us if self.span_us else 1.0

    @property
    def hidden_share(self) -> float:
        """The part of the communication that was hidden; 0.0 without communication."""
        return self.hidden_us / self.communication_us if self.communication_us else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """One rank's trace, measured.

    Attributes:
        trace: what was measured; indices of work and phases below point into it.
        kinds: [n] int64 — the `Kind` of each piece of work.
        operation: [n] int64 — index in `operations` of each piece of communication, or NONE.
        operations: the distinct operations.
        phase: [n] int64 — index in the trace's phases that each piece of work is counted to, or
            NONE.
        figures: see the module.
        compute: [m, 2] float64 — when compute ran; so the next three.
        communication: [m, 2] float64.
        exposed: [m, 2] float64.
        idle: [m, 2] float64.
        compute_sms: SMs that compute used for most of its time, 0 where unknown.
        communication_sms: so for communication.
        streams: in the trace's order.
        phases: in the order of their first work; work of no phase last.
        operation_rows: longest communication first.
        gaps: the longest, longest first.
        unclassified: longest first.
        windows: pairs of sending and receiving work.
        window_rows: one per operation that has windows.
        notes: the trace's notes, and what the reader of the figures has to know; a sentence each.
    """

    trace: Trace
    kinds: Ints
    operation: Ints
    operations: tuple[str, ...]
    phase: Ints
    figures: Figures
    compute: Spans
    communication: Spans
    exposed: Spans
    idle: Spans
    compute_sms: int
    communication_sms: int
    streams: tuple[StreamRow, ...]
    phases: tuple[PhaseRow, ...]
    operation_rows: tuple[OperationRow, ...]
    gaps: tuple[Gap, ...]
    unclassified: tuple[NameRow, ...]
    windows: Windows
    window_rows: tuple[WindowRow, ...]
    notes: tuple[str, ...]


_COMMUNICATION = (Kind.PAYLOAD, Kind.WAITING)


def analyse(
    trace: Trace,
    rules: Sequence[Rule] = (),
    *,
    phase_pattern: re.Pattern[str] | None = None,
    num_gaps: int = 10,
) -> Analysis:
    """Measures one rank's trace.

    Args:
        trace: from `read_traces`.
        rules: the user's, which come before the built-in ones.
        phase_pattern: work counts to the innermost phase whose name it finds; by default to the
            innermost one.
        num_gaps: how many of the longest gaps to describe.
    """
    work, labels = trace.work, classify(trace, rules)
    found = windows.find_windows(work, labels)
    kinds = labels.kinds.copy()
    kinds[found.receive] = Kind.WAITING  # of what they take, the window before them is the payload
    phase = _counted_phases(trace, phase_pattern)

    computing = breakdown.of_kinds(kinds, Kind.COMPUTE, Kind.UNCLASSIFIED)
    pieces = _pieces(work, kinds, found)
    compute = breakdown.busy(work, computing)
    communication = union(pieces.begin_us, pieces.end_us)
    copies = breakdown.busy(work, breakdown.of_kinds(kinds, Kind.COPY))
    span = _span(work)
    exposed = difference(communication, compute)
    copy_alone = difference(difference(copies, compute), communication)
    gaps = difference(difference(span, compute), copy_alone)
    idle = difference(gaps, communication)

    return Analysis(
        trace=trace,
        kinds=kinds,
        operation=labels.operation,
        operations=labels.operations,
        phase=phase,
        figures=Figures(
            span_us=measure(span),
            compute_us=measure(compute),
            communication_us=measure(communication),
            payload_us=measure(pieces.spans(np.flatnonzero(kinds[pieces.work] == Kind.PAYLOAD))),
            waiting_us=measure(breakdown.busy(work, breakdown.of_kinds(kinds, Kind.WAITING))),
            copy_us=measure(copies),
            hidden_us=measure(intersection(communication, compute)),
            exposed_us=measure(exposed),
            copy_alone_us=measure(copy_alone),
            idle_us=measure(idle),
        ),
        compute=compute,
        communication=communication,
        exposed=exposed,
        idle=idle,
        compute_sms=breakdown.typical_sms(trace, computing),
        communication_sms=breakdown.typical_sms(trace, breakdown.of_kinds(kinds, *_COMMUNICATION)),
        streams=breakdown.stream_rows(trace, kinds),
        phases=breakdown.phase_rows(trace, kinds, phase, pieces, compute),
        operation_rows=breakdown.operation_rows(
            work, kinds, labels.operation, labels.operations, pieces, compute
        ),
        gaps=longest_gaps(work, computing, pieces, gaps, exposed, num_gaps),
        unclassified=breakdown.unclassified_rows(trace, kinds),
        windows=found,
        window_rows=windows.window_rows(work, labels, found, compute),
        notes=trace.notes + _notes(work, pieces, found),
    )


def _span(work: Work) -> Spans:
    if not len(work):
        return np.empty((0, 2))
    return np.array([[work.begin_us[0], work.end_us.max()]])


def _pieces(work: Work, kinds: Ints, found: Windows) -> Pieces:
    kernels = breakdown.of_kinds(kinds, *_COMMUNICATION)
    opens, closes = windows.window_times(work, found)
    return Pieces(
        np.concatenate([work.begin_us[kernels], opens]),
        np.concatenate([work.end_us[kernels], closes]),
        np.concatenate([kernels, found.send]),
    )


def _counted_phases(trace: Trace, pattern: re.Pattern[str] | None) -> Ints:
    """Replaces the phase of each piece of work by the innermost one around it that matches."""
    if pattern is None:
        return trace.work.phase
    matches = np.array([bool(pattern.search(name)) for name in trace.names], dtype=bool)
    nearest: list[int] = []
    for number, (name, parent) in enumerate(
        zip(trace.phases.name.tolist(), trace.phases.parent.tolist(), strict=True)
    ):
        around = nearest[parent] if parent != NONE else NONE
        nearest.append(number if matches[name] else around)
    return np.array([*nearest, NONE], dtype=np.int64)[trace.work.phase]


def _notes(work: Work, pieces: Pieces, found: Windows) -> tuple[str, ...]:
    notes = []
    if not len(work):
        notes.append("there is no work in this trace")
    elif not len(pieces.work):
        notes.append(
            "no communication found: if some of these names are communication, say so with "
            '--rules FILE, a list like [{"match": "my_all_to_all", "kind": "communication"}]'
        )
    if len(found.send):
        notes.append(
            f"{len(found.send)} windows in which data travels without a kernel count as "
            "communication, from the end of the sending to the begin of the receiving kernel"
        )
    if found.guessed:
        notes.append(
            "kernels of one low-latency operation were taken in turns for send and receive; if "
            "yours do both at once (no receive hook), a rule for their name says so by naming "
            "no role"
        )
    if len(found.unpaired):
        notes.append(
            f"{len(found.unpaired)} sending or receiving kernels have no partner; where the trace "
            "began between a send and its receive, later ones may be paired wrongly"
        )
    return tuple(notes)
