"""A plan that can be run once, and what came out of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from smallpond.config import Config
from smallpond.events import Event, State, TaskEvent
from smallpond.job import Job
from smallpond.logical.base_node import Node
from smallpond.logical.dataset import DataSet, FileSet, ParquetDataSet
from smallpond.logical.planner import WRITTEN, lower
from smallpond.logical.sinks import DataSinkNode, SinkType, deliver
from smallpond.logical.tree import FINAL, LogicalPlan, Numbers
from smallpond.physical import Graph
from smallpond.plan import OWN_FILES
from smallpond.storage import filesystem_of
from smallpond.task import Task

if TYPE_CHECKING:
    from smallpond.execution.task import RuntimeContext


class ExecutionPlan:
    """The tasks of a plan of nodes.

    Attributes:
        ctx: the job.
        logical_plan: the nodes.
        successful: whether `run` has finished.
    """

    def __init__(
        self,
        ctx: RuntimeContext,
        logical_plan: LogicalPlan,
        *,
        manifest_only: bool = True,
        config: Config | None = None,
    ) -> None:
        self.ctx = ctx
        self.logical_plan = logical_plan
        self.successful = False
        self.named_outputs: dict[str, DataSet] = {}
        self._manifest_only = manifest_only
        self._lowered = lower(logical_plan, ctx)
        self._job = Job(config or ctx.config())
        self._files: dict[int, list[str]] = {}
        self._final: list[str] = []
        self._folder: str | None = None
        self._graph: Graph = self._job.graph(self._lowered.plan, to_driver=True)

    # ---- running

    def schedule(self, *, max_failures: int, speculate: bool) -> None:
        """How its tasks are to be run.

        Args:
            max_failures: how often a task may fail by accident.
            speculate: whether stragglers get second copies.
        """
        self._job.config = dataclasses.replace(
            self._job.config, max_failures=max_failures, speculate=speculate
        )

    def run(self) -> bool:
        """Computes all results; what has been computed of the same job before is taken up.

        Returns:
            True; a failure is an exception.
        """
        if self.successful:
            return True
        counter = _Counter({stage.stage_idx: stage.name for stage in self._graph.stages})
        self._job.listeners.append(counter)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_environment(self.ctx.env_overrides))
            stack.callback(self._job.close, failed=True)
            try:
                rows = self._job.rows(self._lowered.plan, self._graph).to_pylist()
            finally:
                self.logical_plan.numbers = counter.numbers()
            for row in rows:
                self._files.setdefault(row["node"], []).append(row["file"])
            self._deliver()
        self._remove_handed_on()
        self.successful = True
        return True

    def _deliver(self) -> None:
        for i, node in enumerate(self._lowered.wanted):
            files = self._kept(self._files.get(i, []))
            if isinstance(node, DataSinkNode):
                files = self._put(node, files, str(node.output_path), node.type)
            elif node.output_name or node.output_path:
                folder = node.output_path or f"{self.ctx.output_root}/{node.output_name}"
                files = self._put(node, files, folder, "link_or_copy")
            self._files[i] = files
            if node.output_name:
                self.named_outputs[node.output_name] = data_set(files)
            if node in self._lowered.results:
                self._final += files
        root = self.logical_plan.root_node
        if isinstance(root, DataSinkNode):
            self._folder = root.output_path
            return
        how: SinkType = "manifest" if self._manifest_only else "link_or_copy"
        self._folder = f"{self.ctx.output_root}/{FINAL}"
        if self.ctx.output_path is not None:
            self._folder, how = self.ctx.output_path, "link_or_copy"
        self._final = self._put(root, self._final, self._folder, how)

    def _put(self, node: Node, files: list[str], folder: str, how: SinkType) -> list[str]:
        base = node.output_name or type(node).__name__
        return deliver(node.label, files, folder, how, base, self._own)

    @property
    def _own(self) -> str:
        return f"{self._job.config.job_root}/output/{OWN_FILES}"

    def _kept(self, files: list[str]) -> list[str]:
        if not self.ctx.remove_empty_parquet or not isinstance(data_set(files), ParquetDataSet):
            return files
        filled = ParquetDataSet(files)
        filled.remove_empty_files()
        return filled.resolved_paths

    def _remove_handed_on(self) -> None:
        """What tasks handed on to others is of use only to a job that is not done."""
        config = self._job.config
        filesystem, folder = filesystem_of(f"{config.job_root}/output", dict(config.storage))
        for pattern in ("*.arrow", "*.json"):
            for name in filesystem.glob(f"{folder}/{pattern}"):
                filesystem.rm_file(name)

    # ---- results

    @property
    def final_output(self) -> DataSet:
        """The files of the final result."""
        return data_set(self._final)

    @property
    def final_output_path(self) -> str | None:
        """The folder of the final result, or of the list of its files."""
        return self._folder

    def get_output(self, output_name: str) -> DataSet | None:
        """The files of a node with this ``output_name``."""
        return self.named_outputs.get(output_name)

    @property
    def tasks(self) -> dict[str, Task]:
        """All tasks by key, in an order in which they can run."""
        return {task.key: task for task in self._graph.tasks}

    @property
    def leaves(self) -> list[Task]:
        """Tasks that need no others."""
        return [task for task in self._graph.tasks if not task.needs]

    @property
    def analyzed_logical_plan(self) -> LogicalPlan:
        """The nodes, with numbers if it has been run."""
        return self.logical_plan

    def __str__(self) -> str:
        return self.logical_plan.explain_str()


def data_set(files: list[str]) -> DataSet:
    """Finished files as a data set."""
    parquet = all(file.endswith((".parquet", ".pq")) for file in files)
    return ParquetDataSet(files) if parquet else FileSet(files)


@contextlib.contextmanager
def _environment(overrides: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in overrides}
    os.environ.update(overrides)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Counter:
    """Adds up what tasks report, by node."""

    def __init__(self, stages: Mapping[int, str]) -> None:
        self._stages = stages
        self._sums: dict[str, Numbers] = {}

    def __call__(self, event: Event) -> None:
        if not isinstance(event, TaskEvent):
            return
        name = self._stages.get(event.stage_idx, "")
        known = self._sums.get(name, Numbers())
        match event.state:
            case State.FINISHED | State.REUSED:
                metrics = event.metrics
                self._sums[name] = Numbers(
                    known.tasks + 1,
                    known.retries,
                    known.rows + metrics.rows_out,
                    known.bytes + metrics.bytes_out,
                    known.cpu_s + metrics.cpu_s,
                )
            case State.FAILED:
                self._sums[name] = Numbers(
                    known.tasks, known.retries + 1, known.rows, known.bytes, known.cpu_s
                )

    def numbers(self) -> dict[str, Numbers]:
        """By label; a node that is computed while its files are written counts there."""
        written = {
            name.removesuffix(WRITTEN): numbers
            for name, numbers in self._sums.items()
            if name.endswith(WRITTEN)
        }
        return {**written, **self._sums}
