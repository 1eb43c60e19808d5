"""Data processing on DuckDB, from one laptop to a Ray cluster, on files and object stores.

Example:
    >>> import smallpond
    >>> with smallpond.init() as sp:
    ...     df = sp.from_items([{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "a", "v": 3}])
    ...     df.group_by("k").agg("sum(v) as total").sort("k").take_all()
    [{'k': 'a', 'total': 4}, {'k': 'b', 'total': 2}]
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smallpond.dataframe import DataFrame as DataFrame
    from smallpond.session import Session as Session
    from smallpond.storage import AnyPath

# Loaded when first asked for: importing this package needs neither DuckDB nor Arrow.
_LAZY = {
    "DataFrame": "smallpond.dataframe",
    "Session": "smallpond.dataframe",
    "udf": "smallpond.logical.udf",
    "UDFType": "smallpond.logical.udf",
    "UDFListType": "smallpond.logical.udf",
    "UDFStructType": "smallpond.logical.udf",
    "UDFMapType": "smallpond.logical.udf",
    "UDFAnyParameters": "smallpond.logical.udf",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _LAZY:
        raise AttributeError(f"module 'smallpond' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (takes 30 ms)

    try:
        return version("openweek")
    except PackageNotFoundError:
        return "unknown"


def init(
    job_id: str | None = None,
    job_time: float | str | datetime | None = None,
    job_name: str | None = None,  # noqa: ARG001 (the original takes and ignores it, too)
    data_root: AnyPath | None = None,
    num_executors: int | None = None,
    ray_address: str | None = None,
    bind_numa_node: bool | None = None,
    platform: str | None = None,
    _remove_output_root: bool = True,
    *,
    executor: str | None = None,
    memory_limit: int | str | None = None,
    cpus: int | None = None,
    progress: bool | None = None,
    speculative_exec: bool = True,
    storage_options: Mapping[str, Any] | None = None,
    memory_allocator: str | None = None,
    fault_inject_prob: float = 0.0,
    **platform_options: Any,
) -> Session:
    """Begins a session; it is shut down when the program ends, or as a context manager.

    The environment wins over arguments: SP_JOBID, SP_JOB_TIME, SP_DATA_ROOT, SP_NUM_EXECUTORS,
    SP_RAY_ADDRESS, SP_BIND_NUMA_NODE, SP_MEMORY_ALLOCATOR, SP_PLATFORM. With SP_SPAWN=1 the
    program is handed to the platform, to be run from its beginning there, and ends here.

    Args:
        job_id: names the job. A job of the same id that did not end well is taken up: what it
            had finished is not computed again.
        job_time: when the job began, in seconds since the epoch or ISO form; now by default.
        job_name: for people.
        data_root: folder or address for what tasks hand on; ``~/.smallpond/data`` by default.
            With Ray on several machines, one that all of them see.
        num_executors: Ray workers to start through the platform; they leave with the session.
            Without ``ray_address`` they join a head that the session starts.
        ray_address: of a Ray cluster to run on: HOST:PORT, ray://HOST:PORT or "auto".
        bind_numa_node: accepted, without effect on one machine.
        platform: what starts workers: "local", this machine (default), "mpi", or the name of a
            module, see `smallpond.platform`.
        executor: "embedded", on this machine (default), or "ray".
        memory_limit: what tasks on this machine may use together, such as "4GB"; 80 % of what
            there is by default. Larger data spills to ``data_root``.
        cpus: processors for tasks on this machine; all by default.
        progress: show progress bars; by default only in a terminal.
        speculative_exec: start second copies of stragglers.
        storage_options: of the file systems behind addresses, as fsspec takes them.
        memory_allocator: accepted, without effect.
        fault_inject_prob: how often tasks fail on purpose, for tests.
        platform_options: keywords that only the platform understands.

    Raises:
        ValueError: a value makes no sense; the message says which.
    """
    if os.environ.get("SP_SPAWN") == "1":
        from smallpond.platform.spawn import spawn  # noqa: PLC0415

        spawn(platform, platform_options)
    from smallpond.session import Session as MadeSession  # noqa: PLC0415

    session = MadeSession(
        job_id=job_id,
        job_time=job_time,
        data_root=data_root,
        num_executors=num_executors,
        ray_address=ray_address,
        bind_numa_node=bind_numa_node,
        platform=platform,
        remove_output_root=_remove_output_root,
        executor=executor,
        memory_limit=memory_limit,
        cpus=cpus,
        progress=progress,
        speculative_exec=speculative_exec,
        storage_options=storage_options,
        memory_allocator=memory_allocator,
        fault_inject_prob=fault_inject_prob,
        **platform_options,
    )
    # When the program ends, or when nobody can use the session any more.
    weakref.finalize(session, session.job.close)
    return session
