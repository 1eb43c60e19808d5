"""Writing folders whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import smallpond
from smallpond.errors import MissingInputError, OutputError, OutputExistsError, PlanError
from smallpond.storage import DirectoryWriter, filesystem_of, prefix, resolve
from smallpond.storage.writing import _final_names


class _Shared(LocalFileSystem):
    """A file system with folders and renames behind an address, as those of a cluster are."""

    protocol = "shared"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("shared://"))


@pytest.fixture(params=["local", "mounted", "shared", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder that is not there, in one that is not there."""
    fsspec.register_implementation("shared", _Shared, clobber=True)
    if request.param == "mounted":
        # A folder that cannot be renamed, if it is there.
        monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "out")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/out"
    root = "shared://" if request.param == "shared" else ""
    return f"{root}{tmp_path}/above/out"


def _stage(writer: DirectoryWriter, texts: list[str]) -> list[str]:
    """What tasks do: write anywhere below the staging folder."""
    fs, staging = filesystem_of(writer.staging, {})
    files = []
    for i, text in enumerate(texts):
        # In an order that is not that of the names.
        inner = f"task{len(texts) - i}/k={i % 2}/data.txt"
        fs.makedirs(f"{staging}/{inner}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{staging}/{inner}", text.encode())
        files.append(f"{writer.staging}/{inner}")
    return files


def _write(target: str, mode: str, texts: list[str]) -> list[str]:
    with DirectoryWriter(target, mode) as writer:
        return writer.commit(_stage(writer, texts))


def _state(root: str) -> dict[str, str]:
    """Every file and folder below, with the texts of files: what a reader of bytes would see."""
    fs, path = filesystem_of(root, {})
    if not fs.exists(path):
        return {}
    found = fs.find(path, withdirs=True, detail=True)
    return {
        name.removeprefix(path): "" if d["type"] == "directory" else fs.cat_file(name).decode()
        for name, d in found.items()
    }


def _texts(root: str) -> list[str]:
    """What a reader of data would see."""
    try:
        found = resolve(root, recursive=True)
    except MissingInputError:
        return []
    return sorted(filesystem_of(info.url, {})[0].cat_file(info.url).decode() for info in found)


def _above(place: str) -> str:
    return place.rpartition("/")[0].rpartition("/")[0] if "memory" not in place else place[:-4]


# ---- what is written


def test_files_get_their_places_and_names_in_order(place: str) -> None:
    finals = _write(place, "error", ["zero", "one", "two"])
    names = ["k=0/part-00000.txt", "k=1/part-00001.txt", "k=0/part-00002.txt"]
    assert finals == [f"{place}/{name}" for name in names]
    files = {f"/{n}": t for n, t in zip(names, ["zero", "one", "two"], strict=True)}
    state = _state(place)
    assert {name: text for name, text in state.items() if text} == files
    assert {name for name, text in state.items() if not text} <= {"", "/k=0", "/k=1"}
    hidden = [n for n in _state(_above(place)) if "unfinished" in n or "/." in n or "_comm" in n]
    assert not hidden


def test_names_sort_as_the_files_do() -> None:
    files = [f"/s/{i}.csv.gz" for i in range(100_001)]
    names = _final_names(files, "/s", "part-")
    assert names == sorted(names)
    assert names[-1] == "part-100000.csv.gz"
    endings = ["a.1.parquet", "b", "c.tar.zst", "x=1/y.d.arrow"]
    names = _final_names([f"/s/{name}" for name in endings], "/s", "p-")
    assert names == ["p-00000.parquet", "p-00001", "p-00002.tar.zst", "x=1/p-00003.arrow"]


def test_modes(place: str) -> None:
    _write(place, "error", ["old"])
    before = _state(place)
    with pytest.raises(OutputExistsError, match="holds data already"):
        _write(place, "error", ["new"])
    assert _state(place) == before
    _write(place, "append", ["more", "most"])
    assert _texts(place) == ["more", "most", "old"]
    _write(place, "append", ["last"])
    assert _texts(place) == ["last", "more", "most", "old"]
    _write(place, "overwrite", ["new"])
    assert _texts(place) == ["new"]
    _write(place, "overwrite", ["newer", "newest", "last"])
    assert _texts(place) == ["last", "newer", "newest"]
    with pytest.raises(PlanError, match="mode must be one of"):
        DirectoryWriter(place, "ignore")


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
def test_a_folder_with_nothing_but_hidden_files_is_empty(place: str, mode: str) -> None:
    fs, path = filesystem_of(place, {})
    fs.makedirs(f"{path}/_tmp")
    fs.pipe_file(f"{path}/_tmp/.notes", b"notes")
    _write(place, mode, ["new"])
    assert _texts(place) == ["new"]
    assert fs.exists(f"{path}/_tmp/.notes") == (mode != "overwrite")


