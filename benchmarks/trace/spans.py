"""Traces that know no kernels and no operators: every span is work, and what holds it its phase."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.trace.attribution import ThreadPhases, grouped, nest_phases
from benchmarks.trace.columns import Events
from benchmarks.trace.model import NONE, Floats, Ints, Phases, Work


def ranks(events: Events) -> Iterator[tuple[str, Ints]]:
    """Yields the name of each rank, "" where the trace has none, and its rows.

    Ranks are processes. If there is only one, and it has threads whose names begin with "rank",
    its threads are.
    """
    if len(events.processes) > 1:
        for process, rows in grouped(events.process[events.thread]):
            pid = events.processes[process]
            yield events.process_names.get(pid, f"process {pid}"), rows
        return
    labels = thread_labels(events)
    if any(label.startswith("rank") for label in labels):
        for thread, rows in grouped(events.thread):
            yield labels[thread], rows
        return
    yield events.process_names.get(events.processes[0], ""), np.arange(len(events.thread))


def thread_labels(events: Events) -> list[str]:
    """What metadata calls each thread, or "thread" and its number."""
    return [events.thread_names.get(thread, f"thread {thread[1]}") for thread in events.threads]


def span_work(events: Events, rows: Ints) -> tuple[Work, Phases]:
    """The work and the phases of one rank.

    A span that holds others is a phase, and so is one that nothing holds. What its spans leave of a
    phase is work of the phase's own name; a span that holds nothing is work as a whole.
    """
    nested = nest_phases(
        events.begin_us[rows], events.duration_us[rows], events.name[rows], events.thread[rows]
    )
    parent = nested.phases.parent
    holds = np.zeros(len(parent), np.bool_)
    holds[parent[parent != NONE]] = True
    is_phase = holds | (parent == NONE)
    whole = np.flatnonzero(~holds)
    piece, piece_begin_us, piece_duration_us = _stretches(nested)
    rest = np.flatnonzero(holds[piece])
    span = np.concatenate([whole, piece[rest]])
    row = rows[nested.row[span]]
    renumbered = np.cumsum(is_phase) - 1
    work = Work(
        begin_us=np.concatenate([nested.phases.begin_us[whole], piece_begin_us[rest]]),
        duration_us=np.concatenate([nested.phases.duration_us[whole], piece_duration_us[rest]]),
        name=events.name[row].astype(np.int64),
        category=events.category[row].astype(np.int64),
        stream=events.thread[row].astype(np.int64),
        phase=renumbered[np.where(is_phase[span], span, parent[span])],
        num_blocks=np.zeros(len(span), np.int64),
    )
    parent = parent[is_phase]
    phases = Phases(
        nested.phases.begin_us[is_phase],
        nested.phases.duration_us[is_phase],
        nested.phases.name[is_phase],
        np.where(parent == NONE, NONE, renumbered[parent]),
    )
    return work, phases


def _stretches(nested: ThreadPhases) -> tuple[Ints, Floats, Floats]:
    """When each span was the innermost on its thread: index, begin and duration, as columns."""
    columns = []
    for thread, nesting in nested.nestings.items():
        owner, begin_us, duration_us = nesting.stretches()
        columns.append((nested.members[thread][owner], begin_us, duration_us))
    owners, begins, durations = zip(*columns, strict=True)
    return np.concatenate(owners), np.concatenate(begins), np.concatenate(durations)
