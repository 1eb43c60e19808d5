"""The cluster behind the Ray executor: found or started, watched, checked, and left."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smallpond.config import Config
from smallpond.errors import PlanError
from smallpond.executors import Worker
from smallpond.executors.embedded import usable_cpus, usable_memory_bytes
from smallpond.executors.ray_address import only_on_loopback, reachable
from smallpond.platform import get_platform
from smallpond.platform import worker as worker_program
from smallpond.storage import configure, filesystem_of, is_remote, remove_folder
from smallpond.task import Settings

_FRESH_S = 1.0  # how long what is known of the nodes is taken for true
_SILENT_S = 15.0  # a head that has not answered for so long is gone; Ray itself takes a minute
_START_S = 120.0
_CHECK_S = 60.0
_CLEAN_S = 5.0
_MEMORY_SHARE = 0.8  # of what Ray gives to tasks; the rest is for what DuckDB does not count
_LEAST_STORE_BYTES = 80 << 20

CANNOT_RUN = (
    "cannot run tasks of this driver (all nodes need the same versions of Python, Ray and this "
    "package)"
)

_log = logging.getLogger("smallpond")


class RayCluster:
    """A connection to a cluster, which lasts as long as a session.

    Attributes:
        ray: the module.
    """

    def __init__(self, config: Config) -> None:
        """Connects, or starts a cluster on this machine; then starts workers if asked to.

        Raises:
            PlanError: Ray is not installed, cannot be reached, or a node does not see the data.
        """
        self.ray = _import_ray()
        self._config = config
        self._platform = get_platform(config.platform)
        self._jobs: list[str] = []
        self._connected = False
        self._nodes = _Nodes(self.ray)
        filesystem, folder = filesystem_of(config.job_root, dict(config.storage))
        is_new = not filesystem.exists(folder)
        try:
            self._connect()
            if config.num_executors:
                self._start_workers()
            if config.ray_address or not self._platform.one_machine:
                self._check()
        except BaseException:
            self.close()
            if is_new:
                remove_folder(config.job_root, dict(config.storage))
            raise
        # Ahead of Ray's own, which ends a head that workers must still take leave of.
        atexit.register(self.close)

    def workers(self) -> list[Worker]:
        """The nodes that can run tasks; none if the head does not answer any more."""
        return self._nodes.workers()

    def close(self) -> None:
        """Leaves the cluster; what was started for this session ends."""
        atexit.unregister(self.close)
        if is_remote(self._config.data_root):
            with contextlib.suppress(Exception):  # the cluster may be gone
                self._clean()
        self._nodes.close()
        for job in self._jobs:
            self._platform.stop_job(job)
        self._jobs = []
        if self._connected:
            self._connected = False
            self.ray.shutdown()
            _let_nodes_print(True)

    # ---- finding or starting

    def _connect(self) -> None:
        address = self._config.ray_address
        if self.ray.is_initialized():  # by the program itself, whose connection it stays
            there = self.ray.get_runtime_context().gcs_address
            if address not in (None, "auto", there) and "://" not in str(address):
                raise PlanError(
                    f"ray_address: this program is connected to Ray at {there} already, not to "
                    f"{address} (call ray.shutdown() first)"
                )
            return
        with _quiet():
            if address:
                place = reachable(address)
                _use_token()
                try:
                    with _loopback() if only_on_loopback(place) else contextlib.nullcontext():
                        self.ray.init(address=place, **_SILENT)
                except (ConnectionError, RuntimeError, ValueError) as error:
                    raise PlanError(f"ray_address {address}: {first_line(error)}") from error
            elif self._platform.one_machine:
                with _loopback():
                    self._start_here()
            else:
                self._start_here()
        self._connected = True
        _let_nodes_print(False)

    def _start_here(self) -> None:
        """A head of our own; with workers besides it runs no tasks itself."""
        config = self._config
        memory = config.memory_bytes
        resources: dict[str, Any] = (
            {"num_cpus": 0, "num_gpus": 0, "object_store_memory": self._store_bytes()}
            if config.num_executors
            else {"num_cpus": config.cpus, "_memory": memory and int(memory / _MEMORY_SHARE)}
        )
        # Without "local" Ray would join any cluster that it finds on this machine.
        self.ray.init(address="local", include_dashboard=False, **resources, **_SILENT)

    def _store_bytes(self) -> int:
        """Of each node that shares this machine with others; for the driver's tables alone."""
        share = usable_memory_bytes() // 10 // (self._config.num_executors + 1)
        return max(_LEAST_STORE_BYTES, share)

    def _start_workers(self) -> None:
        config = self._config
        before = len(self.workers())
        logs = self._log_folder()
        arguments = [
            f"--ray_address={self.ray.get_runtime_context().gcs_address}",
            f"--log_dir={logs}",
        ]
        if config.bind_numa_node:
            arguments.append("--bind_numa_node")
        if self._platform.one_machine:
            cpus = config.cpus or usable_cpus()
            memory = config.memory_bytes or usable_memory_bytes()
            shared = config.num_executors > 1
            arguments += [
                "--one_machine",
                f"--num_cpus={max(1, cpus // config.num_executors)}",
                f"--memory={int(memory / _MEMORY_SHARE) // config.num_executors}",
                f"--object_store_memory={self._store_bytes()}",
                *(["--num_gpus=0"] if shared else []),
            ]
        self._jobs = self._platform.start_job(
            config.num_executors,
            str(worker_program.__file__),
            arguments,
            _credentials(),
            dict(config.platform_options),
        )
        self._wait_for_workers(before, logs)

    def _log_folder(self) -> str:
        if is_remote(self._config.data_root):
            return tempfile.gettempdir()
        return f"{self._config.job_root}/log"

    def _wait_for_workers(self, before: int, logs: str) -> None:
        wanted = self._config.num_executors
        deadline = time.monotonic() + _START_S
        while (come := len(self._nodes.ask_now()) - before) < wanted:
            ended = [job for job in self._jobs if not self._platform.is_running(job)]
            if ended or time.monotonic() > deadline:
                if come > 0 and not ended:
                    _log.warning("only %d of num_executors=%d workers have come", come, wanted)
                    return
                why = "ended at once" if ended else f"did not come within {_START_S:.0f} s"
                raise PlanError(
                    f"num_executors={wanted}: {wanted - come} workers {why}{_last_words(logs)}"
                )
            time.sleep(0.1)

    # ---- what nodes see, and what is left on them

    def _on_each_node(self, function: Any, *args: Any) -> dict[str, Any]:
        """Starts a call on every node; returns references by the nodes' names."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

        remote = self.ray.remote(function)
        return {
            name: remote.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            ).remote(*args)
            for name, node_id in self._nodes.known().items()
        }

    def _check(self) -> None:
        """Every node must see a file that the driver writes, and the driver theirs."""
        config = self._config
        filesystem, folder = filesystem_of(config.job_root, dict(config.storage))
        configure(config.job_root, dict(config.storage))
        filesystem.makedirs(folder, exist_ok=True)
        name = f".seen-by-nodes-{os.getpid()}"
        filesystem.pipe_file(f"{folder}/{name}", config.job_id.encode())
        deadline = time.monotonic() + _CHECK_S
        try:
            asked = self._on_each_node(_see, config.job_root, name, config.storage, list(sys.path))
            for node, ref in asked.items():
                patience_s = max(0.1, deadline - time.monotonic())
                answer = self._answer(node, ref, patience_s)
                if answer is None:
                    continue
                seen, said = answer
                if seen != config.job_id or not _exists(filesystem, f"{folder}/{said}"):
                    raise PlanError(
                        f"data_root {config.data_root} is not the same place on Ray's node {node} "
                        f"({said if not seen else 'what it writes does not appear here'}); choose "
                        "one on a file system that all nodes share, or an address such as s3://"
                    )
        finally:
            for file in _named(filesystem, folder, name):
                with contextlib.suppress(OSError):
                    filesystem.rm_file(file)

    def _answer(self, node: str, ref: Any, timeout_s: float) -> tuple[str, str] | None:
        """What a node says; None if it has gone away."""
        exceptions = self.ray.exceptions
        try:
            answer: tuple[str, str] = self.ray.get(ref, timeout=timeout_s)
        except exceptions.GetTimeoutError as error:
            raise PlanError(f"Ray's node {node} has run no task for {_CHECK_S:.0f} s") from error
        except exceptions.RayTaskError as error:
            raise PlanError(f"Ray's node {node} {CANNOT_RUN}: {error.cause!r}") from error
        except exceptions.RayError:
            return None
        return answer

    def _clean(self) -> None:
        """Removes the nodes' own folders, where the data's folder is not on them."""
        refs = list(self._on_each_node(_remove, self._config.job_root).values())
        self.ray.wait(refs, num_returns=len(refs), timeout=_CLEAN_S)


class _Nodes:
    """What is known of the nodes, asked in the background: a head that is gone never answers."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._found: list[dict[str, Any]] = []
        self._thread: threading.Thread | None = None
        self._asked_s = -_FRESH_S
        self._closed = False

    def workers(self) -> list[Worker]:
        if self._closed:
            return []
        now = time.monotonic()
        asking = self._thread is not None and self._thread.is_alive()
        if not asking and now - self._asked_s >= _FRESH_S:
            # What is old is not worth having, if news come at once.
            self._ask().join(_FRESH_S if self._found else _SILENT_S)
        elif asking and now - self._asked_s > _SILENT_S:
            return []
        return [_worker(node) for node in self._found]

    def ask_now(self) -> list[Worker]:
        """The workers at this moment."""
        self._asked_s = -_FRESH_S
        return self.workers()

    def known(self) -> dict[str, str]:
        """Ray's ids of the nodes by their names."""
        self.workers()
        return {_worker(node).name: node["NodeID"] for node in self._found}

    def close(self) -> None:
        """Waits for a question that is under way: it must not outlive the connection."""
        self._closed = True
        if self._thread is not None:
            self._thread.join(_FRESH_S)

    def _ask(self) -> threading.Thread:
        self._asked_s = time.monotonic()
        self._thread = threading.Thread(target=self._listen, name="smallpond nodes", daemon=True)
        self._thread.start()
        return self._thread

    def _listen(self) -> None:
        try:
            found = [node for node in self._ray.nodes() if _is_useful(node)]
            gone = {_worker(node).name for node in self._found} - {_worker(n).name for n in found}
        except Exception:  # noqa: BLE001 (Ray was shut down, or its head is gone: the same to us)
            found, gone = [], set()
        if not self._closed:
            self._found = found
            for name in sorted(gone):
                _log.warning("Ray's node %s is gone", name)


