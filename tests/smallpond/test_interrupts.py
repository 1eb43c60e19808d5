"""Ctrl-C, once and again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import smallpond
from smallpond.events import RunStarted
from smallpond.interrupts import held_back
from smallpond.report import Bars


@pytest.fixture(autouse=True)
def _usual_handler() -> Iterator[None]:
    """Python's own, whoever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


_SCRIPT = """
    import time
    import smallpond
    from smallpond.executors.embedded import Embedded
    from smallpond.storage.folder import Folder

    def slow(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            print("clearing", flush=True)
            input()  # which the test answers after its Ctrl-C
            return real(*args, **kwargs)

        setattr(owner, name, call)

    with smallpond.init(data_root={root!r}, cpus=2, progress=True) as sp:
        slow({owner}, {name!r})
        rows = sp.from_items([1, 2]).map(lambda row: (print("working", flush=True), time.sleep(99)))
        rows.write_parquet({out!r})
"""


def _read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f"no {word}: {process.stderr.read() if process.stderr else ''}")


def _workers(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize(
    ("owner", "name"),
    [("Embedded", "quiet"), ("Folder", "clear"), ("Embedded", "close")],
    ids=["the run stops", "files go", "the session ends"],
)
def test_a_second_one_waits_for_the_clean_up(tmp_path: Path, owner: str, name: str) -> None:
    (tmp_path / "above").mkdir()
    values = {"root": str(tmp_path / "root"), "out": str(tmp_path / "above" / "out")}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT).format(owner=owner, name=name, **values)],
        env={**os.environ, "PYTHONPATH": str(Path(smallpond.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Who starts the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,  # noqa: PLW1509
    )
    try:
        _read_until(process, "working")
        workers = _workers(process.pid)
        assert workers
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _read_until(process, "clearing")
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate("\n" * 100, timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGINT
    # Not its tracebacks: the first one may come just when a wait has ended without an outcome.
    assert err.count("\nKeyboardInterrupt") == 1, err
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert list((tmp_path / "above").iterdir()) == []
    assert list((tmp_path / "root").glob("*")) == []


def _press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_one_that_is_the_first_comes_late() -> None:
    done = []

    def clear() -> None:
        with held_back():
            _press()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        clear()
    assert done == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_that_is_the_second_is_forgotten() -> None:
    def clear() -> None:
        with held_back():
            _press()

    def work() -> None:
        try:
            raise KeyboardInterrupt("the first")
        finally:
            clear()

    with pytest.raises(KeyboardInterrupt, match="the first"):
        work()


def test_one_more_ends_a_clean_up_that_takes_too_long() -> None:
    def clear() -> None:
        with held_back():
            _press()
            _press()
            pytest.fail("still clearing")

    with pytest.raises(KeyboardInterrupt):
        clear()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_errors_pass_through() -> None:
    with pytest.raises(OSError, match="full"), held_back():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_programs_own_handler_stays() -> None:
    heard: list[int] = []

    def hear(number: int, _: Any) -> None:
        heard.append(number)

    signal.signal(signal.SIGINT, hear)
    with held_back():
        assert signal.getsignal(signal.SIGINT) is hear
        _press()
    assert heard == [signal.SIGINT]


def test_other_threads_do_without() -> None:
    ran: list[bool] = []

    def work() -> None:
        with held_back():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [True]


def test_a_task_begins_whole_or_not_at_all(
    sp: smallpond.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    pressed = []

    def press_and_start(thread: threading.Thread) -> None:
        if not pressed and threading.current_thread() is threading.main_thread():
            pressed.append(thread.name)
            _press()
        start(thread)

    df = sp.from_items([1, 2]).filter("item > 1")
    monkeypatch.setattr(threading.Thread, "start", press_and_start)
    with pytest.raises(KeyboardInterrupt):
        df.count()
    assert pressed
    assert df.count() == 1


def test_the_bars_go_when_the_session_ends(tmp_path: Path) -> None:
    """Also those of a run that was broken off so that it never said that it ended."""
    with smallpond.init(data_root=str(tmp_path), progress=True) as sp:
        [bars] = [one for one in sp.job.listeners if isinstance(one, Bars)]
        bars(RunStarted(0, 0.0, ()))
        bars._show_if_due()
        assert bars._live is not None
        assert bars._live.is_started
        live = bars._live
    assert not live.is_started
    assert bars._live is None
