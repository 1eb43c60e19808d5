"""Chrome traces for tests, built event by event in the form that torch.profiler writes."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Event = dict[str, Any]

HOST_PID = 4000
MAIN_THREAD = 1166


@dataclass(slots=True)
class ChromeTrace:
    """The events of one rank, and how the profiler's file says what they ran on.

    Attributes:
        events: the trace's events so far, in the order in which they were added.
        num_sms: SMs of every device; None leaves `deviceProperties` out.
        rank: what `distributedInfo` says; None leaves it out.
    """

    events: list[Event] = field(default_factory=list)
    num_sms: int | None = 132
    rank: int | None = None

    def kernel(
        self,
        name: str,
        begin_us: float,
        duration_us: float,
        *,
        stream: int = 7,
        device: int = 0,
        num_blocks: int = 1,
        category: str = "kernel",
        launched_us: float | None = None,
        thread: int = MAIN_THREAD,
    ) -> None:
        """Adds device work; with `launched_us`, also the call on `thread` that launched it."""
        args: Event = {"stream": stream, "device": device, "grid": [num_blocks, 1, 1]}
        if launched_us is not None:
            args["correlation"] = len(self.events) + 1
            launch = {"correlation": args["correlation"]}
            self._complete("cudaLaunchKernel", "cuda_runtime", launched_us, 1.0, thread, launch)
        self.events.append(
            {"ph": "X", "cat": category, "name": name, "pid": device, "tid": stream}
            | {"ts": begin_us, "dur": duration_us, "args": args}
        )

    def annotation(
        self, name: str, begin_us: float, duration_us: float, thread: int = MAIN_THREAD
    ) -> None:
        """Adds a range of `record_function` on a CPU thread."""
        self._complete(name, "user_annotation", begin_us, duration_us, thread)

    def cpu_op(
        self, name: str, begin_us: float, duration_us: float, thread: int = MAIN_THREAD
    ) -> None:
        """Adds an operator that a CPU thread ran."""
        self._complete(name, "cpu_op", begin_us, duration_us, thread)

    def document(self) -> Event:
        """The trace as the object form of the format."""
        document: Event = {"schemaVersion": 1}
        if self.num_sms is not None:
            devices = sorted({event["pid"] for event in self.events if "grid" in _args(event)})
            document["deviceProperties"] = [
                {"id": device, "name": "GPU", "numSms": self.num_sms} for device in devices
            ]
        if self.rank is not None:
            document["distributedInfo"] = {"backend": "nccl", "rank": self.rank, "world_size": 64}
        return document | {"traceEvents": self.events}

    def save(self, path: Path) -> Path:
        """Writes the trace, compressed if the name ends in .gz, and returns the path."""
        return save(path, self.document())

    def _complete(
        self,
        name: str,
        category: str,
        begin_us: float,
        duration_us: float,
        thread: int,
        args: Event | None = None,
    ) -> None:
        self.events.append(
            {"ph": "X", "cat": category, "name": name, "pid": HOST_PID, "tid": thread}
            | {"ts": begin_us, "dur": duration_us, "args": args or {}}
        )


def save(path: Path, document: object) -> Path:
    """Writes any JSON document, compressed if the name ends in .gz, and returns the path."""
    text = json.dumps(document).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def _args(event: Event) -> Event:
    args = event.get("args")
    return args if isinstance(args, dict) else {}
