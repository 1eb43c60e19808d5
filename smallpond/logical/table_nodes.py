"""Nodes that read tables and query them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from smallpond import sources
from smallpond.errors import PlanError
from smallpond.logical.base_node import Context, Node
from smallpond.logical.dataset import DataSet, PartitionedDataSet
from smallpond.plan import (
    BATCH_ROWS,
    PARTITION_COLUMN,
    By,
    Demand,
    Files,
    Gather,
    Held,
    Limit,
    Listed,
    Partitioned,
    Plan,
    Project,
    Repartition,
    Sql,
)
from smallpond.sql import fill, quote, refers, statement_kind

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext


class DataSourceNode(Node):
    """A data set; None for no rows, where functions make their own."""

    at_rest = True

    def __init__(self, ctx: Context, dataset: DataSet | None) -> None:
        super().__init__(ctx, ())
        if dataset is not None and not isinstance(dataset, DataSet):
            raise PlanError(f"{self.label}: a data set expected, got {dataset!r}")
        self.dataset = dataset

    def _dims(self) -> dict[str, int]:
        if isinstance(self.dataset, PartitionedDataSet):
            return {PARTITION_COLUMN: len(self.dataset)}
        return {}

    @property
    def described(self) -> str:
        return repr(self.dataset)

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return sources.table(pa.table({})) if self.dataset is None else self.dataset.plan()


class SqlEngineNode(Node):
    """A query over matching partitions of the inputs, which it calls ``{0}``, ``{1}`` and so on.

    Further placeholders: the number of the partition by the name of its dimension, such as
    ``{__data_partition__}``; ``{rand_seed}``, ``{query_index}``, ``{batch_index}``,
    ``{cpu_limit}``, ``{memory_limit}``, ``{output_filename}``.

    Args:
        sql_query: a query; or several statements, of which those other than SELECT come first and
            may make temporary tables, and the rows of all SELECTs are the result.
        udfs: functions that it calls: names in the context, or functions made by ``@udf``.
        extension_paths: DuckDB extensions to load.
        udf_module_paths: Python modules to load, whose ``register(conn)`` adds functions.
        batched_processing: the rows of a partition may come in several batches, with the query's
            result for each of them. They do if a partition at once is too much for the memory, and
            if the node has one input and one statement. How many there are is not known before.
        parquet_row_group_size, parquet_compression, parquet_compression_level: of the files of
            named results.
        options: the original's further keywords. They say when to write results to files and how
            far to go beyond limits, which the planner and the scheduler here decide by themselves;
            ``parquet_dictionary_encoding``, for DuckDB takes a dictionary where one is smaller.
    """

    default_cpu_limit = 1
    default_memory_limit: int | None = None
    default_row_group_size = BATCH_ROWS
    max_udf_cpu_limit = 3
    enable_resource_boost = True

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        sql_query: str | Iterable[str],
        *,
        udfs: Sequence[Any] | None = None,
        extension_paths: Sequence[str] | None = None,
        udf_module_paths: Sequence[str] | None = None,
        batched_processing: bool = False,
        parquet_row_group_size: int | None = None,
        parquet_compression: str | None = "ZSTD",
        parquet_compression_level: int | None = 3,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int | None = None,
        memory_limit: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            ctx,
            input_deps,
            output_name,
            output_path,
            cpu_limit or self.default_cpu_limit,
            memory_limit=memory_limit or self.default_memory_limit,
        )
        without_effect(self, options, _SQL_OPTIONS)
        self.batched_processing = batched_processing
        self.sql_queries = [sql_query] if isinstance(sql_query, str) else list(sql_query)
        self.udfs = [ctx.find(self.label, udf) for udf in udfs or ()]
        files = [*(extension_paths or ()), *(udf_module_paths or ())]
        self.udfs += [ctx.find(self.label, ctx.create_external_module(path)) for path in files]
        self.parquet = parquet_options(
            parquet_row_group_size or self.default_row_group_size,
            parquet_compression,
            parquet_compression_level,
        )
        self._setup, self._query = _checked_queries(self.label, self.sql_queries, len(input_deps))

    @property
    def oneline_query(self) -> str:
        """The queries in one line."""
        return "; ".join(" ".join(query.split()) for query in self.sql_queries)

    @property
    def described(self) -> str:
        return self.oneline_query

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        udfs = tuple(self.udfs)
        return Sql(
            inputs, self._query, udfs, self.label, self.demand(),
            setup=self._setup, batched=self.batched_processing,
        )  # fmt: skip


_SQL_OPTIONS = {
    *("per_thread_output", "materialize_output", "materialize_in_memory", "relax_memory_if_oom"),
    *("enable_temp_directory", "parquet_dictionary_encoding"),
    *("cpu_overcommit_ratio", "memory_overcommit_ratio"),
}


def without_effect(node: Node, options: dict[str, Any], known: set[str]) -> None:
    """Raises if a keyword is none of the original's.

    Raises:
        PlanError: names it.
    """
    unknown = sorted(set(options) - known)
    if unknown:
        raise PlanError(f"{node.label}: unknown keyword {unknown[0]!r}")


def parquet_options(
    row_group_size: int, compression: str | None, level: int | None
) -> tuple[tuple[str, str], ...]:
    """Options of DuckDB's COPY from the original's keywords."""
    options = [("ROW_GROUP_SIZE", str(row_group_size))]
    if compression:
        options.append(("COMPRESSION", compression.lower()))
        if level is not None and compression.lower() == "zstd":
            options.append(("COMPRESSION_LEVEL", str(level)))
    else:
        options.append(("COMPRESSION", "uncompressed"))
    return tuple(options)


def _checked_queries(label: str, queries: list[str], inputs: int) -> tuple[tuple[str, ...], str]:
    """Statements to run first, and one query for the rows of all SELECTs.

    Raises:
        PlanError: a statement does not parse, or there is no SELECT.
    """
    names = {str(i): f"input{i}" for i in range(inputs)}
    setup: list[str] = []
    selects: list[str] = []
    for query in queries:
        text = query.strip().rstrip(";")
        try:
            is_select = statement_kind(fill(text, names)) == "SELECT"
            if is_select:
                refers(fill(text, names), "query")
        except PlanError as error:
            raise PlanError(f"{label}: {error}\nin {label}: {query}") from error
        if not is_select and selects:
            raise PlanError(f"{label}: statements other than SELECT must come first: {query}")
        (selects if is_select else setup).append(text)
    if not selects:
        raise PlanError(f"{label}: at least one SELECT expected, got {queries}")
    if len(selects) == 1:
        return tuple(setup), selects[0]
    numbered = [_numbered(text, len(setup) + i) for i, text in enumerate(selects)]
    return tuple(setup), "\nUNION ALL BY NAME\n".join(f"({text}\n)" for text in numbered)


def _numbered(query: str, index: int) -> str:
    return query.replace("{query_index}", str(index))


class UnionNode(Node):
    """The rows of all inputs, columns matched by name; partition by partition where they match."""

    def __init__(self, ctx: Context, input_deps: Sequence[Node]) -> None:
        super().__init__(ctx, input_deps)
        if not self.input_deps:
            raise PlanError(f"{self.label}: at least one input expected")

    def _dims(self) -> dict[str, int]:
        first, *others = [dep.dims for dep in self.input_deps]
        # An input of fewer dimensions must not come into several partitions.
        return first if all(dims == first for dims in others) else {}

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return united(self, inputs)


def united(node: Node, inputs: tuple[Plan, ...]) -> Plan:
    """Several plans as one."""
    if len(inputs) == 1:
        return inputs[0]
    first = inputs[0]
    same = [plan for plan in inputs if isinstance(plan, Files) and isinstance(first, Files)]
    if len(same) == len(inputs) and len({dataclasses.replace(f, files=()) for f in same}) == 1:
        return dataclasses.replace(same[0], files=tuple(f for plan in same for f in plan.files))
    if len({tuple(dep.dims.items()) for dep in node.input_deps}) > 1:
        inputs = tuple(Gather(plan) for plan in inputs)
    query = " UNION ALL BY NAME ".join(f"SELECT * FROM {{{i}}}" for i in range(len(inputs)))
    listed = [plan for plan in inputs if isinstance(plan, Listed)]
    if len(listed) == len(inputs):
        tables = tuple(plan.input for plan in listed)
        return Listed(Held(Sql(tables, query, label=node.label)), listed[0].like)
    return Sql(inputs, query, label=node.label)


class LimitNode(Node):
    """The first rows, over all partitions."""

    def __init__(self, ctx: Context, input_dep: Node, limit: int) -> None:
        super().__init__(ctx, (input_dep,))
        if limit < 0:
            raise PlanError(f"{self.label}: limit must not be negative, got {limit}")
        self.limit = limit

    def _dims(self) -> dict[str, int]:
        return {}

    @property
    def described(self) -> str:
        return str(self.limit)

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return Limit(inputs[0], self.limit)


class ConsolidateNode(Node):
    """Fewer, larger partitions: those that differ in no dimension of ``dimensions`` become one."""

    def __init__(self, ctx: Context, input_dep: Node, dimensions: Sequence[str]) -> None:
        super().__init__(ctx, (input_dep,))
        self.dimensions = list(dimensions)
        unknown = [name for name in self.dimensions if name not in input_dep.dims]
        if unknown:
            raise PlanError(
                f"{self.label}: no dimension {unknown[0]!r} in {input_dep.label}; there are "
                f"{list(input_dep.dims)}"
            )

    def _dims(self) -> dict[str, int]:
        [dep] = self.input_deps
        return {name: count for name, count in dep.dims.items() if name in self.dimensions}

    @property
    def described(self) -> str:
        return ", ".join(self.dimensions)

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return Gather(inputs[0], tuple(self.dimensions))


class ProjectionNode(Node):
    """Some of the columns.

    Args:
        columns: those to keep; None for all.
        generated_columns: "filename" and "file_row_number", where the rows lie in files.
        union_by_name: whether the files may have different columns.
    """

    def __init__(
        self,
        ctx: Context,
        input_dep: Node,
        columns: Sequence[str] | None = None,
        generated_columns: Sequence[Literal["filename", "file_row_number"]] | None = None,
        union_by_name: bool | None = None,
    ) -> None:
        super().__init__(ctx, (input_dep,))
        self.columns = None if columns is None else tuple(columns)
        self.generated_columns = tuple(generated_columns or ())
        self.union_by_name = union_by_name
        unknown = set(self.generated_columns) - {"filename", "file_row_number"}
        if unknown:
            raise PlanError(
                f"{self.label}: generated_columns are 'filename' and 'file_row_number', got "
                f"{sorted(unknown)}"
            )

    @property
    def described(self) -> str:
        return ", ".join([*(self.columns or ("*",)), *self.generated_columns])

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        on_files = self._on_files(inputs[0])
        if on_files is not None:
            return on_files
        if self.generated_columns:
            raise PlanError(
                f"{self.label}: generated_columns need rows that lie in files of a data set; those "
                f"of {self.input_deps[0].label} are computed"
            )
        if self.columns is None:
            return inputs[0]
        names = ", ".join(quote(name) for name in self.columns)
        return Project(inputs[0], names, label=self.label, demand=Demand())

    def _on_files(self, plan: Plan) -> Plan | None:
        """The same plan, reading only these columns, if it does no more than read."""
        match plan:
            case Files():
                return self._reads(plan)
            case Listed():
                like = self._reads(plan.like)
                return dataclasses.replace(plan, like=like)
            case Repartition(by=By.FILES | By.ROWS | By.REPEAT) | Gather() | Partitioned():
                below = [self._on_files(source) for source in plan.inputs]
                if any(source is None for source in below):
                    return None
                return plan.with_inputs(tuple(s for s in below if s is not None))
        return None

    def _reads(self, files: Files) -> Files:
        columns = files.columns if self.columns is None else self.columns
        options = dict(files.options)
        if self.union_by_name is not None:
            options["union_by_name"] = str(self.union_by_name).lower()
        generated = tuple(dict.fromkeys((*files.generated, *self.generated_columns)))
        return dataclasses.replace(
            files, columns=columns, generated=generated, options=tuple(options.items())
        )
