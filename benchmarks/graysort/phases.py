"""The phases of a run: their tasks are run one phase after another, and what they cost added up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from benchmarks.graysort.tasks import Item, RunAll, TaskFunction, check


@dataclass(slots=True)
class Cost:
    """What a phase took.

    Attributes:
        wall_s: from its first task's start to its last one's end.
        cpu_s: processor time of its tasks, of user and system.
        bytes_read, bytes_written: from and to files, cached or not.
        num_tasks: how many there were.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    num_tasks: int = 0

    def add(self, result: Item) -> None:
        self.cpu_s += result["cpu_s"]
        self.bytes_read += result["bytes_read"]
        self.bytes_written += result["bytes_written"]
        self.num_tasks += 1


@dataclass(slots=True)
class Phases:
    """Runs phases and remembers what they cost.

    Attributes:
        run_all: runs the tasks of a phase.
        screen: shows a bar per phase if it is a terminal.
        costs: by phase, in the order in which they ran.
        peaks: the most memory in bytes that each worker ever held.
    """

    run_all: RunAll
    screen: Console | None = None
    costs: dict[str, Cost] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    def run(
        self, name: str, function: TaskFunction, items: list[Item], num_bytes: int
    ) -> list[Item]:
        """Returns the result of each task.

        Args:
            name: of the phase.
            function: what its tasks do.
            items: one for each task.
            num_bytes: what all of them together process, for the bar.

        Raises:
            GraySortError, CorruptedDataError: what the first task that failed said.
        """
        cost = self.costs.setdefault(name, Cost())
        begin = time.perf_counter()
        with self._bar(name, num_bytes) as bar:
            bytes_per_task = num_bytes / max(len(items), 1)
            results = self.run_all(
                function, items, lambda: bar.advance(bar.task_ids[0], bytes_per_task)
            )
        cost.wall_s += time.perf_counter() - begin
        for result in results:
            check(result)
            cost.add(result)
            worker = result["worker"]
            self.peaks[worker] = max(result["peak_bytes"], self.peaks.get(worker, 0))
        return results

    def total(self, *names: str) -> Cost:
        """Returns the sum over some phases; their wall times are added, too."""
        costs = [self.costs[name] for name in names if name in self.costs]
        return Cost(
            sum(cost.wall_s for cost in costs),
            sum(cost.cpu_s for cost in costs),
            sum(cost.bytes_read for cost in costs),
            sum(cost.bytes_written for cost in costs),
            sum(cost.num_tasks for cost in costs),
        )

    @contextmanager
    def _bar(self, name: str, num_bytes: int) -> Iterator[Progress]:
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = self.screen is None or not self.screen.is_terminal
        with Progress(*columns, console=self.screen, transient=True, disable=hidden) as bar:
            bar.add_task(name, total=num_bytes)
            yield bar
