"""Processes of this machine, which run tasks."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from benchmarks.graysort.tasks import GraySortError, Item, RunAll, TaskFunction


def usable_cpus() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def local_workers(num_workers: int) -> Iterator[RunAll]:
    """Yields a function that runs tasks in so many processes; they end with the context."""
    # Not forked from this process, which may hold much memory and run threads.
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))

    def run_all(
        function: TaskFunction, items: list[Item], done: Callable[[Item], None]
    ) -> list[Item]:
        with _no_interrupts():  # nor in the processes that this starts, for good
            futures = [pool.submit(function, item) for item in items]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BrokenProcessPool as error:
            raise GraySortError(
                "a worker process was ended from outside, as the system does when memory runs "
                "out (lower --memory-limit or --workers)"
            ) from error
        return [future.result() for future in futures]

    try:
        yield run_all
    finally:
        # What is queued is dropped, what runs ends within a second.
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back, which reaches every process of a terminal; it counts after the context.

    Processes that are started inside inherit the mask. It does not suffice for this process, where
    another thread may be the one that receives the signal.
    """
    received: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if received:
        raise KeyboardInterrupt
