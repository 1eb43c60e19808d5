"""The tables of an analysis: device work by stream, by phase, by operation, by unknown name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.trace.intervals import NO_SPANS, Spans, measure, overlap, union
from benchmarks.trace.model import NONE, Floats, Ints, Kind, Trace, Work


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Communication in columns: each kernel, and each window as a piece of its own.

    Attributes:
        begin_us: [n] float64.
        end_us: [n] float64.
        work: [n] int64 — index of the kernel, the sending one for a window.
    """

    begin_us: Floats
    end_us: Floats
    work: Ints

    def spans(self, chosen: Ints) -> Spans:
        """Returns when at least one of the chosen pieces ran."""
        return union(self.begin_us[chosen], self.end_us[chosen])


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream: how long it was busy, and with what (us; by kind, unions within the stream).

    `num_sms` is the number of SMs that its work used for most of its busy time, 0 where unknown.
    """

    label: str
    count: int
    busy_us: float
    compute_us: float
    payload_us: float
    waiting_us: float
    copy_us: float
    num_sms: int


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """All phases of one name, and the work that they launched; times in us.

    `name` is "" for work that no phase launched. `cpu_us` is the sum of the phases' own durations;
    `busy_us` when at least one piece of their work ran. What hides their communication may have
    been launched by any phase.
    """

    name: str
    count: int
    cpu_us: float
    busy_us: float
    compute_us: float
    communication_us: float
    waiting_us: float
    hidden_us: float
    exposed_us: float


@dataclass(frozen=True, slots=True)
class OperationRow:
    """One operation of communication ("dispatch", "all_reduce"); times in us, windows included."""

    operation: str
    count: int
    communication_us: float
    waiting_us: float
    hidden_us: float
    exposed_us: float


@dataclass(frozen=True, slots=True)
class NameRow:
    """A name that no rule knows: how many pieces of work bear it, and their summed time."""

    name: str
    count: int
    total_us: float


def busy(work: Work, chosen: Ints) -> Spans:
    """Returns when at least one of the chosen pieces of work ran."""
    begin = work.begin_us[chosen]
    return union(begin, begin + work.duration_us[chosen])


def of_kinds(kinds: Ints, *wanted: Kind) -> Ints:
    """Returns the indices of the work of these kinds."""
    return np.flatnonzero(np.isin(kinds, wanted))


def stream_rows(trace: Trace, kinds: Ints) -> tuple[StreamRow, ...]:
    """Returns a row per stream that has work, in the trace's order."""
    return tuple(
        _stream_row(trace, kinds, stream, chosen) for stream, chosen in _groups(trace.work.stream)
    )


def typical_sms(trace: Trace, chosen: Ints) -> int:
    """Returns the number of SMs that the chosen work used for the longest summed time.

    A grid of fewer blocks than SMs leaves SMs to others; a larger one takes all. 0 where no grid
    is known.
    """
    num_blocks = trace.work.num_blocks[chosen]
    sms = np.minimum(num_blocks, trace.num_sms) if trace.num_sms else num_blocks
    time = np.bincount(sms, trace.work.duration_us[chosen], minlength=1)
    time[0] = 0.0
    return int(np.argmax(time))


