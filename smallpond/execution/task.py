"""What a function of a node is told about its job and its task."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smallpond.config import Config
from smallpond.errors import PlanError
from smallpond.execution.running import PartitionInfo, RunningTask, TaskContext
from smallpond.execution.spawned import (
    ArrowBatchTask,
    ArrowComputeTask,
    ArrowStreamTask,
    PandasBatchTask,
    PandasComputeTask,
    PythonScriptTask,
    Task,
)
from smallpond.functions import Udf

if TYPE_CHECKING:
    from smallpond.execution.plan import ExecutionPlan
    from smallpond.task import Attempt

__all__ = [
    "ArrowBatchTask",
    "ArrowComputeTask",
    "ArrowStreamTask",
    "ExecutionPlan",
    "JobId",
    "PandasBatchTask",
    "PandasComputeTask",
    "PartitionInfo",
    "PythonScriptTask",
    "RunningTask",
    "RuntimeContext",
    "StreamOutput",
    "Task",
    "TaskContext",
    "runtime_context",
]


class JobId(uuid.UUID):
    """Names a job."""

    @staticmethod
    def new() -> JobId:
        """One that nobody else has."""
        return JobId(str(uuid.uuid4()))


class StreamOutput:
    """A table that a stream gives, with what the original keeps for checkpoints.

    A task that fails is run again from its start here, so ``batch_indices`` and
    ``force_checkpoint`` have no effect.
    """

    def __init__(
        self,
        output_table: pa.Table,
        batch_indices: Sequence[int] | None = None,
        force_checkpoint: bool = False,
    ) -> None:
        self.output_table = output_table
        self.batch_indices = list(batch_indices or [])
        self.force_checkpoint = force_checkpoint


class RuntimeContext:
    """A job, and within a function of a node, the task that runs.

    Args:
        job_id: names the job.
        job_time: when it began.
        data_root: the folder for jobs.
        num_executors: how many Ray workers to start, if more than one.
        random_seed: decides what is random.
        env_overrides: environment variables to set.
        max_usable_cpu_count: the most processors to use.
        max_usable_memory_size: the most memory to use, in bytes.
        fault_inject_prob: how often tasks fail on purpose, for tests.
        remove_empty_parquet: leave files without rows out of results.
        skip_task_with_empty_input: must be false. A task without input rows runs here, where
            it costs little, and a query such as ``SELECT count(*)`` has a row then.
        output_path: where final results go; in the job's own folder by default.
        options: the original's further keywords, which tune machinery that is not here. Messages go
            to the logger "smallpond" of Python's logging; DuckDB keeps to the memory by itself.
    """

    def __init__(
        self,
        job_id: uuid.UUID | str,
        job_time: datetime | None = None,
        data_root: str | None = None,
        *,
        num_executors: int = 1,
        random_seed: int | None = None,
        env_overrides: dict[str, str] | None = None,
        max_usable_cpu_count: int = 1024,
        max_usable_memory_size: int = 16 << 40,
        fault_inject_prob: float = 0.0,
        remove_empty_parquet: bool = False,
        skip_task_with_empty_input: bool = False,
        output_path: str | None = None,
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - _WITHOUT_EFFECT)
        if unknown:
            raise PlanError(f"RuntimeContext: unknown keyword {unknown[0]!r}")
        if skip_task_with_empty_input:
            raise PlanError(
                "RuntimeContext: skip_task_with_empty_input=True is not supported: tasks without "
                "input rows run (say HAVING count(*) > 0 in queries, return no rows from functions)"
            )
        self.job_id = str(job_id)
        self.job_time = job_time or datetime.now(UTC).replace(tzinfo=None)
        self.data_root = data_root or str(Path.home() / ".smallpond" / "data")
        self.num_executors = num_executors
        self.random_seed = random_seed or 0
        self.env_overrides = dict(env_overrides or {})
        self.max_usable_cpu_count = max_usable_cpu_count
        self.max_usable_memory_size = max_usable_memory_size
        self.fault_inject_prob = fault_inject_prob
        self.remove_empty_parquet = remove_empty_parquet
        self.output_path = output_path
        self._task: RunningTask | None = None

    def config(self, *, executor: str = "embedded", ray_address: str | None = None) -> Config:
        """The settings of a session that runs this job."""
        from smallpond.executors.embedded import usable_cpus, usable_memory_bytes  # noqa: PLC0415

        return Config.from_args_and_env(
            job_id=self.job_id,
            job_time=self.job_time,
            data_root=self.data_root,
            executor=executor,
            ray_address=ray_address,
            cpus=min(usable_cpus(), self.max_usable_cpu_count),
            memory_limit=min(usable_memory_bytes(), self.max_usable_memory_size),
            fault_inject_prob=self.fault_inject_prob,
            # One, which the original takes for a default, is what Ray has anyway.
            num_executors=self.num_executors if executor == "ray" and self.num_executors > 1 else 0,
            remove_output_root=False,
        )

    @property
    def job_root(self) -> str:
        """The folder of this job."""
        return f"{self.data_root}/{self.job_time:%Y-%m-%d-%H-%M-%S}.{self.job_id}"

    @property
    def output_root(self) -> str:
        """The folder for results."""
        return f"{self.job_root}/output"

    @property
    def temp_root(self) -> str:
        """The folder for what a task puts aside."""
        return f"{self.job_root}/temp"

    @property
    def usable_cpu_count(self) -> int:
        """Processors that tasks on this machine may use."""
        from smallpond.executors.embedded import usable_cpus  # noqa: PLC0415

        return min(usable_cpus(), self.max_usable_cpu_count)

    @property
    def usable_memory_size(self) -> int:
        """Memory that tasks on this machine may use, in bytes."""
        from smallpond.executors.embedded import usable_memory_bytes  # noqa: PLC0415

        return min(usable_memory_bytes(), self.max_usable_memory_size)

    @property
    def task(self) -> RunningTask:
        """The task that runs.

        Raises:
            PlanError: none does; only functions of nodes have one.
        """
        if self._task is None:
            raise PlanError("RuntimeContext.task: no task runs here")
        return self._task

    def set_current_task(self, task: RunningTask | None = None) -> RuntimeContext:
        """The context of another task."""
        self._task = task
        return self

    def describe(
        self,
        node: str,
        *,
        gpus: float = 0.0,
        npartitions: int = 1,
        udfs: tuple[Udf, ...] = (),
    ) -> TaskContext:
        """What a plan says of the job to the functions of a node."""
        return TaskContext(
            self.job_id, self.job_time.isoformat(), node, self.random_seed,
            self.fault_inject_prob, gpus, npartitions, udfs,
        )  # fmt: skip


_WITHOUT_EFFECT = {
    *("bind_numa_node", "enforce_memory_limit", "max_usable_gpu_count", "secs_wq_poll_interval"),
    *("secs_executor_probe_interval", "max_num_missed_probes", "enable_profiling"),
    *("enable_diagnostic_metrics", "shared_log_root"),
    *("console_log_level", "file_log_level", "disable_log_rotation"),
}


def runtime_context(attempt: Attempt, context: TaskContext, output: str) -> RuntimeContext:
    """What a function gets as its first argument."""
    data_root = attempt.settings.output_root.rpartition("/")[0].rpartition("/")[0]
    made = RuntimeContext(
        context.job_id,
        datetime.fromisoformat(context.job_time),
        data_root,
        random_seed=context.random_seed,
        fault_inject_prob=context.fault_inject_prob,
    )
    return made.set_current_task(RunningTask(attempt, context, output))


def __getattr__(name: str) -> type[ExecutionPlan]:
    # The original has it here; it is made of nodes, whose functions need this module.
    if name == "ExecutionPlan":
        from smallpond.execution.plan import ExecutionPlan  # noqa: PLC0415

        return ExecutionPlan
    raise AttributeError(f"module 'smallpond.execution.task' has no attribute {name!r}")
