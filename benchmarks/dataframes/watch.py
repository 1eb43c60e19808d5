"""Runs one engine on one job in a fresh process, and watches it from outside.

A limit on memory is told to each engine in its own way, and what each makes of it differs. So that
it holds for all alike, the process and its descendants are ended when they have grown by more than
a cap since the engine was ready.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from benchmarks.dataframes import tree
from benchmarks.dataframes.digest import Digest
from benchmarks.dataframes.job import Job
from benchmarks.dataframes.process import Spec
from benchmarks.environment import REPOSITORY

_SAMPLE_S = 0.05
_FIND_S = 0.5  # finding descendants is dear, and they change seldom


class EngineError(RuntimeError):
    """An engine did not do a job; the text says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process from start to end.

    Attributes:
        start_s: import, start and first query.
        seconds: the workload; of "every", all of them.
        cpu_s: processor time of all its processes meanwhile.
        grown_bytes: the most memory that they held meanwhile, less what they held before.
        exit_s: from the call that closes the engine to the end of the process.
        total_s: the whole process, without its checks.
        rows: of the result, by workload.
        digests: by workload, where they were asked for.
    """

    start_s: float
    seconds: float
    cpu_s: float
    grown_bytes: int
    exit_s: float
    total_s: float
    rows: dict[str, int] = field(default_factory=dict)
    digests: dict[str, Digest] = field(default_factory=dict)


def cap_bytes(limit_mb: int) -> int | None:
    """Returns by how much the processes of an engine may grow that was told a limit."""
    return 2 * limit_mb * 10**6 + 64 * 10**6 if limit_mb else None


def run_once(
    engine: str, job: Job, inputs: Path, folder: Path, *, check: bool, timeout_s: float
) -> Run:
    """Runs an engine on a job in a process of its own.

    Args:
        engine: one of `process.ENGINES`.
        job: what to do.
        inputs: folder with the input files of the job.
        folder: where the process gets a folder of its own, which is gone afterwards.
        check: ask for digests.
        timeout_s: when the process is ended.

    Raises:
        EngineError: it failed, took too long, or grew beyond the cap.
    """
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
        spec = Spec(engine, dataclasses.asdict(job), str(inputs), scratch, check)
        with (Path(scratch) / "errors.txt").open("w+") as errors:
            watched = _Watched(spec, errors, timeout_s)
            try:
                return watched.run()
            finally:
                watched.end()


class _Watched:
    def __init__(self, spec: Spec, errors: IO[str], timeout_s: float) -> None:
        self.errors = errors
        self.begin = time.monotonic()
        self.timeout_s = timeout_s
        self.cap_bytes = cap_bytes(spec.job["limit_mb"])
        command = ("-m", "benchmarks.dataframes.process", json.dumps(dataclasses.asdict(spec)))
        # Compiled once, as what pip installs is: an engine's start is no test of the compiler.
        environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        self.pids, self.found_at = [self.process.pid], 0.0
        self.grown_bytes = 0
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def run(self) -> Run:
        ready = self._next()
        if ready["answer"] != 42:
            raise EngineError(f"the answer to its first query is {ready['answer']}")
        seconds = cpu_s = checks_s = 0.0
        rows, digests = {}, {}
        while self._next()["event"] == "next":
            done = self._watch()
            seconds, cpu_s = seconds + done["seconds"], cpu_s + done["cpu_s"]
            done_at = time.monotonic()
            self._go()
            checked = self._next()
            checks_s += time.monotonic() - done_at
            rows[done["workload"]] = checked["rows"]
            if "digest" in checked:
                digests[done["workload"]] = Digest.of_json(checked["digest"])
        closing = time.monotonic()
        if self._exit_code():
            raise EngineError(self._last_words())
        ended = time.monotonic()
        return Run(
            start_s=ready["seconds"],
            seconds=seconds,
            cpu_s=cpu_s,
            grown_bytes=self.grown_bytes,
            exit_s=ended - closing,
            total_s=ended - self.begin - checks_s,
            rows=rows,
            digests=digests,
        )

    def end(self) -> None:
        """Ends whatever of the process and its descendants is left."""
        if self.process.poll() is None:
            tree.end(tree.tree_of(self.process.pid))
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        for line in cast("IO[str]", self.process.stdout):
            self.lines.put(line)
        self.lines.put("")

    def _go(self) -> None:
        stdin = cast("IO[str]", self.process.stdin)
        try:
            stdin.write("\n")
            stdin.flush()
        except BrokenPipeError:
            raise EngineError(self._last_words()) from None

    def _watch(self) -> dict[str, Any]:
        """Lets a workload begin, and returns what is said when it is done."""
        held = self._memory()
        self._go()
        event = None
        while event is None:
            event = self._said(_SAMPLE_S)
            self.grown_bytes = max(self.grown_bytes, self._memory() - held)
            if self.cap_bytes is not None and self.grown_bytes > self.cap_bytes:
                raise EngineError(f"ended: grew beyond {self.cap_bytes / 1e6:.0f} MB of memory")
        return event

    def _next(self) -> dict[str, Any]:
        while (event := self._said(1.0)) is None:
            pass
        return event

    def _said(self, patience_s: float) -> dict[str, Any] | None:
        """Returns what the process says next; None if it says nothing for that long."""
        self._check_time()
        try:
            line = self.lines.get(timeout=patience_s)
        except queue.Empty:
            return None
        if not line:
            raise EngineError(self._last_words())
        event: dict[str, Any] = json.loads(line)
        return event

    def _memory(self) -> int:
        if time.monotonic() - self.found_at > _FIND_S:
            self.pids, self.found_at = tree.tree_of(self.process.pid), time.monotonic()
        return tree.memory_bytes(self.pids)

    def _exit_code(self) -> int:
        while (code := self.process.poll()) is None:
            self._check_time()
            time.sleep(0.001)
        return code

    def _check_time(self) -> None:
        if time.monotonic() - self.begin > self.timeout_s:
            raise EngineError(f"ended: not done after {self.timeout_s:.0f} s")

    def _last_words(self) -> str:
        """The line of an exception that ended the process, or how else it ended."""
        code = self._exit_code()
        self.errors.seek(0)
        lines = [line.rstrip() for line in self.errors if line[:1].strip()]
        errors = [line for line in lines if "Error" in line or "Exception" in line]
        return (errors or lines or [f"exit code {code}"])[-1]
