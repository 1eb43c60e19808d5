"""Columns of the complete events of a Chrome trace, filled event by event.

An event is any JSON value: whatever its fields hold, it adds a row or it is counted as left out.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.trace import fields
from benchmarks.trace.model import Floats, Ints

Indices = NDArray[np.int32]

# Beyond this a float64 knows no single microseconds; it is 285 years.
_MAX_TIME_US = 2.0**53


class Role(IntEnum):
    """What an event's category says about it."""

    OTHER = 0
    WORK = 1
    LAUNCH = 2
    PHASE = 3
    OPERATOR = 4


# In lower case, of torch.profiler's traces old and new.
_ROLES = {
    **dict.fromkeys(["kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset"], Role.WORK),
    **dict.fromkeys(["cuda_runtime", "cuda_driver", "runtime"], Role.LAUNCH),
    **dict.fromkeys(["cpu_op", "operator"], Role.OPERATOR),
    "user_annotation": Role.PHASE,
}


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """The complete events of a file in columns, in the file's order.

    Attributes:
        begin_us: [n] float64.
        duration_us: [n] float64.
        name: [n] int32 — index in `names`.
        category: [n] int32 — index in `names`.
        role: [n] int8 — a `Role`.
        thread: [n] int32 — index in `threads`.
        names: the distinct names and categories.
        threads: (process, thread) of each thread.
        process: [threads] int64 — index in `processes`.
        processes: the distinct processes of the threads.
        work_row: [w] int64 — the rows that are device work.
        work_correlation: [w] int64 — what ties work to its launch, or NONE.
        work_stream: [w] int32 — index in `streams`.
        num_blocks: [w] int64 — thread blocks of the grid, 0 where unknown.
        streams: (device, stream) of each stream.
        launch_row: [l] int64 — the rows that are calls of the CUDA runtime or driver.
        launch_correlation: [l] int64 — or NONE.
        process_names: what metadata calls a process.
        thread_names: what metadata calls a thread, by (process, thread).
        left_out: a sentence for each reason why events are missing.
    """

    begin_us: Floats
    duration_us: Floats
    name: Indices
    category: Indices
    role: NDArray[np.int8]
    thread: Indices
    names: tuple[str, ...]
    threads: tuple[fields.Thread, ...]
    process: Ints
    processes: tuple[fields.Scalar, ...]
    work_row: Ints
    work_correlation: Ints
    work_stream: Indices
    num_blocks: Ints
    streams: tuple[fields.Thread, ...]
    launch_row: Ints
    launch_correlation: Ints
    process_names: dict[fields.Scalar, str]
    thread_names: dict[fields.Thread, str]
    left_out: tuple[str, ...]


