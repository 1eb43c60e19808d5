"""Runs the sort and its peers on one input, round after round, and checks every output."""

from __future__ import annotations

import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from rich.console import Console

from benchmarks.graysort.input_file import KNOWN_CHECKSUMS, write_input, write_text_input
from benchmarks.graysort.peers import PEERS, Measured, Options, Peer, run_peer
from benchmarks.graysort.phases import Phases
from benchmarks.graysort.plan import Plan
from benchmarks.graysort.sizes import in_units
from benchmarks.graysort.sort import sort_file
from benchmarks.graysort.tasks import CorruptedDataError, GraySortError, RunAll
from benchmarks.graysort.validate import Summary, complaint, summarise_file

OURS = "graysort"
SORT_PHASES = ("sample", "partition", "sort")
_SEED = 0


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be run.

    Attributes:
        plan: sizes of the sort.
        options: what it and its peers may use.
        skewed: whether many records share keys.
        workers: opens workers that run tasks; takes a folder for what they keep.
        peers: names of peers to run as well.
        num_rounds: how often each is run.
    """

    plan: Plan
    options: Options
    skewed: bool
    workers: Callable[[Path], AbstractContextManager[RunAll]]
    peers: tuple[str, ...] = ()
    num_rounds: int = 1

    @property
    def num_bytes(self) -> int:
        return self.plan.num_bytes


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        expected: summary of the input.
        found: summary of the sorted output.
        runs: by name, this sort's among them, what each round took.
        phases: the costs of generating, of the fastest sort and of its validation.
        wrong: name and fault of every output that was not as it should be.
        left_out: peers that could not run here, and why.
    """

    expected: Summary
    found: Summary = field(default_factory=Summary)
    runs: dict[str, list[Measured]] = field(default_factory=dict)
    phases: Phases | None = None
    wrong: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def fastest(self, name: str) -> Measured:
        return min(self.runs[name], key=lambda run: run.wall_s)

    def median_s(self, name: str) -> float:
        return statistics.median(run.wall_s for run in self.runs[name])


@contextmanager
def work_folder(root: Path, *, keep: bool) -> Iterator[Path]:
    """Yields a new folder; it is removed at the end, or kept if all went well and it is wanted."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(prefix="graysort-", dir=root))
    except OSError as error:
        raise GraySortError(
            f"--data-root: {root} must be a folder that can be written to, got: {error.strerror}"
        ) from error
    finished = False
    try:
        yield folder
        finished = True
    finally:
        if not (keep and finished):
            shutil.rmtree(folder, ignore_errors=True)


def run(task: Task, folder: Path, screen: Console) -> Outcome:
    """Generates the input, sorts it as often as wanted, and validates every output."""
    source, target = folder / "input.dat", folder / "sorted.dat"
    with task.workers(folder) as run_all:
        phases = Phases(run_all, screen)
        expected = write_input(source, task.plan.num_records, phases, skewed=task.skewed)
        known = None if task.skewed else KNOWN_CHECKSUMS.get(task.plan.num_records)
        if known not in (None, expected.checksum):
            raise CorruptedDataError(
                f"generate: {task.plan.num_records} records must have checksum {known:x}, got "
                f"{expected.checksum:x}"
            )
        outcome = Outcome(expected)
        names = [OURS]
        for name in task.peers:
            if reason := _why_not(PEERS[name], task):
                outcome.left_out[name] = reason
            else:
                names.append(name)
        text, text_expected = folder / "lines.txt", Summary()
        if any(PEERS[name].text for name in names if name != OURS):
            text_expected = write_text_input(source, text, task.plan.num_records, phases)
    shuffled = random.Random(_SEED)
    for _ in range(task.num_rounds):
        shuffled.shuffle(names)
        for name in names:
            if name == OURS:
                target.unlink(missing_ok=True)
                _run_ours(task, source, target, phases, outcome, screen)
            elif PEERS[name].text:
                _run_peer(name, task, text, text_expected, outcome, screen)
            else:
                _run_peer(name, task, source, expected, outcome, screen)
    text.unlink(missing_ok=True)
    return outcome


def _run_ours(
    task: Task, source: Path, target: Path, made: Phases, outcome: Outcome, screen: Console
) -> None:
    begin, cpu = time.perf_counter(), time.process_time()
    with task.workers(source.parent) as run_all:
        phases = Phases(run_all, screen)
        sort_file(source, target, source.with_name("runs"), task.plan, phases)
        wall_s, own_cpu_s = time.perf_counter() - begin, time.process_time() - cpu
        peak_bytes = sum(phases.peaks.values())
        cpu_s = phases.total(*SORT_PHASES).cpu_s + own_cpu_s
        found = summarise_file(target, phases)
    if fault := complaint(found, outcome.expected):
        outcome.wrong.append(f"{OURS}: {fault}")
    measured = Measured(wall_s, cpu_s, peak_bytes)
    if OURS not in outcome.runs or wall_s < outcome.fastest(OURS).wall_s:
        phases.costs = made.costs | phases.costs
        outcome.phases, outcome.found = phases, found
    outcome.runs.setdefault(OURS, []).append(measured)


def _run_peer(
    name: str, task: Task, source: Path, expected: Summary, outcome: Outcome, screen: Console
) -> None:
    target = source.with_name("peer.dat")
    with screen.status(f"peer {name}"):
        measured = run_peer(name, source, target, task.options)
    with task.workers(source.parent) as run_all:
        found = summarise_file(target, Phases(run_all, screen))
    target.unlink()
    if fault := complaint(found, expected):
        outcome.wrong.append(f"peer {name}: {fault}")
    outcome.runs.setdefault(name, []).append(measured)


def _why_not(peer: Peer, task: Task) -> str | None:
    missing = [module for module in peer.modules if find_spec(module) is None]
    if missing:
        return f"{missing[0]} is not installed"
    if peer.text and not _has_gnu_sort():
        return "this machine's sort is not GNU's"
    needed, available = int(peer.memory_ratio * task.num_bytes), _available_bytes()
    if available is not None and needed > available:
        return f"needs about {in_units(needed)} of memory, {in_units(available)} are available"
    return None


def _available_bytes() -> int | None:
    meminfo = Path("/proc/meminfo")
    for line in meminfo.read_text().splitlines() if meminfo.exists() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _has_gnu_sort() -> bool:
    try:
        done = subprocess.run(["sort", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return "GNU coreutils" in done.stdout
