"""Data sets on a real S3 server."""

from __future__ import annotations

import os
import signal
import uuid
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

import smallpond
from smallpond.errors import MissingInputError, OutputError, OutputExistsError, PlanError
from smallpond.storage import DirectoryWriter, register_with_duckdb, resolve
from tests.smallpond.buckets import (
    check_that_a_late_failure_is_told,
    check_that_a_new_version_is_seen,
    check_that_one_writer_is_first,
    rows,
    stage,
    texts_of,
)


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


def _files(s3: dict[str, Any], prefix: str) -> list[str]:
    """All objects, as the server says; it keeps folders of what was removed."""
    fs = fsspec.filesystem("s3", **s3)
    fs.invalidate_cache()
    found = fs.find(prefix, detail=True).values()
    return sorted(info["name"] for info in found if info["type"] == "file")


def test_there_and_back(on_s3: smallpond.Session, prefix: str) -> None:
    df = on_s3.from_arrow(rows(1000)).repartition(4, by_rows=True)
    df.write_parquet(f"{prefix}/out")
    back = on_s3.read_parquet(f"{prefix}/out")
    assert back.sort("v").to_arrow().equals(rows(1000))
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
    df = on_s3.from_arrow(rows(10))
    getattr(df, f"write_{kind}")(f"{prefix}/out")
    back = getattr(on_s3, f"read_{kind}")(f"{prefix}/out")
    assert back.sort("v").take_all() == rows(10).to_pylist()


def test_modes(on_s3: smallpond.Session, prefix: str) -> None:
    df = on_s3.from_arrow(rows(10))
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
    check_that_a_late_failure_is_told(on_s3, prefix)
    assert _files(s3, prefix) == []
    with pytest.raises(MissingInputError):
        on_s3.read_parquet(prefix)
    on_s3.from_arrow(rows(3)).write_parquet(prefix)
    assert on_s3.read_parquet(prefix).count() == 3


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
        df = sp.from_arrow(rows(1000)).repartition(3, hash_by="k").map(lambda row: row)
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


# ---- the storage itself


def test_duckdb_reads_what_it_needs(s3: dict[str, Any], prefix: str) -> None:
    fs = fsspec.filesystem("s3", **s3)
    for i in range(3):
        with fs.open(f"{prefix}/h={i}/a.parquet", "wb") as file:
            pq.write_table(rows(1000), file, row_group_size=100)
    [*files] = resolve(f"{prefix}/**/*.parquet", storage_options=s3)
    assert [info.url for info in files] == [f"{prefix}/h={i}/a.parquet" for i in range(3)]
    names = str([info.url for info in files])
    query = f"SELECT h, sum(v) FROM read_parquet({names}) WHERE v >= 998 GROUP BY h ORDER BY h"
    with duckdb.connect() as con:

        def ask(_: int) -> Any:
            cursor = con.cursor()
            register_with_duckdb(cursor, [info.url for info in files], s3)
            return cursor.execute(query).fetchall()

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, range(16))) == [[(i, 1997) for i in range(3)]] * 16
        target = f"{prefix}/copy.parquet".replace("s3://", "s3a://")
        register_with_duckdb(con, [target], s3)
        con.execute(f"COPY (SELECT 1 AS one) TO '{target}' (FORMAT parquet)").fetchall()
        assert con.execute(f"SELECT one FROM '{prefix}/copy.parquet'").fetchall() == [(1,)]


def test_listings(s3: dict[str, Any], prefix: str) -> None:
    fs = fsspec.filesystem("s3", **s3)
    names = ["a.csv", "b.txt", "x/c.csv", "x/y/d.csv", "_tmp/e.csv", ".f.csv", "_k=1/g.csv"]
    fs.pipe({f"{prefix}/{name}": b"1" for name in names})
    fs.touch(f"{prefix}/made.csv/")  # a folder, as consoles make them

    def found(path: str, **options: Any) -> list[str]:
        infos = resolve(f"{prefix}{path}", suffixes=[".csv"], storage_options=s3, **options)
        return [info.url.removeprefix(f"{prefix}/") for info in infos]

    assert found("") == ["a.csv"]
    assert found("", recursive=True) == ["_k=1/g.csv", "a.csv", "x/c.csv", "x/y/d.csv"]
    assert found("/**") == ["_k=1/g.csv", "a.csv", "b.txt", "x/c.csv", "x/y/d.csv"]
    assert found("/*") == ["_k=1/g.csv", "a.csv", "b.txt", "x/c.csv"]
    assert found("/*/*/[cd].csv") == ["x/y/d.csv"]
    assert found("/_tmp/*.csv") == ["_tmp/e.csv"]


def test_what_another_process_does_is_seen(s3: dict[str, Any], prefix: str) -> None:
    check_that_a_new_version_is_seen(s3, prefix)