_SILENT = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}


def _import_ray() -> Any:
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise PlanError("executor='ray' needs Ray (pip install 'openweek[ray]')") from error
    return ray


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Has Ray listen on loopback alone: this switch of Ray's says that no other node will come."""
    from ray._private import ray_constants  # noqa: PLC0415

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"):  # for the processes it starts
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ray connects without reports to its makers, and without advice on the terminal."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    logger = logging.getLogger("ray")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _let_nodes_print(allowed: bool) -> None:
    """Whether pages on nodes that died go to the program's output, even with log_to_driver off."""
    from ray._private import worker  # noqa: PLC0415

    worker._worker_logs_enabled = allowed  # noqa: SLF001


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _is_useful(node: dict[str, Any]) -> bool:
    resources = node["Resources"]
    return bool(node["Alive"]) and resources.get("CPU", 0) >= 1 and "memory" in resources


def _worker(node: dict[str, Any]) -> Worker:
    resources = node["Resources"]
    return Worker(
        _named_node(node["NodeManagerAddress"], node["NodeID"]),
        int(resources["CPU"]),
        int(_MEMORY_SHARE * resources["memory"]),
        float(resources.get("GPU", 0)),
    )


def _named_node(address: str, node_id: str) -> str:
    """For people: two nodes may have one address."""
    return f"{address} {node_id[:6]}"


