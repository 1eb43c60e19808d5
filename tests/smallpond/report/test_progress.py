"""Progress as it is seen in a terminal and in a log."""

from __future__ import annotations

import errno
import io
import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec

import pytest
from rich.console import Console

from smallpond.events import (
    Advanced,
    Listener,
    Metrics,
    RunFinished,
    RunStarted,
    Stage,
    State,
    TaskEvent,
)
from smallpond.report import progress, progress_listener
from smallpond.report.progress import Bars, Lines
from tests.smallpond.report.screen import Screen

SCAN = Stage(0, "scan", 4, (), 8_000_000)
SORT = Stage(1, "sort by\n  k desc", 2, (0,))


class Clock:
    """The time, which only tests let pass."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Timer:
    """A timer that goes off when a test says so."""

    daemon = False

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds, self.call, self.state = seconds, call, "made"

    def start(self) -> None:
        self.state = "started"

    def cancel(self) -> None:
        self.state = "cancelled"


class Terminal:
    """Bars in a terminal that is a string."""

    def __init__(self, width: int = 120, file: io.StringIO | None = None) -> None:
        self.file = file or io.StringIO()
        self.clock = Clock()
        self.timers: list[Timer] = []
        self.width = width
        self.bars = Bars(self._console, self.clock, self._timer)

    def _console(self) -> Console:
        return progress.make_console(
            file=self.file, force_terminal=True, width=self.width, color_system=None, _environ={}
        )

    def _timer(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(seconds, call))
        return self.timers[-1]

    def screen(self) -> Screen:
        return Screen(self.file.getvalue())

    def drawn(self) -> str:
        """The bars as they are now."""
        file = io.StringIO()
        console = Console(file=file, width=self.width, color_system=None, _environ={})
        console.print(self.bars.render())
        return file.getvalue()

    def rows(self) -> list[str]:
        """The same without the bar itself."""
        lines = self.drawn().replace("━", " ").replace("╸", " ").splitlines()
        return [" ".join(line.split()) for line in lines if line.strip()]


class Script:
    """Tells a listener of tasks, at times that a clock shows."""

    def __init__(self, listener: Listener, clock: Clock, run_idx: int = 0) -> None:
        self.listener, self.clock, self.run_idx = listener, clock, run_idx

    def begin(self, *stages: Stage) -> None:
        self.listener(RunStarted(self.run_idx, self.clock(), stages))

    def task(self, stage: int, key: str, state: State, **more: object) -> None:
        self.listener(
            TaskEvent(self.run_idx, self.clock(), stage, key, state, **more)  # type: ignore[arg-type]
        )

    def end(self, error: str = "") -> None:
        self.listener(RunFinished(self.run_idx, self.clock(), error))


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def script(terminal: Terminal) -> Script:
    return Script(terminal.bars, terminal.clock)


def test_a_short_run_shows_nothing(terminal: Terminal, script: Script) -> None:
    for run_idx in range(3):
        script.run_idx = run_idx
        script.begin(SCAN)
        for key in "abcd":
            script.task(0, key, State.STARTED)
            terminal.clock.now_s += 0.1
            script.task(0, key, State.FINISHED)
        script.end()
        terminal.clock.now_s += 100
    assert terminal.file.getvalue() == ""
    assert [timer.state for timer in terminal.timers] == ["cancelled"] * 3


def test_a_stage_has_a_bar_and_then_a_line(terminal: Terminal, script: Script) -> None:
    script.begin(SCAN, SORT)
    for key in "abcd":
        script.task(0, key, State.STARTED)
    terminal.clock.now_s += 1
    script.task(0, "a", State.FINISHED, metrics=Metrics(rows_in=3000, bytes_in=2_000_000))
    assert terminal.rows() == ["scan 1/4 0:03 left 3.00k rows/s, 2.00 MB/s"]
    script.listener(Advanced(0, 0, 1.5))  # the running three are half done
    assert terminal.rows() == ["scan 1/4 0:01 left 3.00k rows/s, 5.00 MB/s"]
    script.task(0, "b", State.FAILED, error="OSError")
    script.task(0, "b", State.STARTED, attempt=1)
    assert terminal.rows() == ["scan 1/4 0:01 left 3.00k rows/s, 5.00 MB/s 1 retry"]
    assert any("1/4" in line for line in terminal.screen().lines)
    assert not terminal.screen().cursor_is_shown
    terminal.clock.now_s += 1
    for key in "bcd":
        script.task(0, key, State.FINISHED, metrics=Metrics(rows_in=1000, bytes_in=2_000_000))
    script.task(1, "e", State.STARTED)
    assert terminal.rows() == ["sort by k desc 0/2"]
    terminal.clock.now_s += 90
    script.task(1, "e", State.FINISHED, metrics=Metrics(rows_out=10, bytes_out=640))
    assert terminal.rows() == ["sort by k desc 1/2 1:30 left 7 B/s"]
    script.task(1, "f", State.STARTED)
    script.task(1, "f", State.FINISHED)
    script.end()
    screen = terminal.screen()
    assert screen.lines == [
        "✓ scan  4 tasks, 6.00k rows, 8.00 MB, 2.00 s, 1 retry",
        "✓ sort by k desc  2 tasks, 10 rows, 640 B, 1 min 30 s",
    ]
    assert (screen.row, screen.column, screen.cursor_is_shown) == (2, 0, True)


def test_what_was_done_before_bars_are_shown_has_its_line(
    terminal: Terminal, script: Script
) -> None:
    script.begin(SCAN, SORT)
    for key in "abcd":
        script.task(0, key, State.STARTED)
        script.task(0, key, State.FINISHED)
    assert terminal.file.getvalue() == ""
    terminal.clock.now_s += 1
    script.task(1, "e", State.STARTED)
    script.end("TaskError: no")
    assert terminal.screen().lines == [
        "✓ scan  4 tasks, 0 s",
        "✗ sort by k desc  0 of 2 tasks",
    ]


def test_a_task_that_tells_nothing_is_shown_after_a_while(
    terminal: Terminal, script: Script
) -> None:
    script.begin(Stage(0, "sort", 1))
    script.task(0, "a", State.STARTED)
    (timer,) = terminal.timers
    assert (timer.seconds, timer.state, timer.daemon) == (0.5, "started", True)
    timer.call()  # too early by this clock
    assert terminal.file.getvalue() == ""
    terminal.clock.now_s += 0.5
    timer.call()
    assert "sort" in terminal.screen().lines[0]
    script.end()
    before = terminal.file.getvalue()
    timer.call()  # it was about to when it was cancelled
    assert terminal.file.getvalue() == before


@pytest.mark.parametrize("how", ["close", "next run"])
def test_a_run_that_never_says_its_end_leaves_the_terminal_in_order(
    terminal: Terminal, script: Script, how: str
) -> None:
    script.begin(SCAN)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    assert not terminal.screen().cursor_is_shown
    if how == "close":
        terminal.bars.close()
    else:
        script.run_idx = 1
        script.begin(SCAN)
    screen = terminal.screen()
    assert (screen.lines, screen.row, screen.column) == ([], 0, 0)
    assert screen.cursor_is_shown


def test_events_of_other_runs_and_stages_are_passed_over(
    terminal: Terminal, script: Script
) -> None:
    script.begin(SCAN)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    script.task(7, "z", State.STARTED)
    other = Script(terminal.bars, terminal.clock, run_idx=3)
    other.task(0, "b", State.FINISHED)
    other.end()
    assert terminal.rows() == ["scan 0/4"]
    script.end()
    assert terminal.screen().cursor_is_shown


def test_no_bar_for_a_stage_without_tasks(terminal: Terminal, script: Script) -> None:
    script.begin(Stage(0, "nothing", 0), SORT)
    terminal.clock.now_s += 1
    script.task(1, "a", State.STARTED)
    assert terminal.rows() == ["sort by k desc 0/2"]
    script.end()
    assert len(terminal.screen().lines) == 1


def test_reused_tasks_are_done_and_say_nothing_of_the_speed(
    terminal: Terminal, script: Script
) -> None:
    script.begin(Stage(0, "scan", 12))
    for key in "abcdefgh":
        script.task(0, key, State.REUSED, metrics=Metrics(rows_in=10**9))
    script.task(0, "i", State.STARTED)
    terminal.clock.now_s += 10
    script.task(0, "i", State.FINISHED, metrics=Metrics(rows_in=500))
    assert terminal.rows() == ["scan 9/12 0:30 left 50 rows/s"]


def test_a_second_copy_is_no_retry_and_its_task_counts_once(
    terminal: Terminal, script: Script
) -> None:
    script.begin(Stage(0, "scan", 2))
    script.task(0, "a", State.STARTED)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED, attempt=1, speculative=True)
    script.task(0, "a", State.FINISHED, attempt=1, speculative=True)
    script.task(0, "a", State.CANCELLED)
    assert terminal.rows() == ["scan 1/2 0:01 left"]
    script.task(0, "b", State.STARTED)
    script.task(0, "b", State.FINISHED)
    script.task(0, "b", State.CANCELLED, attempt=1)
    script.end()
    assert terminal.screen().lines == ["✓ scan  2 tasks, 1.00 s"]


def test_a_damaged_output_is_work_again(terminal: Terminal, script: Script) -> None:
    script.begin(Stage(0, "scan", 1))
    terminal.clock.now_s += 1
    for attempt in range(2):
        script.task(0, "a", State.STARTED, attempt=attempt)
        assert terminal.rows()[0].startswith("scan 0/1")
        script.task(0, "a", State.FINISHED, attempt=attempt)
        assert terminal.rows() == []
    script.end()


def test_a_bar_is_not_full_before_the_end(terminal: Terminal, script: Script) -> None:
    script.begin(Stage(0, "scan", 2))
    terminal.clock.now_s += 1
    for key in "ab":
        script.task(0, key, State.STARTED)
    script.listener(Advanced(0, 0, 7.0))
    assert terminal.drawn().count("━") == 23
    assert terminal.rows() == ["scan 0/2 0:00 left"]
    script.listener(Advanced(0, 0, -1.0))
    assert terminal.rows() == ["scan 0/2"]


def test_what_finished_tasks_had_done_while_they_ran_counts_once(
    terminal: Terminal, script: Script
) -> None:
    script.begin(Stage(0, "scan", 8))
    for key in "abc":
        script.task(0, key, State.STARTED)
    script.listener(Advanced(0, 0, 2.5))
    terminal.clock.now_s += 10
    for key in "abc":
        script.task(0, key, State.FINISHED)
    for key in "de":
        script.task(0, key, State.REUSED)
    assert terminal.rows() == ["scan 5/8 0:10 left"]


def test_names_are_shown_as_they_are(terminal: Terminal, script: Script) -> None:
    name = "[red]select[/] 'a\x1b[31mb' [link=x] " + "x" * 100
    script.begin(Stage(0, name, 1))
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    wanted = "[red]select[/] 'a [31mb' [link=x] xxxxx…"
    assert terminal.rows() == [f"{wanted} 0/1"]
    script.task(0, "a", State.FINISHED)
    script.end()
    assert terminal.screen().lines == [f"✓ {wanted}  1 task, 0 s"]


def test_events_from_many_threads() -> None:
    terminal = Terminal()
    script = Script(terminal.bars, terminal.clock)
    script.begin(Stage(0, "scan", 400), Stage(1, "sort", 400))
    terminal.clock.now_s += 1

    def work(worker: int) -> None:
        for number in range(100):
            key = f"{worker}-{number}"
            script.task(worker % 2, key, State.STARTED)
            script.listener(Advanced(0, worker % 2, 0.5))
            script.task(worker % 2, key, State.FINISHED, metrics=Metrics(rows_in=1))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    script.end()
    screen = terminal.screen()
    assert sorted(screen.lines) == [
        "✓ scan  400 tasks, 400 rows, 0 s",
        "✓ sort  400 tasks, 400 rows, 0 s",
    ]
    assert screen.cursor_is_shown


class Gone(io.StringIO):
    """A terminal that can no longer be written to."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, _text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        OSError(errno.EIO, "Input/output error"),
        ValueError("I/O operation on closed file"),
    ],
)
def test_a_run_goes_on_without_its_terminal(error: Exception) -> None:
    terminal = Terminal(file=Gone(error))
    script = Script(terminal.bars, terminal.clock)
    for run_idx in range(2):
        script.run_idx = run_idx
        script.begin(SCAN)
        terminal.clock.now_s += 1
        script.task(0, "a", State.STARTED)
        script.task(0, "a", State.FINISHED)
        script.end()


