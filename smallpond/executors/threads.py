"""Threads that are kept for the next job: starting one costs as much as a small task."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Threads(Generic[T]):
    """As many threads as there are jobs at a time, and what the jobs return.

    The standard library's pool has a bound on their number, and its threads keep a program from
    ending while one of them is busy; these do not.

    Attributes:
        returned: what each job has returned, once its thread is free for another.
    """

    def __init__(self) -> None:
        self.returned: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Callable[[], T] | None] = queue.SimpleQueue()
        self._idle = 0
        self._alive = 0
        self._changed = threading.Condition()

    def run(self, job: Callable[[], T]) -> None:
        """Has a thread do a job, which must not raise."""
        with self._changed:
            start = self._idle == 0
            if start:
                self._alive += 1
            else:
                self._idle -= 1
        self._jobs.put(job)
        if start:
            threading.Thread(target=self._work, name="smallpond task", daemon=True).start()

    def quiet(self, timeout_s: float) -> None:
        """Waits until all jobs are done, or so long."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._idle < self._alive and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def close(self) -> None:
        """Ends the threads, each after its job."""
        with self._changed:
            for _ in range(self._alive):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            result = job()
            del job  # and what it holds on to
            with self._changed:
                self._idle += 1
                if self._idle == self._alive:
                    self._changed.notify_all()
            self.returned.put(result)
            del result
