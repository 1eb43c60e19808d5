"""Data sets on a Hugging Face Hub."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smallpond
from smallpond.errors import PlanError
from smallpond.storage import DirectoryWriter, resolve
from tests.smallpond.hub_server import REPO, hub_server

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
PLACE = f"hf://datasets/{REPO}"


def _parquet(values: list[int]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"v": values}), file)
    return file.getvalue()


@pytest.fixture
def files() -> dict[str, bytes]:
    """What the data set consists of; a test may change it."""
    return {
        "README.md": b"A set",
        "all.parquet": _parquet(list(range(10))),
        "by/k=1/a.parquet": _parquet(list(range(1000))),
        "by/k=2/b.parquet": _parquet([5, 6]),
    }


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    with hub_server(files) as server:
        yield server


@pytest.fixture
def on_hub(hub: tuple[dict[str, Any], list[str]], tmp_path: Path) -> Iterator[smallpond.Session]:
    """A session that reaches the server."""
    with smallpond.init(
        data_root=str(tmp_path), cpus=2, progress=False, storage_options=hub[0]
    ) as session:
        yield session


def test_reading(on_hub: smallpond.Session) -> None:
    for path in (PLACE, f"{PLACE}/*.parquet", f"{PLACE}/all.parquet", f"{PLACE}@main/all.parquet"):
        assert on_hub.read_parquet(path).sort("v").to_arrow().column("v").to_pylist() == [
            *range(10)
        ]
    back = on_hub.read_parquet(f"{PLACE}/by", recursive=True)
    assert back.group_by("k").agg("sum(v) as s").sort("k").take_all() == [
        {"k": 1, "s": 499_500},
        {"k": 2, "s": 11},
    ]
    # In processes that got the options from the driver.
    doubled = on_hub.read_parquet(f"{PLACE}/by/**").map(lambda row: {"w": row["v"] * 2})
    assert doubled.agg("sum(w) as s").take_all() == [{"s": 999_022}]


@pytest.mark.parametrize(
    "path", [f"{PLACE}/no.parquet", f"{PLACE}/no*.parquet", "hf://datasets/owner/other/a.parquet"]
)
def test_what_is_not_there(on_hub: smallpond.Session, path: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file or folder|matches no file"):
        on_hub.read_parquet(path)


def test_a_new_version_is_seen(
    hub: tuple[dict[str, Any], list[str]], files: dict[str, bytes]
) -> None:
    [before] = resolve(f"{PLACE}/README.md", storage_options=hub[0])
    files["README.md"] = b"B set"
    [after] = resolve(f"{PLACE}/README.md", storage_options=hub[0])
    assert (before.url, before.size_bytes) == (after.url, after.size_bytes)
    assert before.version != after.version


def test_writing_is_refused_before_anything_is_done(
    on_hub: smallpond.Session, hub: tuple[dict[str, Any], list[str]]
) -> None:
    calls: list[Any] = []
    df = on_hub.from_items([1, 2]).map(calls.append, schema=pa.schema([("a", pa.int64())]))
    on_hub.on_event(calls.append)
    for protocol in ("hf", "https"):
        with pytest.raises(PlanError, match=rf"/out cannot be written: {protocol}:// is only read"):
            df.write_parquet(f"{protocol}{PLACE.removeprefix('hf')}/out")
    assert (calls, hub[1]) == ([], [])
    with pytest.raises(PlanError, match=r"upload that with the tools of the place"):
        DirectoryWriter(PLACE, "append", storage_options=hub[0])