def test_output_and_log_of_the_program_stay_its_own(terminal: Terminal, script: Script) -> None:
    def owned() -> list[object]:
        handlers = [logging.getLogger(name).handlers[:] for name in ("", "smallpond")]
        return [sys.stdout, sys.stderr, sys.excepthook, *handlers]

    before = owned()
    script.begin(SCAN)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    assert owned() == before
    script.end()
    assert owned() == before


def test_warnings_stand_above_the_bars(
    terminal: Terminal, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.Logger("nobody listens")  # noqa: LOG001 (one that pytest knows nothing of)
    monkeypatch.setattr(progress, "_log", log)
    script.begin(SCAN)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    log.info("not said")
    log.warning("a [red] node of %s is gone", "Ray")
    script.task(0, "a", State.FINISHED)
    terminal.bars._live.refresh()  # type: ignore[union-attr]
    lines = terminal.screen().lines
    assert lines[0] == "a [red] node of Ray is gone"
    assert lines[1].startswith("scan ")
    assert len(lines) == 2
    script.end()
    assert log.handlers == []
    log.addHandler(logging.NullHandler())
    script.run_idx = 1
    script.begin(SCAN)
    terminal.clock.now_s += 1
    script.task(0, "a", State.STARTED)
    assert len(log.handlers) == 1  # the program's own


@pytest.mark.parametrize(
    ("wanted", "tty", "rich", "notebook", "kind"),
    [
        (False, True, True, False, None),
        (None, True, True, False, Bars),
        (None, True, True, True, Lines),
        (None, False, True, False, Lines),
        (None, True, False, False, Lines),
        (True, True, True, False, Bars),
        (True, False, True, False, Bars),
        (True, False, True, True, Bars),
    ],
)
def test_the_listener_suits_the_place(
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool | None,
    tty: bool,
    rich: bool,
    notebook: bool,
    kind: type | None,
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: tty)
    found = ModuleSpec("rich", None) if rich else None
    monkeypatch.setattr(progress, "find_spec", lambda _: found)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    made = progress_listener(wanted)
    assert made is None if kind is None else type(made) is kind


def test_who_asks_for_bars_without_rich_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda _: None)
    with pytest.warns(UserWarning, match=r"progress=True: bars need rich.*pip install rich"):
        assert isinstance(progress_listener(True), Lines)


