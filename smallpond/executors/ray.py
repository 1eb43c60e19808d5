"""A Ray cluster: each attempt is one remote call.

Only plans, and where their results lie, travel through Ray; rows are handed on in files below
``data_root``, which all nodes have to see (a shared file system, or an address such as ``s3://``).

To run on a cluster, install the same versions of Python and of this package on every node, then::

    ray start --head --node-ip-address=HEAD --port=6379      # on one node
    ray start --address=HEAD:6379                            # on each of the others
    smallpond.init(ray_address="HEAD:6379", data_root="/shared/smallpond")

Without an address, ``executor="ray"`` starts Ray on this machine, reachable from this machine only.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from smallpond.config import Config
from smallpond.errors import NonzeroExitCode, OutOfMemory, PlanError
from smallpond.executors import Outcome, Worker
from smallpond.task import Attempt, Result

_NODES_S = 1.0  # how long what is known of the nodes is taken for true
_MEMORY_SHARE = 0.8


class RayExecutor:
    """Runs attempts on a Ray cluster."""

    shared_memory = False

    def __init__(self, config: Config) -> None:
        """Connects to the cluster, or starts one on this machine.

        Raises:
            PlanError: Ray is not installed, cannot be reached, or a node does not see the data.
        """
        if not config.ray_address:
            _keep_to_this_machine()
        self._ray = _import_ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, config)
        self._remote = self._ray.remote(_run)
        self._refs: dict[Any, str] = {}
        self._ids: dict[str, Any] = {}
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._nodes: list[Worker] = []
        self._nodes_s = -_NODES_S
        self._check_data_root(config)

    def workers(self) -> list[Worker]:
        now = time.monotonic()
        if now - self._nodes_s >= _NODES_S:
            self._nodes = [_worker(node) for node in self._ray.nodes() if _is_useful(node)]
            self._nodes_s = now
        return self._nodes

    def submit(self, attempt: Attempt) -> None:
        wants = attempt.task.resources
        call = self._remote.options(
            num_cpus=attempt.cpus if attempt.passes == 1 else wants.cpus,
            num_gpus=wants.gpus,
            max_retries=0,  # the scheduler tries again, and knows how
            name=f"smallpond {attempt.task.name}",
        )
        ref = call.remote(attempt, sys.path)
        self._refs[ref] = attempt.id
        self._ids[attempt.id] = ref

    def cancel(self, attempt_id: str) -> None:
        ref = self._ids.get(attempt_id)
        if ref is not None:
            self._ray.cancel(ref, force=True)

    def quiet(self, timeout_s: float) -> None:
        if self._refs:
            ready, _ = self._ray.wait(
                list(self._refs), num_returns=len(self._refs), timeout=timeout_s, fetch_local=False
            )
            for ref in ready:
                self._forget(ref)

    def wait(self, timeout_s: float) -> list[Outcome]:
        if not self._refs:
            time.sleep(timeout_s)
            return []
        refs = list(self._refs)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=timeout_s)
        if ready:  # and all others that are
            ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        return [self._outcome(ref) for ref in ready]

    def progress(self) -> dict[str, float]:
        return {}

    def warm(self) -> None:
        """Ray starts its workers by itself."""

    def close(self) -> None:
        for attempt_id in list(self._ids):
            with suppress(Exception):  # the cluster may be gone
                self.cancel(attempt_id)
        if self._own:
            self._ray.shutdown()

    def _forget(self, ref: Any) -> str:
        attempt_id = self._refs.pop(ref)
        del self._ids[attempt_id]
        return attempt_id

    def _outcome(self, ref: Any) -> Outcome:
        """What became of a call; the user's errors come back as values, others are Ray's."""
        attempt_id = self._forget(ref)
        exceptions = self._ray.exceptions
        try:
            node, value = self._ray.get(ref)
        except exceptions.OutOfMemoryError as error:
            return Outcome(attempt_id, error=OutOfMemory(_first_line(error)), lost=True)
        except exceptions.TaskCancelledError as error:
            return Outcome(attempt_id, error=InterruptedError(str(error)))
        except exceptions.RayError as error:
            lost = NonzeroExitCode(f"a Ray worker was lost: {_first_line(error)}")
            return Outcome(attempt_id, error=lost, lost=True)
        if isinstance(value, Result):
            return Outcome(attempt_id, value, worker=node)
        return Outcome(attempt_id, error=value, worker=node)

    def _check_data_root(self, config: Config) -> None:
        """Every node must see a file that the driver writes."""
        if "://" in config.data_root:
            return
        token = Path(config.job_root, f".seen-by-nodes-{os.getpid()}")
        token.parent.mkdir(parents=True, exist_ok=True)
        token.write_text("")
        try:
            look = self._ray.remote(_sees)
            strategies = self._ray.util.scheduling_strategies
            asked = {
                node["NodeID"]: look.options(
                    num_cpus=0,
                    scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(
                        node["NodeID"], soft=False
                    ),
                ).remote(str(token))
                for node in self._ray.nodes()
                if _is_useful(node)
            }
            for node_id, ref in asked.items():
                if not self._ray.get(ref):
                    address = next(
                        n["NodeManagerAddress"] for n in self._ray.nodes() if n["NodeID"] == node_id
                    )
                    raise PlanError(
                        f"data_root {config.data_root} is not seen by node {address}; choose a "
                        "folder on a file system that all nodes share, or an address such as s3://"
                    )
        finally:
            token.unlink(missing_ok=True)


def _keep_to_this_machine() -> None:
    """Has Ray listen on loopback: this switch of Ray's says that there will be no other node."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    constants = sys.modules.get("ray._private.ray_constants")
    if constants is not None:  # it was imported before, and has read its environment
        constants.ENABLE_RAY_CLUSTER = False  # type: ignore[attr-defined]


