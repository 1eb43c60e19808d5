"""Runs one attempt at a task: its program into its sink."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from smallpond.columns import int64_array
from smallpond.depth import deep
from smallpond.engine import rows
from smallpond.engine.clock import asks_for_time, set_time
from smallpond.engine.duck import Instance
from smallpond.engine.enums import described
from smallpond.engine.listing import listing_of, located
from smallpond.engine.passes import in_passes, one_by_one
from smallpond.engine.query import Query, table_of
from smallpond.engine.write import write_files
from smallpond.errors import InjectedFault
from smallpond.events import Metrics
from smallpond.handoff import Part, PartWriter, iter_part
from smallpond.plan import (
    ROWWISE,
    By,
    Files,
    Function,
    Memory,
    Parts,
    Plan,
    Shape,
    Write,
    walk,
)
from smallpond.programs import udfs_of
from smallpond.storage import FileInfo, check_unchanged, configure
from smallpond.task import Attempt, Result, ToDriver, ToParts, ToSplit

if TYPE_CHECKING:
    from smallpond.engine.keys import Keys

BATCH_ROWS = 122_880
_asides = itertools.count()


@dataclasses.dataclass
class Stream:
    """Batches of one schema.

    Attributes:
        native: whether DuckDB made them.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    native: bool


_NOTHING = Stream(pa.schema([]), iter(()), native=False)