def test_a_program_without_stderr_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert isinstance(progress_listener(None), Lines)


def test_a_line_in_the_log_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smallpond")
    clock = Clock()
    script = Script(Lines(clock), clock, run_idx=5)
    script.begin(SCAN, SORT)
    for key in "abcd":
        script.task(0, key, State.STARTED)
    for _ in range(48):  # twelve seconds
        clock.now_s += 0.25
        script.listener(Advanced(5, 0, 2.0))
    script.task(0, "a", State.FINISHED, metrics=Metrics(rows_in=30_000, bytes_in=2_000_000))
    for key in "bcd":
        clock.now_s += 3
        script.task(0, key, State.FINISHED)
    script.end()
    assert caplog.messages == [
        "run 5: 0 of 6 tasks in 10.0 s; scan 0/4, 400 kB/s, 10.0 s left",
        "run 5: 4 of 6 tasks in 21.0 s",
    ]
    assert {record.name for record in caplog.records} == {"smallpond"}


def test_lines_of_many_runs_are_no_more(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "smallpond")
    clock = Clock()
    lines = Lines(clock)
    for run_idx in range(100):  # each takes nine seconds, and then one that takes longer
        script = Script(lines, clock, run_idx)
        script.begin(SCAN)
        clock.now_s += 9
        script.task(0, "a", State.FINISHED)
        script.end()
    script = Script(lines, clock, 100)
    script.begin(SCAN)
    clock.now_s += 11
    script.end("TaskError: no")
    assert caplog.messages == ["run 100: 0 of 4 tasks in 11.0 s; failed: TaskError: no"]
    script.begin(SCAN)
    clock.now_s += 9
    script.end()
    script.begin(SCAN)
    clock.now_s += 11
    script.end()
    assert caplog.messages[1:] == ["run 100: 0 of 4 tasks in 11.0 s; finished"]


def test_without_a_handler_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    script = Script(Lines(clock), clock)
    script.begin(SCAN)
    clock.now_s += 60
    script.end()
    assert capsys.readouterr() == ("", "")


BROKEN_OFF_TWICE = """
from smallpond.events import RunStarted, Stage, State, TaskEvent
from smallpond.report import progress_listener
bars = progress_listener()
bars._clock = lambda: 1.0
bars(RunStarted(0, 0.0, (Stage(0, "scan", 1),)))
bars(TaskEvent(0, 0.0, 0, "a", State.STARTED))
raise KeyboardInterrupt
"""


def test_ctrl_c_in_a_real_terminal_shows_the_cursor_again() -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", BROKEN_OFF_TWICE]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment, check=False, timeout=60
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # so ends what a terminal tells
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    assert done.stdout == b""
    assert b"scan" in text
    assert b"KeyboardInterrupt" in text
    assert text.count(b"\x1b[?25l") == text.count(b"\x1b[?25h") == 1
