"""torch.profiler's traces: GPU work and its launches, or the operators of a run without GPU."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from benchmarks.trace.attribution import ThreadPhases, find_launches, grouped, nest_phases
from benchmarks.trace.columns import Events, Role
from benchmarks.trace.model import NONE, Ints, Phases, Work
from benchmarks.trace.nesting import nest, nesting_order

Bools = NDArray[np.bool_]

# Operators and ranges of torch's process groups: work of their own, and never phases.
_COLLECTIVE = re.compile(r"c10d::|_c10d_functional::|(gloo|nccl|mpi|ucc|xccl|hccl):")

_NO_IDS = "device work has no correlation ids: it is in no phase"
_NO_GPU_WORK = "no GPU work: CPU operators stand for it"


def device_work(events: Events) -> tuple[Work, Phases, list[str]]:
    """Kernels, copies and memsets, in the phases that launched them.

    Returns:
        The work, its phases, and sentences about what they leave out.
    """
    thread_phases = _phases(events)
    launch_thread = events.thread[events.launch_row]
    work_begin_us = events.begin_us[events.work_row]
    launch, num_shared = find_launches(
        events.work_correlation,
        work_begin_us,
        events.launch_correlation,
        events.begin_us[events.launch_row],
        events.process[launch_thread],
    )
    launched = np.flatnonzero(launch != NONE)
    row = events.launch_row[launch[launched]]
    phase = np.full(len(launch), NONE, np.int64)
    phase[launched] = thread_phases.at(events.thread[row], events.begin_us[row])
    notes = []
    if num_shared:
        notes.append(
            f"{num_shared:,} of {len(launch):,} pieces of device work are in no phase: several"
            " processes use their correlation id"
        )
    if len(thread_phases.phases) and np.all(events.work_correlation == NONE):
        notes.append(_NO_IDS)
    work = _work(events, events.work_row, events.work_stream, phase, events.num_blocks)
    return work, thread_phases.phases, notes


def operator_work(events: Events) -> tuple[Work, Phases, list[str]]:
    """CPU operators in place of kernels, each of them in the phase that ran it.

    They are the outermost ones inside the phases: an operator that holds a phase or a collective
    is not work, what it holds is. Collectives are work of their own with the duration that their
    process group gives them. Streams are threads.

    Returns:
        The work, its phases, and sentences about what they leave out.
    """
    thread_phases = _phases(events)
    collective = _collectives(events)
    phase = (events.role == Role.PHASE) & ~collective
    candidates = np.flatnonzero((events.role == Role.OPERATOR) | phase | collective)
    rows = np.sort(
        np.concatenate(
            [
                _outermost(events, candidates[members], phase, collective)
                for _, members in grouped(events.thread[candidates])
            ]
        )
    )
    launched = thread_phases.at(events.thread[rows], events.begin_us[rows])
    work = _work(events, rows, events.thread[rows], launched, np.zeros(len(rows), np.int64))
    return work, thread_phases.phases, [_NO_GPU_WORK]


def _outermost(events: Events, rows: Ints, phase: Bools, collective: Bools) -> Ints:
    """Those of one thread's rows that are work: operators and collectives, none in another."""
    rows = rows[nesting_order(events.begin_us[rows], events.duration_us[rows])]
    parents = nest(events.begin_us[rows], events.duration_us[rows]).parent.tolist()
    is_phase = phase[rows].tolist()
    opened = [False] * len(rows)  # holds what must be seen: a phase or a collective
    seen = (phase | collective)[rows].tolist()
    for idx in range(len(rows) - 1, -1, -1):
        if parents[idx] != NONE and (seen[idx] or opened[idx]):
            opened[parents[idx]] = True
    taken, covered = [], [False] * len(rows)
    for idx, parent in enumerate(parents):
        covered[idx] = parent != NONE and covered[parent]
        if not (covered[idx] or opened[idx] or is_phase[idx]):
            taken.append(idx)
            covered[idx] = True
    return rows[taken]


def _phases(events: Events) -> ThreadPhases:
    rows = np.flatnonzero((events.role == Role.PHASE) & ~_collectives(events))
    return nest_phases(
        events.begin_us[rows], events.duration_us[rows], events.name[rows], events.thread[rows]
    )


def _collectives(events: Events) -> Bools:
    named = np.array([bool(_COLLECTIVE.match(name)) for name in events.names], np.bool_)
    collective: Bools = named[events.name]
    collective &= (events.role == Role.OPERATOR) | (events.role == Role.PHASE)
    return collective


def _work(events: Events, rows: Ints, stream: NDArray[np.int32], phase: Ints, blocks: Ints) -> Work:
    return Work(
        begin_us=events.begin_us[rows],
        duration_us=events.duration_us[rows],
        name=events.name[rows].astype(np.int64),
        category=events.category[rows].astype(np.int64),
        stream=stream.astype(np.int64),
        phase=phase,
        num_blocks=blocks,
    )
