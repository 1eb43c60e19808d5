"""This machine: SQL in threads of this process, Python functions in processes of their own.

DuckDB and Arrow let go of the interpreter's lock, so threads suffice for SQL and share memory with
the driver. Python functions hold the lock, and may crash; each of their tasks has a process.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from smallpond.engine.duck import Instance, Instances
from smallpond.errors import NonzeroExitCode
from smallpond.executors import Outcome, Worker
from smallpond.executors.process import Process
from smallpond.executors.threads import Threads
from smallpond.interrupts import held_back
from smallpond.plan import Filter, Function, Plan, Project, Sql, walk
from smallpond.task import Attempt


def usable_cpus() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_memory_bytes() -> int:
    """80 % of the memory of this machine, or of the control group that this process is in."""
    sizes = []
    with suppress(OSError, ValueError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text().strip()))
    return int(0.8 * min(sizes, default=8 << 30))


def usable_gpus() -> int:
    """GPUs of this machine, as Linux shows them."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def needs_process(program: Plan) -> bool:
    """Whether a program calls Python functions."""
    return any(
        isinstance(node, Function)
        or (isinstance(node, Project | Filter | Sql) and any(u.function for u in node.udfs))
        for node in walk(program)
    )


_PATIENCE_S = 5.0


class Embedded:
    """Runs attempts on this machine."""

    shared_memory = True

    def __init__(self, cpus: int, memory_bytes: int, temp_root: str, time_zone: str) -> None:
        self._worker = Worker("local", cpus, memory_bytes, usable_gpus())
        self._instances = Instances(temp_root, time_zone)
        self._queries: dict[str, Instance] = {}
        self._processes: dict[str, Process] = {}
        self._idle: list[Process] = []
        self._cancelled: set[str] = set()
        self._threads: Threads[Outcome] = Threads()
        self._lock = threading.Lock()

    def workers(self) -> list[Worker]:
        return [self._worker]

    def submit(self, attempt: Attempt) -> None:
        run = self._run_in_process if needs_process(attempt.task.program) else self._run_here
        with held_back():  # what is known to run must have begun
            self._threads.run(functools.partial(self._guarded, run, attempt))

    def cancel(self, attempt_id: str) -> None:
        with self._lock:
            self._cancelled.add(attempt_id)
            instance = self._queries.get(attempt_id)
            process = self._processes.get(attempt_id)
        if instance is not None:
            instance.interrupt()
        if process is not None:
            process.kill()

    def quiet(self, timeout_s: float) -> None:
        self._threads.quiet(timeout_s)

    def wait(self, timeout_s: float) -> list[Outcome]:
        outcomes = []
        with suppress(queue.Empty):
            outcomes.append(self._threads.returned.get(timeout=timeout_s))
            while True:
                outcomes.append(self._threads.returned.get_nowait())
        return outcomes

    def progress(self) -> dict[str, float]:
        with self._lock:
            running = dict(self._queries)
        return {attempt_id: instance.progress() for attempt_id, instance in running.items()}

    def warm(self) -> None:
        with self._lock:
            if self._idle or self._processes:
                return
            self._idle.append(Process())

    def close(self) -> None:
        with self._lock:
            attempts = [*self._queries, *self._processes]
            idle, self._idle = self._idle, []
        for attempt_id in attempts:
            self.cancel(attempt_id)
        for process in idle:
            process.kill()
        self.quiet(_PATIENCE_S)
        self._threads.close()
        self._instances.close()

    def _guarded(self, run: Callable[[Attempt], Outcome], attempt: Attempt) -> Outcome:
        """Whatever happens becomes an outcome."""
        try:
            return run(attempt)
        except BaseException as error:  # noqa: BLE001 (the scheduler decides what it means)
            return Outcome(attempt.id, error=error, worker=self._name(attempt))
        finally:
            with self._lock:
                self._cancelled.discard(attempt.id)

    def _name(self, attempt: Attempt) -> str:
        return "process" if needs_process(attempt.task.program) else "thread"

    def _run_here(self, attempt: Attempt) -> Outcome:
        from smallpond.engine.run import run  # noqa: PLC0415 (imports DuckDB's relatives)

        with self._instances.borrow(attempt.cpus, attempt.memory_bytes) as instance:
            with self._lock:
                if attempt.id in self._cancelled:
                    return Outcome(attempt.id, error=InterruptedError("cancelled"))
                self._queries[attempt.id] = instance
            try:
                return Outcome(attempt.id, run(attempt, instance), worker="thread")
            finally:
                with self._lock:
                    del self._queries[attempt.id]

    def _run_in_process(self, attempt: Attempt) -> Outcome:
        with self._lock:
            process = self._idle.pop() if self._idle else None
        if process is not None and not process.alive:
            process.kill()
            process = None
        process = process or Process()
        with self._lock:
            if attempt.id in self._cancelled:
                self._idle.append(process)
                return Outcome(attempt.id, error=InterruptedError("cancelled"))
            self._processes[attempt.id] = process
        try:
            result = process.run(attempt)
        except NonzeroExitCode as error:
            process.kill()
            return Outcome(attempt.id, error=error, lost=True, worker=process.name)
        finally:
            with self._lock:
                del self._processes[attempt.id]
        with self._lock:
            self._idle.append(process)
        if isinstance(result, BaseException):
            return Outcome(attempt.id, error=result, worker=process.name)
        return Outcome(attempt.id, result, worker=process.name)
