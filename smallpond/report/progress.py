"""Progress while a run lasts: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from smallpond.events import (
    Advanced,
    Event,
    Listener,
    RunFinished,
    RunStarted,
    Stage,
    State,
    TaskEvent,
)
from smallpond.report.units import count, duration, size

# Shorter runs show nothing.
_PATIENCE_S = 0.5
_LOG_INTERVAL_S = 10.0

_log = logging.getLogger("smallpond")


def progress_listener(wanted: bool | None) -> Listener | None:
    """The listener that suits where this program runs.

    Args:
        wanted: True for bars, False for nothing, None for bars in a terminal and log lines
            elsewhere.
    """
    if wanted is False:
        return None
    terminal = sys.stderr is not None and sys.stderr.isatty()
    notebook = "ipykernel" in sys.modules
    if find_spec("rich") is not None and (wanted or (terminal and not notebook)):
        return Bars()
    return Lines()


class _Counter:
    """How far a stage is."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.done = 0
        self.running = 0.0
        self.rows = 0
        self.num_bytes = 0
        self.retries = 0
        self.begin_s: float | None = None

    def take(self, event: TaskEvent) -> None:
        if event.state is State.STARTED and self.begin_s is None:
            self.begin_s = event.time_s
        elif event.state in (State.FINISHED, State.REUSED):
            self.done += 1
            self.rows += event.metrics.rows_out
            self.num_bytes += event.metrics.bytes_out
        elif event.state is State.FAILED:
            self.retries += 1

    def text(self, now_s: float) -> str:
        """Rows, bytes and speed so far."""
        elapsed = now_s - self.begin_s if self.begin_s is not None else 0.0
        parts = [f"{count(self.rows)} rows", size(self.num_bytes)]
        if elapsed > 0 and self.num_bytes:
            parts.append(f"{size(self.num_bytes / elapsed)}/s")
        if self.retries:
            parts.append(f"{self.retries} failed attempts")
        return ", ".join(parts)


class Bars:
    """A bar per stage, drawn by rich on stderr once a run takes a while."""

    def __init__(self, make_console: Callable[[], Any] | None = None) -> None:
        self._make_console = make_console or _console
        self._lock = threading.Lock()
        self._progress: Any = None
        self._bars: dict[int, Any] = {}
        self._counters: dict[int, _Counter] = {}
        self._begin_s = 0.0

    def __call__(self, event: Event) -> None:
        with self._lock:
            match event:
                case RunStarted():
                    self._stop()
                    self._counters = {s.stage_idx: _Counter(s) for s in event.stages if s.num_tasks}
                    self._begin_s = event.time_s
                case TaskEvent():
                    counter = self._counters.get(event.stage_idx)
                    if counter is not None:
                        counter.take(event)
                        self._draw(event.time_s, event.stage_idx)
                case Advanced():
                    counter = self._counters.get(event.stage_idx)
                    if counter is not None:
                        counter.running = event.fraction
                        self._draw(time.time(), event.stage_idx)
                case RunFinished():
                    self._stop()

    def _draw(self, now_s: float, stage_idx: int) -> None:
        if self._progress is None:
            if now_s - self._begin_s < _PATIENCE_S:
                return
            self._progress = _rich_progress(self._make_console())
            self._progress.start()
        counter = self._counters[stage_idx]
        total = max(counter.stage.num_tasks, counter.done)
        if stage_idx not in self._bars:
            name = " ".join(counter.stage.name.split())
            shown = name if len(name) <= 40 else name[:39] + "…"
            self._bars[stage_idx] = self._progress.add_task(shown, total=total, detail="")
        # Bars move on within running tasks, but are full only when all are finished.
        completed = min(counter.done + counter.running, total) if counter.done < total else total
        self._progress.update(
            self._bars[stage_idx],
            completed=completed,
            detail=f"{counter.done}/{counter.stage.num_tasks} tasks, {counter.text(now_s)}",
        )

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._bars = {}


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True, highlight=False)


def _rich_progress(console: Any) -> Any:
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


class Lines:
    """A log line every ten seconds, and one at the end of a run that took as long."""

    def __init__(self) -> None:
        self._counters: dict[int, _Counter] = {}
        self._begin_s = self._last_s = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._counters = {s.stage_idx: _Counter(s) for s in event.stages if s.num_tasks}
                self._begin_s = self._last_s = event.time_s
            case TaskEvent():
                counter = self._counters.get(event.stage_idx)
                if counter is None:
                    return
                counter.take(event)
                if event.time_s - self._last_s >= _LOG_INTERVAL_S:
                    self._last_s = event.time_s
                    _log.info(
                        "%s: %d of %d tasks, %s", counter.stage.name, counter.done,
                        counter.stage.num_tasks, counter.text(event.time_s),
                    )  # fmt: skip
            case RunFinished():
                if event.time_s - self._begin_s >= _LOG_INTERVAL_S:
                    done = sum(counter.done for counter in self._counters.values())
                    took = duration(event.time_s - self._begin_s)
                    _log.info("%d tasks in %s%s", done, took, event.error and f": {event.error}")
