"""Jobs by ``mpirun``, on the nodes that it knows of: of a host file, or of a batch system."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from smallpond.errors import PlanError
from smallpond.platform.base import NO_OPTIONS, Platform, start


class MPI(Platform):
    """Starts one process on each node through Open MPI's ``mpirun``."""

    @staticmethod
    def is_available() -> bool:
        return shutil.which("mpirun") is not None

    def start_job(
        self,
        num_nodes: int,
        entrypoint: str,
        args: Sequence[str],
        envs: Mapping[str, str] = NO_OPTIONS,
        extra_opts: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 (mpirun takes none of them)
    ) -> list[str]:
        if not self.is_available():
            raise PlanError("platform='mpi' needs mpirun, which is not on PATH")
        # Names alone, which mpirun looks up in its own environment: values stay off command lines.
        exported = [part for name in envs for part in ("-x", name)]
        command = ["mpirun", "-n", str(num_nodes), "--map-by", "node", *exported]
        return [start([*command, sys.executable, entrypoint, *args], envs)]
