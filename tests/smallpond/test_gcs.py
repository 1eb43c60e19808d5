"""Data sets on a Google Cloud Storage emulator."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.registry import _registry

import smallpond
from smallpond.errors import OutputError, OutputExistsError
from smallpond.storage import DirectoryWriter
from tests.smallpond.buckets import (
    check_that_a_late_failure_is_told,
    check_that_a_new_version_is_seen,
    check_that_one_writer_is_first,
    rows,
    stage,
    texts_of,
)

gcsfs = pytest.importorskip("gcsfs", reason="needs gcsfs")


@pytest.fixture(params=["plain", "extended"], autouse=True)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both classes of gcsfs; which of them it is depends on what else is installed."""
    from gcsfs.core import GCSFileSystem  # noqa: PLC0415
    from gcsfs.extended_gcsfs import BucketType, ExtendedGcsFileSystem  # noqa: PLC0415

    async def plain(self: Any, bucket: str) -> Any:
        return BucketType.NON_HIERARCHICAL

    monkeypatch.setattr(ExtendedGcsFileSystem, "_get_bucket_type", plain)
    chosen = GCSFileSystem if request.param == "plain" else ExtendedGcsFileSystem
    monkeypatch.setitem(_registry, "gs", chosen)


@pytest.fixture
def on_gcs(gcs: dict[str, Any], tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session that reaches the server."""
    root = str(tmp_path / "root")
    with smallpond.init(data_root=root, cpus=2, progress=False, storage_options=gcs) as session:
        yield session


@pytest.fixture
def prefix() -> str:
    """An address that nobody else uses."""
    return f"gs://data/{uuid.uuid4().hex}"


def _objects(gcs: dict[str, Any], prefix: str) -> list[str]:
    fs = fsspec.filesystem("gs", **gcs)
    fs.invalidate_cache()
    return [f"gs://{name}" for name in fs.find(prefix)]


def test_there_and_back(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    on_gcs.from_arrow(rows(1000)).repartition(4, by_rows=True).write_parquet(f"{prefix}/out")
    names = [f"{prefix}/out/part-0000{i}.parquet" for i in range(4)]
    assert _objects(gcs, prefix) == names
    back = on_gcs.read_parquet(f"{prefix}/out")
    assert back.sort("v").to_arrow().equals(rows(1000))
    assert on_gcs.read_parquet(f"{prefix}/out/part-0000[12].parquet").count() == 500
    # In processes that got the options from the driver, one row range of a file each.
    assert back.map(lambda row: {"w": row["v"] * 2}).agg("sum(w) as s").take_all() == [
        {"s": 999_000}
    ]


def test_partitions_in_folders(on_gcs: smallpond.Session, prefix: str) -> None:
    on_gcs.from_arrow(rows(10)).write_parquet(prefix, partition_by="k")
    back = on_gcs.read_parquet(prefix, recursive=True)
    assert back.filter("k = 1").sort("v").take_all() == [{"v": v, "k": 1} for v in (1, 4, 7)]
    assert on_gcs.read_parquet(f"{prefix}/k=[02]/*.parquet").count() == 7
    assert on_gcs.read_parquet(f"{prefix}/**").count() == 10


@pytest.mark.parametrize("kind", ["csv", "json", "ipc"])
def test_other_formats(on_gcs: smallpond.Session, prefix: str, kind: str) -> None:
    getattr(on_gcs.from_arrow(rows(10)), f"write_{kind}")(prefix)
    assert getattr(on_gcs, f"read_{kind}")(prefix).sort("v").take_all() == rows(10).to_pylist()


def test_modes(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    df = on_gcs.from_arrow(rows(10))
    df.write_parquet(prefix)
    with pytest.raises(OutputExistsError, match=r"holds data already \(pass mode="):
        df.write_parquet(prefix)
    df.write_parquet(prefix, mode="append")
    assert on_gcs.read_parquet(prefix).count() == 20
    on_gcs.read_parquet(prefix).limit(3).write_parquet(prefix, mode="overwrite")
    assert on_gcs.read_parquet(prefix).count() == 3
    assert len(_objects(gcs, prefix)) == 1


def test_a_failure_leaves_no_object(
    on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]
) -> None:
    check_that_a_late_failure_is_told(on_gcs, prefix)
    assert _objects(gcs, prefix) == []


def test_what_is_not_there(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    for path in (f"{prefix}/*.parquet", f"{prefix}/a.parquet", "gs://nosuchbucket/a/*.parquet"):
        with pytest.raises(FileNotFoundError):
            on_gcs.read_parquet(path)
    with pytest.raises(OutputError, match="there is no bucket dota"):
        DirectoryWriter("gs://dota/out", "append", storage_options=gcs)
    assert not fsspec.filesystem("gs", **gcs).exists("dota")


def test_a_new_version_is_seen(prefix: str, gcs: dict[str, Any]) -> None:
    check_that_a_new_version_is_seen(gcs, prefix)


def test_of_writers_at_once_one_is_first(prefix: str, gcs: dict[str, Any]) -> None:
    check_that_one_writer_is_first(gcs, prefix)
    assert len(_objects(gcs, prefix)) == 5


def test_many_objects_are_copied_at_once(
    prefix: str, gcs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket has no rename, whatever the driver calls its own copy-and-delete."""
    fs = fsspec.filesystem("gs", **gcs)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("moved one by one")

    monkeypatch.setattr(type(fs), "mv", refuse)
    with DirectoryWriter(prefix, "error", storage_options=gcs) as writer:
        writer.commit(stage(gcs, writer, [str(i) for i in range(50)]))
    assert texts_of(gcs, prefix) == sorted(str(i) for i in range(50))
