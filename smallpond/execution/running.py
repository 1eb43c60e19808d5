"""The task that a function of a node runs in, and what a plan says of the job to it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from smallpond.errors import InjectedFault, PlanError
from smallpond.functions import Udf

if TYPE_CHECKING:
    from smallpond.logical.base_dataset import DataSet
    from smallpond.task import Attempt


@dataclass(frozen=True)
class PartitionInfo:
    """Which partition of a dimension a task works on, and how many there are."""

    index: int = 0
    npartitions: int = 1
    dimension: str = "@toplevel@"


@dataclass(frozen=True)
class TaskContext:
    """What a plan says of the job to its functions; `RuntimeContext` is made of it.

    Attributes:
        node: which node the function belongs to.
        npartitions: how many data sets a partition function has to give.
        udfs: what the node's queries may call.
    """

    job_id: str
    job_time: str
    node: str
    random_seed: int = 0
    fault_inject_prob: float = 0.0
    gpu_limit: float = 0.0
    npartitions: int = 1
    udfs: tuple[Udf, ...] = ()


class RunningTask:
    """The task that a function of a node runs in.

    Attributes:
        key: names its results.
        partition_infos: which partition of each dimension it works on.
        perf_metrics: for the function's own use.
        output_filename: a name for files, different in every task.
        runtime_output_abspath: the folder for this attempt's files.
        temp_abspath: a folder for what it puts aside.
    """

    def __init__(self, attempt: Attempt, context: TaskContext, output: str) -> None:
        self._context = context
        self._began_s = time.monotonic()
        self._views = 0
        self.key = attempt.key
        self.node = context.node
        dims = attempt.task.dims
        self.partition_infos = [PartitionInfo(d.index, d.count, d.dimension) for d in dims]
        self.partition_infos_as_dict = {info.dimension: info.index for info in self.partition_infos}
        self._counts = {info.dimension: info.npartitions for info in self.partition_infos}
        self.retry_count = attempt.number
        self.cpu_limit = attempt.cpus
        self.gpu_limit = context.gpu_limit
        self.memory_limit = attempt.memory_bytes
        self.perf_metrics: dict[str, float] = {}
        self.output_filename = f"{_plain(context.node)}.{attempt.key[:16]}"
        self.runtime_output_abspath = output
        self.temp_abspath = f"{attempt.settings.temp_root}/{attempt.id}"
        seed = [context.random_seed, int(attempt.key[:8], 16)]
        self.numpy_random_gen = np.random.default_rng(seed)
        self.python_random_gen = random.Random(repr(seed))
        # Of the attempt, so that the next one may do better.
        self._faults = random.Random(f"{attempt.id} {context.node}")

    def get_partition_info(self, dimension: str) -> tuple[int, int]:
        """(index, number of partitions) in a dimension.

        Raises:
            PlanError: the node has no such partitions.
        """
        if dimension not in self._counts:
            known = list(self._counts)
            raise PlanError(f"{self.node}: no dimension {dimension!r}; there are {known}")
        return self.partition_infos_as_dict[dimension], self._counts[dimension]

    def random_uint32(self) -> int:
        """A random number."""
        return self.python_random_gen.getrandbits(32)

    def random_float(self) -> float:
        """A random number of 0 up to 1."""
        return self.python_random_gen.random()

    @property
    def local_gpu_ranks(self) -> list[int]:
        """Which GPUs of this machine the task may use."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return [int(item) for item in visible.split(",") if item.strip().isdigit()]

    def inject_fault(self) -> None:
        """Fails with the job's probability.

        Raises:
            InjectedFault: this time; the scheduler tries again.
        """
        if self._faults.random() < self._context.fault_inject_prob:
            raise InjectedFault(f"{self.node}: injected fault")

    def add_elapsed_time(self, metric_name: str | None = None) -> float:
        """Seconds since the last call, also added to ``perf_metrics`` under a name."""
        now = time.monotonic()
        elapsed, self._began_s = now - self._began_s, now
        if metric_name is not None:
            self.perf_metrics[metric_name] = self.perf_metrics.get(metric_name, 0.0) + elapsed
        return elapsed

    def prepare_connection(self, conn: Any) -> None:
        """Gives a DuckDB connection the task's limits and the node's functions."""
        from smallpond.engine.duck import register  # noqa: PLC0415

        conn.execute(f"SET threads = {self.cpu_limit}")
        conn.execute(f"SET memory_limit = '{self.memory_limit}B'")
        conn.execute(f"SET temp_directory = '{self.temp_abspath}'")
        conn.execute("SET arrow_large_buffer_size = true")
        for udf in self._context.udfs:
            register(conn, udf)

    def create_input_views(
        self, conn: Any, input_datasets: Sequence[DataSet], filesystem: Any = None
    ) -> list[str]:
        """Views on a connection, one for each data set; returns their names."""
        names = []
        for dataset in input_datasets:
            name = f"input_{self._views}"
            self._views += 1
            fragment = dataset.sql_query_fragment(filesystem, conn)
            conn.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {fragment}")
            names.append(name)
        return names


def _plain(text: str) -> str:
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in text)
