"""What a trace is here: the device work of one rank in columns, and the phases around it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NONE = -1  # an index that points nowhere


class Kind(IntEnum):
    """What a piece of device work is for."""

    COMPUTE = 0
    PAYLOAD = 1  # communication that moves data
    WAITING = 2  # communication that waits for others: notify, barrier
    COPY = 3  # memcpy and memset on the device
    UNCLASSIFIED = 4  # no rule knows it; counts as compute, and is listed


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Device work in columns of equal length, in the order of `begin_us`.

    Attributes:
        begin_us: [n] float64 — from the beginning of the trace's clock.
        duration_us: [n] float64.
        name: [n] int64 — index in the trace's `names`.
        category: [n] int64 — index in the trace's `names`: the event's `cat`, "" if it has none.
        stream: [n] int64 — index in the trace's `streams`.
        phase: [n] int64 — index in the trace's `phases`: the innermost phase that launched it; or
            NONE.
        num_blocks: [n] int64 — thread blocks of the grid; 0 where unknown.
    """

    begin_us: Floats
    duration_us: Floats
    name: Ints
    category: Ints
    stream: Ints
    phase: Ints
    num_blocks: Ints

    def __len__(self) -> int:
        return len(self.begin_us)

    @property
    def end_us(self) -> Floats:
        return self.begin_us + self.duration_us


@dataclass(frozen=True, slots=True, eq=False)
class Phases:
    """Annotations (`record_function`, NVTX ranges, steps of a schedule) in columns.

    In the order of `begin_us`, outer before inner.

    Attributes:
        begin_us: [n] float64 — when the phase began on its CPU thread (on its rank, where a trace
            knows no threads).
        duration_us: [n] float64.
        name: [n] int64 — index in the trace's `names`.
        parent: [n] int64 — index of the phase around it on the same thread, or NONE.
    """

    begin_us: Floats
    duration_us: Floats
    name: Ints
    parent: Ints

    def __len__(self) -> int:
        return len(self.begin_us)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One rank of a trace file.

    Attributes:
        title: what to call it: "rank 3", or the file's name where it names no rank.
        names: the distinct names and categories of its events.
        streams: label of each row of work: "stream 7", "GPU 0 stream 7", "thread 1166".
        work: what the device did.
        phases: what the program called it.
        num_sms: SMs of the device; 0 where the trace does not say.
        notes: what a reader of the results has to know, a sentence each: events left out and why,
            CPU operators standing for missing GPU work, a clock that was shifted.
    """

    title: str
    names: tuple[str, ...]
    streams: tuple[str, ...]
    work: Work
    phases: Phases
    num_sms: int = 0
    notes: tuple[str, ...] = ()


class TraceError(ValueError):
    """A file that is no trace, or not a whole one; one sentence that names the file."""
