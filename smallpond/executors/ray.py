"""A Ray cluster: each attempt is one remote call.

Only plans, small tables, and where results lie, travel through Ray; rows are handed on in files
below ``data_root``, which all nodes have to see (a shared file system, or an address such as
``s3://``).

By hand: install the same versions of Python, Ray and this package on every node
(``pip install 'openweek[ray]'``), and what Python functions of a plan import. Then::

    ray start --head --node-ip-address=HEAD --port=6379      # on one node
    ray start --address=HEAD:6379                            # on each of the others
    smallpond.init(ray_address="HEAD:6379", data_root="/shared/smallpond")

The driver runs on one of the nodes. A head that is to do nothing else takes ``--num-cpus=0``. Ray
asks for a token where it finds one: ``ray get-auth-token --generate`` makes ``~/.ray/auth_token``,
which has to be the same on all nodes.

By itself: without an address, ``executor="ray"`` starts Ray on this machine, reachable from this
machine only; with ``num_executors=4`` as many workers besides, through the `smallpond.platform`
that is named, which leave with the session. Where the platform has other machines, they have to
reach this one, and Ray then listens on all of its addresses.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from smallpond.config import Config
from smallpond.errors import NonzeroExitCode, OutOfMemory, TaskError
from smallpond.executors import Outcome, Worker
from smallpond.executors.ray_cluster import (
    CANNOT_RUN,
    RayCluster,
    first_line,
    node_name,
    own_folder,
)
from smallpond.plan import Memory, Plan
from smallpond.rules import bottom_up
from smallpond.task import Attempt, Result, Task

# Smaller tables travel with their plans. Ray does so with values of up to 100 kB itself.
_SMALL_BYTES = 64 << 10
_NUM_TABLES = 16


@dataclass(frozen=True, slots=True)
class _Call:
    """A remote call under way, and what it occupies."""

    attempt_id: str
    cpus: int
    gpus: float
    memory_bytes: int

    def fits(self, worker: Worker) -> bool:
        return (
            worker.cpus >= self.cpus
            and worker.gpus >= self.gpus
            and worker.memory_bytes >= self.memory_bytes
        )


class RayExecutor:
    """Runs attempts on a Ray cluster."""

    shared_memory = False

    def __init__(self, config: Config) -> None:
        """Connects to the cluster, or starts one on this machine.

        Raises:
            PlanError: Ray is not installed, cannot be reached, or a node does not see the data.
        """
        self._cluster = RayCluster(config)
        self._ray = self._cluster.ray
        self._remote = self._ray.remote(_run)
        self._tables = _Tables(self._ray)
        self._calls: dict[Any, _Call] = {}
        self._refs: dict[str, Any] = {}
        self._failed: list[Outcome] = []
        self._looked_at: list[Worker] = []

    def workers(self) -> list[Worker]:
        return self._cluster.workers()

    def submit(self, attempt: Attempt) -> None:
        call = _Call(attempt.id, attempt.cpus, attempt.task.resources.gpus, attempt.memory_bytes)
        remote = self._remote.options(
            num_cpus=call.cpus,
            num_gpus=call.gpus,
            memory=call.memory_bytes,
            max_retries=0,  # the scheduler tries again, and knows how
            name=f"smallpond {attempt.task.name}",
        )
        try:
            task, tables = self._tables.taken_out(attempt.task)
            light = dataclasses.replace(attempt, task=task)
            ref = remote.remote(light, sys.path, str(Path.cwd()), list(tables), *tables.values())
        except self._ray.exceptions.RayError as error:
            said = TaskError(f"{attempt.task.name}: Ray does not take the task: {error}")
            self._failed.append(Outcome(attempt.id, error=said))
            return
        self._calls[ref] = call
        self._refs[attempt.id] = ref

    def cancel(self, attempt_id: str) -> None:
        ref = self._refs.get(attempt_id)
        if ref is not None:
            self._ray.cancel(ref, force=True)

    def quiet(self, timeout_s: float) -> None:
        if self._calls and self.workers():
            refs = list(self._calls)
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=timeout_s)
            for ref in ready:
                self._forget(ref)

    def wait(self, timeout_s: float) -> list[Outcome]:
        outcomes, self._failed = [*self._failed, *self._hopeless()], []
        if not self._calls:
            if not outcomes:
                time.sleep(timeout_s)
            return outcomes
        refs = list(self._calls)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=0 if outcomes else timeout_s)
        if ready:  # and all others that are
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return outcomes + [self._outcome(ref) for ref in ready]

    def progress(self) -> dict[str, float]:
        return {}

    def warm(self) -> None:
        """Ray starts its workers by itself."""

    def close(self) -> None:
        if self._cluster.workers():
            for attempt_id in list(self._refs):
                with suppress(Exception):  # the cluster may be gone
                    self.cancel(attempt_id)
        self._cluster.close()

    def _forget(self, ref: Any) -> str:
        call = self._calls.pop(ref)
        del self._refs[call.attempt_id]
        return call.attempt_id

    def _hopeless(self) -> list[Outcome]:
        """Calls that no node can run any more: Ray would have them wait for one for ever."""
        workers = self.workers()
        if workers == self._looked_at or not self._calls:
            return []
        self._looked_at = workers
        outcomes = []
        for ref, call in list(self._calls.items()):
            if not any(call.fits(worker) for worker in workers):
                if workers:
                    self.cancel(call.attempt_id)
                lost = NonzeroExitCode("the Ray nodes that could run it are gone")
                outcomes.append(Outcome(self._forget(ref), error=lost, lost=True))
        return outcomes

    def _outcome(self, ref: Any) -> Outcome:
        """What became of a call; the user's errors come back as values, others are Ray's."""
        attempt_id = self._forget(ref)
        exceptions = self._ray.exceptions
        try:
            node, value = self._ray.get(ref)
        except exceptions.OutOfMemoryError as error:
            return Outcome(attempt_id, error=OutOfMemory(first_line(error)), lost=True)
        except exceptions.TaskCancelledError as error:
            return Outcome(attempt_id, error=InterruptedError(str(error)))
        except exceptions.RayTaskError as error:
            return Outcome(attempt_id, error=TaskError(f"a Ray node {CANNOT_RUN}: {error.cause!r}"))
        except exceptions.RayError as error:
            lost = NonzeroExitCode(f"a Ray worker was lost: {first_line(error)}")
            return Outcome(attempt_id, error=lost, lost=True)
        if isinstance(value, Result):
            return Outcome(attempt_id, value, worker=node)
        return Outcome(attempt_id, error=value, worker=node)


class _Tables:
    """Tables of the driver's that tasks read, put into Ray's object store once for all of them."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._refs: dict[str, Any] = {}

    def taken_out(self, task: Task) -> tuple[Task, dict[str, Any]]:
        """The task without its large tables, and those in the object store, by content."""
        refs: dict[str, Any] = {}

        def take(node: Plan) -> Plan:
            if not isinstance(node, Memory) or node.table.nbytes <= _SMALL_BYTES:
                return node
            refs[node.content] = self._put(node)
            return dataclasses.replace(node, table=node.table.schema.empty_table())

        return dataclasses.replace(task, program=bottom_up(task.program, take)), refs

    def _put(self, node: Memory) -> Any:
        ref = self._refs.pop(node.content, None)
        if ref is None:
            ref = self._ray.put(node.to_buffer())
        self._refs[node.content] = ref  # as the latest
        while len(self._refs) > _NUM_TABLES:  # those of running calls stay, for Ray counts
            del self._refs[next(iter(self._refs))]
        return ref


