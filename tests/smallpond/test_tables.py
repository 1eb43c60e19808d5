"""Delta and Iceberg tables, made by their own libraries."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import smallpond
from smallpond.errors import MissingInputError, PlanError

deltalake = pytest.importorskip("deltalake", reason="needs deltalake")
pytest.importorskip("pyiceberg", reason="needs pyiceberg")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def _rows(begin: int, end: int) -> pa.Table:
    return pa.table({"k": [f"k{i % 3}" for i in range(begin, end)], "v": list(range(begin, end))})


def test_delta_versions(sp: smallpond.Session, tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    deltalake.write_deltalake(path, _rows(0, 10))
    deltalake.write_deltalake(path, _rows(10, 30), mode="append")
    assert sp.read_delta(path).sort("v").take_all() == _rows(0, 30).to_pylist()
    assert sp.read_delta(path, version=0).agg("sum(v) as s").take_all() == [{"s": 45}]
    deltalake.write_deltalake(path, _rows(90, 92), mode="overwrite")
    # The files of the versions before still lie in the folder.
    assert sp.read_delta(path).sort("v").take_all() == _rows(90, 92).to_pylist()


def test_delta_partition_columns(sp: smallpond.Session, tmp_path: Path) -> None:
    path = str(tmp_path / "table")
    deltalake.write_deltalake(path, _rows(0, 30), partition_by=["k"])
    df = sp.read_delta(path)
    assert sorted(df.columns) == ["k", "v"]
    assert df.filter("k = 'k1'").agg("sum(v) as s").take_all() == [{"s": sum(range(1, 30, 3))}]
    assert df.map(lambda _: {"n": 1}).agg("sum(n) as n").take_all() == [{"n": 30}]


def test_what_is_no_delta_table(sp: smallpond.Session, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="read_delta: no Delta table at"):
        sp.read_delta(str(tmp_path))


def test_iceberg_snapshots(sp: smallpond.Session, tmp_path: Path) -> None:
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415 (it may be absent)

    warehouse = tmp_path / "warehouse"
    warehouse.mkdir()
    catalog = SqlCatalog(
        "c", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{warehouse}"
    )
    catalog.create_namespace("n")
    table = catalog.create_table("n.t", schema=_rows(0, 1).schema)
    table.append(_rows(0, 10))
    first = table.current_snapshot()
    assert first is not None
    table.append(_rows(10, 30))
    folder = table.location().removeprefix("file://")
    assert sp.read_iceberg(folder).sort("v").take_all() == _rows(0, 30).to_pylist()
    assert sp.read_iceberg(table.metadata_location).count() == 30
    old = sp.read_iceberg(folder, snapshot_id=first.snapshot_id)
    assert old.agg("sum(v) as s").take_all() == [{"s": 45}]
    table.overwrite(_rows(90, 92))
    assert sp.read_iceberg(folder).sort("v").take_all() == _rows(90, 92).to_pylist()
    catalog.close()


def test_what_is_no_iceberg_table(sp: smallpond.Session, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="read_iceberg: no metadata file in"):
        sp.read_iceberg(str(tmp_path))
    with pytest.raises(PlanError):
        sp.read_iceberg(str(tmp_path / "v1.metadata.json"))


def test_tables_on_s3(s3: dict[str, Any], tmp_path: Path) -> None:
    path = f"s3://data/{uuid.uuid4().hex}"
    options = {
        "AWS_ACCESS_KEY_ID": s3["key"],
        "AWS_SECRET_ACCESS_KEY": s3["secret"],
        "AWS_ENDPOINT_URL": s3["client_kwargs"]["endpoint_url"],
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
    }
    deltalake.write_deltalake(path, _rows(0, 10), storage_options=options)
    with smallpond.init(data_root=str(tmp_path), progress=False, storage_options=s3) as sp:
        assert sp.read_delta(path).sort("v").take_all() == _rows(0, 10).to_pylist()