def test_a_partition_column_may_begin_with_a_line(place: str) -> None:
    with DirectoryWriter(place, "error") as writer:
        fs, staging = filesystem_of(writer.staging, {})
        fs.makedirs(f"{staging}/t/_k=1", exist_ok=True)
        fs.pipe_file(f"{staging}/t/_k=1/a.txt", b"one")
        writer.commit([f"{writer.staging}/t/_k=1/a.txt"])
    assert _texts(place) == ["one"]
    with pytest.raises(OutputExistsError):
        DirectoryWriter(place, "error")


def test_names_of_the_callers_own(place: str) -> None:
    with DirectoryWriter(place, "error") as writer:
        files = _stage(writer, ["a", "b"])
        with pytest.raises(PlanError, match="2 files needs a name of its own"):
            writer.commit(files, ["same", "same"])
        assert writer.commit(files, ["x/one", "two"]) == [f"{place}/x/one", f"{place}/two"]
    with DirectoryWriter(place, "append") as writer:
        files = _stage(writer, ["c", "d"])
        with pytest.raises(OutputExistsError, match="two exists already"):
            writer.commit(files, ["three", "two"])
    assert _texts(place) == ["a", "b"]


# ---- failures


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
@pytest.mark.parametrize("there", [False, True])
def test_a_failed_task_leaves_everything_as_it_was(place: str, mode: str, there: bool) -> None:
    if there and mode != "error":
        _write(place, "error", ["old"])
    before = _state(_above(place))
    with contextlib.suppress(RuntimeError), DirectoryWriter(place, mode) as writer:
        _stage(writer, ["new", "newer"])
        raise RuntimeError
    assert _state(_above(place)) == before


CALLS = {
    os: ["rename", "mkdir", "chmod", "scandir", "unlink", "rmdir"],
    shutil: ["move"],
    MemoryFileSystem: ["cp_file", "find", "rm_file", "makedirs", "pipe_file", "rm", "cat_file"],
}


def _commit(target: str, mode: str, texts: list[str], number: int) -> tuple[Any, bool]:
    """A commit in which the call of that number to list or change something fails.

    Returns:
        The error, if there was one, and whether there were so many calls.
    """
    count = 0

    def failing(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise OSError(28, "No space left on device")
            return real(*args, **kwargs)

        return call

    with DirectoryWriter(target, mode) as writer:
        files = _stage(writer, texts)
        with pytest.MonkeyPatch.context() as patch:
            for owner, names in CALLS.items():
                for name in names:
                    patch.setattr(owner, name, failing(getattr(owner, name)))
            try:
                writer.commit(files)
            except OutputError as error:
                return error, True
    return None, count >= number


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
@pytest.mark.parametrize("there", [False, True])
def test_wherever_a_commit_fails_everything_is_as_it_was(
    place: str, mode: str, there: bool
) -> None:
    if there and mode == "error":
        fs, path = filesystem_of(place, {})
        fs.makedirs(f"{path}/_tmp")
        fs.pipe_file(f"{path}/_tmp/a", b"hidden")
    elif there:
        _write(place, "error", ["old", "older"])
    before = _texts(place)
    texts = ["new", "newer", "newest"]
    after = sorted(texts + (before if mode == "append" else []))
    failures = 0
    for number in range(1, 200):
        error, failed = _commit(place, mode, texts, number)
        if error is None:
            assert _texts(place) == after
            if not failed:
                break
        else:
            failures += 1
            assert re.search(f"{re.escape(place)}.*No space left on device", str(error))
            assert isinstance(error, OSError)
            assert (error.errno, error.__cause__ is None) == (28, False)
            assert _texts(place) == before
        _reset(place, before)
    else:
        pytest.fail("the calls do not end")
    assert failures > 2


def _reset(place: str, texts: list[str]) -> None:
    if texts:
        _write(place, "overwrite", texts)
        return
    fs, path = filesystem_of(place, {})
    for name in fs.ls(path, detail=False) if fs.exists(path) else []:
        if "_tmp" not in name:
            fs.rm(name, recursive=True)


def test_old_files_that_stay_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    place = f"memory://{uuid.uuid4().hex}"
    _write(place, "error", ["old", "older"])
    remove = MemoryFileSystem.rm_file
    stuck = ["part-00000.txt", "part-00001.txt"]

    def refuse(self: Any, path: str) -> None:
        if any(path.endswith(name) for name in stuck):
            raise PermissionError(13, "Permission denied", path)
        remove(self, path)

    monkeypatch.setattr(MemoryFileSystem, "rm_file", refuse)
    with pytest.raises(OutputError, match=r"cannot be overwritten: .*Permission denied"):
        _write(place, "overwrite", ["new"])
    assert _texts(place) == ["old", "older"]
    del stuck[0]
    with pytest.raises(OutputError, match="holds all new files and up to 1 old ones"):
        _write(place, "overwrite", ["new"])
    assert _texts(place) == ["new", "older"]


@pytest.mark.parametrize("there", [False, True])
def test_a_place_without_permission_is_told_early(
    tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    if there:
        target.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).startswith(str(tmp_path)))
    with pytest.raises(OutputError, match=f"{target} cannot be written: .*Permission denied"):
        DirectoryWriter(str(target), "append")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for target in (tmp_path / "out", tmp_path / "out" / "deeper" / "still"):
        with pytest.raises(OutputExistsError, match="out is a file, not a folder"):
            DirectoryWriter(str(target), "overwrite")


