"""Data sets on a real S3 server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

import smallpond
from smallpond.errors import MissingInputError, OutputExistsError, PlanError


@pytest.fixture
def on_s3(s3: dict[str, Any], tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session that reaches the server."""
    root = str(tmp_path / "root")
    with smallpond.init(data_root=root, cpus=2, progress=False, storage_options=s3) as session:
        yield session


@pytest.fixture
def prefix() -> str:
    """An address that nobody else uses."""
    return f"s3://data/{uuid.uuid4().hex}"


def _rows(count: int) -> pa.Table:
    return pa.table({"k": [i % 3 for i in range(count)], "v": list(range(count))})


def test_there_and_back(on_s3: smallpond.Session, prefix: str) -> None:
    df = on_s3.from_arrow(_rows(1000)).repartition(4, by_rows=True)
    df.write_parquet(f"{prefix}/out")
    back = on_s3.read_parquet(f"{prefix}/out")
    assert back.sort("v").to_arrow().equals(_rows(1000))
    assert back.filter("v >= 990").select("v").sort("v").take_all() == [
        {"v": v} for v in range(990, 1000)
    ]
    assert on_s3.read_parquet(f"{prefix}/out/part-0000[12].parquet").count() == 500
    assert back.map(lambda row: {"w": row["v"] * 2}).agg("sum(w) as s").take_all() == [
        {"s": 999_000}
    ]
    assert back.repartition(3, by_rows=True).partial_sort("v").count() == 1000


@pytest.mark.parametrize("kind", ["csv", "json", "ipc"])
def test_other_formats(on_s3: smallpond.Session, prefix: str, kind: str) -> None:
    df = on_s3.from_arrow(_rows(10))
    getattr(df, f"write_{kind}")(f"{prefix}/out")
    back = getattr(on_s3, f"read_{kind}")(f"{prefix}/out")
    assert back.sort("v").take_all() == _rows(10).to_pylist()


def test_modes(on_s3: smallpond.Session, prefix: str) -> None:
    df = on_s3.from_arrow(_rows(10))
    df.write_parquet(prefix)
    with pytest.raises(OutputExistsError):
        df.write_parquet(prefix)
    df.write_parquet(prefix, mode="append")
    assert on_s3.read_parquet(prefix).count() == 20
    df.limit(3).write_parquet(prefix, mode="overwrite")
    assert on_s3.read_parquet(prefix).count() == 3
    df.write_parquet(f"{prefix}x", partition_by="k")
    assert on_s3.read_parquet(f"{prefix}x", recursive=True).filter("k = 1").count() == 3


def test_a_failure_leaves_no_object(
    on_s3: smallpond.Session, prefix: str, s3: dict[str, Any]
) -> None:
    def fail(row: dict[str, Any]) -> dict[str, Any]:
        if row["v"] == 900:
            raise ValueError("no nine hundred")
        return row

    df = on_s3.from_arrow(_rows(1000)).repartition(4, by_rows=True).map(fail)
    with pytest.raises(smallpond.errors.TaskError, match="no nine hundred"):
        df.write_parquet(prefix)
    fs = fsspec.filesystem("s3", **s3)
    fs.invalidate_cache()
    # This server keeps the folder of what was removed as an object of its own.
    assert set(fs.find(prefix)) <= {prefix.removeprefix("s3://")}


def test_many_files(on_s3: smallpond.Session, prefix: str, s3: dict[str, Any]) -> None:
    fs = fsspec.filesystem("s3", **s3)
    fs.pipe({f"{prefix}/{i:04d}.csv": f"{i}\n".encode() for i in range(200)})
    df = on_s3.read_csv(f"{prefix}/*.csv", schema={"i": "INTEGER"})
    assert df.agg("sum(i) as s", "count(*) as n").take_all() == [{"s": 19_900, "n": 200}]


def test_what_is_not_there(on_s3: smallpond.Session, prefix: str) -> None:
    for path in (f"{prefix}/*.parquet", f"{prefix}/a.parquet", "s3://nosuchbucket/a/*.parquet"):
        with pytest.raises(MissingInputError):
            on_s3.read_parquet(path)


def test_a_wrong_key_is_told(s3: dict[str, Any], tmp_path: Path) -> None:
    wrong = {**s3, "secret": "not the secret"}
    with (
        smallpond.init(data_root=str(tmp_path), progress=False, storage_options=wrong) as sp,
        pytest.raises(PlanError, match="cannot be read"),
    ):
        sp.read_parquet("s3://data/x/*.parquet")


def test_hand_off_files_may_lie_there(s3: dict[str, Any], prefix: str) -> None:
    with smallpond.init(
        data_root=f"{prefix}/root", cpus=2, progress=False, storage_options=s3
    ) as sp:
        df = sp.from_arrow(_rows(1000)).repartition(3, hash_by="k").map(lambda row: row)
        assert df.group_by("k", npartitions=2).agg("count(*) as n").sort("k").take_all() == [
            {"k": 0, "n": 334},
            {"k": 1, "n": 333},
            {"k": 2, "n": 333},
        ]
        df.compute()
        assert sum(batch.num_rows for batch in df.iter_batches(100)) == 1000
    fs = fsspec.filesystem("s3", **s3)
    fs.invalidate_cache()
    assert not [name for name in fs.find(f"{prefix}/root") if name.endswith((".arrow", ".json"))]