def phase_rows(
    trace: Trace, kinds: Ints, phase: Ints, pieces: Pieces, compute: Spans
) -> tuple[PhaseRow, ...]:
    """Returns a row per phase name that has work, in the order of its first work.

    Args:
        trace: the trace.
        kinds: [n] int64 — `Kind` of each piece of work.
        phase: [n] int64 — the phase that each piece of work counts to, or NONE.
        pieces: all communication.
        compute: when compute ran, whoever launched it.
    """
    phases = trace.phases
    counts = np.bincount(phases.name, minlength=len(trace.names))
    cpu_us = np.bincount(phases.name, phases.duration_us, minlength=len(trace.names))
    named = np.append(phases.name, NONE)[phase]  # NONE, the last index, stays NONE
    groups = sorted(_groups(named), key=lambda group: (group[0] == NONE, group[1][0]))
    of_name = dict(_groups(named[pieces.work]))
    communication = [
        pieces.spans(of_name[name]) if name in of_name else NO_SPANS for name, _ in groups
    ]
    rows = []
    for (name, chosen), spans, hidden in zip(
        groups, communication, _hidden(communication, compute), strict=True
    ):
        is_compute = np.isin(kinds[chosen], (Kind.COMPUTE, Kind.UNCLASSIFIED))
        total = measure(spans)
        row = PhaseRow(
            name=trace.names[name] if name != NONE else "",
            count=int(counts[name]) if name != NONE else 0,
            cpu_us=float(cpu_us[name]) if name != NONE else 0.0,
            busy_us=measure(busy(trace.work, chosen)),
            compute_us=measure(busy(trace.work, chosen[is_compute])),
            communication_us=total,
            waiting_us=measure(busy(trace.work, chosen[kinds[chosen] == Kind.WAITING])),
            hidden_us=hidden,
            exposed_us=max(total - hidden, 0.0),
        )
        rows.append(row)
    return tuple(rows)


def operation_rows(
    work: Work,
    kinds: Ints,
    operation: Ints,
    operations: tuple[str, ...],
    pieces: Pieces,
    compute: Spans,
) -> tuple[OperationRow, ...]:
    """Returns a row per operation, the longest communication first."""
    rows = []
    for number, chosen in _groups(operation[pieces.work]):
        spans = pieces.spans(chosen)
        total, (hidden,) = measure(spans), _hidden([spans], compute)
        kernels = np.unique(pieces.work[chosen])
        row = OperationRow(
            operation=operations[number],
            count=len(kernels),
            communication_us=total,
            waiting_us=measure(busy(work, kernels[kinds[kernels] == Kind.WAITING])),
            hidden_us=hidden,
            exposed_us=max(total - hidden, 0.0),
        )
        rows.append(row)
    return tuple(sorted(rows, key=lambda row: -row.communication_us))


def unclassified_rows(trace: Trace, kinds: Ints) -> tuple[NameRow, ...]:
    """Returns the names that no rule knows, the longest summed time first."""
    work = trace.work
    unknown = of_kinds(kinds, Kind.UNCLASSIFIED)
    rows = [
        NameRow(trace.names[name], len(chosen), float(work.duration_us[unknown[chosen]].sum()))
        for name, chosen in _groups(work.name[unknown])
    ]
    return tuple(sorted(rows, key=lambda row: -row.total_us))


def _groups(keys: Ints) -> Iterator[tuple[int, Ints]]:
    """Yields each distinct key and the indices that have it, in order."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    first = np.flatnonzero(np.diff(keys[order])) + 1
    for indices in np.split(order, first):
        yield int(keys[indices[0]]), indices


def _stream_row(trace: Trace, kinds: Ints, stream: int, chosen: Ints) -> StreamRow:
    def time_of(*wanted: Kind) -> float:
        return measure(busy(trace.work, chosen[np.isin(kinds[chosen], wanted)]))

    return StreamRow(
        label=trace.streams[stream],
        count=len(chosen),
        busy_us=measure(busy(trace.work, chosen)),
        compute_us=time_of(Kind.COMPUTE, Kind.UNCLASSIFIED),
        payload_us=time_of(Kind.PAYLOAD),
        waiting_us=time_of(Kind.WAITING),
        copy_us=time_of(Kind.COPY),
        num_sms=typical_sms(trace, chosen),
    )


def _hidden(communication: Sequence[Spans], compute: Spans) -> list[float]:
    """Returns how long compute ran beside each of these."""
    pieces = np.concatenate([NO_SPANS, *communication])
    owner = np.repeat(np.arange(len(communication)), [len(spans) for spans in communication])
    times = overlap(compute, pieces[:, 0], pieces[:, 1])
    hidden: list[float] = np.bincount(owner, times, minlength=len(communication)).tolist()
    return hidden
