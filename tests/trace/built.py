"""Traces for tests, put together without a file."""

from collections.abc import Sequence

import numpy as np

from benchmarks.trace.model import NONE, Phases, Trace, Work

Piece = tuple[str, float, float] | tuple[str, float, float, str]  # name, begin, end, stream
Range = tuple[str, float, float]  # name, begin, end


def trace_of(
    pieces: Sequence[Piece],
    phases: Sequence[Range] = (),
    *,
    title: str = "rank 0",
    phase_of: Sequence[int] = (),
    parents: Sequence[int] = (),
    num_blocks: Sequence[int] = (),
    num_sms: int = 0,
) -> Trace:
    """A trace with this work, which must be in the order of its begin."""
    names = list(dict.fromkeys(["", *(piece[0] for piece in pieces), *(one[0] for one in phases)]))
    labels = [piece[3] if len(piece) == 4 else "stream 7" for piece in pieces]
    streams = list(dict.fromkeys(labels))
    count = len(pieces)
    work = Work(
        begin_us=_floats([piece[1] for piece in pieces]),
        duration_us=_floats([piece[2] - piece[1] for piece in pieces]),
        name=_ints([names.index(piece[0]) for piece in pieces]),
        category=np.zeros(count, np.int64),
        stream=_ints([streams.index(label) for label in labels]),
        phase=_ints(phase_of or [NONE] * count),
        num_blocks=_ints(num_blocks or [0] * count),
    )
    ranges = Phases(
        begin_us=_floats([one[1] for one in phases]),
        duration_us=_floats([one[2] - one[1] for one in phases]),
        name=_ints([names.index(one[0]) for one in phases]),
        parent=_ints(parents or [NONE] * len(phases)),
    )
    return Trace(title, tuple(names), tuple(streams), work, ranges, num_sms)


def _floats(values: Sequence[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def _ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)
