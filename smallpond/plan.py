"""The one plan language: what is to be computed, as a small immutable tree.

Leaves are data at rest. Local nodes work on each partition by itself. Global nodes mean the same
as one SQL statement over all partitions together. `Repartition` moves rows between partitions.
The same nodes serve as the program of a task, whose leaves are then the task's own inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from typing import Any, TypeVar

import pyarrow as pa

from smallpond.functions import FunctionRef, Udf
from smallpond.handoff import Part
from smallpond.sql import quote

PARTITION_COLUMN = "__data_partition__"
OWN_FILES = "_files"  # a job's folder for files that its tasks write, beside those they hand on
BATCH_ROWS = 122_880  # DuckDB's row group, the original's batch


@dataclass(frozen=True)
class Plan:
    """A node; its fields that are plans are its inputs."""

    @property
    def inputs(self) -> tuple[Plan, ...]:
        """The plans that this one reads, in order."""
        return ()

    def with_inputs(self, inputs: tuple[Plan, ...]) -> Plan:
        """The same node over other inputs."""
        if inputs:
            msg = f"{type(self).__name__} has no inputs"
            raise TypeError(msg)
        return self

    @cached_property
    def key(self) -> str:
        """A hash of all that determines the rows, the same in every process and run."""
        waiting = _without_key(self)
        while waiting:  # so that a plan of many steps does not call itself as often
            below = _without_key(waiting[-1])
            if below:
                waiting += below
            else:
                _ = waiting.pop().key
        digest = blake2b(digest_size=16)
        _feed_fields(digest, self)
        return digest.hexdigest()


@dataclass(frozen=True)
class Unary(Plan):
    """A node with one input."""

    input: Plan

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return (self.input,)

    def with_inputs(self, inputs: tuple[Plan, ...]) -> Plan:
        return dataclasses.replace(self, input=inputs[0])


@dataclass(frozen=True)
class Nary(Plan):
    """A node with any number of inputs."""

    sources: tuple[Plan, ...]

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return self.sources

    def with_inputs(self, inputs: tuple[Plan, ...]) -> Plan:
        return dataclasses.replace(self, sources=inputs)


@dataclass(frozen=True)
class Demand:
    """What a task of this node asks for; None leaves it to the planner.

    Attributes:
        cpus: processors.
        memory_bytes: memory.
        gpus: GPUs, or a share of one.
    """

    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: float = 0.0


# ---- leaves


@dataclass(frozen=True)
class FileSlice:
    """A file, or the rows from ``begin`` up to ``end`` of it.

    Attributes:
        url: where it is; an absolute path, or an address that fsspec knows.
        size_bytes: the whole file's.
        version: changes when the file does.
        num_rows: the whole file's, None where nobody has counted.
    """

    url: str
    size_bytes: int
    version: str = ""
    num_rows: int | None = None
    begin: int = 0
    end: int | None = None


class Format(Enum):
    """How the rows lie in a file."""

    PARQUET = "parquet"
    CSV = "csv"
    JSON = "json"
    IPC = "arrow"


@dataclass(frozen=True)
class Files(Plan):
    """Rows in files, in the order of the files.

    Attributes:
        columns: those to read; None for all.
        schema: (name, SQL type) of each column, for CSV and JSON.
        options: further named arguments of the reader, as SQL text.
        generated: "filename" and "file_row_number", if wanted as columns.
        storage: options of the file system, sorted (name, value) pairs.
    """

    files: tuple[FileSlice, ...]
    format: Format
    columns: tuple[str, ...] | None = None
    schema: tuple[tuple[str, str], ...] | None = None
    options: tuple[tuple[str, str], ...] = ()
    generated: tuple[str, ...] = ()
    storage: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Memory(Plan):
    """An Arrow table in the driver's memory.

    Attributes:
        content: a hash of the table, which stands for it in comparisons.
    """

    content: str
    table: pa.Table = field(compare=False, repr=False)

    def to_buffer(self) -> pa.Buffer:
        """The table as it travels: Arrow's own pickles of a slice have all rows of the whole."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as writer:
            writer.write_table(self.table)
        return sink.getvalue()

    @staticmethod
    def from_buffer(content: str, buffer: pa.Buffer) -> Memory:
        """The leaf whose table `to_buffer` has written."""
        return Memory(content, pa.ipc.open_stream(buffer).read_all())

    def __reduce__(self) -> tuple[Any, ...]:
        return Memory.from_buffer, (self.content, self.to_buffer())


