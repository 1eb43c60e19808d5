"""Tasks: a program, what becomes of its rows, and what it needs; values without behaviour."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from smallpond.events import Metrics
from smallpond.handoff import Part
from smallpond.plan import By, Concat, Dim, Parts, Plan, SortKey, TaskOutput, walk


@dataclass(frozen=True)
class Sink:
    """What becomes of a program's rows."""

    @property
    def num_outputs(self) -> int:
        """How many partitions come out."""
        return 1


@dataclass(frozen=True)
class ToParts(Sink):
    """One hand-off file."""


@dataclass(frozen=True)
class ToDriver(Sink):
    """An Arrow table in the driver's memory; for tasks that run in its process."""


@dataclass(frozen=True)
class ToSplit(Sink):
    """Rows spread over partitions by what they hold.

    Attributes:
        by: HASH, COLUMN, RANDOM or RANGE.
        columns: SQL expressions of the keys.
        order: of RANGE.
        boundaries: of RANGE: a program that gives the first row of each partition but the first.
        keep_column: the number of the partition becomes a column of this name.
        seed: of RANDOM.
    """

    npartitions: int
    by: By
    columns: tuple[str, ...] = ()
    order: tuple[SortKey, ...] = ()
    boundaries: Plan | None = None
    keep_column: str | None = None
    seed: int = 0

    @property
    def num_outputs(self) -> int:
        return self.npartitions


@dataclass(frozen=True)
class ToRowRanges(Sink):
    """Equal numbers of rows each; done by the driver, for it moves no data."""

    npartitions: int

    @property
    def num_outputs(self) -> int:
        return self.npartitions


@dataclass(frozen=True)
class Resources:
    """What a task occupies while it runs."""

    cpus: int = 1
    memory_bytes: int | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class Task:
    """A piece of work that can be done anywhere, and done again.

    Attributes:
        program: a plan whose leaves are data at rest and other tasks' outputs.
        stage_idx: which stage of the graph it belongs to.
        name: what it does, for people.
        dims: which partition it makes.
        seed: of its random numbers.
    """

    program: Plan
    sink: Sink
    stage_idx: int
    name: str
    dims: tuple[Dim, ...] = ()
    resources: Resources = Resources()
    seed: int = 0

    @cached_property
    def key(self) -> str:
        """Names the task's outputs: the same work on the same data has the same key."""
        digest = blake2b(self.program.key.encode(), digest_size=16)
        sink = self.sink
        if isinstance(sink, ToSplit) and sink.boundaries is not None:
            digest.update(sink.boundaries.key.encode())
            sink = dataclasses.replace(sink, boundaries=None)
        # Dimensions and seed are what a query may ask for by placeholders.
        digest.update(repr((sink, self.dims, self.seed)).encode())
        return digest.hexdigest()

    @property
    def partition(self) -> str:
        """Such as "3/10", for messages."""
        return ", ".join(f"{dim.index}/{dim.count}" for dim in self.dims)

    @cached_property
    def needs(self) -> frozenset[str]:
        """Keys of the tasks whose outputs this one reads."""
        plans = [self.program]
        if isinstance(self.sink, ToSplit) and self.sink.boundaries is not None:
            plans.append(self.sink.boundaries)
        return frozenset(
            node.task_key for plan in plans for node in walk(plan) if isinstance(node, TaskOutput)
        )


@dataclass(frozen=True)
class Result:
    """What a finished task left.

    Attributes:
        outputs: for each output partition, its parts in order.
        table: of ToDriver.
        native: whether DuckDB made the table.
    """

    outputs: tuple[tuple[Part, ...], ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    table: pa.Table | None = None
    native: bool = False


@dataclass(frozen=True)
class Attempt:
    """One try at a task, with its inputs at hand.

    Attributes:
        task: its program has no TaskOutput any more.
        key: of the task as planned, which names its outputs.
        number: 0, 1, 2 ... over retries and speculative copies in a run.
        passes: in how many passes to work, to need less memory.
        cpus, memory_bytes: what it may use.
        run_idx: which run of the session it belongs to.
        time_s: when that began, since 1970; for queries it is the present.
    """

    task: Task
    key: str
    number: int
    passes: int
    cpus: int
    memory_bytes: int
    settings: Settings
    speculative: bool = False
    run_idx: int = 0
    time_s: float = 0.0

    @property
    def id(self) -> str:
        """Unique in a session: what is left of a cancelled attempt is no later one's."""
        return f"{self.key}-{self.run_idx}-{self.number}"


@dataclass(frozen=True)
class Settings:
    """What all tasks of a session share.

    Attributes:
        output_root: address of the folder for hand-off files and manifests.
        temp_root: local folder for what a running task puts aside.
        time_zone: of the driver, so that all workers read timestamps alike.
        storage: options of the file systems.
        fault_probability: how often a task fails on purpose, for tests.
    """

    output_root: str
    temp_root: str
    time_zone: str = "UTC"
    storage: tuple[tuple[str, Any], ...] = ()
    fault_probability: float = 0.0


def with_inputs(task: Task, results: Mapping[str, Result]) -> Task:
    """The task with the parts of finished tasks in the place of their outputs."""
    sink = task.sink
    if isinstance(sink, ToSplit) and sink.boundaries is not None:
        sink = dataclasses.replace(sink, boundaries=_resolved(sink.boundaries, results))
    return dataclasses.replace(task, program=_resolved(task.program, results), sink=sink)


def _resolved(plan: Plan, results: Mapping[str, Result]) -> Plan:
    if isinstance(plan, TaskOutput):
        return Parts(results[plan.task_key].outputs[plan.output_idx])
    inputs = tuple(_resolved(source, results) for source in plan.inputs)
    if isinstance(plan, Concat) and all(isinstance(source, Parts) for source in inputs):
        return Parts(
            tuple(p for source in inputs if isinstance(source, Parts) for p in source.parts)
        )
    return plan.with_inputs(inputs) if inputs else plan
