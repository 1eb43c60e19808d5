"""Sources that change between the making of a DataFrame and its run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import smallpond
from smallpond.errors import ChangedInputError
from smallpond.storage import FileInfo, check_unchanged, filesystem_of, resolve

FEW = 8  # that are asked for one by one


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """A folder that is not there, and the options to reach it."""
    if request.param == "s3":
        return f"s3://data/{uuid.uuid4().hex}", request.getfixturevalue("s3")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}", {}
    return str(tmp_path / "data"), {}


@pytest.fixture
def session(place: tuple[str, dict[str, Any]], tmp_path: Path) -> Iterator[smallpond.Session]:
    with smallpond.init(
        data_root=str(tmp_path / "root"), cpus=2, progress=False, storage_options=place[1]
    ) as session:
        yield session


def _put(place: tuple[str, dict[str, Any]], name: str, content: bytes) -> None:
    """As another program would."""
    url, options = place
    if "://" not in url:
        Path(url).mkdir(exist_ok=True)
    protocol = url.partition("://")[0] if "://" in url else "file"
    other = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
    before = Path(url, name).stat().st_mtime_ns if Path(url, name).exists() else 0
    other.pipe_file(f"{url}/{name}", content)
    if before:  # a clock may be coarser than a test is fast
        os.utime(f"{url}/{name}", ns=(before + 1, before + 1))


def _remove(place: tuple[str, dict[str, Any]], name: str) -> None:
    filesystem, path = filesystem_of(place[0], place[1])
    filesystem.rm_file(f"{path}/{name}")


@pytest.mark.parametrize("count", [1, FEW, FEW + 1])
@pytest.mark.parametrize("what", ["as large", "larger", "gone"])
def test_a_file_that_is_another_one_is_told(
    session: smallpond.Session, place: tuple[str, dict[str, Any]], count: int, what: str
) -> None:
    for i in range(count):
        _put(place, f"{i}.csv", b"1\n")
    df = session.read_csv(place[0], schema={"n": "INTEGER"})
    assert df.count() == count  # nothing has changed
    last = f"{count - 1}.csv"
    if what == "gone":
        _remove(place, last)
    else:
        _put(place, last, b"2\n" if what == "as large" else b"1\n2\n")
    with pytest.raises(
        ChangedInputError, match=rf"/{last} is not the file any more .*make it again"
    ):
        df.agg("sum(n) as s").take_all()
    if what != "gone":
        again = session.read_csv(place[0], schema={"n": "INTEGER"})
        assert again.agg("sum(n) as s").take_all() == [
            {"s": count + (1 if what == "as large" else 2)}
        ]


def test_a_data_set_that_was_overwritten(
    session: smallpond.Session, place: tuple[str, dict[str, Any]]
) -> None:
    session.from_items([1, 2, 3]).write_parquet(place[0])
    old = session.read_parquet(place[0])
    kept = session.read_parquet(place[0]).map("item + 0 as item")
    kept.compute()
    session.from_items([4, 5]).write_parquet(place[0], mode="overwrite")
    for use in (
        old.take_all,
        old.filter("item > 1").count,
        lambda: old.write_parquet(f"{place[0]}x"),
    ):
        with pytest.raises(ChangedInputError, match="part-00000"):
            use()
    assert kept.count() == 3  # computed before
    assert session.read_parquet(place[0]).count() == 2


def test_processes_look_too(session: smallpond.Session, tmp_path: Path) -> None:
    place = (str(tmp_path / "data"), dict[str, Any]())
    _put(place, "a.csv", b"1\n")
    df = session.read_csv(place[0], schema={"n": "INTEGER"}).map(lambda row: row)
    _put(place, "a.csv", b"2\n")
    with pytest.raises(ChangedInputError, match=r"a\.csv"):
        df.take_all()


def test_nothing_is_said_of_what_is_not_known(place: tuple[str, dict[str, Any]]) -> None:
    _put(place, "a.csv", b"1\n")
    [file] = resolve(place[0], storage_options=place[1])
    check_unchanged([file], place[1])
    check_unchanged([FileInfo(f"{place[0]}/b.csv", 7, "")], place[1])  # of a table's log
    check_unchanged([], place[1])
    if "://" in place[0]:
        # A driver that says other things of a file than of a folder's files.
        check_unchanged([FileInfo(file.url, file.size_bytes, "other 1")], place[1])
        with pytest.raises(ChangedInputError):
            check_unchanged([FileInfo(file.url, file.size_bytes + 1, "other 1")], place[1])
