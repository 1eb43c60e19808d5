"""Nodes that run Python functions on whole partitions, or on batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from smallpond.execution.spawned import (
    ArrowBatchTask,
    ArrowComputeTask,
    ArrowStreamTask,
    PandasBatchTask,
    PandasComputeTask,
    PythonScriptTask,
    Spawning,
    Task,
)
from smallpond.functions import FunctionRef
from smallpond.logical.base_node import Context, Node
from smallpond.logical.table_nodes import parquet_options, without_effect
from smallpond.plan import BATCH_ROWS, Files, Format, Function, Held, Listed, Plan, Shape

if TYPE_CHECKING:
    import pandas as pd

    from smallpond.execution.task import RuntimeContext, StreamOutput
    from smallpond.logical.dataset import DataSet


class _FunctionNode(Node):
    """Runs ``process_func``, or else `process` of a subclass, or of the task that `spawn` makes."""

    process_func: Callable[..., Any] | None
    process: Callable[..., Any]  # of each kind, with its own parameters
    task_class: ClassVar[type[Task]]

    def spawn(self, *args: Any, **kwargs: Any) -> Task:
        """The task of one attempt at one partition; a subclass may make another.

        Called in the worker, with the runtime context, an empty list where the original has tasks,
        the partition, and keywords. Of the task that it returns, `process` is called.
        """
        return self.task_class(*args, **kwargs)

    @property
    def described(self) -> str:
        return function_name(self.process_func)

    def _function(self) -> FunctionRef:
        base = next(kind for kind in _KINDS if isinstance(self, kind))
        if type(self).spawn is _FunctionNode.spawn:
            return self._method("process", self.process_func, base)
        slim = self.slim_copy()
        own = type(self).process is not base.process
        options = {
            "process_func": self.process_func or (slim.process if own else None),
            "output_name": self.output_name,
            "output_path": self.output_path,
            "cpu_limit": self.cpu_limit,
            "gpu_limit": self.gpu_limit,
            "memory_limit": self.memory_limit,
        }
        return FunctionRef.of(Spawning(slim.spawn, self.task_class, options), self.label)


class PythonScriptNode(_FunctionNode):
    """A function of data sets that writes files into a folder.

    Args:
        process_func: called with the runtime context, a data set for each input and the folder;
            returns True. A subclass may override `process` instead.
    """

    at_rest = True
    task_class = PythonScriptTask

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        *,
        process_func: Callable[..., bool] | None = None,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int = 1,
        gpu_limit: float = 0,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            ctx, input_deps, output_name, output_path, cpu_limit, gpu_limit, memory_limit
        )
        self.process_func = process_func

    def process(
        self, runtime_ctx: RuntimeContext, input_datasets: list[DataSet], output_path: str
    ) -> bool:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        made = Function(
            inputs,
            self._function(),
            Shape.SCRIPT,
            label=self.label,
            context=job.describe(self.label, gpus=self.gpu_limit),
            demand=self.demand(),
        )
        return Listed(Held(made), Files((), Format.PARQUET))


class _ArrowNode(_FunctionNode):
    """A function of tables to a table.

    Of the original's keywords, those in ``options`` have no effect: its ways to read and write
    Parquet between tasks are not those here, and there are no checkpoints, see `ArrowStreamNode`.
    """

    shape: ClassVar[Shape]
    default_batch_size = BATCH_ROWS
    default_row_group_size = BATCH_ROWS
    default_secs_checkpoint_interval = 180

    def __init__(
        self,
        ctx: Context,
        input_deps: Sequence[Node],
        *,
        process_func: Callable[..., Any] | None = None,
        streaming_batch_size: int | None = None,
        parquet_row_group_size: int | None = None,
        parquet_compression: str | None = "ZSTD",
        parquet_compression_level: int | None = 3,
        output_name: str | None = None,
        output_path: str | None = None,
        cpu_limit: int = 1,
        gpu_limit: float = 0,
        memory_limit: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            ctx, input_deps, output_name, output_path, cpu_limit, gpu_limit, memory_limit
        )
        without_effect(self, options, _ARROW_OPTIONS)
        self.process_func = process_func
        self.streaming_batch_size = streaming_batch_size or self.default_batch_size
        self.parquet = parquet_options(
            parquet_row_group_size or self.default_row_group_size,
            parquet_compression,
            parquet_compression_level,
        )

    def lower(self, inputs: tuple[Plan, ...], job: RuntimeContext) -> Plan:
        return Function(
            inputs,
            self._function(),
            self.shape,
            batch_rows=self.streaming_batch_size,
            label=self.label,
            context=job.describe(self.label, gpus=self.gpu_limit),
            demand=self.demand(),
        )


_ARROW_OPTIONS = {
    *("background_io_thread", "secs_checkpoint_interval", "parquet_dictionary_encoding"),
    "use_duckdb_reader",
}


class ArrowComputeNode(_ArrowNode):
    """A function of whole partitions: the runtime context, a table per input -> a table."""

    shape = Shape.TABLES
    task_class = ArrowComputeTask

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError


class ArrowStreamNode(_ArrowNode):
    """A function of readers that gives tables: the runtime context, a reader per input.

    A task that fails is run again from its start, with whole readers, and nothing of what it gave
    before counts. So ``secs_checkpoint_interval`` and ``force_checkpoint`` of `StreamOutput` have
    no effect; more partitions make the step back smaller.

    Args:
        streaming_batch_size: rows of a batch.
    """

    shape = Shape.STREAMS
    task_class = ArrowStreamTask

    def process(
        self, runtime_ctx: RuntimeContext, input_readers: list[pa.RecordBatchReader]
    ) -> Iterable[pa.Table | StreamOutput]:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError


class ArrowBatchNode(_ArrowNode):
    """A function called for each batch: the runtime context, a table per input -> a table.

    An input that is shorter than the others has no rows any more.
    """

    shape = Shape.TABLE_BATCH
    task_class = ArrowBatchTask

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError


class PandasComputeNode(_ArrowNode):
    """`ArrowComputeNode` with pandas DataFrames."""

    shape = Shape.FRAMES
    task_class = PandasComputeTask

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError


class PandasBatchNode(_ArrowNode):
    """`ArrowBatchNode` with pandas DataFrames."""

    shape = Shape.FRAME_BATCH
    task_class = PandasBatchTask

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:
        """What it does, where there is no ``process_func``."""
        raise NotImplementedError


_KINDS: set[type[_FunctionNode]] = {
    *(ArrowComputeNode, ArrowStreamNode, ArrowBatchNode, PandasComputeNode, PandasBatchNode),
    PythonScriptNode,
}


def function_name(function: Callable[..., Any] | None) -> str:
    """What a function is called."""
    return "process" if function is None else getattr(function, "__qualname__", repr(function))
