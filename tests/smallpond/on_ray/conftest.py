"""What tests on a Ray cluster ask for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import smallpond
from tests.smallpond.ray_cluster import connected

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster(two_nodes: Any) -> Iterator[Any]:
    """Two nodes, to which this process is connected."""
    with connected(two_nodes.address):
        yield two_nodes


@pytest.fixture
def on_ray(cluster: Any, tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session on the cluster."""
    root = str(tmp_path / "ray")
    with smallpond.init(data_root=root, ray_address=cluster.address, progress=False) as session:
        yield session


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs from their text, with arguments; they end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object) -> subprocess.Popen[str]:
        script = tmp_path / "program.py"
        script.write_text(text)
        started.append(
            subprocess.Popen(
                [sys.executable, str(script), *map(str, arguments)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):  # with what Ray has left behind
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
