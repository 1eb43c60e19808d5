"""Where Ray workers come from: this machine, MPI, or a module of one's own.

``smallpond.init(num_executors=4, platform=...)``, or the environment variable ``SP_PLATFORM``,
names one: "local" (the default), "mpi", or a module that can be imported and has a class derived
from `Platform`. Such a class starts jobs on whatever runs them (Slurm, Kubernetes, ...)::

    class Slurm(Platform):
        def start_job(self, num_nodes, entrypoint, args, envs={}, extra_opts={}):
            ...  # has "python entrypoint args" run on as many nodes; returns ids of jobs

        def stop_job(self, pid): ...

Its static methods may say where a job keeps its data and what it is called by default.
"""

from __future__ import annotations

from importlib import import_module

from smallpond.errors import PlanError
from smallpond.platform.base import Platform
from smallpond.platform.mpi import MPI

__all__ = ["MPI", "Platform", "get_platform"]


def get_platform(name: str | None = None) -> Platform:
    """The platform of a name.

    Args:
        name: "local", "mpi" or a module's; this machine without one.

    Raises:
        PlanError: there is no such module, or no platform in it.
    """
    if name in (None, "", "local"):
        return Platform()
    if name == "mpi":
        return MPI()
    assert name is not None  # noqa: S101 (as above)
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        raise PlanError(
            f"platform: 'local', 'mpi' or a module's name expected, got {name!r} ({error})"
        ) from error
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Platform) and value is not Platform
    ]
    # A module that derives from another platform has both; its own is meant.
    own.sort(key=lambda made: made.__module__ != module.__name__)
    if not own:
        raise PlanError(f"platform: {name} has no class derived from smallpond.platform.Platform")
    return own[0]()