class Columns:
    """Collects entries of `traceEvents`, and keeps of each what the columns of `Events` need."""

    def __init__(self) -> None:
        self.num_entries = 0
        self._process_names: dict[fields.Scalar, str] = {}
        self._thread_names: dict[fields.Thread, str] = {}
        self._open: defaultdict[fields.Thread, list[dict[str, Any]]] = defaultdict(list)
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._names: dict[str, int] = {}
        self._threads: dict[fields.Thread, int] = {}
        self._streams: dict[fields.Thread, int] = {}
        self._roles: dict[int, Role] = {}
        self._begin_us, self._duration_us = array("d"), array("d")
        self._name, self._category, self._thread = array("i"), array("i"), array("i")
        self._work_row, self._work_correlation = array("q"), array("q")
        self._work_stream, self._num_blocks = array("i"), array("q")
        self._launch_row, self._launch_correlation = array("q"), array("q")

    def add(self, entry: object) -> None:
        """Adds an entry: a complete event, or one half of it (`ph` B and E), or metadata.

        Flows, counters and instants leave no trace.
        """
        self.num_entries += 1
        if not isinstance(entry, dict):
            self._left_out["entry", "without fields"] += 1
            return
        kind = entry.get("ph")
        if kind == "X":
            if entry.get("dur") is None:
                self._left_out["complete event", "without a duration"] += 1
            else:
                self._add_complete(entry, fields.number(entry["dur"]))
        elif kind == "B":
            self._open[fields.thread(entry)].append(entry)
        elif kind == "E":
            self._end(entry)
        elif kind == "M":
            self._add_metadata(entry)

    def events(self) -> Events:
        """The columns; nothing may be added any more."""
        unended = sum(len(beginnings) for beginnings in self._open.values())
        left_out = self._left_out + Counter({("beginning", "without an end"): unended})
        role_of_name = np.zeros(len(self._names), np.int8)
        for category, role in self._roles.items():
            role_of_name[category] = role
        categories = np.frombuffer(self._category, np.int32)
        processes: dict[fields.Scalar, int] = {}
        process = [processes.setdefault(pid, len(processes)) for pid, _ in self._threads]
        return Events(
            begin_us=np.frombuffer(self._begin_us),
            duration_us=np.frombuffer(self._duration_us),
            name=np.frombuffer(self._name, np.int32),
            category=categories,
            role=role_of_name[categories],
            thread=np.frombuffer(self._thread, np.int32),
            names=tuple(self._names),
            threads=tuple(self._threads),
            process=np.array(process, np.int64),
            processes=tuple(processes),
            work_row=np.frombuffer(self._work_row, np.int64),
            work_correlation=np.frombuffer(self._work_correlation, np.int64),
            work_stream=np.frombuffer(self._work_stream, np.int32),
            num_blocks=np.frombuffer(self._num_blocks, np.int64),
            streams=tuple(self._streams),
            launch_row=np.frombuffer(self._launch_row, np.int64),
            launch_correlation=np.frombuffer(self._launch_correlation, np.int64),
            process_names=self._process_names,
            thread_names=self._thread_names,
            left_out=tuple(_sentence(what, why, count) for (what, why), count in left_out.items()),
        )

    def _add_complete(self, event: dict[str, Any], duration_us: float) -> None:
        begin_us = fields.number(event.get("ts"))
        if not -_MAX_TIME_US < begin_us < _MAX_TIME_US:
            self._left_out["complete event", "without a usable time"] += 1
            return
        if not 0 <= duration_us < _MAX_TIME_US:
            reason = "a negative" if duration_us < 0 else "no usable"
            self._left_out["complete event", f"with {reason} duration"] += 1
            return
        category = fields.text(event.get("cat"))
        category_idx = self._names.setdefault(category, len(self._names))
        role = self._roles.get(category_idx)
        if role is None:
            role = self._roles[category_idx] = _ROLES.get(category.lower(), Role.OTHER)
        if role is Role.WORK:
            self._add_work(event)
        elif role is Role.LAUNCH:
            self._launch_row.append(len(self._begin_us))
            self._launch_correlation.append(fields.correlation(fields.arguments(event)))
        self._begin_us.append(begin_us)
        self._duration_us.append(duration_us)
        self._category.append(category_idx)
        self._name.append(self._names.setdefault(fields.text(event.get("name")), len(self._names)))
        self._thread.append(self._threads.setdefault(fields.thread(event), len(self._threads)))

    def _add_work(self, event: dict[str, Any]) -> None:
        args = fields.arguments(event)
        device = fields.scalar(args.get("device", event.get("pid")))
        stream = fields.scalar(args.get("stream", event.get("tid")))
        self._work_row.append(len(self._begin_us))
        self._work_correlation.append(fields.correlation(args))
        self._work_stream.append(self._streams.setdefault((device, stream), len(self._streams)))
        self._num_blocks.append(fields.num_blocks(args))

    def _end(self, event: dict[str, Any]) -> None:
        """Completes the latest beginning on the same thread."""
        beginnings = self._open[fields.thread(event)]
        if not beginnings:
            self._left_out["end", "without a beginning"] += 1
            return
        beginning = beginnings.pop()
        begin_us = fields.number(beginning.get("ts"))
        self._add_complete(beginning, fields.number(event.get("ts")) - begin_us)

    def _add_metadata(self, event: dict[str, Any]) -> None:
        name = fields.arguments(event).get("name")
        if not isinstance(name, str):
            return
        if event.get("name") == "process_name":
            self._process_names[fields.scalar(event.get("pid"))] = name
        elif event.get("name") == "thread_name":
            self._thread_names[fields.thread(event)] = name


def _sentence(what: str, why: str, count: int) -> str:
    if count == 1:
        return f"1 {what} {why} was left out"
    plural = "entries" if what == "entry" else f"{what}s"
    return f"{count:,} {plural} {why} were left out"
