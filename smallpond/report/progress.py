"""Progress while a run lasts: bars in a terminal, a line in the log now and then elsewhere."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from smallpond.events import Event, Listener, RunFinished, RunStarted
from smallpond.report.tally import RunTally, StageTally
from smallpond.report.units import count, duration, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

PATIENCE_S = 0.5  # shorter runs show nothing
LOG_INTERVAL_S = 10.0
_FRAMES_PER_S = 5
_NAME_LENGTH = 40

_log = logging.getLogger("smallpond")


def progress_listener(wanted: bool | None = None) -> Listener | None:
    """Returns the listener that suits where this program runs.

    Args:
        wanted: True for bars, False for nothing at all. None for bars in a terminal and lines in
            the log "smallpond" elsewhere, in notebooks too.
    """
    if wanted is False:
        return None
    has_rich = find_spec("rich") is not None
    if wanted and not has_rich:
        warnings.warn(
            "progress=True: bars need rich, which is not there (pip install rich); progress goes "
            "to the log 'smallpond' at level INFO",
            stacklevel=2,
        )
    if has_rich and (wanted or _in_terminal()):
        return Bars()
    return Lines()


def _in_terminal() -> bool:
    notebook = "ipykernel" in sys.modules
    return not notebook and sys.stderr is not None and sys.stderr.isatty()


class _Timer(Protocol):
    daemon: bool

    def start(self) -> None: ...
    def cancel(self) -> None: ...


class Bars:
    """A bar for each running stage on stderr, and a line for each that is done.

    Nothing is shown of runs that end soon. What is shown goes when the run ends, except for the
    lines.

    Args:
        console: makes the console on which a run is shown.
        clock: the time now, on the clock of the events.
        make_timer: makes what calls a function once, after some seconds.
    """

    def __init__(
        self,
        console: Callable[[], Console] | None = None,
        clock: Callable[[], float] = time.time,
        make_timer: Callable[[float, Callable[[], None]], _Timer] = threading.Timer,
    ) -> None:
        self._make_console = console or make_console
        self._clock = clock
        self._make_timer = make_timer
        self._timer: _Timer | None = None
        self._lock = threading.RLock()
        self._run: RunTally | None = None
        self._ended: list[StageTally] = []  # stages that are done, and have no line yet
        self._live: Live | None = None
        self._warnings: logging.Handler | None = None

    def __call__(self, event: Event) -> None:
        """Takes an event, from any thread. A terminal that has gone away is no reason to fail."""
        with self._lock:
            try:
                self._take(event)
            except (OSError, ValueError):
                with contextlib.suppress(OSError, ValueError):
                    self.close()

    def close(self) -> None:
        """Takes the bars away; the next run has bars again."""
        with self._lock:
            self._run = None
            self._ended = []
            if self._timer is not None:
                self._timer.cancel()
            if self._live is not None:
                live, self._live = self._live, None
                atexit.unregister(self.close)
                live.stop()
            if self._warnings is not None:
                _log.removeHandler(self._warnings)
                self._warnings = None

    def _take(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.close()
            self._run = RunTally(event)
            # A single long task may have nothing to tell for a while.
            self._timer = self._make_timer(PATIENCE_S, self._show_if_due)
            self._timer.daemon = True
            self._timer.start()
        elif self._run is None or event.run_idx != self._run.run_idx:
            return
        elif isinstance(event, RunFinished):
            self._end(event.error)
        else:
            stage = self._run.stage_of(event)
            if stage is None:
                return
            was_done = stage.is_done
            stage.take(event)
            if stage.is_done and not was_done and stage.begin_s is not None:
                self._ended.append(stage)
            self._show_if_due()

    def _end(self, error: str) -> None:
        if self._live is not None and self._run is not None:
            self._ended += [s for s in self._run.stages.values() if s.is_running]
            self._print_ended(failed=bool(error))
        self.close()

    def _show_if_due(self) -> None:
        with self._lock:
            if self._run is None or self._clock() - self._run.begin_s < PATIENCE_S:
                return
            if self._live is None:
                self._live = self._start()
            self._print_ended()

    def _start(self) -> Live:
        from rich.live import Live  # noqa: PLC0415

        # Without redirection: sys.stdout and sys.stderr stay what they are.
        live = Live(
            console=self._make_console(),
            get_renderable=self.render,
            refresh_per_second=_FRAMES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        atexit.register(self.close)  # a run that is broken off twice may never say that it ended
        live.start(refresh=True)
        if not _log.hasHandlers():
            self._warnings = _Above(live.console)
            _log.addHandler(self._warnings)
        return live

    def _print_ended(self, *, failed: bool = False) -> None:
        ended, self._ended = self._ended, []
        for stage in ended:
            assert self._live is not None  # noqa: S101 (callers have started it)
            style = "red" if failed and not stage.is_done else "green"
            mark = "✗" if style == "red" else "✓"
            self._live.console.print(
                f"[{style}]{mark}[/] {_escaped(_short(stage.stage.name))}  {_summary(stage)}",
                highlight=False,
                soft_wrap=True,
            )

    def render(self) -> Table:
        """The bars of the stages that run now. Takes no lock: the drawing thread calls it."""
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        run, now_s = self._run, self._clock()
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(width=24)
        for _ in range(3):
            table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True)
        for stage in list(run.stages.values()) if run else []:
            if not stage.is_running:
                continue
            left_s = stage.left_s(now_s)
            table.add_row(
                Text(_short(stage.stage.name)),
                ProgressBar(total=stage.num_tasks, completed=stage.tasks_done),
                f"{stage.num_done}/{stage.num_tasks}",
                "" if left_s is None else f"{_clock_text(left_s)} left",
                Text(_rates(stage, now_s)),
                Text(_retries(stage), style="yellow"),
            )
        return table


class _Above(logging.Handler):
    """Warnings above the bars, where the program has not said what becomes of its log.

    Python would write them to the terminal as well, into the bars.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


