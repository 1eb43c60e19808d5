"""Finding files."""

from __future__ import annotations

import os
import pickle
import re
import tomllib
import uuid
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpond.errors import MissingInputError, PlanError
from smallpond.storage import FileInfo, filesystem_of, register_with_duckdb, resolve

NAMES = ["a.parquet", "b.parquet", "c.csv", "_hidden.parquet", ".dot.parquet", "B.PARQUET"]
FOLDERS = ["", "x/", "x/y/", "k=1/", "_k=1/", "_tmp/", ".t/", "x/z.parquet/"]
FILES = st.sets(st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from(NAMES)))


def _tree(root: str, files: set[str]) -> None:
    fs, path = filesystem_of(root, {})
    fs.makedirs(path, exist_ok=True)
    for name in files:
        fs.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
        fs.pipe_file(f"{path}/{name}", name.encode())


@pytest.fixture(params=["local", "memory"], scope="module")
def above(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where examples make folders of their own."""
    return str(tmp_path_factory.mktemp("trees")) if request.param == "local" else "memory:/"


def _new(above: str) -> str:
    return f"{above}/{uuid.uuid4().hex}"


def _hidden(name: str) -> bool:
    return name[0] in "_." and "=" not in name


def _in_folder(files: set[str], folder: str, *, recursive: bool) -> set[str]:
    """The oracle of a folder: what of the wanted ending lies in it."""
    inner = {name.removeprefix(folder) for name in files if name.startswith(folder)}
    return {
        folder + name
        for name in inner
        if not any(map(_hidden, name.split("/")))
        and name.lower().endswith(".parquet")
        and (recursive or "/" not in name)
    }


@settings(max_examples=40)
@given(files=FILES, recursive=st.booleans())
def test_a_folder_gives_its_files_in_order(above: str, files: set[str], recursive: bool) -> None:
    root = _new(above)
    _tree(root, files)
    expected = sorted(_in_folder(files, "", recursive=recursive))
    if not expected:
        with pytest.raises(MissingInputError):
            resolve(root, recursive=recursive, suffixes=[".parquet"])
        return
    found = resolve(root, recursive=recursive, suffixes=[".parquet"])
    assert [info.url.removeprefix(f"{root}/") for info in found] == expected
    assert [info.size_bytes for info in found] == [len(name) for name in expected]


def _matches(names: list[str], parts: list[str]) -> bool:
    """The oracle of patterns: their definition."""
    if not parts:
        return not names
    if parts[0] == "**":
        deeper = bool(names) and not _hidden(names[0]) and _matches(names[1:], parts)
        return deeper or _matches(names, parts[1:])
    if not names or (_hidden(names[0]) and parts[0][0] not in "_."):
        return False
    one = "".join({"*": ".*", "?": ".", ".": r"\."}.get(c, c) for c in parts[0])
    return re.fullmatch(one, names[0]) is not None and _matches(names[1:], parts[1:])


PARTS = ["*", "**", "x", "y", "?", "*.parquet", "[ab].parquet", "_*", "*=1", "z.*", "a.parquet"]


@settings(max_examples=100)
@given(files=FILES, parts=st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
def test_a_pattern_gives_what_matches_once(above: str, files: set[str], parts: list[str]) -> None:
    root = _new(above)
    _tree(root, files)
    rule = [*parts, "*"] if parts[-1] == "**" else parts
    folders = {name[: m.start()] for name in files for m in re.finditer("/", name)}
    expected = {name for name in files if _matches(name.split("/"), rule)}
    for folder in folders:
        if _matches(folder.split("/"), rule):
            expected |= _in_folder(files, f"{folder}/", recursive=False)
    if not expected:
        with pytest.raises(MissingInputError):
            resolve(f"{root}/{'/'.join(parts)}", suffixes=[".parquet"])
        return
    found = resolve(f"{root}/{'/'.join(parts)}", suffixes=[".parquet"])
    assert [info.url.removeprefix(f"{root}/") for info in found] == sorted(expected)


def test_a_name_with_a_wildcard_in_it_is_a_name_first(above: str) -> None:
    root = _new(above)
    _tree(root, {"a[1].csv", "a1.csv"})
    assert [info.url for info in resolve(f"{root}/a[1].csv")] == [f"{root}/a[1].csv"]
    assert [info.url for info in resolve(f"{root}/a[1]*")] == [f"{root}/a1.csv"]


def test_arguments_keep_their_order_and_relative_paths_become_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tree(str(tmp_path), {"b.csv", "a.csv"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = resolve(["b.csv", "~/a.csv", f"file://{tmp_path}/b.csv"])
    assert [i.url for i in found] == [str(tmp_path / n) for n in ("b.csv", "a.csv", "b.csv")]
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 (our own)
    assert len({*found}) == 2


# ---- links and other things that are no plain files


def test_the_version_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "b.csv").symlink_to(path)
    for where in (str(path), f"{tmp_path}/links", f"{tmp_path}/links/*"):
        [before] = resolve(where)
        os.utime(path, ns=(1, before.size_bytes + int(before.version) + 1))
        [after] = resolve(where)
        assert before.version != after.version


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.csv"])
def test_a_folder_that_links_lead_to_counts_once(tmp_path: Path, pattern: str) -> None:
    data = tmp_path / "data"
    _tree(str(data), {"day=1/a.csv", "day=2/b.csv", "root.csv"})
    _tree(str(tmp_path / "elsewhere"), {"c.csv"})
    for i in range(20):
        (data / f"link{i}").symlink_to(data / f"day={i % 2 + 1}")
    (data / "day=1" / "loop").symlink_to(data)
    (data / "zlink").symlink_to(tmp_path / "elsewhere")
    found = resolve(f"{data}{pattern}", recursive=True, suffixes=[".csv"])
    names = [str(Path(info.url).relative_to(data)) for info in found]
    assert names == ["day=1/a.csv", "day=2/b.csv", "root.csv", "zlink/c.csv"]


def test_a_link_to_nothing_is_an_error_and_a_pipe_no_data(tmp_path: Path) -> None:
    _tree(str(tmp_path), {"a.csv"})
    os.mkfifo(tmp_path / "pipe.csv")
    assert [info.url for info in resolve(str(tmp_path))] == [str(tmp_path / "a.csv")]
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(MissingInputError, match=r"gone\.csv"):
        resolve(str(tmp_path))


def test_a_folder_made_by_hand_is_no_file(above: str) -> None:
    root = _new(above)
    _tree(root, {"a.csv"})
    fs, path = filesystem_of(root, {})
    fs.makedirs(f"{path}/empty.csv")
    assert [info.url for info in resolve(root)] == [f"{root}/a.csv"]
    assert [info.url for info in resolve(f"{root}/*.csv")] == [f"{root}/a.csv"]


# ---- what cannot be read


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("/nowhere/a.parquet", "no file or folder /nowhere/a.parquet"),
        ("/nowhere/*.parquet", r"the pattern /nowhere/\*.parquet matches no file"),
        ("memory://nowhere/*.parquet", r"memory://nowhere/\*.parquet"),
        ([], "at least one path"),
        ([""], "must be a text"),
        (5, "must be a text, got 5"),
        (None, "must be a text, got None"),
        (b"x", "must be a text, got b'x'"),
        ("nosuch://a/b", "nosuch:// is no storage"),
        ("a\0b", "cannot be read: .*embedded null"),
        ("~nosuchuser/a.csv", "no file or folder ~nosuchuser/a.csv"),
        ("/x/**.csv", r"\*\* must stand alone between slashes"),
    ],
)
def test_says_what_is_not_there(paths: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        resolve(paths, suffixes=[".parquet"])


def test_says_that_the_files_lie_deeper(above: str) -> None:
    root = _new(above)
    _tree(root, {"x/a.parquet"})
    with pytest.raises(FileNotFoundError, match=r"but its folders do \(pass recursive=True\)"):
        resolve(root, suffixes=[".parquet"])


@pytest.mark.parametrize(
    ("protocol", "extra"),
    [("s3", "s3"), ("gs", "gcs"), ("gcs", "gcs"), ("hf", "hf"), ("3fs", "threefs")],
)
def test_says_which_package_is_missing(
    protocol: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"class": "no_such_module.FileSystem", "err": "Please install it"}
    monkeypatch.setitem(known_implementations, protocol, entry)
    monkeypatch.delitem(_registry, protocol, raising=False)
    remedy = rf"Please install it \(pip install 'openweek\[{extra}\]'\)"
    with pytest.raises(PlanError, match=f"{protocol}:// needs another package: {remedy}"):
        resolve(f"{protocol}://bucket/a")
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        assert extra in tomllib.load(file)["project"]["optional-dependencies"]
    monkeypatch.setitem(known_implementations, "lacking", entry)
    with pytest.raises(PlanError, match=r"lacking:// needs another package: Please install it$"):
        resolve("lacking://a/b")


def test_options_that_do_not_fit_are_told() -> None:
    fsspec.register_implementation("hosted", _Hosted, clobber=True)
    with pytest.raises(PlanError, match="hosted://a/b cannot be opened with these storage_op"):
        resolve("hosted://a/b", storage_options={"host": 1})


# ---- addresses that name a host


class _Hosted(LocalFileSystem):
    """Local files behind addresses that name a host, as those of SFTP and HDFS do."""

    protocol = ("hosted", "hosted2")

    def __init__(self, host: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.host = host + ""  # a text, or TypeError

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        text = str(path)
        return "/" + "".join(text.split("/", 3)[3:]) if text.startswith("hosted") else text

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": path.split("/")[2]}


def test_addresses_keep_their_host(tmp_path: Path) -> None:
    fsspec.register_implementation("hosted", _Hosted, clobber=True)
    _tree(str(tmp_path), {"x/a.csv", "x/b.csv"})
    root = f"hosted://one{tmp_path}/x"
    names = [f"{root}/a.csv", f"{root}/b.csv"]
    for where in (root, f"{root}/", f"{root}/*.csv", names):
        assert [info.url for info in resolve(where)] == names
    assert filesystem_of(root, {})[0].host == "one"
    assert filesystem_of(root, {"host": "two"})[0].host == "two"


def test_duckdb_gets_one_file_system_for_a_protocol(tmp_path: Path) -> None:
    fsspec.register_implementation("hosted", _Hosted, clobber=True)
    fsspec.register_implementation("hosted2", _Hosted, clobber=True)
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    with duckdb.connect() as con:
        for protocol in ("hosted2", "hosted", "hosted2"):
            url = f"{protocol}://one{tmp_path}/a.csv"
            register_with_duckdb(con, [url], {})
            assert con.execute(f"SELECT sum(n) FROM '{url}'").fetchall() == [(3,)]
        with pytest.raises(PlanError, match="both hosted://one and hosted://two"):
            register_with_duckdb(con, ["hosted://one/a", "hosted://two/a"], {})


@pytest.mark.parametrize("pattern", ["", "/**/*.csv", "/*/*.csv"])
@pytest.mark.parametrize("host", ["", "hosted://one"])
@pytest.mark.parametrize("kind", [PermissionError, FileNotFoundError, OSError])
def test_a_folder_that_may_not_be_listed_is_not_left_out(
    tmp_path: Path, kind: type[OSError], host: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.register_implementation("hosted", _Hosted, clobber=True)
    _tree(str(tmp_path), {"open/a.csv", "shut/b.csv"})
    scandir = os.scandir

    def guarded(path: Any = ".") -> Any:
        if str(path).endswith("shut"):
            raise kind(0, "not today", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PlanError, match=r"not today: '.*/shut'"):
        resolve(f"{host}{tmp_path}{pattern}", recursive=True, suffixes=[".csv"])


class _Marked(MemoryFileSystem):
    """A store that lists what it keeps of folders that somebody made."""

    protocol = "marked"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("marked://"))

    def find(self, path: str, **kwargs: Any) -> Any:
        return super().find(path, withdirs=True, **kwargs)


def test_marks_of_folders_are_no_files() -> None:
    fsspec.register_implementation("marked", _Marked, clobber=True)
    _tree("marked://x", {"a.csv", "y/b.csv"})
    fs, _ = filesystem_of("marked://x", {})
    fs.makedirs("/x/made.csv")
    found = resolve("marked://x", recursive=True, suffixes=[".csv"])
    assert [info.url for info in found] == ["marked://x/a.csv", "marked://x/y/b.csv"]


class _Selfish(_Marked):
    """A store that lists a folder among what is in it."""

    protocol = "selfish"

    @classmethod
    def _strip_protocol(cls, path: str) -> Any:
        return super()._strip_protocol(path.removeprefix("selfish://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        itself = {"name": self._strip_protocol(path), "size": 0, "type": "file"}
        return [itself, *super().ls(path, detail=detail, **kwargs)]


def test_a_folder_that_lists_itself_is_no_file() -> None:
    fsspec.register_implementation("selfish", _Selfish, clobber=True)
    _tree("selfish://own.csv", {"a.csv"})
    assert [info.url for info in resolve("selfish://own.csv/*.csv")] == ["selfish://own.csv/a.csv"]
    assert [info.url for info in resolve("selfish://own.csv")] == ["selfish://own.csv/a.csv"]


def test_information_is_small_and_frozen() -> None:
    info = FileInfo("a", 1, "v")
    assert not hasattr(info, "__dict__")
    with pytest.raises(AttributeError):
        info.url = "b"  # type: ignore[misc]
