"""Stretches without compute: who communicated in them, and who waited for their end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.trace.breakdown import Pieces
from benchmarks.trace.intervals import Spans, overlap
from benchmarks.trace.model import NONE, Ints, Work


@dataclass(frozen=True, slots=True)
class Gap:
    """A longest stretch without compute in which communication ran or nothing did.

    Attributes:
        begin_us: on the trace's clock.
        end_us: on the trace's clock.
        exposed_us: of it, with communication running; the rest was idle.
        communicator: index of the work that communicated longest in it, or NONE.
        waiter: index of the first compute work that begins after it, or NONE.
    """

    begin_us: float
    end_us: float
    exposed_us: float
    communicator: int
    waiter: int

    @property
    def duration_us(self) -> float:
        return self.end_us - self.begin_us


def longest_gaps(
    work: Work, computing: Ints, pieces: Pieces, gaps: Spans, exposed: Spans, count: int
) -> tuple[Gap, ...]:
    """Describes the `count` longest of the gaps, the longest first.

    Args:
        work: the device work.
        computing: [m] int64 — indices of the work that is compute, in order.
        pieces: all communication.
        gaps: [k, 2] float64 — the stretches.
        exposed: when communication ran without compute.
        count: how many to describe.
    """
    longest = gaps[np.argsort(gaps[:, 0] - gaps[:, 1], kind="stable")[:count]]
    exposed_us = overlap(exposed, longest[:, 0], longest[:, 1])
    begins = work.begin_us[computing]
    waiters = np.append(computing, NONE)[np.searchsorted(begins, longest[:, 1])]
    return tuple(
        Gap(begin, end, float(inside), _communicator(pieces, begin, end), int(waiter))
        for (begin, end), inside, waiter in zip(longest.tolist(), exposed_us, waiters, strict=True)
    )


def _communicator(pieces: Pieces, begin: float, end: float) -> int:
    if not len(pieces.work):
        return NONE
    inside = np.minimum(pieces.end_us, end) - np.maximum(pieces.begin_us, begin)
    longest = int(np.argmax(inside))
    return int(pieces.work[longest]) if inside[longest] > 0 else NONE
