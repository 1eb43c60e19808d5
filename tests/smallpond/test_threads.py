"""The threads that tasks run in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from smallpond.executors.threads import Threads

PATIENCE_S = 30.0


@pytest.fixture
def threads() -> Iterator[Threads[None]]:
    """A pool that is closed afterwards."""
    pool: Threads[None] = Threads()
    yield pool
    pool.close()


def test_jobs_run_at_the_same_time(threads: Threads[None]) -> None:
    together = threading.Barrier(5)

    def job() -> None:
        together.wait(PATIENCE_S)

    for _ in range(4):
        threads.run(job)
    together.wait(PATIENCE_S)  # breaks, and so raises, if one of the four has to wait for another


def test_a_thread_does_one_job_after_the_other(threads: Threads[None]) -> None:
    names: list[int] = []
    for _ in range(20):
        threads.run(lambda: names.append(threading.get_ident()))
        threads.quiet(PATIENCE_S)
    assert len(names) == 20
    assert len(set(names)) == 1


def test_what_jobs_return_comes_when_their_thread_is_free() -> None:
    pool = Threads[int]()
    first = None
    for _ in range(200):
        pool.run(threading.get_ident)
        thread = pool.returned.get(timeout=PATIENCE_S)
        first = first or thread
        assert thread == first
    pool.close()


def test_quiet_waits_for_all_jobs(threads: Threads[None]) -> None:
    go, done = threading.Event(), list[int]()

    def job() -> None:
        go.wait(PATIENCE_S)
        done.append(threading.get_ident())

    for _ in range(3):
        threads.run(job)
    threads.quiet(0.05)
    assert done == []
    go.set()
    threads.quiet(PATIENCE_S)
    assert len(set(done)) == 3


def test_quiet_without_jobs_returns_at_once(threads: Threads[None]) -> None:
    threads.quiet(3600)


def test_close_ends_the_threads_after_their_jobs() -> None:
    pool, go, seen = Threads[None](), threading.Event(), list[threading.Thread]()

    def job() -> None:
        seen.append(threading.current_thread())
        go.wait(PATIENCE_S)

    for _ in range(3):
        pool.run(job)
    while len(seen) < 3:
        time.sleep(0.001)
    pool.close()
    assert all(thread.is_alive() for thread in seen)
    go.set()
    for thread in seen:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in seen)


def test_what_a_job_held_is_let_go(threads: Threads[None]) -> None:
    class Held:
        gone = threading.Event()

        def __del__(self) -> None:
            self.gone.set()

        def job(self) -> None:
            """Does nothing."""

    threads.run(Held().job)
    assert Held.gone.wait(PATIENCE_S)
