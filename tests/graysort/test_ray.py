"""The command on a Ray cluster of two nodes, which are processes of this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.graysort.records import generate
from tests.graysort import oracle

pytest.importorskip("ray", reason="needs ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
_SETTINGS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Two nodes with a processor each, all on loopback."""
    for name, value in _SETTINGS.items():
        monkeypatch.setenv(name, value)
    from ray._private import ray_constants  # noqa: PLC0415 (reads the settings)
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    cluster: Any = Cluster(
        initialize_head=True, head_node_args=_NODE | {"include_dashboard": False}
    )
    cluster.add_node(**_NODE)
    cluster.wait_for_nodes()
    yield cluster.address
    cluster.shutdown()


def test_sort_on_ray(address: str, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    command = [sys.executable, "-m", "benchmarks.graysort", "--bytes", "60M", "--skewed", "--keep"]
    command += ["--data-root", str(tmp_path / "data"), "--ray", address, "--json", str(file)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        env=os.environ | _SETTINGS, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "valid: in order" in done.stdout
    document = json.loads(file.read_text())
    assert document["phases"]["partition"]["num_tasks"] == 3
    (output,) = (tmp_path / "data").glob("*/sorted.dat")
    data = generate(0, 600_000, skewed=True).tobytes()
    assert output.read_bytes() == oracle.sorted_records(data)
