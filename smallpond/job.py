"""A job: its folder, its executor, and what it has computed so far."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from smallpond.config import Config
from smallpond.depth import deep
from smallpond.engine.duck import Instances
from smallpond.engine.enums import restored
from smallpond.engine.query import table_of
from smallpond.errors import CorruptedDataError, PlanError
from smallpond.events import Listener
from smallpond.executors import Executor
from smallpond.executors.embedded import Embedded, usable_cpus, usable_memory_bytes
from smallpond.functions import Udf
from smallpond.handoff import Part, PartWriter, read_part
from smallpond.interrupts import held_back
from smallpond.physical import Graph, Machine, cut
from smallpond.plan import (
    By,
    Computed,
    Files,
    Format,
    Function,
    Memory,
    Parts,
    Plan,
    Repartition,
    Saved,
    TaskOutput,
    Write,
    walk,
)
from smallpond.report import Bars, Recorder, progress_listener
from smallpond.results import Results
from smallpond.rows import rows_of
from smallpond.rules import Spread, bottom_up, distribute, hold_shared, optimise, replaced
from smallpond.scheduler import Scheduler
from smallpond.schemas import Schemas
from smallpond.sources import counted
from smallpond.sql import time_zone
from smallpond.storage import DirectoryWriter, configure, remove_folder
from smallpond.task import Result, Settings

_REMEMBERED_PLANS = 100  # that were run; they hold on to the driver's tables

_log = logging.getLogger("smallpond")


class Job:
    """Computes plans; the part of a session that knows no DataFrame."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.recorder = Recorder()
        self.listeners: list[Listener] = [self.recorder]
        bars = progress_listener(config.progress)
        if bars is not None:
            self.listeners.append(bars)
        self.plans: deque[Plan] = deque(maxlen=_REMEMBERED_PLANS)
        self._executor: Executor | None = None
        self._scheduler: Scheduler | None = None
        self._computed: dict[str, Computed] = {}
        self._implied: set[str] = set()  # of those, what nobody has asked for
        self._cached: set[str] = set()
        self._saved: set[str] = set()
        self._lock = threading.RLock()  # held while something is computed
        self._making = threading.RLock()
        self._instances: Instances | None = None
        self._remote_temp: str | None = None
        self.schemas = Schemas(self._translator, self._with_computed, self.collect)
        self._closed = False
        self._pid = os.getpid()

    # ---- what there is, made when first needed

    @property
    def executor(self) -> Executor:
        """Where tasks run."""
        self._check_usable()
        with self._making:
            if self._executor is None:
                self._executor = self._make_executor()
            return self._executor

    def _check_usable(self) -> None:
        if self._closed:
            raise PlanError("this session was shut down; call smallpond.init() for another")
        if self._is_fork:
            raise PlanError(
                "this session is that of the process of which this one is a fork; call "
                "smallpond.init() for one of its own"
            )

    @property
    def _is_fork(self) -> bool:
        """Whether this is a copy of a job, without the threads that work for it."""
        return os.getpid() != self._pid

    def _make_executor(self) -> Executor:
        config = self.config
        if config.executor == "ray":
            from smallpond.executors.ray import RayExecutor  # noqa: PLC0415

            return RayExecutor(config)
        return Embedded(
            config.cpus or usable_cpus(),
            config.memory_bytes or usable_memory_bytes(),
            self._temp_root,
            time_zone(),
        )

    @property
    def _temp_root(self) -> str:
        if "://" not in self.config.data_root:
            return f"{self.config.job_root}/temp"
        if self._remote_temp is None:
            self._remote_temp = tempfile.mkdtemp(prefix="smallpond-")
        return self._remote_temp

    @property
    def scheduler(self) -> Scheduler:
        """The loop that runs graphs."""
        with self._making:
            if self._scheduler is None:
                self._scheduler = self._make_scheduler()
            return self._scheduler

    def _make_scheduler(self) -> Scheduler:
        config = self.config
        output = f"{config.job_root}/output"
        settings = Settings(
            output, self._temp_root, time_zone(), config.storage, config.fault_probability
        )
        configure(output, dict(config.storage))
        resumed = False
        if "://" not in output:
            resumed = config.named and Path(output).is_dir()
            try:
                Path(output).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise PlanError(
                    f"data_root {config.data_root} cannot be written: {error}"
                ) from error
        return Scheduler(
            self.executor,
            settings,
            Results(output, resumed=resumed),
            self.listeners,
            speculate=config.speculate,
            max_failures=config.max_failures,
        )

    def machine(self) -> Machine:
        """What the planner may count on."""
        workers = self.executor.workers()
        return Machine(
            cpus=max(1, sum(worker.cpus for worker in workers)),
            worker_cpus=max((worker.cpus for worker in workers), default=1),
            worker_gpus=max((worker.gpus for worker in workers), default=0.0),
            shared_memory=self.executor.shared_memory,
        )

    # ---- planning

    @deep
    def optimised(self, plan: Plan) -> Plan:
        """The plan after the rules that keep it whole; computed parts are taken as they are."""
        return optimise(hold_shared(self._with_computed(plan)))

    @deep
    def graph(self, plan: Plan, *, to_driver: bool = False) -> Graph:
        """The tasks that compute a plan."""
        self.plans.append(plan)
        machine = self.machine()
        npartitions = None if machine.shared_memory else 2 * machine.cpus
        whole = distribute(self.optimised(plan), Spread(npartitions, kind_of=self.schemas.kind_of))
        slices = not machine.shared_memory or any(isinstance(n, Function) for n in walk(whole))
        if slices or any(isinstance(n, Repartition) and n.by is By.ROWS for n in walk(whole)):
            whole = bottom_up(whole, lambda n: counted(n) if isinstance(n, Files) else n)
        return cut(whole, machine, to_driver=to_driver)

    def _with_computed(self, plan: Plan) -> Plan:
        if self._computed:
            plan = replaced(plan, lambda node: self._computed.get(node.key))
        return bottom_up(plan, lambda node: node.input if isinstance(node, Saved) else node)

    def _prepare(self, plan: Plan) -> None:
        """What a plan reads that is to be kept or written is computed before."""
        if not self._cached and not any(isinstance(node, Saved) for node in walk(plan)):
            return
        waiting, seen = [plan], {id(plan)}
        while waiting:
            node = waiting.pop()
            if node.key in self._computed:
                continue
            if isinstance(node, Saved):
                self._save(node)
            elif node.key in self._cached:
                self._cached.discard(node.key)
                self.compute(node)
            else:
                below = [source for source in node.inputs if id(source) not in seen]
                seen.update(map(id, below))
                waiting += below

    def _save(self, node: Saved) -> None:
        if node.key in self._saved:
            return
        self.compute(node.input)
        self.write(
            node.input, node.folder, Format.PARQUET, node.mode, node.options, node.partition_by,
            node.file_bytes,
        )  # fmt: skip
        self._saved.add(node.key)

    # ---- computing

    @deep
    def compute(self, plan: Plan) -> Computed:
        """Computes a plan, and keeps what became of it for the session's life."""
        with self._lock:
            self._implied.discard(plan.key)
            if plan.key not in self._computed:
                self._prepare(plan)
                graph = self.graph(plan)
                results = self._run(graph)
                self._computed[plan.key] = Computed(
                    plan.key,
                    tuple((p.dims, self._parts(p.program, results)) for p in graph.outputs),
                )
            return self._computed[plan.key]

    def _run(self, graph: Graph) -> dict[str, Result]:
        self._make_room(graph)
        return self.scheduler.run(graph)

    def _make_room(self, graph: Graph) -> None:
        """What runs have left is there for later ones while it takes less room than is free.

        A named job keeps everything, so that it can be taken up again.
        """
        results = self.scheduler.results
        root = self.scheduler.settings.output_root
        if self.config.named or "://" in root or not results.num_bytes:
            return
        if results.num_bytes <= shutil.disk_usage(root).free:
            return
        programs = [task.program for task in graph.tasks] + [p.program for p in graph.outputs]
        read = [n.parts for program in programs for n in walk(program) if isinstance(n, Parts)]
        kept = {task.key for task in graph.tasks} | _owners(read)
        for key in list(self._implied):
            if not _owners(parts for _, parts in self._computed[key].partitions) <= kept:
                self._implied.discard(key)
                del self._computed[key]
        for computed in self._computed.values():
            kept |= _owners(parts for _, parts in computed.partitions)
        results.release(kept)

    def _parts(self, program: Plan, results: Mapping[str, Result]) -> tuple[Any, ...]:
        match program:
            case Parts():
                return program.parts
            case TaskOutput():
                return results[program.task_key].outputs[program.output_idx]
            case Memory():
                return (self._put_aside(program),)
        return tuple(part for source in program.inputs for part in self._parts(source, results))

    def _put_aside(self, program: Memory) -> Any:
        """A table of the driver's as a part like any other."""
        url = f"{self.scheduler.settings.output_root}/{program.key}-0.arrow"
        with PartWriter(url, program.table.schema, lossless=False) as writer:
            writer.append(0, program.table)
            return writer.close()[0]

    @deep
    def is_computed(self, plan: Plan) -> bool:
        """Whether `compute` has been there."""
        return plan.key in self._computed or plan.key in self._saved

    @deep
    def forget(self, plan: Plan) -> None:
        """The next use computes the plan again, and what it reads as well."""
        for node in walk(plan):
            self._computed.pop(node.key, None)
            self._implied.discard(node.key)
        if self._scheduler is not None:
            graph = self.graph(plan)
            for task in graph.tasks:
                self._scheduler.results.forget(task.key)

    @deep
    def cache(self, plan: Plan) -> None:
        """The first run that needs the plan keeps what became of it."""
        self._cached.add(plan.key)

    @deep
    def collect(self, plan: Plan) -> pa.Table:
        """All rows, partition after partition."""
        with self._lock:
            if isinstance(plan, Memory):
                return plan.table
            self._prepare(plan)
            return self.rows(plan, self.graph(plan, to_driver=True))

    def rows(self, plan: Plan, graph: Graph) -> pa.Table:
        """Runs the tasks of a plan, and returns all of its rows."""
        with self._lock:
            for _ in graph.tasks:
                try:
                    return self._rows(plan, graph)
                except CorruptedDataError as error:
                    # What an earlier run left, for its last stage nobody else reads.
                    key = self.scheduler.results.owner(error.url)
                    if key not in {task.key for task in graph.tasks}:
                        raise
                    _log.warning("%s; computing it again", error)
                    self.scheduler.results.forget(key)
            return self._rows(plan, graph)

    def _rows(self, plan: Plan, graph: Graph) -> pa.Table:
        results = self._run(graph)
        if len(graph.outputs) == 1 and isinstance(graph.outputs[0].program, TaskOutput):
            table = results[graph.outputs[0].program.task_key].table
            if table is not None:
                return table
        parts = [p for o in graph.outputs for p in self._parts(o.program, results)]
        rows = self.read(tuple(parts))
        if any(isinstance(node, Function) for node in walk(plan)):
            dims = tuple((o.dims, self._parts(o.program, results)) for o in graph.outputs)
            if plan.key not in self._computed:
                self._computed[plan.key] = Computed(plan.key, dims)
                self._implied.add(plan.key)
        return rows

    def rows_of_task(self, task_key: str) -> list[dict[str, Any]]:
        """What a finished task made, as a listener may ask."""
        result = self.scheduler.results.find(task_key)
        parts = () if result is None else tuple(p for output in result.outputs for p in output)
        return rows_of(self.read(parts)) if parts else []

    def read(self, parts: tuple[Any, ...]) -> pa.Table:
        """The rows of parts, in the types that a user is to see."""
        filled = [part for part in parts if part.rows] or list(parts)
        if not any(part.lossless for part in filled):
            tables = [read_part(part) for part in filled]
            return (
                pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
            )
        with self._translator() as con:
            table = table_of(Parts(tuple(filled)))
            con.register("parts", table)
            return con.sql(f"SELECT {restored(table.schema)} FROM parts").to_arrow_table()

    @contextlib.contextmanager
    def _translator(self, udfs: tuple[Udf, ...] = ()) -> Iterator[Any]:
        """A DuckDB connection that turns its own Arrow types into common ones."""
        self._check_usable()
        with self._making:
            if self._instances is None:
                self._instances = Instances(self._temp_root, time_zone())
        with self._instances.borrow(usable_cpus(), usable_memory_bytes()) as instance:
            instance.lossless(False)
            con = instance.cursor()
            try:
                with instance.functions(udfs):
                    yield con
            finally:
                con.close()

    def batches(self, plan: Plan, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows in batches of at most so many, one partition's file in memory at a time."""
        for _, parts in self.compute(plan).partitions:
            for part in parts:
                yield from self.read((part,)).to_batches(batch_rows)

    def first(self, plan: Plan, rows: int) -> pa.Table:
        """The first rows of what has been computed."""
        tables = []
        left = rows
        for part in (p for _, parts in self.compute(plan).partitions for p in parts):
            tables.append(self.read((part,)).slice(0, left))
            left -= tables[-1].num_rows
            if left <= 0:
                break
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})

    def warm(self) -> None:
        """Gets ready for Python functions, while the user still writes the plan."""
        self.executor.warm()

    # ---- writing

    @deep
    def write(
        self,
        plan: Plan,
        url: str,
        file_format: Format,
        mode: str,
        options: Sequence[tuple[str, str]] = (),
        partition_by: Sequence[str] = (),
        file_bytes: int | None = None,
    ) -> pa.Table:
        """Writes a data set into a folder: all of it, or nothing.

        Returns:
            A table of the files, with rows and bytes of each.
        """
        with DirectoryWriter(url, mode, storage_options=dict(self.config.storage)) as writer:
            node = Write(
                plan, writer.staging, file_format, tuple(options), tuple(partition_by), file_bytes,
                self.config.storage,
            )  # fmt: skip
            listing = self.collect(node)
            writer.commit(listing.column("file").to_pylist())
        return listing

    def close(self, *, failed: bool = False) -> None:
        """Stops the executor and removes what only this session needed."""
        if self._closed or self._is_fork:
            return
        with held_back():
            self._close(failed=failed)

    def _close(self, *, failed: bool) -> None:
        for listener in self.listeners:
            if isinstance(listener, Bars):
                listener.close()
        if self._executor is not None:
            self._executor.close()
        if self._instances is not None:
            self._instances.close()
        self._closed = True
        if self._scheduler is not None:
            shutil.rmtree(self._temp_root, ignore_errors=True)
        # What a failed job had finished is of use to nobody if the job has no name.
        kept = failed and self.config.named
        if self._scheduler is not None and self.config.remove_output_root and not kept:
            remove_folder(self.config.job_root, dict(self.config.storage))


def _owners(many: Iterable[Sequence[Part]]) -> set[str]:
    """The keys of the tasks that wrote parts."""
    return {Results.owner(part.url) for parts in many for part in parts}
