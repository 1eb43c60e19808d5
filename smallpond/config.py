"""What a session is told by arguments and environment; the environment wins, as in the original."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smallpond.errors import PlanError
from smallpond.platform import get_platform
from smallpond.storage import AnyPath, is_remote, path_of

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1024**power for unit, power in zip("kmgt", range(1, 5), strict=True)}


def parse_bytes(value: int | str, argument: str) -> int:
    """A size in bytes from 4_000_000_000, "4GB", "512 MiB".

    Raises:
        PlanError: it is none.
    """
    if isinstance(value, int):
        size = value
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", value.lower())
        if match is None or match[2] not in _UNITS:
            raise PlanError(f"{argument}: a size such as '4GB' or '512MiB' expected, got {value!r}")
        size = int(float(match[1]) * _UNITS[match[2]])
    if size <= 0:
        raise PlanError(f"{argument} must be positive, got {value!r}")
    return size


@dataclass(frozen=True)
class Config:
    """Everything that a session is made from.

    Attributes:
        data_root: folder or address under which jobs have their folders.
        num_executors: of Ray workers to start; 0 for this machine alone.
        executor: "embedded" or "ray".
        memory_bytes, cpus: what tasks on this machine may use; None for what there is.
        named: whether the job was given an id, so that an earlier run of it may be taken up.
        max_failures: how often a task may fail by accident; None leaves it to the scheduler.
        platform: which one starts workers, and says what was not given; see `smallpond.platform`.
        platform_options: what only it understands.
    """

    job_id: str
    job_time: datetime
    data_root: str
    num_executors: int = 0
    ray_address: str | None = None
    bind_numa_node: bool = False
    memory_allocator: str = "system"
    platform: str | None = None
    remove_output_root: bool = True
    executor: str = "embedded"
    memory_bytes: int | None = None
    cpus: int | None = None
    progress: bool | None = None
    speculate: bool = True
    max_failures: int | None = None
    storage: tuple[tuple[str, Any], ...] = ()
    fault_probability: float = 0.0
    named: bool = False
    platform_options: tuple[tuple[str, Any], ...] = ()

    @property
    def job_root(self) -> str:
        """The folder of this job."""
        return f"{self.data_root}/{self.job_time:%Y-%m-%d-%H-%M-%S}.{self.job_id}"

    @staticmethod
    def from_args_and_env(
        *,
        job_id: str | None = None,
        job_time: float | str | datetime | None = None,
        data_root: AnyPath | None = None,
        num_executors: int | None = None,
        ray_address: str | None = None,
        bind_numa_node: bool | None = None,
        memory_allocator: str | None = None,
        platform: str | None = None,
        remove_output_root: bool = True,
        executor: str | None = None,
        memory_limit: int | str | None = None,
        cpus: int | None = None,
        progress: bool | None = None,
        speculative_exec: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        fault_inject_prob: float = 0.0,
        **platform_options: Any,
    ) -> Config:
        """Settles every value.

        Raises:
            PlanError: a value makes no sense; the message names where it came from.
        """
        env = os.environ
        platform = env.get("SP_PLATFORM", platform)
        defaults = get_platform(platform)
        num = _number("SP_NUM_EXECUTORS", env.get("SP_NUM_EXECUTORS"))
        if num is None:
            num = _whole_or_none("num_executors", num_executors, 0)
        address = env.get("SP_RAY_ADDRESS", ray_address)
        named = env.get("SP_JOBID", job_id)
        root = _root(env.get("SP_DATA_ROOT", data_root) or defaults.default_data_root())
        time = _time(env.get("SP_JOB_TIME", job_time))
        if named is not None and not re.fullmatch(r"[\w.-]+", str(named)):
            raise PlanError(f"job_id: letters, digits, '.', '_' and '-' expected, got {named!r}")
        if named is not None and time is None:
            time = _earlier_time(root, named)
        kind = executor or ("ray" if address or num else "embedded")
        if kind not in ("embedded", "ray"):
            raise PlanError(f"executor must be 'embedded' or 'ray', got {executor!r}")
        if kind == "embedded" and (address or num):
            asked = f"ray_address={address!r}" if address else f"num_executors={num}"
            raise PlanError(f"executor='embedded' runs here, and {asked} elsewhere; leave one out")
        if not 0 <= fault_inject_prob <= 1:
            raise PlanError(f"fault_inject_prob must be from 0 to 1, got {fault_inject_prob}")
        if storage_options is not None and not isinstance(storage_options, Mapping):
            raise PlanError(f"storage_options: a dict expected, got {storage_options!r}")
        if platform_options and not num:
            raise PlanError(
                f"init: unknown keyword {min(platform_options)!r} (a platform's own keywords need "
                "num_executors)"
            )
        return Config(
            job_id=str(named) if named is not None else defaults.default_job_id(),
            job_time=time or defaults.default_job_time(),
            data_root=root,
            num_executors=num or 0,
            ray_address=address,
            bind_numa_node=env.get("SP_BIND_NUMA_NODE") == "1" or bool(bind_numa_node),
            memory_allocator=env.get("SP_MEMORY_ALLOCATOR", memory_allocator) or "system",
            platform=platform,
            remove_output_root=remove_output_root,
            executor=kind,
            memory_bytes=None
            if memory_limit is None
            else parse_bytes(memory_limit, "memory_limit"),
            cpus=_whole_or_none("cpus", cpus, 1),
            progress=progress,
            speculate=speculative_exec,
            storage=tuple(sorted((storage_options or {}).items())),
            fault_probability=fault_inject_prob,
            named=named is not None,
            platform_options=tuple(sorted(platform_options.items())),
        )


def _number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit():
        raise PlanError(f"{name}: a whole number expected, got {text!r}")
    return int(text)


def whole_number(name: str, value: int, least: int) -> int:
    """The value, if it is a whole number that is large enough.

    Raises:
        PlanError: it is not.
    """
    if not isinstance(value, int) or value < least:
        raise PlanError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def _whole_or_none(name: str, value: int | None, least: int) -> int | None:
    return None if value is None else whole_number(name, value, least)


def _root(value: AnyPath | None) -> str:
    if value is None:
        return str(Path.home() / ".smallpond" / "data")
    value = path_of(value)
    if value.endswith("://"):
        raise PlanError(f"data_root: an address such as s3://bucket/folder expected, got {value!r}")
    if is_remote(value):
        return value.rstrip("/")
    value = value.removeprefix("file://")
    return str(Path(value).expanduser().absolute())


def _time(value: float | str | datetime | None) -> datetime | None:
    """Seconds since the epoch, a text in ISO form, or a time as it is."""
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError as error:
            raise PlanError(f"job_time: an ISO time expected, got {value!r}") from error
    return datetime.fromtimestamp(value, UTC).replace(tzinfo=None)


def _earlier_time(root: str, job_id: str) -> datetime | None:
    """When the latest earlier run of the job began, if it left its folder."""
    if "://" in root or not Path(root).is_dir():
        return None
    times = []
    for folder in Path(root).glob(f"*.{job_id}"):
        stamp = folder.name[: -len(job_id) - 1]
        if re.fullmatch(r"\d{4}(-\d\d){5}", stamp):
            times.append(datetime.strptime(stamp, "%Y-%m-%d-%H-%M-%S"))  # noqa: DTZ007
    return max(times, default=None)
