"""Communication that runs without a kernel: from the kernel that sends to the one that receives.

Low-latency dispatch and combine leave the network to the network card: one kernel sends and ends,
and a later kernel of the same operation on the same stream takes what has arrived. What lies
between them is a window. Two micro-batches fill each other's windows with their computation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.trace.intervals import Spans, difference, intersection, measure, union
from benchmarks.trace.model import Floats, Ints, Work
from benchmarks.trace.rules import Labels, Role

_SEND, _ALTERNATE = (list(Role).index(role) for role in (Role.SEND, Role.ALTERNATE))


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Windows in columns of equal length, in the order in which they open.

    Attributes:
        send: [n] int64 — index of the work that sends; the window opens at its end.
        receive: [n] int64 — index of the work that receives; the window closes at its begin.
        unpaired: [m] int64 — indices of sends without a receive and receives without a send.
        guessed: whether a pair was found by order alone, under a name that tells no role.
    """

    send: Ints
    receive: Ints
    unpaired: Ints
    guessed: bool


@dataclass(frozen=True, slots=True)
class WindowRow:
    """The windows of one operation; times in us.

    Attributes:
        operation: "dispatch", "combine".
        count: windows.
        window_us: when at least one was open.
        hidden_us: of it, with computation running.
        receive_us: the receiving kernels: waiting that nothing hid, and taking what has come.
        exposed_us: windows and receiving kernels without computation beside them.
        p50_us: median length of a window.
        p90_us: length that nine of ten windows do not exceed.
    """

    operation: str
    count: int
    window_us: float
    hidden_us: float
    receive_us: float
    exposed_us: float
    p50_us: float
    p90_us: float


def find_windows(work: Work, labels: Labels) -> Windows:
    """Pairs sends with receives, per operation and stream, each send with the next free receive.

    Where the rules tell no role (one name for both halves), work takes turns: send, receive, send.
    """
    pairs: list[tuple[int, int]] = []
    unpaired: list[int] = []
    candidates = np.flatnonzero(labels.role != 0)
    waiting: dict[tuple[int, int], list[int]] = {}
    for index in candidates.tolist():
        sent = waiting.setdefault((int(labels.operation[index]), int(work.stream[index])), [])
        role = labels.role[index]
        if role == _SEND or (role == _ALTERNATE and not sent):
            sent.append(index)
        elif sent:
            pairs.append((sent.pop(0), index))
        else:
            unpaired.append(index)
    unpaired += [index for sent in waiting.values() for index in sent]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    columns = columns[np.argsort(work.end_us[columns[:, 0]], kind="stable")]
    guessed = bool(np.any(labels.role[columns[:, 0]] == _ALTERNATE))
    return Windows(columns[:, 0], columns[:, 1], np.sort(np.array(unpaired, np.int64)), guessed)


def window_times(work: Work, windows: Windows) -> tuple[Floats, Floats]:
    """Returns when each window opens and closes; one without length where kernels overlap."""
    opens = work.end_us[windows.send]
    return opens, np.maximum(work.begin_us[windows.receive], opens)


def window_rows(
    work: Work, labels: Labels, windows: Windows, compute: Spans
) -> tuple[WindowRow, ...]:
    """Measures the windows of each operation against when compute ran."""
    operation = labels.operation[windows.send]
    return tuple(
        _row(labels.operations[number], work, windows, np.flatnonzero(operation == number), compute)
        for number in np.unique(operation)
    )


def _row(name: str, work: Work, windows: Windows, chosen: Ints, compute: Spans) -> WindowRow:
    opens, closes = (times[chosen] for times in window_times(work, windows))
    receive = windows.receive[chosen]
    begin, end = work.begin_us[receive], work.end_us[receive]
    open_spans, receiving = union(opens, closes), union(begin, end)
    either = union(np.concatenate([opens, begin]), np.concatenate([closes, end]))
    p50, p90 = np.quantile(closes - opens, [0.5, 0.9], method="inverted_cdf")
    return WindowRow(
        operation=name,
        count=len(chosen),
        window_us=measure(open_spans),
        hidden_us=measure(intersection(open_spans, compute)),
        receive_us=measure(receiving),
        exposed_us=measure(difference(either, compute)),
        p50_us=float(p50),
        p90_us=float(p90),
    )
