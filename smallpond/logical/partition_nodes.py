"""Nodes that bring rows into other partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from smallpond.errors import PlanError
from smallpond.functions import FunctionRef
from smallpond.logical.base_node import Context, Node, matching_dims
from smallpond.logical.dataset import DataSet, ParquetDataSet
from smallpond.logical.table_nodes import ConsolidateNode, united
from smallpond.plan import (
    PARTITION_COLUMN,
    By,
    Demand,
    Files,
    Format,
    Function,
    Gather,
    Held,
    Listed,
    Partitioned,
    Plan,
    Repartition,
    Shape,
)

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext


class PartitionNode(Node):
    """Brings the rows of all inputs into partitions of a dimension.

    Args:
        npartitions: how many.
        dimension: names the partitions; queries know their numbers by it.
        nested: keep the partitions that there are, and divide each of them.
    """

    at_rest = True
    # The original's limits for its scheduler, kept for programs that set them.
    max_num_producer_tasks = 100
    max_card_of_producers_x_consumers = 4_096_000

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        dimension: str | None = None,
        nested: bool = False,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int | None = 1,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx, input_deps, output_name, output_path, cpu_limit, memory_limit=memory_limit
        )
        self.npartitions = npartitions
        self.dimension = dimension or PARTITION_COLUMN
        self.nested = nested
        if npartitions < 1:
            raise PlanError(f"{self.label}: npartitions must be at least 1, got {npartitions}")
        if not self.dimension.isidentifier():
            raise PlanError(f"{self.label}: dimension must be an identifier, got {dimension!r}")

    def _dims(self) -> dict[str, int]:
        outer = matching_dims(self) if self.nested else {}
        if self.dimension in outer:
            raise PlanError(
                f"{self.label}: there are partitions of dimension {self.dimension!r} already; a "
                "nested partition needs a dimension= of its own"
            )
        if self.nested and any(dep.dims != outer for dep in self.input_deps):
            raise PlanError(
                f"{self.label}: nested partitions need inputs of the same dimensions, got "
                f"{[dep.dims for dep in self.input_deps]}"
            )
        return {**outer, self.dimension: self.npartitions}

    @property
    def described(self) -> str:
        nested = ", nested" if self.nested else ""
        return f"{self.npartitions} x {self.dimension}{nested}"

    def moved(self, inputs: tuple[Plan, ...], by: By, columns: tuple[str, ...] = ()) -> Repartition:
        """The plan that moves the rows."""
        return Repartition(
            inputs,
            self.npartitions,
            by,
            columns,
            dimension=self.dimension,
            nested=self.nested,
            demand=Demand(memory_bytes=self.memory_limit),
            label=self.label,
        )

    def listed(
        self,
        inputs: tuple[Plan, ...],
        call: FunctionRef,
        job: RuntimeContext,
        *,
        gather: bool = False,
    ) -> Plan:
        """The plan that has a function divide each data set there is, or all of them together."""
        source = united(self, inputs)
        if gather:
            source = Gather(source)
        context = job.describe(self.label, npartitions=self.npartitions)
        made = Function((source,), call, Shape.DATASETS, label=self.label, context=context)
        moved = self.moved((Held(made),), By.COLUMN, ("partition",))
        return Listed(moved, Files((), Format.PARQUET))


class EvenlyDistributedPartitionNode(PartitionNode):
    """Partitions of equal numbers of files, or of rows.

    Args:
        partition_by_rows: of rows; otherwise of files, where the rows lie in files.
        random_shuffle: the files in random order.
    """

    max_num_producer_tasks = 1

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        dimension: str | None = None,
        nested: bool = False,
        *,
        partition_by_rows: bool = False,
        random_shuffle: bool = False,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int = 1,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx, input_deps, npartitions, dimension, nested, output_name, output_path, cpu_limit,
            memory_limit,
        )  # fmt: skip
        self.partition_by_rows = partition_by_rows
        self.random_shuffle = random_shuffle

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        if all(isinstance(plan, Listed) for plan in inputs):
            by = "partition_by_rows" if self.partition_by_rows else "partition_by_files"
            call = _Divide(by, self.npartitions, self.random_shuffle)
            reference = FunctionRef.of(call, self.label)
            return self.listed(inputs, reference, job, gather=not self.nested)
        moved = self.moved(inputs, By.ROWS if self.partition_by_rows else By.FILES)
        return replace(moved, shuffle_files=self.random_shuffle, seed=job.random_seed)


class RepeatPartitionNode(PartitionNode):
    """All rows in each partition."""

    max_num_producer_tasks = 1

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        dimension: str,
        cpu_limit: int = 1,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx, input_deps, npartitions, dimension, cpu_limit=cpu_limit, memory_limit=memory_limit
        )

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return self.moved(inputs, By.REPEAT)


class UserDefinedPartitionNode(PartitionNode):
    """Partitions that a subclass decides: `partition` divides each data set that there is."""

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        dimension: str | None = None,
        nested: bool = False,
        cpu_limit: int = 1,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx, input_deps, npartitions, dimension, nested, None, None, cpu_limit, memory_limit
        )

    def partition(self, runtime_ctx: RuntimeContext, dataset: DataSet) -> list[DataSet]:
        """A data set for each partition."""
        raise NotImplementedError

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        call = self._method("partition", None, UserDefinedPartitionNode)
        return self.listed(inputs, call, job)


class UserPartitionedDataSourceNode(UserDefinedPartitionNode):
    """Data sets that are partitions already."""

    max_num_producer_tasks = 1

    def __init__(
        self,
        ctx: Context,
        partitioned_datasets: Sequence[DataSet],
        dimension: str | None = None,
    ) -> None:
        super().__init__(ctx, (), len(partitioned_datasets), dimension)
        self.partitioned_datasets = list(partitioned_datasets)

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:  # noqa: ARG002
        return Partitioned(tuple(d.plan() for d in self.partitioned_datasets), self.dimension)


class LoadPartitionedDataSetNode(PartitionNode):
    """Files that are partitions already, by what they or their folders say.

    Args:
        data_partition_column: names the partitioning, see
            `ParquetDataSet.load_partitioned_datasets`.
        hive_partitioning: only folders' names count.
    """

    max_num_producer_tasks = 10

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        npartitions: int,
        dimension: str | None = None,
        nested: bool = False,
        data_partition_column: str | None = None,
        hive_partitioning: bool = False,
        cpu_limit: int = 1,
        memory_limit: int | None = None,
    ) -> None:
        column = data_partition_column or PARTITION_COLUMN
        super().__init__(
            ctx, input_deps, npartitions, dimension or column, nested, None, None, cpu_limit,
            memory_limit,
        )  # fmt: skip
        self.data_partition_column = column
        self.hive_partitioning = hive_partitioning

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        call = _Load(self.npartitions, self.data_partition_column, self.hive_partitioning)
        return self.listed(inputs, FunctionRef.of(call, self.label), job)


def DataSetPartitionNode(  # noqa: N802 (the original's)
    ctx: Context,
    input_deps: Sequence[Node],
    npartitions: int,
    *,
    partition_by_rows: bool = False,
    random_shuffle: bool = False,
    data_partition_column: str | None = None,
) -> Node:
    """Partitions by files, by rows, or those that there are already.

    Args:
        ctx: that the nodes share.
        input_deps: whose rows to take.
        npartitions: how many.
        partition_by_rows: of equal numbers of rows; otherwise of files.
        random_shuffle: the files in random order.
        data_partition_column: names partitions that files are already, see
            `LoadPartitionedDataSetNode`.
    """
    if data_partition_column is not None:
        return LoadPartitionedDataSetNode(
            ctx, input_deps, npartitions, data_partition_column=data_partition_column
        )
    node = EvenlyDistributedPartitionNode(
        ctx,
        input_deps,
        npartitions,
        partition_by_rows=partition_by_rows,
        random_shuffle=random_shuffle,
    )
    return ConsolidateNode(ctx, node, []) if npartitions == 1 else node


class _Divide:
    """Divides a data set by one of its own methods."""

    def __init__(self, method: str, npartitions: int, random_shuffle: bool) -> None:
        self.method = method
        self.npartitions = npartitions
        self.random_shuffle = random_shuffle

    def __call__(self, runtime_ctx: RuntimeContext, dataset: DataSet) -> list[DataSet]:  # noqa: ARG002
        made: list[DataSet] = getattr(dataset, self.method)(self.npartitions, self.random_shuffle)
        return made


class _Load:
    """Finds out which file is which partition."""

    def __init__(self, npartitions: int, column: str, hive: bool) -> None:
        self.npartitions = npartitions
        self.column = column
        self.hive = hive

    def __call__(self, runtime_ctx: RuntimeContext, dataset: DataSet) -> list[ParquetDataSet]:  # noqa: ARG002
        if not isinstance(dataset, ParquetDataSet):
            raise PlanError(f"Parquet files expected, got {dataset!r}")
        return dataset.load_partitioned_datasets(self.npartitions, self.column, self.hive)
