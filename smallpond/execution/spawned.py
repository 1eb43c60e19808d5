"""Tasks that programs written for the original make themselves, in ``spawn`` of their nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smallpond.errors import PlanError
from smallpond.execution.running import PartitionInfo, RunningTask

if TYPE_CHECKING:
    import pandas as pd

    from smallpond.execution.task import RuntimeContext
    from smallpond.logical.base_dataset import DataSet

# What the original's scheduler would call; here one planner and one scheduler do that work.
_NEVER_CALLED = {
    *("run", "initialize", "finalize", "cleanup", "dump", "dump_output", "clean_output"),
    *("restore_input_state", "set_memory_limit", "run_on_ray"),
}


class Task(RunningTask):
    """The task that runs, in the form of a class whose `process` does the work.

    `spawn` of a node makes one in the worker for each attempt at a partition; what ``process``
    keeps in it stays from batch to batch. Limits and names are those of the node, which has been
    planned already.

    Args:
        ctx: whose ``task`` runs.
        input_deps: empty, for tasks do not know each other here.
        partition_infos: which partition it is.
        process_func: what to call where `process` is not overridden.
        options: the original's further keywords, which repeat what the node was given.
    """

    def __init__(
        self,
        ctx: RuntimeContext,
        input_deps: Sequence[Any] = (),
        partition_infos: Sequence[PartitionInfo] = (),
        process_func: Callable[..., Any] | None = None,
        **options: Any,  # noqa: ARG002
    ) -> None:
        vars(self).update(vars(ctx.task))
        self.ctx = ctx
        self.input_deps = list(input_deps)
        self.partition_infos = list(partition_infos)
        self.process_func = process_func

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in sorted(_NEVER_CALLED & vars(cls).keys()):
            raise PlanError(f"{cls.__name__}: {name}() of a task is not called; override process()")

    def _given(self, *args: Any) -> Any:
        if self.process_func is None:
            raise PlanError(f"{type(self).__name__}: process_func= or process() expected")
        return self.process_func(*args)


class PythonScriptTask(Task):
    """Of a `PythonScriptNode`."""

    def process(
        self, runtime_ctx: RuntimeContext, input_datasets: list[DataSet], output_path: str
    ) -> bool:
        """What it does; returns True."""
        done: bool = self._given(runtime_ctx, input_datasets, output_path)
        return done


class ArrowComputeTask(Task):
    """Of an `ArrowComputeNode`."""

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        """What it makes of whole partitions."""
        return self._given(runtime_ctx, input_tables)


class ArrowStreamTask(Task):
    """Of an `ArrowStreamNode`."""

    def process(
        self, runtime_ctx: RuntimeContext, input_readers: list[pa.RecordBatchReader]
    ) -> Iterable[Any]:
        """What it makes of readers: tables, or `StreamOutput`."""
        made: Iterable[Any] = self._given(runtime_ctx, input_readers)
        return made


class ArrowBatchTask(Task):
    """Of an `ArrowBatchNode`."""

    def process(self, runtime_ctx: RuntimeContext, input_tables: list[pa.Table]) -> pa.Table:
        """What it makes of one batch."""
        return self._given(runtime_ctx, input_tables)


class PandasComputeTask(Task):
    """Of a `PandasComputeNode`."""

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:
        """What it makes of whole partitions."""
        return self._given(runtime_ctx, input_dfs)


class PandasBatchTask(Task):
    """Of a `PandasBatchNode`."""

    def process(self, runtime_ctx: RuntimeContext, input_dfs: list[pd.DataFrame]) -> pd.DataFrame:
        """What it makes of one batch."""
        return self._given(runtime_ctx, input_dfs)


class Spawning:
    """The function of a node that has a `spawn` of its own.

    Attributes:
        kind: what the node's tasks are.
    """

    def __init__(
        self, spawn: Callable[..., Any], kind: type[Task], options: dict[str, Any]
    ) -> None:
        self.spawn = spawn
        self.kind = kind
        self.options = options
        self.__qualname__ = getattr(spawn, "__qualname__", "spawn")

    def __call__(self, runtime_ctx: RuntimeContext, *args: Any) -> Any:
        task = runtime_ctx.task
        if not isinstance(task, Task):
            task = self._made(runtime_ctx, task)
            runtime_ctx.set_current_task(task)
        return task.process(runtime_ctx, *args)  # type: ignore[attr-defined]

    def _made(self, runtime_ctx: RuntimeContext, running: RunningTask) -> Task:
        made = self.spawn(runtime_ctx, [], running.partition_infos, **self.options)
        if not isinstance(made, self.kind):
            raise PlanError(
                f"{running.node}: {self.__qualname__} must return a {self.kind.__name__} "
                f"(of smallpond.execution.task), got {type(made).__name__}"
            )
        return made
