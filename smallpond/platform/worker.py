"""What a platform runs on each node: a Ray worker that joins the driver's cluster.

It is a program: ``python worker.py --ray_address=HOST:PORT``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

_LOOK_S = 1.0
_PATIENCE_S = 5.0
_PACKAGES = str(Path(__file__).parents[2])


def main(arguments: Sequence[str]) -> None:
    """Joins a cluster, and stays until told to stop or until the cluster has ended.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--ray_address", required=True)
    parser.add_argument("--log_dir")
    parser.add_argument("--bind_numa_node", action="store_true", help="without effect")
    parser.add_argument(
        "--one_machine", action="store_true", help="share this machine, and end with the parent"
    )
    for name in ("num_cpus", "num_gpus", "memory", "object_store_memory"):
        parser.add_argument(f"--{name}", type=int)
    told = parser.parse_args(arguments)

    if told.log_dir:
        _log_to(Path(told.log_dir))
    # Ray's processes for Python are children of this one, and find the packages as this one does.
    paths = [_PACKAGES, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    command = ["start", f"--address={told.ray_address}", "--block", "--disable-usage-stats"]
    for name in ("num_cpus", "num_gpus", "memory", "object_store_memory"):
        value = getattr(told, name)
        if value is not None:
            command.append(f"--{name.replace('_', '-')}={value}")
    if not told.one_machine:
        _start_ray(command)
    # Nodes that share a machine need ports and sockets of their own.
    command += ["--min-worker-port=0", "--max-worker-port=0"]
    command.append(f"--dashboard-agent-listen-port={_free_port()}")
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        command.append(f"--temp-dir={folder}")
        threading.Thread(target=_end_with, args=(os.getppid(), folder), daemon=True).start()
        if told.ray_address.startswith("127.0.0.1:"):
            _keep_to_loopback()
            command.append("--node-ip-address=127.0.0.1")
        _start_ray(command)


def _start_ray(command: list[str]) -> NoReturn:
    from ray.scripts.scripts import cli  # noqa: PLC0415

    cli(command, standalone_mode=True)
    raise SystemExit(0)


def _keep_to_loopback() -> None:
    """Ray takes 127.0.0.1 for a name of the address that others reach, and would listen there."""
    from ray._private import services  # noqa: PLC0415

    services.get_node_ip_address = lambda _address=None: "127.0.0.1"


def _log_to(folder: Path) -> None:
    """Everything that is printed from now on goes to a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"worker-{socket.gethostname()}-{os.getpid()}.log"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _end_with(parent: int, folder: str) -> None:
    """A driver that was killed cannot stop its workers."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE_S)  # Ray asks the head for leave, which is gone, too
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    # Run as a file, its folder comes first, and the names in there hide those of other packages.
    sys.path[0] = _PACKAGES
    main(sys.argv[1:])
