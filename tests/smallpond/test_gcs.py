"""Data sets on a Google Cloud Storage emulator."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.registry import _registry

import smallpond
from smallpond.errors import MissingInputError, OutputError, OutputExistsError
from smallpond.storage import DirectoryWriter, resolve

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


def _rows(count: int) -> pa.Table:
    return pa.table({"k": [i % 3 for i in range(count)], "v": list(range(count))})


def _objects(gcs: dict[str, Any], prefix: str) -> list[str]:
    fs = fsspec.filesystem("gs", **gcs)
    fs.invalidate_cache()
    return [f"gs://{name}" for name in fs.find(prefix)]


def test_there_and_back(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    on_gcs.from_arrow(_rows(1000)).repartition(4, by_rows=True).write_parquet(f"{prefix}/out")
    names = [f"{prefix}/out/part-0000{i}.parquet" for i in range(4)]
    assert _objects(gcs, prefix) == names
    back = on_gcs.read_parquet(f"{prefix}/out")
    assert back.sort("v").to_arrow().equals(_rows(1000))
    assert on_gcs.read_parquet(f"{prefix}/out/part-0000[12].parquet").count() == 500
    # In processes that got the options from the driver, one row range of a file each.
    assert back.map(lambda row: {"w": row["v"] * 2}).agg("sum(w) as s").take_all() == [
        {"s": 999_000}
    ]


def test_partitions_in_folders(on_gcs: smallpond.Session, prefix: str) -> None:
    on_gcs.from_arrow(_rows(10)).write_parquet(prefix, partition_by="k")
    back = on_gcs.read_parquet(prefix, recursive=True)
    assert back.filter("k = 1").sort("v").take_all() == [{"v": v, "k": 1} for v in (1, 4, 7)]
    assert on_gcs.read_parquet(f"{prefix}/k=[02]/*.parquet").count() == 7
    assert on_gcs.read_parquet(f"{prefix}/**").count() == 10


@pytest.mark.parametrize("kind", ["csv", "json", "ipc"])
def test_other_formats(on_gcs: smallpond.Session, prefix: str, kind: str) -> None:
    getattr(on_gcs.from_arrow(_rows(10)), f"write_{kind}")(prefix)
    assert getattr(on_gcs, f"read_{kind}")(prefix).sort("v").take_all() == _rows(10).to_pylist()


def test_modes(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    df = on_gcs.from_arrow(_rows(10))
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
    def fail(row: dict[str, Any]) -> dict[str, Any]:
        if row["v"] == 900:
            raise ValueError("no nine hundred")
        return row

    df = on_gcs.from_arrow(_rows(1000)).repartition(4, by_rows=True).map(fail)
    with pytest.raises(smallpond.errors.TaskError, match="no nine hundred"):
        df.write_parquet(prefix)
    assert _objects(gcs, prefix) == []


def test_what_is_not_there(on_gcs: smallpond.Session, prefix: str, gcs: dict[str, Any]) -> None:
    for path in (f"{prefix}/*.parquet", f"{prefix}/a.parquet", "gs://nosuchbucket/a/*.parquet"):
        with pytest.raises(FileNotFoundError):
            on_gcs.read_parquet(path)
    with pytest.raises(OutputError, match="there is no bucket dota"):
        DirectoryWriter("gs://dota/out", "append", storage_options=gcs)
    assert not fsspec.filesystem("gs", **gcs).exists("dota")


def test_a_new_version_is_seen(prefix: str, gcs: dict[str, Any]) -> None:
    other = fsspec.filesystem("gs", skip_instance_cache=True, **gcs)
    other.pipe_file(f"{prefix}/a.csv", b"1")
    [before] = resolve(prefix, storage_options=gcs)
    other.pipe({f"{prefix}/a.csv": b"2", f"{prefix}/b.csv": b"3"})
    after, _ = resolve(prefix, storage_options=gcs)
    assert (before.url, before.size_bytes) == (after.url, after.size_bytes)
    assert before.version != after.version


def _stage(gcs: dict[str, Any], writer: DirectoryWriter, texts: list[str]) -> list[str]:
    files = {f"{writer.staging}/{text}.txt": text.encode() for text in texts}
    fsspec.filesystem("gs", **gcs).pipe(files)
    return list(files)


def _texts(gcs: dict[str, Any], prefix: str) -> list[str]:
    """What a reader sees."""
    fs = fsspec.filesystem("gs", **gcs)
    try:
        found = resolve(prefix, recursive=True, storage_options=gcs)
    except MissingInputError:
        return []
    return sorted(fs.cat_file(info.url).decode() for info in found)


def test_of_writers_at_once_one_is_first(prefix: str, gcs: dict[str, Any]) -> None:
    barrier = threading.Barrier(4)

    def write(number: int, mode: str) -> int:
        with DirectoryWriter(prefix, mode, storage_options=gcs) as writer:
            files = _stage(gcs, writer, [f"{number}-{i}" for i in range(5)])
            barrier.wait()
            try:
                writer.commit(files)
            except OutputExistsError:
                return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4), ["error"] * 4)) == 1
        [first] = {text[0] for text in _texts(gcs, prefix)}
        assert _texts(gcs, prefix) == [f"{first}-{i}" for i in range(5)]
        assert sum(pool.map(write, range(4), ["overwrite"] * 4)) == 4
        [last] = {text[0] for text in _texts(gcs, prefix)}
        assert _texts(gcs, prefix) == [f"{last}-{i}" for i in range(5)]
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
        writer.commit(_stage(gcs, writer, [str(i) for i in range(50)]))
    assert _texts(gcs, prefix) == sorted(str(i) for i in range(50))