class Lines:
    """A line in the log every ten seconds at most, however many runs there are."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._run: RunTally | None = None
        self._last_s: float | None = None

    def __call__(self, event: Event) -> None:
        """Takes an event, from any thread."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._run = RunTally(event)
                return
            run = self._run
            if run is None or event.run_idx != run.run_idx:
                return
            if not isinstance(event, RunFinished) and (stage := run.stage_of(event)) is not None:
                stage.take(event)
            now_s = self._clock()
            last_s = run.begin_s if self._last_s is None else max(self._last_s, run.begin_s)
            if now_s - last_s >= LOG_INTERVAL_S:
                self._last_s = now_s
                _log.info("%s", _line(run, event, now_s))
            if isinstance(event, RunFinished):
                self._run = None


def _line(run: RunTally, event: Event, now_s: float) -> str:
    """The run in one line of text."""
    stages = run.stages.values()
    done, tasks = sum(s.num_done for s in stages), sum(s.num_tasks for s in stages)
    parts = [f"run {run.run_idx}: {done} of {tasks} tasks in {duration(now_s - run.begin_s)}"]
    if isinstance(event, RunFinished):
        return f"{parts[0]}; {f'failed: {event.error}' if event.error else 'finished'}"
    for stage in stages:
        if stage.is_running:
            left_s = stage.left_s(now_s)
            left = "" if left_s is None else f"{duration(left_s)} left"
            place = f"{_short(stage.stage.name)} {stage.num_done}/{stage.num_tasks}"
            told = [place, _rates(stage, now_s), _retries(stage), left]
            parts.append(", ".join(filter(None, told)))
    return "; ".join(parts)


def _short(name: str) -> str:
    """A stage's name, which may be a whole query, in so many letters that all can be shown."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return line if len(line) <= _NAME_LENGTH else line[: _NAME_LENGTH - 1] + "…"


def _rates(stage: StageTally, now_s: float) -> str:
    rows_per_s, bytes_per_s = stage.speeds(now_s)
    told = [f"{count(rows_per_s)} rows/s"] if rows_per_s >= 1 else []
    told += [f"{size(bytes_per_s)}/s"] if bytes_per_s >= 1 else []
    return ", ".join(told)


def _retries(stage: StageTally) -> str:
    return f"{stage.retries} {'retry' if stage.retries == 1 else 'retries'}" * bool(stage.retries)


def _summary(stage: StageTally) -> str:
    """What became of a stage that has ended."""
    tasks = f"{stage.num_tasks} {'task' if stage.num_tasks == 1 else 'tasks'}"
    told = [tasks if stage.is_done else f"{stage.num_done} of {tasks}"]
    told += [f"{count(stage.rows)} rows"] if stage.rows else []
    told += [size(stage.num_bytes)] if stage.num_bytes else []
    if stage.begin_s is not None and stage.end_s is not None:
        told.append(duration(max(0.0, stage.end_s - stage.begin_s)))
    return ", ".join(told + list(filter(None, [_retries(stage)])))


def _clock_text(seconds: float) -> str:
    """Such as "0:07", "1:02:30"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _escaped(text: str) -> str:
    from rich.markup import escape  # noqa: PLC0415

    return escape(text)


def make_console(**options: Any) -> Console:
    """A console of rich on stderr that falls silent when its terminal has gone away."""
    from rich.console import Console  # noqa: PLC0415

    class QuietConsole(Console):
        def on_broken_pipe(self) -> None:  # else it would end the program
            self.quiet = True

    return QuietConsole(stderr=True, **options)
