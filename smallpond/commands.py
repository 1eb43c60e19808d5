"""Other programs, line by line."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Mapping


def execute_command(
    cmd: str, env: Mapping[str, str] | None = None, shell: bool = False
) -> Iterator[str]:
    """Runs a program, and yields the lines that it writes, those to stderr among them.

    It starts with the first line that is asked for, and is killed if no more are.

    Args:
        cmd: program and arguments, quoted as for a shell.
        env: its whole environment; that of this process by default.
        shell: have a shell run it, for pipes and patterns.

    Raises:
        subprocess.CalledProcessError: its exit status is not zero, known after the last line.
    """
    with subprocess.Popen(  # noqa: S603 (the caller's own command)
        cmd if shell else shlex.split(cmd),
        env=env,
        shell=shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            for line in process.stdout or ():
                yield line.rstrip()
            status = process.wait()
        finally:
            process.kill()
    if status != 0:
        raise subprocess.CalledProcessError(status, cmd)