def test_a_fork_reaches_the_server(s3: dict[str, Any], prefix: str) -> None:
    fs = fsspec.filesystem("s3", **s3)
    fs.pipe_file(f"{prefix}/a.csv", b"1")
    assert len(resolve(prefix, storage_options=s3)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are threads, none of which the child needs
        child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(len(resolve(prefix, storage_options=s3)) + 41)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


# ---- writers


def _commit(s3: dict[str, Any], prefix: str, mode: str, texts: list[str]) -> list[str]:
    with DirectoryWriter(prefix, mode, storage_options=s3) as writer:
        return writer.commit(stage(s3, writer, texts))


@pytest.mark.parametrize("mode", ["error", "overwrite"])
def test_wherever_a_commit_fails_everything_is_as_it_was(
    s3: dict[str, Any], prefix: str, mode: str
) -> None:
    call = S3FileSystem._call_s3
    before = [] if mode == "error" else ["old", "older"]
    after = ["new", "newer"]
    failures = 0
    for number in range(1, 100):
        place = f"{prefix}/{number}"
        _commit(s3, place, "error", before)
        count = 0

        async def failing(
            self: Any, method: str, *args: Any, number: int = number, **kw: Any
        ) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise OSError(5, f"no {method} today")
            return await call(self, method, *args, **kw)

        with DirectoryWriter(place, mode, storage_options=s3) as writer:
            files = stage(s3, writer, ["new", "newer"])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(S3FileSystem, "_call_s3", failing)
                try:
                    writer.commit(files)
                except OutputError:
                    failures += 1
                    expected = before
                else:
                    expected = after
        assert texts_of(s3, place) == expected
        assert not [name for name in _files(s3, place) if "/_" in name]
        if count < number:
            break
    assert expected == after
    assert failures >= 2


def test_of_writers_at_once_one_is_first(s3: dict[str, Any], prefix: str) -> None:
    check_that_one_writer_is_first(s3, prefix)
    assert len(_files(s3, prefix)) == 5


def test_names_that_look_like_patterns(s3: dict[str, Any], prefix: str) -> None:
    fs = fsspec.filesystem("s3", **s3)
    fs.pipe({f"{prefix}/*.txt": b"star", f"{prefix}x/keep.txt": b"keep"})
    _commit(s3, prefix, "overwrite", ["new"])
    assert texts_of(s3, prefix) == ["new"]
    fs.pipe_file(f"{prefix}/a[1]/*", b"star")
    _commit(s3, f"{prefix}/a[1]", "overwrite", ["newer"])
    assert texts_of(s3, f"{prefix}/a[1]") == ["newer"]
    assert len(_files(s3, prefix)) == 2
    assert texts_of(s3, f"{prefix}x") == ["keep"]


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_plan_may_read_the_folder_that_it_writes(
    on_s3: smallpond.Session, prefix: str, mode: str
) -> None:
    on_s3.from_arrow(rows(100)).write_parquet(prefix)
    on_s3.read_parquet(prefix).filter("v < 10").write_parquet(prefix, mode=mode)
    assert on_s3.read_parquet(prefix).count() == (10 if mode == "overwrite" else 110)


def test_a_removal_that_says_nothing_is_looked_at(
    s3: dict[str, Any], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many objects at once a store may refuse some, without an error of the driver's."""

    async def refuse(*_: Any, **__: Any) -> list[str]:
        return []

    _commit(s3, prefix, "error", ["old"])
    with DirectoryWriter(prefix, "overwrite", storage_options=s3) as writer:
        files = stage(s3, writer, ["new"])
        with monkeypatch.context() as patch:
            patch.setattr(S3FileSystem, "_bulk_delete", refuse)
            with pytest.raises(OutputError, match=r"cannot be overwritten: data/.*/part-00000.txt"):
                writer.commit(files)


# ---- what cannot be reached


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
def test_no_bucket_is_made_for_a_misspelt_name(s3: dict[str, Any], mode: str) -> None:
    with pytest.raises(OutputError, match="there is no bucket dota"):
        DirectoryWriter("s3://dota/out", mode, storage_options=s3)
    assert not fsspec.filesystem("s3", skip_instance_cache=True, **s3).exists("dota")


def test_a_wrong_key_is_told_to_a_writer(s3: dict[str, Any], prefix: str) -> None:
    with pytest.raises(OutputError, match=f"{prefix}.*may not be seen with these storage_options"):
        DirectoryWriter(prefix, "append", storage_options={**s3, "secret": "not the secret"})


def test_no_key_at_all_is_told(
    s3: dict[str, Any], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delitem(fsspec.config.conf, "s3", raising=False)  # a session's
    options = {"client_kwargs": s3["client_kwargs"]}
    with pytest.raises(PlanError, match=r"Unable to locate credentials \(storage_options= takes"):
        resolve(f"{prefix}/*.csv", storage_options=options)
    with pytest.raises(PlanError, match="s3:// cannot be read"):
        resolve("s3://", storage_options=s3)