class Run:
    """The state of one running attempt."""

    def __init__(self, attempt: Attempt, instance: Instance, stack: ExitStack) -> None:
        self.attempt = attempt
        self._instance = instance
        self._stack = stack
        task = attempt.task
        self._placeholders: dict[str, object] = {
            "batch_index": 0,
            "query_index": 0,
            "rand_seed": task.seed,
            "cpu_limit": attempt.cpus,
            "memory_limit": attempt.memory_bytes,
            "output_filename": f"{task.name}.{attempt.key}",
            **{dim.dimension: dim.index for dim in task.dims},
        }

    def stream(self, plan: Plan, *, lossless: bool) -> Stream:
        """The rows of a program, as they come."""
        match plan:
            case Memory():
                return Stream(plan.table.schema, iter(plan.table.to_batches()), native=False)
            case Parts() if plan.parts and not any(part.lossless for part in plan.parts):
                return self._parts(plan)
            case Function() if plan.shape in ROWWISE:
                return self._function(plan)
            case Function():
                return self._whole(plan)
            case _:
                return self._query(plan, lossless=lossless)

    def table(self, plan: Plan) -> tuple[pa.Table, bool]:
        """All rows of a program, as a user is to see them; and whether DuckDB made them."""
        if isinstance(plan, Memory):
            return plan.table, False
        stream = self.stream(plan, lossless=False)
        return pa.Table.from_batches(stream.batches, stream.schema), stream.native

    def put_aside(self, plan: Plan) -> Parts:
        """Computes a program in as many passes as the attempt has, and keeps its rows in a file."""
        attempt = self.attempt
        plan = one_by_one(plan, self.put_aside)
        url = f"{attempt.settings.temp_root}/{attempt.id}-{next(_asides)}.arrow"
        self._stack.callback(Path(url).unlink, missing_ok=True)
        return Parts(self.write(url, in_passes(plan, attempt.passes)))

    def write(self, url: str, programs: Sequence[Plan]) -> tuple[Part, ...]:
        """Writes the rows of programs, one after the other, into one hand-off file."""
        streams = (self.stream(program, lossless=True) for program in programs)
        first = next(streams)
        with PartWriter(url, first.schema, lossless=first.native) as writer:
            for stream in itertools.chain([first], streams):
                for batch in stream.batches:
                    writer.append(0, batch)
            return tuple(writer.close())

    def _parts(self, plan: Parts) -> Stream:
        """Rows that no query needs to touch: read as they were written."""
        if len(plan.parts) == 1:
            batches = iter_part(plan.parts[0], BATCH_ROWS)
            table = None
        else:
            table = table_of(plan)
            return Stream(table.schema, iter(table.to_batches()), native=False)
        first = next(iter(batches), None)
        if first is None:
            return Stream(table_of(plan).schema, iter(()), native=False)

        def all_batches() -> Iterator[pa.RecordBatch]:
            yield first
            yield from batches

        return Stream(first.schema, all_batches(), native=False)

    def _function(self, node: Function) -> Stream:
        source = self.stream(node.sources[0], lossless=False)
        made = rows.apply(node, source.batches, source.schema)
        if node.shape is Shape.ROW_TO_BOOL:
            kept = (batch for table in made for batch in table.to_batches())
            return Stream(source.schema, kept, native=False)
        schema, batches = rows.settled(made, node.label, node.schema)
        return Stream(schema, batches, native=False)

    def _whole(self, node: Function) -> Stream:
        from smallpond.engine.partitions import whole_partitions  # noqa: PLC0415

        made = whole_partitions(node, self)
        schema, batches = rows.settled(made, node.label, node.schema)
        return Stream(schema, batches, native=False)

    def _reader(self, node: Function) -> pa.RecordBatchReader:
        stream = self.stream(node, lossless=False)
        return pa.RecordBatchReader.from_batches(stream.schema, stream.batches)

    def on_exit(self, action: Callable[[], None]) -> None:
        """Has something done when the attempt ends, however it ends."""
        self._stack.callback(action)

    def _spoil(self) -> None:
        self._instance.spoiled = True

    def query(self, plan: Plan) -> Query:
        """An empty query, with all registered that a program needs."""
        self._stack.enter_context(self._instance.functions(udfs_of(plan)))
        query = Query(
            self._instance.cursor(),
            self._placeholders,
            self._reader,
            self._spoil,
            self.attempt.task.name,
        )
        self._stack.callback(query.close)
        query.open_files(plan)
        return query

    def with_keys(self, plan: Plan, keys: Keys) -> Stream:
        """The rows of a program, with key columns behind their own."""
        query = self.query(plan)
        if query.is_nothing(plan):
            return _NOTHING
        return self._open(query, query.text(plan, keys.select(query, plan)), lossless=True)

    def lossless_table(self, query: Query, text: str) -> pa.Table:
        """All rows of a query, in DuckDB's own types."""
        stream = self._open(query, text, lossless=True)
        return pa.Table.from_batches(stream.batches, stream.schema)

    def settle(self, query: Query, text: str) -> None:
        """Decides what chance and time are for a query, before it is run."""
        if "random" in text:
            seed = random.Random(self.attempt.task.seed).random()
            query.con.execute(f"SELECT setseed({seed})").fetchall()
        if asks_for_time(text):
            set_time(query.con, self.attempt.time_s)

    def _query(self, plan: Plan, *, lossless: bool) -> Stream:
        query = self.query(plan)
        if query.is_nothing(plan):
            return _NOTHING
        return self._open(query, query.text(plan), lossless=lossless)

    def _open(self, query: Query, text: str, *, lossless: bool) -> Stream:
        import duckdb  # noqa: PLC0415

        self.settle(query, text)
        try:
            self._instance.lossless(lossless)
            relation = query.con.sql(text)
            types = relation.types
            reader = relation.to_arrow_reader(BATCH_ROWS)
        except duckdb.Error as error:
            raise query.explain(error, text) from error

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for batch in reader:
                    yield batch
                    if self._instance.interrupted:
                        break
            except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
                raise query.explain(error, text) from error
            if self._instance.interrupted:
                raise InterruptedError

        schema = described(reader.schema, types) if lossless else reader.schema
        return Stream(schema, batches(), native=True)