@dataclass(frozen=True)
class Parts(Plan):
    """Rows that finished tasks have left behind, in order."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Listed(Unary):
    """The rows in the files that the input's rows name.

    The input has columns ``file``, ``begin`` and ``end``, which are NULL where a whole file is
    meant; or ``file`` alone.

    Attributes:
        like: how to read them; its own files do not count.
    """

    like: Files


@dataclass(frozen=True)
class Dim:
    """Which partition of a dimension."""

    dimension: str
    index: int
    count: int


@dataclass(frozen=True)
class Computed(Plan):
    """The partitions of a plan that has been computed: what became of its rows, by partition."""

    of: str
    partitions: tuple[tuple[tuple[Dim, ...], tuple[Part, ...]], ...] = field(compare=False)


@dataclass(frozen=True)
class TaskOutput(Plan):
    """One output of a task that may not have run yet."""

    task_key: str
    output_idx: int = 0


# ---- partition-local nodes


@dataclass(frozen=True)
class Project(Unary):
    """``SELECT select FROM input``: rows of their own each, possibly several per input row."""

    select: str
    udfs: tuple[Udf, ...] = ()
    label: str = "map"
    demand: Demand = Demand()


@dataclass(frozen=True)
class Filter(Unary):
    """The rows for which the condition is true."""

    condition: str
    udfs: tuple[Udf, ...] = ()
    demand: Demand = Demand()


@dataclass(frozen=True)
class Sql(Nary):
    """A query over matching partitions of the inputs, which it calls {0}, {1} and so on.

    Attributes:
        splits: whether it may as well run on pieces of a partition, because a later node makes
            one result of them.
        from_rows: whether it has no rows if an input has none, whatever the columns are.
        setup: statements to run before it, which may make temporary tables of the inputs.
        batched: whether it may run on batches of its only input, one after the other.
        batch_idx: which batch it runs on.
    """

    query: str
    udfs: tuple[Udf, ...] = ()
    label: str = "partial_sql"
    demand: Demand = Demand()
    splits: bool = False
    from_rows: bool = False
    setup: tuple[str, ...] = ()
    batched: bool = False
    batch_idx: int = 0


class Shape(Enum):
    """What a Python function takes and gives."""

    ROW = "row -> row"
    ROW_TO_ROWS = "row -> rows"
    ROW_TO_BOOL = "row -> bool"
    BATCH = "table -> table, batch by batch"
    TABLES = "tables -> table, whole partitions"
    TABLE_BATCH = "tables -> table, batch by batch"
    STREAMS = "readers -> tables"
    FRAMES = "pandas frames -> pandas frame, whole partitions"
    FRAME_BATCH = "pandas frames -> pandas frame, batch by batch"
    SCRIPT = "data sets -> files in a folder"
    DATASETS = "data set -> data sets, one for each partition"


ROWWISE = {Shape.ROW, Shape.ROW_TO_ROWS, Shape.ROW_TO_BOOL, Shape.BATCH}


@dataclass(frozen=True)
class Function(Nary):
    """A Python function over matching partitions of the inputs.

    Attributes:
        schema: of the result; None to infer it from the first values.
        context: the context that the function wants as its first argument, or None.
    """

    function: FunctionRef
    shape: Shape
    schema: pa.Schema | None = None
    batch_rows: int = BATCH_ROWS
    label: str = "map"
    context: Any = None
    demand: Demand = Demand()


@dataclass(frozen=True)
class Saved(Unary):
    """Rows that are written to a folder of Parquet files as well, before anybody reads them.

    Attributes:
        folder, mode, options, partition_by, file_bytes: as `Job.write` takes them.
        call: which of the program's wishes it is: each is fulfilled once.
    """

    folder: str
    mode: str
    options: tuple[tuple[str, str], ...]
    partition_by: tuple[str, ...]
    file_bytes: int | None
    call: int


@dataclass(frozen=True)
class Held(Unary):
    """The same rows, computed once however many plans read them."""


@dataclass(frozen=True)
class Concat(Nary):
    """The rows of one partition after those of another; all have the same columns."""


# ---- global nodes


@dataclass(frozen=True)
class Aggregate(Unary):
    """``SELECT keys, aggregates FROM input GROUP BY keys``; each a (name, expression)."""

    keys: tuple[tuple[str, str], ...]
    aggregates: tuple[tuple[str, str], ...]
    npartitions: int | None = None

    @property
    def label(self) -> str:
        """What the user has called."""
        return "group_by" if self.keys else "agg"


@dataclass(frozen=True)
class Distinct(Unary):
    """Each row once; with ``on``, one row of each combination of those columns."""

    on: tuple[str, ...] = ()
    npartitions: int | None = None


@dataclass(frozen=True)
class SortKey:
    """A column or expression to sort by."""

    expression: str
    descending: bool = False
    nulls_first: bool = False

    def sql(self) -> str:
        """As it stands after ORDER BY."""
        direction = "DESC" if self.descending else "ASC"
        return f"{self.expression} {direction} NULLS {'FIRST' if self.nulls_first else 'LAST'}"


@dataclass(frozen=True)
class Sort(Unary):
    """All rows in order; with ``partial``, each partition by itself."""

    keys: tuple[SortKey, ...]
    partial: bool = False
    npartitions: int | None = None
    demand: Demand = Demand()


@dataclass(frozen=True)
class Window(Unary):
    """All columns and further ones, made by window functions over the whole data.

    Attributes:
        select: the further columns, a select list.
        partition_by: what every window is partitioned by; rows that differ there never meet.
    """

    select: str
    partition_by: tuple[str, ...] = ()
    npartitions: int | None = None


@dataclass(frozen=True)
class Limit(Unary):
    """The first rows, over all partitions in their order."""

    num_rows: int


class How(Enum):
    """Which rows a join keeps that have no partner."""

    INNER = "inner"
    LEFT = "left"
    RIGHT = "right"
    FULL = "full"
    SEMI = "semi"
    ANTI = "anti"
    CROSS = "cross"


@dataclass(frozen=True)
class Join(Plan):
    """Rows of both sides whose keys are equal.

    Attributes:
        select: the result's columns in SQL, of the sides ``l`` and ``r``.
        compared_as: for each key, the SQL type that both sides are cast to as they are compared;
            "" where they have the same.
        broadcast: whether the right side goes whole to every partition of the left one; None
            leaves it to the planner.
    """

    left: Plan
    right: Plan
    left_keys: tuple[str, ...]
    right_keys: tuple[str, ...]
    how: How
    select: str
    compared_as: tuple[str, ...] = ()
    broadcast: bool | None = None
    npartitions: int | None = None

    @property
    def inputs(self) -> tuple[Plan, ...]:
        return (self.left, self.right)

    def compared(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """The keys of a side as SQL expressions; values that are equal have equal hashes."""
        casts = self.compared_as or ("",) * len(keys)
        return tuple(
            f"CAST({quote(key)} AS {kind})" if kind else quote(key)
            for key, kind in zip(keys, casts, strict=True)
        )

    def with_inputs(self, inputs: tuple[Plan, ...]) -> Plan:
        return dataclasses.replace(self, left=inputs[0], right=inputs[1])


@dataclass(frozen=True)
class Union(Nary):
    """All rows of all inputs, columns matched by name."""


# ---- partitioning


class By(Enum):
    """What decides the partition of a row."""

    FILES = "files"
    ROWS = "rows"
    HASH = "hash"
    COLUMN = "column"
    RANDOM = "random"
    RANGE = "range"
    REPEAT = "repeat"


@dataclass(frozen=True)
class Repartition(Nary):
    """The rows of all inputs in other partitions.

    Attributes:
        npartitions: how many; 0 for as many as there are.
        columns: hash keys (all columns if there are none), or the expression that gives the
            partition's number (By.COLUMN).
        order: what By.RANGE cuts by.
        dimension: the name under which partitions of different data meet.
        nested: keep the partitions there are, and split each.
        keep_column: add the partition's number as a column of that name.
        seed: of By.RANDOM, and of the files' order.
        label: for people; by default it says what is done.
    """

    npartitions: int
    by: By
    columns: tuple[str, ...] = ()
    order: tuple[SortKey, ...] = ()
    dimension: str = PARTITION_COLUMN
    nested: bool = False
    keep_column: str | None = None
    shuffle_files: bool = False
    seed: int = 0
    demand: Demand = Demand()
    label: str = ""


@dataclass(frozen=True)
class Partitioned(Nary):
    """Each source as one partition."""

    dimension: str = PARTITION_COLUMN


@dataclass(frozen=True)
class Gather(Unary):
    """All partitions as one, or (with ``dimensions``) those that differ elsewhere only."""

    dimensions: tuple[str, ...] = ()


# ---- sink


@dataclass(frozen=True)
class Write(Unary):
    """Files in a folder; its rows are the written files' names, rows and bytes.

    Attributes:
        folder: where the tasks put them; committed by the driver. If empty, they stay in the
            job's own folder.
        options: of DuckDB's COPY, as SQL text.
        partition_by: columns that become folders ``column=value``.
        file_bytes: begin another file beyond this size.
        as_is: name the input's files, instead of writing their rows once more, where the input is
            whole files of this format.
    """

    folder: str
    format: Format
    options: tuple[tuple[str, str], ...] = ()
    partition_by: tuple[str, ...] = ()
    file_bytes: int | None = None
    storage: tuple[tuple[str, Any], ...] = ()
    as_is: bool = False
    label: str = "write"


PlanT = TypeVar("PlanT", bound=Plan)


def walk(plan: Plan) -> Iterator[Plan]:
    """Every node once, inputs before those that read them."""
    seen: set[int] = set()
    waiting = [(plan, iter(plan.inputs))]
    while waiting:
        node, sources = waiting[-1]
        source = next((one for one in sources if id(one) not in seen), None)
        if source is not None:
            seen.add(id(source))
            waiting.append((source, iter(source.inputs)))
        else:
            waiting.pop()
            yield node


def _without_key(plan: Plan) -> list[Plan]:
    """The inputs whose keys are not known yet."""
    return [source for source in plan.inputs if "key" not in vars(source)]


def _feed(digest: Any, value: Any) -> None:
    """Adds a value to a digest, unambiguously: every item says its type and its length."""
    if isinstance(value, Plan):
        digest.update(value.key.encode())
    elif isinstance(value, pa.Schema):
        _feed(digest, value.serialize().to_pybytes())
    elif isinstance(value, tuple):
        digest.update(f"({len(value)}".encode())
        for item in value:
            _feed(digest, item)
    elif dataclasses.is_dataclass(value):
        _feed_fields(digest, value)
    elif isinstance(value, bytes):
        digest.update(f"b{len(value)}:".encode() + value)
    else:
        text = repr(value).encode()
        digest.update(f"{type(value).__name__}{len(text)}:".encode() + text)


def _feed_fields(digest: Any, value: Any) -> None:
    digest.update(type(value).__name__.encode() + b"{")
    for item in dataclasses.fields(value):
        if item.compare:
            _feed(digest, getattr(value, item.name))
    digest.update(b"}")
