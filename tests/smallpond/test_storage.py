"""Finding files, and writing folders whole or not at all."""

from __future__ import annotations

import fnmatch
import os
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpond import storage
from smallpond.errors import MissingInputError, OutputExistsError, PlanError
from smallpond.storage import DirectoryWriter, resolve

NAMES = ["a.parquet", "b.parquet", "c.csv", "_hidden.parquet", ".dot.parquet", "B.PARQUET"]
FOLDERS = ["", "x/", "x/y/", "k=1/", "_tmp/", "z/"]


def _tree(root: Path, files: list[str]) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def _seen(names: set[str], recursive: bool) -> list[str]:
    """The oracle of a folder: what lies in it, sorted."""
    kept = [
        name
        for name in names
        if not any(part[0] in "_." for part in name.split("/"))
        and name.lower().endswith(".parquet")
        and (recursive or "/" not in name)
    ]
    return sorted(kept)


@settings(max_examples=40)
@given(
    files=st.sets(st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from(NAMES))),
    recursive=st.booleans(),
    remote=st.booleans(),
)
def test_a_folder_gives_its_files_in_order(
    tmp_path_factory: pytest.TempPathFactory, files: set[str], recursive: bool, remote: bool
) -> None:
    root: Any
    if remote:
        root = f"memory:///{uuid.uuid4().hex}"
        fs = fsspec.filesystem("memory")
        for name in files:
            fs.pipe_file(f"{root}/{name}", name.encode())
    else:
        root = tmp_path_factory.mktemp("tree")
        _tree(root, sorted(files))
    expected = _seen(files, recursive)
    if not expected:
        with pytest.raises(MissingInputError):
            resolve(str(root), recursive=recursive, suffixes=[".parquet"])
        return
    found = resolve(str(root), recursive=recursive, suffixes=[".parquet"])
    prefix = str(root).replace("memory:///", "memory://") + "/"
    assert [info.url.removeprefix(prefix) for info in found] == expected
    assert [info.size_bytes for info in found] == [len(name) for name in expected]


@pytest.mark.parametrize("pattern", ["*.parquet", "x/*", "?.csv", "[ab].parquet", "**/a.parquet"])
def test_patterns(tmp_path: Path, pattern: str) -> None:
    _tree(tmp_path, [f + n for f in FOLDERS for n in NAMES if n[0] not in "_."])
    found = [Path(i.url).relative_to(tmp_path) for i in resolve(f"{tmp_path}/{pattern}")]
    if pattern.startswith("**"):
        expected = {p.relative_to(tmp_path) for p in tmp_path.rglob("a.parquet")}
    else:
        expected = {
            p.relative_to(tmp_path)
            for p in tmp_path.rglob("*")
            if p.is_file()
            and fnmatch.fnmatchcase(str(p.relative_to(tmp_path)), pattern)
            and str(p.relative_to(tmp_path)).count("/") == pattern.count("/")
        }
    if pattern == "x/*":  # and the files of the folder that it matches
        expected |= {Path("x/y", n) for n in NAMES if n[0] not in "_."}
    assert set(found) == expected
    assert found == sorted(found, key=str) or pattern == "x/*"


