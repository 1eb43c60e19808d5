"""What a platform is asked for; by itself it is this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

_PATIENCE_S = 15.0
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_started: dict[str, subprocess.Popen[bytes]] = {}


class Platform:
    """Starts and stops jobs, as processes of this machine unless a derived class says otherwise."""

    @staticmethod
    def is_available() -> bool:
        """Whether this program runs where the platform can be used."""
        return True

    def start_job(
        self,
        num_nodes: int,
        entrypoint: str,
        args: Sequence[str],
        envs: Mapping[str, str] = NO_OPTIONS,
        extra_opts: Mapping[str, Any] = NO_OPTIONS,  # noqa: ARG002 (for platforms that have options)
    ) -> list[str]:
        """Starts a Python program on as many nodes.

        Args:
            num_nodes: how often.
            entrypoint: the program's file.
            args: what it is told.
            envs: environment variables beside those of this process.
            extra_opts: what `smallpond.init` was given that only the platform understands.

        Returns:
            Ids that `stop_job` takes.
        """
        command = [sys.executable, entrypoint, *args]
        return [start(command, envs) for _ in range(num_nodes)]

    def stop_job(self, pid: str) -> None:
        """Stops a job that `start_job` has started, gently at first."""
        process = _started.pop(pid, None)
        if process is None:
            return
        for number, patience_s in ((signal.SIGTERM, _PATIENCE_S), (signal.SIGKILL, _PATIENCE_S)):
            with suppress(OSError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
                break
        with suppress(OSError):  # what it has left behind
            os.killpg(process.pid, signal.SIGKILL)

    def is_running(self, pid: str) -> bool:
        """Whether a job may still be running; a platform that cannot tell says yes."""
        process = _started.get(pid)
        return process is None or process.poll() is None

    @property
    def one_machine(self) -> bool:
        """Whether jobs run on this machine, so that nothing has to be reachable from others."""
        return type(self).start_job is Platform.start_job

    @staticmethod
    def default_job_id() -> str:
        """The name of a job that was given none."""
        return uuid.uuid4().hex

    @staticmethod
    def default_job_time() -> datetime:
        """When a job began that was not told, in UTC."""
        return datetime.now(UTC).replace(tzinfo=None)

    @staticmethod
    def default_data_root() -> str | None:
        """The folder or address for jobs; None for ``~/.smallpond/data``."""
        return None

    @staticmethod
    def default_memory_allocator() -> str:
        """Kept for programs written for the original; without effect."""
        return "system"

    @staticmethod
    def default_share_log_analytics() -> bool:
        """Kept for programs written for the original: nothing is shared."""
        return False

    @staticmethod
    def shared_log_root() -> str | None:
        """Kept for programs written for the original; without effect."""
        return None

    @staticmethod
    def grafana_homepath() -> str | None:
        """Kept for programs written for the original; without effect."""
        return None


def start(command: Sequence[str], envs: Mapping[str, str]) -> str:
    """Starts a process with a group of its own: Ctrl-C in a terminal is for the driver."""
    process = subprocess.Popen(  # noqa: S603 (our own entry point, or the user's own script)
        command,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **envs},
        start_new_session=True,
    )
    _started[str(process.pid)] = process
    return str(process.pid)