def first_line(error: BaseException) -> str:
    """What an error says, without what Ray adds on how to look at its logs."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _use_token() -> None:
    """Shows the user's token to a head, if there is one: a head of `ray start` asks for it then."""
    from ray._private.authentication import authentication_token_setup  # noqa: PLC0415

    authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _credentials() -> dict[str, str]:
    """What lets a worker into the cluster: Ray keeps its token in this user's home alone."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # noqa: PLC0415

    if os.environ.get("RAY_AUTH_MODE") != "token":
        return {}
    token = AuthenticationTokenLoader.instance().get_raw_token()
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": str(token)}


def _last_words(folder: str) -> str:
    """The end of what workers have printed, where it can be read from here."""
    logs = sorted(Path(folder).glob("worker-*.log"), key=lambda log: log.stat().st_mtime)
    lines = [line for log in logs[-1:] for line in log.read_text(errors="replace").splitlines()]
    return "".join(f"\n  {line}" for line in lines[-8:])


def _exists(filesystem: Any, path: str) -> bool:
    filesystem.invalidate_cache()
    return bool(filesystem.exists(path))


def _named(filesystem: Any, folder: str, prefix: str) -> list[str]:
    filesystem.invalidate_cache()
    with contextlib.suppress(OSError):
        names = filesystem.ls(folder, detail=False)
        return [name for name in names if name.rpartition("/")[2].startswith(prefix)]
    return []


# ---- what runs on the nodes


def node_name() -> str:
    """This node, as `Worker.name` has it."""
    import ray  # noqa: PLC0415

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return _named_node(address, ray.get_runtime_context().get_node_id())


def own_folder(settings: Settings) -> str:
    """This node's folder for what running tasks put aside.

    Where nodes share the job's folder it is one within: process ids are unique on a node alone.
    Where the job's folder is an object store it is one of the node's own.
    """
    if is_remote(settings.output_root):
        return _local_folder(settings.output_root.rpartition("/")[0])
    return f"{settings.temp_root}/{node_name().replace(' ', '-')}"


def _local_folder(job_root: str) -> str:
    digest = hashlib.blake2b(job_root.encode(), digest_size=8).hexdigest()
    return f"{tempfile.gettempdir()}/smallpond-{digest}"


def _see(
    root: str, name: str, storage: tuple[tuple[str, Any], ...], search_path: list[str]
) -> tuple[str, str]:
    """What the driver's file says to this node, and the file that this node writes beside it."""
    sys.path.extend(path for path in search_path if path not in sys.path)
    try:
        configure(root, dict(storage))
        filesystem, folder = filesystem_of(root, dict(storage))
        seen = filesystem.cat_file(f"{folder}/{name}").decode()
        answer = f"{name}-{node_name().replace(' ', '-')}"
        filesystem.pipe_file(f"{folder}/{answer}", b"")
    except Exception as error:  # noqa: BLE001 (whatever a file system raises is the answer)
        return "", f"{type(error).__name__}: {error}"
    return seen, answer


def _remove(job_root: str) -> None:
    shutil.rmtree(_local_folder(job_root), ignore_errors=True)