def test_arguments_keep_their_order_and_relative_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(tmp_path, ["b.csv", "a.csv"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = resolve(["b.csv", "~/a.csv", f"file://{tmp_path}/b.csv"])
    assert [i.url for i in found] == [str(tmp_path / n) for n in ("b.csv", "a.csv", "b.csv")]


def test_the_version_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1")
    [before] = resolve(str(path))
    os.utime(path, (1, 1))
    [after] = resolve(str(path))
    assert before.version != after.version


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("/nowhere/a.parquet", "no file or folder /nowhere/a.parquet"),
        ("/nowhere/*.parquet", r"the pattern /nowhere/\*.parquet matches no file"),
        ([], "at least one path"),
        ([""], "must be a text"),
        ("nosuch://a/b", "nosuch:// is no storage"),
    ],
)
def test_says_what_is_not_there(paths: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        resolve(paths, suffixes=[".parquet"])


def test_says_that_the_files_lie_deeper(tmp_path: Path) -> None:
    _tree(tmp_path, ["x/a.parquet"])
    with pytest.raises(FileNotFoundError, match=r"but its folders do \(pass recursive=True\)"):
        resolve(str(tmp_path), suffixes=[".parquet"])


# ---- writing


def _write(target: str, mode: str, texts: list[str], *, fail: str = "") -> list[str]:
    """What a run does: tasks write below staging, the driver commits."""
    with DirectoryWriter(target, mode) as writer:
        fs, staging = storage.filesystem_of(writer.staging, {})
        files = []
        for i, text in enumerate(texts):
            name = f"{staging}/task{len(texts) - i}/k={i % 2}/data.txt"
            fs.makedirs(str(Path(name).parent), exist_ok=True)
            fs.pipe_file(name, text.encode())
            files.append(name if "://" not in writer.staging else f"memory://{name}")
        if fail == "task":
            raise RuntimeError
        return writer.commit(files)


def _state(root: str) -> dict[str, str]:
    """Every file and (on a disk, where there are such) every folder below, with files' texts."""
    fs, path = storage.filesystem_of(root, {})
    if not fs.exists(path):
        return {}
    found = fs.find(path, withdirs="://" not in root)
    return {n: "" if fs.isdir(n) else fs.cat_file(n).decode() for n in found if n != path}


@pytest.fixture(params=["local", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a folder that is not there."""
    if request.param == "local":
        return str(tmp_path / "above" / "out")
    return f"memory://{uuid.uuid4().hex}/out"


def _texts(root: str) -> list[str]:
    return sorted(text for text in _state(root).values() if text)


def test_files_get_their_places_and_names_in_order(place: str) -> None:
    finals = _write(place, "error", ["zero", "one", "two"])
    names = [final.partition("/out/")[2] for final in finals]
    assert names == ["k=0/part-00000.txt", "k=1/part-00001.txt", "k=0/part-00002.txt"]
    assert _texts(place) == ["one", "two", "zero"]
    above = place.rsplit("/", 1)[0]
    assert not any("unfinished" in n or "/." in n for n in _state(above))


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
    with pytest.raises(PlanError, match="mode must be one of"):
        _write(place, "ignore", [])


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
@pytest.mark.parametrize("there", [False, True])
def test_a_failed_task_leaves_everything_as_it_was(place: str, mode: str, there: bool) -> None:
    if there and mode != "error":
        _write(place, "error", ["old"])
    above = place.rsplit("/", 2)[0] if "memory" not in place else place.rsplit("/", 1)[0]
    before = _state(above)
    with pytest.raises(RuntimeError):
        _write(place, mode, ["new", "newer"], fail="task")
    assert _state(above) == before


@pytest.mark.parametrize("mode", ["error", "overwrite", "append"])
def test_a_failed_commit_leaves_everything_as_it_was(
    place: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode != "error":
        _write(place, "error", ["old"])
    before = _state(place)
    if "memory" in place:
        fs = fsspec.filesystem("memory")
        real_copy = fs.cp_file

        def copy(a: str, b: str, **kwargs: Any) -> None:
            if "part-" in b and "00001" in b:
                raise OSError(28, "No space left on device")
            real_copy(a, b, **kwargs)

        monkeypatch.setattr(fs, "cp_file", copy)
    else:
        real_rename = Path.rename

        def rename(self: Path, target: Any) -> Path:
            # The last step of each mode.
            last = {"error": "out", "overwrite": "out", "append": "part-"}[mode]
            final = Path(target).name.startswith(last) and "ready" not in str(target)
            if final and (mode != "append" or "00001" in str(target)) and ".old" not in str(self):
                raise OSError(28, "No space left on device")
            return real_rename(self, target)

        monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="No space left"):
        _write(place, mode, ["new", "newer"])
    monkeypatch.undo()
    assert _texts(place) == sorted(text for text in before.values() if text)


def test_of_two_writers_one_is_told(place: str) -> None:
    with DirectoryWriter(place, "error") as slow:
        _write(place, "error", ["first"])
        fs, staging = storage.filesystem_of(slow.staging, {})
        fs.makedirs(staging, exist_ok=True)
        fs.pipe_file(f"{staging}/a.txt", b"second")
        prefix = "memory://" if "memory" in place else ""
        with pytest.raises(OutputExistsError):
            slow.commit([f"{prefix}{staging}/a.txt"])
    assert _texts(place) == ["first"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputExistsError, match="is a file, not a folder"):
        DirectoryWriter(str(tmp_path / "out"), "overwrite")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    _write(str(real), "error", ["old"])
    (tmp_path / "link").symlink_to(real)
    _write(str(tmp_path / "link"), "overwrite", ["new"])
    assert (tmp_path / "link").is_symlink()
    assert _texts(str(real)) == ["new"]
