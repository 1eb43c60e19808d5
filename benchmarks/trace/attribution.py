"""Which phase of the program launched which piece of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trace.model import NONE, Floats, Ints, Phases
from benchmarks.trace.nesting import Nesting, nest, nesting_order


@dataclass(frozen=True, slots=True, eq=False)
class ThreadPhases:
    """The phases of all threads, and which of them is the innermost where and when.

    Attributes:
        phases: of all threads.
        row: [n] int64 — the row of the columns that each phase comes from.
        main: the thread with the most phases, or NONE if there are no phases.
        nestings: of each thread that has phases.
        members: of each thread that has phases: [n] int64, index in `phases` of what it nests.
    """

    phases: Phases
    row: Ints
    main: int
    nestings: dict[int, Nesting]
    members: dict[int, Ints]

    def at(self, thread: NDArray[Any], time_us: Floats) -> Ints:
        """Index of the innermost phase on each thread at each time, or NONE.

        Where a thread has no phase at the time, the main thread's counts: autograd's threads run
        the backward of what is annotated there, and the threads of process groups its collectives.
        """
        phase = np.full(len(thread), NONE, np.int64)
        for one, rows in grouped(thread):
            if one in self.nestings:
                phase[rows] = self._on(one, time_us[rows])
        rest = np.flatnonzero(phase == NONE)
        if self.main != NONE:
            phase[rest] = self._on(self.main, time_us[rest])
        return phase

    def _on(self, thread: int, time_us: Floats) -> Ints:
        owner = self.nestings[thread].at(time_us)
        return np.where(owner == NONE, NONE, self.members[thread][owner])


def nest_phases(
    begin_us: Floats, duration_us: Floats, name: NDArray[Any], thread: NDArray[Any]
) -> ThreadPhases:
    """Nests phases per thread; columns of any order, as those of `Phases` with their thread."""
    order = nesting_order(begin_us, duration_us)
    begin_us, duration_us, thread = begin_us[order], duration_us[order], thread[order]
    parent = np.full(len(order), NONE, np.int64)
    nestings, members, main = {}, {}, NONE
    for one, rows in grouped(thread):
        nesting = nest(begin_us[rows], duration_us[rows])
        parent[rows] = np.where(nesting.parent == NONE, NONE, rows[nesting.parent])
        nestings[one], members[one] = nesting, rows
        if main == NONE or len(rows) > len(members[main]):
            main = one
    phases = Phases(begin_us, duration_us, name[order].astype(np.int64), parent)
    return ThreadPhases(phases, order, main, nestings, members)


def find_launches(
    work_correlation: Ints,
    work_begin_us: Floats,
    launch_correlation: Ints,
    launch_begin_us: Floats,
    launch_process: NDArray[Any],
) -> tuple[Ints, int]:
    """Finds the call that launched each piece of work, by their correlation id.

    Of several calls with the id, as after a wrap of the counter, it is the latest that began
    before the work. Ids that several processes use tell nothing: a piece of work names its device,
    not its process.

    Returns:
        [w] int64 — index of the launch, or NONE; and how many pieces of work have an id that
        several processes use.
    """
    known = work_correlation != NONE
    shared = known & np.isin(work_correlation, _shared(launch_correlation, launch_process))
    num_launches = len(launch_correlation)
    ids = np.concatenate([launch_correlation, work_correlation])
    begin_us = np.concatenate([launch_begin_us, work_begin_us])
    is_work = np.arange(len(ids)) >= num_launches
    order = np.lexsort((is_work, begin_us, ids))
    place = np.arange(len(order))
    is_launch = ~is_work[order]
    before = np.maximum.accumulate(np.where(is_launch, place, -1))
    # The clocks of host and device may disagree: then the launch is the next one with the id.
    after = np.minimum.accumulate(np.where(is_launch, place, len(order))[::-1])[::-1]
    launch = np.full(len(work_correlation), NONE, np.int64)
    for candidate in (after, before):
        exists = (candidate >= 0) & (candidate < len(order))
        found = np.flatnonzero(~is_launch & exists)
        found = found[ids[order[candidate[found]]] == ids[order[found]]]
        launch[order[found] - num_launches] = order[candidate[found]]
    launch[shared | ~known] = NONE
    return launch, int(np.count_nonzero(shared))


def grouped(keys: NDArray[Any]) -> Iterator[tuple[int, Ints]]:
    """Yields each distinct key, ascending, and the rows that have it, ascending."""
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    distinct, first = np.unique(keys[order], return_index=True)
    yield from zip(distinct.tolist(), np.split(order, first[1:]), strict=True)


def _shared(correlation: Ints, process: NDArray[Any]) -> Ints:
    """The ids that more than one process uses."""
    order = np.lexsort((process, correlation))
    correlation, process = correlation[order], process[order]
    again = (correlation[1:] == correlation[:-1]) & (process[1:] != process[:-1])
    return np.unique(correlation[1:][again])