# ---- several writers


def _race(place: str, mode: str, writers: int) -> list[BaseException]:
    """Writers that have all begun before the first of them commits; returns who failed."""
    barrier = threading.Barrier(writers)
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            with DirectoryWriter(place, mode) as writer:
                files = _stage(writer, [f"{number}-{i}" for i in range(5)])
                barrier.wait()
                writer.commit(files)
        except OutputExistsError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


# Exclusive creation is none in memory.
@pytest.mark.parametrize("place", ["local", "mounted", "shared"], indirect=True)
@pytest.mark.parametrize("there", [False, True])
def test_of_writers_at_once_one_is_first(place: str, there: bool) -> None:
    fs, path = filesystem_of(place, {})
    if there:
        fs.makedirs(path)
    assert len(_race(place, "error", 4)) == 3
    [first] = {text[0] for text in _texts(place)}
    assert _texts(place) == [f"{first}-{i}" for i in range(5)]
    assert not _race(place, "overwrite", 4)
    [last] = {text[0] for text in _texts(place)}
    assert _texts(place) == [f"{last}-{i}" for i in range(5)]
    assert not _race(place, "append", 3)
    added = [f"{n}-{i}" for n in range(3) for i in range(5)]
    assert _texts(place) == sorted([f"{last}-{i}" for i in range(5)] + added)
    assert not [name for name in _state(_above(place)) if "/." in name or "/_" in name]


def test_who_comes_second_is_told(place: str) -> None:
    with DirectoryWriter(place, "error") as slow:
        files = _stage(slow, ["second"])
        _write(place, "error", ["first"])
        with pytest.raises(OutputExistsError, match="holds data already"):
            slow.commit(files)
    assert _texts(place) == ["first"]


def test_a_writer_that_died_is_told_of(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix, "_PATIENCE_S", 0.1)
    _write(place, "error", ["old"])
    fs, path = filesystem_of(place, {})
    fs.pipe_file(f"{path}/_committing", b"somebody")
    if "://" not in place and not Path(place).is_mount():
        _write(place, "append", ["new"])  # its lock ends with the process
        return
    with pytest.raises(OutputExistsError, match=r"if it has died, remove .*/out/_committing"):
        _write(place, "append", ["new"])
    assert _texts(place) == ["old"]
    assert fs.cat_file(f"{path}/_committing") == b"somebody"


# ---- places of their own kind


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    _write(str(real), "error", ["old"])
    (tmp_path / "link").symlink_to(real)
    _write(str(tmp_path / "link"), "overwrite", ["new"])
    assert (tmp_path / "link").is_symlink()
    assert _texts(str(real)) == ["new"]


def test_permissions_of_a_folder_outlive_its_contents(tmp_path: Path) -> None:
    target = tmp_path / "out"
    _write(str(target), "error", ["old"])
    target.chmod(0o2775)
    _write(str(target), "overwrite", ["new"])
    assert target.stat().st_mode & 0o7777 == 0o2775


def test_the_working_folder_and_home_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "precious").write_text("keep")
    monkeypatch.chdir(tmp_path / "inner")
    with pytest.raises(PlanError, match="is or holds your working folder"):
        DirectoryWriter("..", "overwrite")
    _write(".", "error", ["new"])
    assert Path("k=0/part-00000.txt").read_text() == "new"  # of the same folder as before
    with pytest.raises(PlanError, match="is or holds your working folder"):
        DirectoryWriter(str(tmp_path / "inner"), "overwrite")
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "inner"))
    with pytest.raises(PlanError, match="is or holds your home folder"):
        DirectoryWriter("~", "overwrite")
    monkeypatch.setenv("HOME", str(tmp_path / "elsewhere"))
    _write(str(tmp_path / "inner"), "overwrite", ["newer"])
    assert (tmp_path / "precious").read_text() == "keep"


# Processes that run tasks would not know the others.
@pytest.mark.parametrize("place", ["local", "mounted", "memory"], indirect=True)
@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_a_plan_may_read_the_folder_that_it_writes(
    sp: smallpond.Session, place: str, mode: str
) -> None:
    sp.from_arrow(pa.table({"v": list(range(100))})).write_parquet(place)
    df = sp.read_parquet(place).filter("v % 2 = 0").map("v * 10 as v")
    df.write_parquet(place, mode=mode)
    old = [] if mode == "overwrite" else list(range(100))
    expected = sorted(old + [v * 10 for v in range(0, 100, 2)])
    assert sp.read_parquet(place).sort("v").to_arrow().column("v").to_pylist() == expected