# ---- what runs on the nodes

_instances: dict[str, Any] = {}


def _run(
    attempt: Attempt, search_path: list[str], folder: str, contents: list[str], *tables: pa.Buffer
) -> tuple[str, Result | BaseException]:
    """Does one attempt; returns the node's name, and the result or the error."""
    from smallpond.engine.run import run  # noqa: PLC0415
    from smallpond.executors.process import picklable  # noqa: PLC0415

    # Functions of modules beside the driver's program are found, as are files named from there.
    sys.path.extend(path for path in search_path if path not in sys.path)
    with suppress(OSError):
        os.chdir(folder)
    try:
        settings = dataclasses.replace(attempt.settings, temp_root=own_folder(attempt.settings))
        task = _with_tables(attempt.task, dict(zip(contents, tables, strict=True)))
        attempt = dataclasses.replace(attempt, task=task, settings=settings)
        instances = _instances_in(settings.temp_root, settings.time_zone)
        with instances.borrow(attempt.cpus, attempt.memory_bytes) as instance:
            return node_name(), run(attempt, instance)
    except BaseException as error:  # noqa: BLE001 (it belongs to the scheduler)
        return node_name(), picklable(error)


def _with_tables(task: Task, buffers: Mapping[str, pa.Buffer]) -> Task:
    def put_back(node: Plan) -> Plan:
        if isinstance(node, Memory) and node.content in buffers:
            return Memory.from_buffer(node.content, buffers[node.content])
        return node

    return dataclasses.replace(task, program=bottom_up(task.program, put_back))


def _instances_in(temp_root: str, time_zone: str) -> Any:
    """Kept for the worker's life: DuckDB takes 15 ms to start. One session at a time uses it."""
    from smallpond.engine.duck import Instances  # noqa: PLC0415

    if temp_root not in _instances:
        for earlier in _instances.values():
            earlier.close()
        _instances.clear()
        _instances[temp_root] = Instances(temp_root, time_zone)
    return _instances[temp_root]
