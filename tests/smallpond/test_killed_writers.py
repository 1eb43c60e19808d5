"""What is left of writers that were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import smallpond
from smallpond.errors import OutputExistsError
from smallpond.storage import DirectoryWriter, resolve, stale

_WRITER = """
import shutil, sys, time
from pathlib import Path
import smallpond.storage.folder as folder
from smallpond.storage import DirectoryWriter

out, example, stop = sys.argv[1:]

def wait(*_, **__):
    print("here", flush=True)
    sys.stdin.read()

if stop == "between":
    rename = Path.rename
    Path.rename = lambda self, to: wait() if self.name == "ready" else rename(self, to)
if stop == "after":
    shutil.rmtree = wait
with DirectoryWriter(out, "overwrite") as writer:
    file = Path(writer.staging) / "task" / "data.parquet"
    file.parent.mkdir(parents=True)
    shutil.copy(example, file)
    if stop == "staged":
        wait()
    writer.commit([str(file)])
"""


@contextlib.contextmanager
def _writer(out: Path, stop: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, that has come to some point of its writing."""
    example = out.parent.parent / "example.parquet"
    pq.write_table(pa.table({"item": [7, 8]}), example)
    command = [sys.executable, "-c", _WRITER, str(out), str(example), stop]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def _kill(out: Path, stop: str) -> None:
    with _writer(out, stop):
        pass


@pytest.fixture
def out(sp: smallpond.Session, tmp_path: Path) -> Path:
    """A data set of 1, 2, 3 in a folder that holds nothing else."""
    out = tmp_path / "above" / "out"
    out.parent.mkdir()
    sp.from_items([1, 2, 3]).write_parquet(str(out))
    return out


def _beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def _items(sp: smallpond.Session, path: str, **options: Any) -> list[int]:
    return [row["item"] for row in sp.read_parquet(path, **options).sort("item").take_all()]


def test_no_reader_sees_what_is_unfinished(sp: smallpond.Session, out: Path) -> None:
    _kill(out, "staged")
    assert len(_beside(out)) == 1
    old = [1, 2, 3]
    assert _items(sp, str(out)) == old
    assert _items(sp, f"{out}/*.parquet") == old
    assert _items(sp, f"{out}/**/*.parquet") == old
    assert _items(sp, str(out.parent), recursive=True) == old
    assert _items(sp, f"{out.parent}/**") == old
    with duckdb.connect() as con:
        for pattern in (f"{out}/*.parquet", f"{out}/**/*.parquet", f"{out.parent}/*/*.parquet"):
            assert con.execute(f"SELECT sum(item) FROM '{pattern}'").fetchall() == [(6,)]
    assert pd.read_parquet(out)["item"].sum() == 6
    assert ds.dataset(out.parent, format="parquet").count_rows() == 3


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
def test_the_next_writer_removes_it(sp: smallpond.Session, out: Path, mode: str) -> None:
    _kill(out, "staged")
    df = sp.from_items([4])
    if mode == "error":
        with pytest.raises(OutputExistsError):
            df.write_parquet(str(out))
    else:
        df.write_parquet(str(out), mode=mode)
    assert _beside(out) == []
    expected = {"error": [1, 2, 3], "overwrite": [4], "append": [1, 2, 3, 4]}
    assert _items(sp, str(out)) == expected[mode]


def test_what_was_moved_away_comes_back(sp: smallpond.Session, out: Path) -> None:
    _kill(out, "between")
    assert not out.exists()
    sp.from_items([4]).write_parquet(str(out), mode="append")
    assert _items(sp, str(out)) == [1, 2, 3, 4]
    assert _beside(out) == []


def test_what_was_replaced_goes(sp: smallpond.Session, out: Path) -> None:
    _kill(out, "after")
    assert len(_beside(out)) == 2
    sp.from_items([4]).write_parquet(str(out), mode="append")
    assert _items(sp, str(out)) == [4, 7, 8]
    assert _beside(out) == []


@pytest.mark.parametrize("stop", ["staged", "between", "after"])
def test_nothing_is_taken_from_the_living(
    sp: smallpond.Session, out: Path, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _writer(out, stop):
        [staging] = stale.left_beside(out)
        before = _beside(out)
        # Not by a writer that looks, be it of this process or of another one, ...
        stale.remove_dead(out, staging)
        assert _beside(out) == before
        if stop == "staged":
            with DirectoryWriter(str(out), "append"), DirectoryWriter(str(out), "append"):
                assert len(stale.left_beside(out)) == 3
            assert _beside(out) == before
    # ... nor where nothing says that the writer was one of this machine.
    owner = (staging / ".writer").read_text()
    for other in ("", "another machine, or this one before it was started"):
        (staging / ".writer").write_text(other)
        stale.remove_dead(out, staging)
        assert _beside(out) == before
    (staging / ".writer").unlink()
    stale.remove_dead(out, staging)
    assert _beside(out) == before
    # Where no machine has a name, none is claimed, and none is judged.
    (staging / ".writer").write_text("")
    monkeypatch.setattr(stale, "_BOOT", out / "none")
    stale.remove_dead(out, staging)
    assert _beside(out) == before
    monkeypatch.undo()
    (staging / ".writer").write_text(owner)
    stale.remove_dead(out, staging)
    assert _beside(out) == []


def test_other_folders_stay(sp: smallpond.Session, out: Path) -> None:
    _kill(out, "staged")
    [staging] = stale.left_beside(out)
    uuid = staging.name[-32:]
    names = [f".other.{uuid}", f".out.{uuid[:-1]}", f".out.{uuid}.old2", f"xout.{uuid}"]
    for name in names:
        shutil.copytree(staging, out.parent / name)
    sp.from_items([4]).write_parquet(str(out), mode="append")
    assert _beside(out) == sorted(names)


def test_a_writer_that_cannot_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"out cannot be written: .*No space left"):  # noqa: SIM117
        with DirectoryWriter(str(tmp_path / "above" / "out"), "error"):
            pytest.fail("it has begun")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_objects_are_not_seen(sp: smallpond.Session) -> None:
    with DirectoryWriter("memory://killed/out", "error") as writer:
        from fsspec import filesystem  # noqa: PLC0415

        memory = filesystem("memory")
        memory.pipe({f"{writer.staging}/a.csv": b"1", "/killed/out/b.csv": b"2"})
        found = [i.url for p in ("", "/*", "/**") for i in resolve(f"memory://killed/out{p}")]
        assert found == ["memory://killed/out/b.csv"] * 3
    memory.rm("/killed", recursive=True)


def test_a_writer_that_is_done_keeps_nothing_open(tmp_path: Path) -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (a number is enough)

    before = opened()
    for _ in range(3):
        with DirectoryWriter(str(tmp_path / "out"), "append") as writer:
            assert opened() == before + 1
            writer.commit([])
    assert opened() == before
