"""Ray nodes that are processes of this machine, on loopback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# A head asks its nodes whether they are there; by itself it takes 15 s to find out.
SOON = {"RAY_health_check_period_ms": "300", "RAY_health_check_initial_delay_ms": "300"}
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
# What Ray's own code warns of.
QUIET_RAY = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
_LOOPBACK = {"0100007F", 24 * "0" + "01000000", "0000000000000000FFFF00000100007F"}


@contextmanager
def ray_cluster(*, head_cpus: int = 1, others: int = 1) -> Iterator[Any]:
    """A head and other nodes with a processor each; `add_node(**NODE)` gives one more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray's way to say loopback
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in SOON.items():
            patch.setenv(name, value)
        from ray._private import ray_constants  # noqa: PLC0415 (reads the settings)
        from ray.cluster_utils import Cluster  # noqa: PLC0415

        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
        head = {**NODE, "num_cpus": head_cpus, "include_dashboard": False}
        cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(others):
                cluster.add_node(**NODE)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Sessions in this process use the connection that there is; one of their own takes longer.

    A process has one connection at a time: an earlier one ends.
    """
    import ray  # noqa: PLC0415 (may not be there)

    ray.shutdown()
    ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def public_listeners(root_pid: int) -> list[str]:
    """Addresses other than loopback on which a process or one below it listens."""
    inodes = set()
    for pid in _family(root_pid):
        for descriptor in _links(Path(f"/proc/{pid}/fd")):
            if descriptor.startswith("socket:["):
                inodes.add(descriptor[len("socket:[") : -1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            listens = fields[3] == "0A"
            if listens and fields[9] in inodes and fields[1].partition(":")[0] not in _LOOPBACK:
                found.append(fields[1])
    return found


def _family(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(status[1]), []).append(int(folder.name))
    family = [pid]
    for member in family:
        family.extend(parents.get(member, []))
    return family


def _links(folder: Path) -> list[str]:
    links = []
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    for entry in entries:
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue
    return links