@deep
def run(attempt: Attempt, instance: Instance) -> Result:
    """Runs an attempt.

    Raises:
        TaskError: the user's mistake, in his words.
        OutOfMemory: it needs more than it was given.
    """
    settings = attempt.settings
    configure(settings.output_root, dict(settings.storage))
    if settings.fault_probability:
        chance = random.Random(attempt.id).random()
        if chance < settings.fault_probability:
            raise InjectedFault(f"{attempt.task.name}: injected fault")
    started = time.thread_time()
    _check_sources(attempt.task.program)
    with instance.watched() as spilled_bytes, ExitStack() as stack:
        result = _into_sink(Run(attempt, instance, stack))
    metrics = dataclasses.replace(
        result.metrics, cpu_s=time.thread_time() - started, spilled_bytes=spilled_bytes()
    )
    return dataclasses.replace(result, metrics=metrics)


def _check_sources(program: Plan) -> None:
    """Rows of a file that was replaced since would silently join those of the others."""
    for node in walk(program):
        if isinstance(node, Files):
            found = [FileInfo(file.url, file.size_bytes, file.version) for file in node.files]
            check_unchanged(found, dict(node.storage))


def _into_sink(running: Run) -> Result:
    attempt = running.attempt
    program, sink = located(attempt.task.program, running), attempt.task.sink
    if isinstance(program, Write):
        if attempt.passes > 1:
            program = dataclasses.replace(program, input=running.put_aside(program.input))
        files, count = write_files(program, running)
        listing = Memory(attempt.id, listing_of(files))
        listed = _result([running.write(_url(attempt), [listing])])
        return dataclasses.replace(listed, metrics=Metrics(rows_out=count))
    if attempt.passes > 1:
        program = one_by_one(program, running.put_aside)
    programs = in_passes(program, attempt.passes)
    match sink:
        case ToDriver():
            tables = [running.table(one) for one in programs]
            table = pa.concat_tables([t for t, _ in tables])
            metrics = Metrics(rows_out=table.num_rows, bytes_out=table.nbytes)
            return Result(table=table, native=tables[0][1], metrics=metrics)
        case ToParts():
            return _result([running.write(_url(attempt), programs)])
        case ToSplit():
            return _to_split(running, sink, programs)
    msg = f"{type(sink).__name__} is not for the engine"
    raise AssertionError(msg)


def _url(attempt: Attempt) -> str:
    return f"{attempt.settings.output_root}/{attempt.id}.arrow"


def _result(outputs: list[tuple[Part, ...]]) -> Result:
    parts = [part for output in outputs for part in output]
    metrics = Metrics(
        rows_out=sum(part.rows for part in parts), bytes_out=sum(part.num_bytes for part in parts)
    )
    return Result(outputs=tuple(outputs), metrics=metrics)


class _Numbered:
    """Adds the partition's number to its rows, on their way to a writer."""

    def __init__(self, writer: PartWriter, column: str) -> None:
        self._writer = writer
        self._column = column

    def append(self, partition_idx: int, data: pa.RecordBatch | pa.Table) -> None:
        number = int64_array(np.full(data.num_rows, partition_idx))
        self._writer.append(partition_idx, data.append_column(self._column, number))


def _to_split(running: Run, sink: ToSplit, programs: list[Plan]) -> Result:
    from smallpond.engine.keys import Keys  # noqa: PLC0415 (imports Arrow's functions: 30 ms)
    from smallpond.split import split_batches  # noqa: PLC0415

    keys = Keys(running, sink)
    writer: PartWriter | None = None
    try:
        for program in programs:
            stream = (
                running.with_keys(program, keys)
                if sink.by is not By.RANDOM
                else running.stream(program, lossless=True)
            )
            if writer is None:
                number = None if sink.by is By.COLUMN else sink.keep_column
                dropped = [n for n in stream.schema.names if n in keys.hidden or n == number]
                kept = [field for field in stream.schema if field.name not in dropped]
                kept += [pa.field(number, pa.int64())] if number else []
                writer = PartWriter(
                    _url(running.attempt), pa.schema(kept), sink.npartitions, lossless=stream.native
                )
                goal = _Numbered(writer, number) if number else writer
            split_batches(stream.batches, keys, sink.npartitions, goal, drop=dropped)
    except BaseException:
        if writer is not None:
            writer.abort()
        raise
    assert writer is not None  # noqa: S101 (a program has at least one pass)
    return _result([(part,) for part in writer.close()])
