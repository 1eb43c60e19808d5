"""What of writing shows only where a store or a disk is unlucky."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from smallpond.errors import OutputError
from smallpond.storage import DirectoryWriter, configure, filesystem_of, prefix
from smallpond.storage.prefix import Prefix


class _Plain(LocalFileSystem):
    """A file system with folders and renames behind an address."""

    protocol = "plain"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("plain://"))


@pytest.fixture(params=["plain", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder that is not there."""
    fsspec.register_implementation("plain", _Plain, clobber=True)
    return f"memory://{uuid.uuid4().hex}" if request.param == "memory" else f"plain://{tmp_path}/x"


def _put(place: str, *names: str) -> None:
    filesystem, path = filesystem_of(place, {})
    for name in names:
        filesystem.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(f"{path}/{name}", b"text")


def _commit(place: str, mode: str, names: list[str]) -> None:
    with DirectoryWriter(place, mode) as writer:
        _put(writer.staging, *[f"task/{i}" for i in range(len(names))])
        writer.commit([f"{writer.staging}/task/{i}" for i in range(len(names))], names)


@pytest.mark.parametrize("lacking", [os.W_OK, os.X_OK])
def test_each_permission_that_writing_needs_is_looked_for(
    tmp_path: Path, lacking: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, wanted: not wanted & lacking)
    with pytest.raises(OutputError, match="Permission denied"):
        DirectoryWriter(str(tmp_path / "above" / "out"), "append")


def test_an_append_that_fails_leaves_no_folder_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "out")
    _commit(place, "error", ["old"])
    rename = Path.rename

    def fail(source: Path, target: Path) -> Path:
        if target.parts[-2:] == ("out", "two"):
            raise OSError(28, "No space left on device")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OutputError, match="No space left"):
        _commit(place, "append", ["a/b/c/one", "two"])
    assert os.listdir(place) == ["old"]  # noqa: PTH208 (names)


def test_an_empty_working_folder_has_nothing_to_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _commit(".", "overwrite", ["new"])
    assert os.listdir() == ["new"]  # noqa: PTH208


def test_a_data_set_of_no_files(place: str) -> None:
    with DirectoryWriter(place, "error") as writer:
        assert writer.commit([]) == []


def test_unfinished_files_and_the_lock_are_not_replaced(place: str) -> None:
    _put(place, "_committing", "_unfinished-1/task/a", "k=1/b", "c")
    path = filesystem_of(place, {})[1]
    finished = sorted(Prefix(place, {})._files(prefix._Finished()))
    assert finished == [f"{path}/c", f"{path}/k=1/b"]


def test_only_folders_in_the_folder_go_with_their_last_file(place: str) -> None:
    _put(place, "k=1/b")
    filesystem, path = filesystem_of(place, {})
    filesystem.makedirs(path, exist_ok=True)
    assert Prefix(place, {})._remove([f"{path}/k=1/b"]) is None
    assert filesystem.exists(path)
    assert not filesystem.exists(f"{path}/k=1")


def test_a_lock_is_ours_although_the_answer_was_lost(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Prefix._create
    calls: list[str] = []

    def lose(self: Prefix, lock: str, name: str) -> None:
        create(self, lock, name)
        calls.append(name)
        raise OSError(5, "no answer")

    monkeypatch.setattr(Prefix, "_create", lose)
    monkeypatch.setattr(prefix, "_PATIENCE_S", 0.0)
    _commit(place, "error", ["new"])
    assert len(calls) == 1
    filesystem, path = filesystem_of(place, {})
    assert [Path(name).name for name in filesystem.find(path)] == ["new"]


def test_options_are_not_kept_for_local_paths() -> None:
    before = dict(fsspec.config.conf)
    configure("/some/where", {"key": "k"})
    configure("file:///some/where", {"key": "k"})
    assert dict(fsspec.config.conf) == before
