"""Ways to run a sort in tests: in this process, and with something going wrong on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cloudpickle
import numpy as np

from benchmarks.graysort.phases import Phases
from benchmarks.graysort.plan import Plan
from benchmarks.graysort.records import Rows
from benchmarks.graysort.sort import sort_file
from benchmarks.graysort.tasks import Item, RunAll, TaskFunction

Hook = Callable[[TaskFunction], None]


def here(after_phase: Hook = lambda _: None) -> RunAll:
    """Runs tasks one after another in this process, each as a copy that has travelled."""

    def run_all(
        function: TaskFunction, items: list[Item], advance: Callable[[], None]
    ) -> list[Item]:
        arrived = cloudpickle.loads(cloudpickle.dumps(function))
        results = []
        for item in items:
            results.append(arrived(cloudpickle.loads(cloudpickle.dumps(item))))
            advance()
        after_phase(function)
        return results

    return run_all


def phases(after_phase: Hook = lambda _: None) -> Phases:
    return Phases(here(after_phase))


def sort_bytes(data: bytes, folder: Path, plan: Plan, run: Phases | None = None) -> bytes:
    """Sorts records through files in an empty folder; only input and output may be left there."""
    source, target = folder / "input", folder / "output"
    source.write_bytes(data)
    sort_file(source, target, folder / "runs", plan, run or phases())
    assert sorted(path.name for path in folder.iterdir()) == ["input", "output"]
    assert source.read_bytes() == data
    return target.read_bytes()


def plan(
    num_records: int, chunk_records: int, num_partitions: int, capacity_records: int = 10**9
) -> Plan:
    return Plan(num_records, chunk_records, num_partitions, capacity_records)


def rows_of(data: bytes) -> Rows:
    return np.frombuffer(data, np.uint8).reshape(-1, 100)