def _import_ray() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise PlanError("executor='ray' needs Ray (pip install 'openweek[ray]')") from error
    return ray


def _connect(ray: Any, config: Config) -> None:
    quiet: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": False,
    }
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if config.ray_address:
        try:
            ray.init(address=config.ray_address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PlanError(f"ray_address {config.ray_address}: {_first_line(error)}") from error
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=config.cpus, include_dashboard=False, **quiet)


def _is_useful(node: dict[str, Any]) -> bool:
    return bool(node["Alive"]) and node["Resources"].get("CPU", 0) >= 1


def _worker(node: dict[str, Any]) -> Worker:
    resources = node["Resources"]
    return Worker(
        node["NodeID"],
        int(resources["CPU"]),
        int(_MEMORY_SHARE * resources.get("memory", 8 << 30)),
        float(resources.get("GPU", 0)),
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


# ---- what runs on the nodes


def _sees(path: str) -> bool:
    return Path(path).exists()


_instances: Any = None


def _run(attempt: Attempt, search_path: list[str]) -> tuple[str, Result | BaseException]:
    """Does one attempt; returns the node's name, and the result or the error."""
    from smallpond.engine.duck import Instances  # noqa: PLC0415
    from smallpond.engine.run import run  # noqa: PLC0415
    from smallpond.executors.process import picklable  # noqa: PLC0415

    global _instances  # noqa: PLW0603 (kept for the worker's life: DuckDB takes 15 ms to start)
    sys.path.extend(path for path in search_path if path not in sys.path)
    if _instances is None:
        _instances = Instances(_local(attempt.settings.temp_root), attempt.settings.time_zone)
    import ray  # noqa: PLC0415

    node = ray.get_runtime_context().get_node_id()[:8]
    try:
        with _instances.borrow(attempt.cpus, attempt.memory_bytes) as instance:
            return node, run(attempt, instance)
    except BaseException as error:  # noqa: BLE001 (it belongs to the scheduler)
        return node, picklable(error)


def _local(temp_root: str) -> str:
    """The driver's folder for temporary files, or one of the node's if it is not there."""
    if Path(temp_root).parent.is_dir():
        return temp_root
    import tempfile  # noqa: PLC0415

    return tempfile.mkdtemp(prefix="smallpond-")
