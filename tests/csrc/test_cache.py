"""The cache: one maker at a time, nothing torn, nothing damaged, clear words if it cannot write."""

import errno
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csrc import cache
from tests.csrc import cache_process

KEY = cache.key_of(["one"])
TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("OPENWEEK_CACHE", str(path))
    return path


def writer(content: str, calls: list[str]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        calls.append(content)
        (folder / "a").write_text(content)
        (folder / "b").write_text(content * 2)

    return make


def test_makes_once_and_keeps(folder: Path) -> None:
    calls: list[str] = []
    entries = {cache.get("kernels", KEY, writer(text, calls)) for text in ("x", "y")}
    assert entries == {folder / "kernels" / KEY}
    assert calls == ["x"]
    assert (folder / "kernels" / KEY / "b").read_text() == "xx"
    assert cache.usage().num_entries == 1
    assert cache.usage().num_bytes > 3


def test_kinds_and_keys_are_apart() -> None:
    calls: list[str] = []
    asked = [("kernels", KEY), ("native", KEY), ("kernels", cache.key_of(["two"]))]
    for number, (kind, key) in enumerate(asked):
        entry = cache.get(kind, key, writer(str(number), calls))
        assert (entry / "a").read_text() == str(number)
    assert calls == ["0", "1", "2"]


def test_empty_cache_and_empty_entry(folder: Path) -> None:
    assert cache.usage() == cache.Usage(0, 0)
    assert not folder.exists()
    calls = itertools.count()
    for _ in range(2):
        cache.get("kernels", KEY, lambda _: next(calls) and None)
    assert next(calls) == 1


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_keys_differ_when_parts_differ(one: list[str], other: list[str]) -> None:
    assert (cache.key_of(one) == cache.key_of(other)) == (one == other)


def test_key_knows_where_a_part_ends() -> None:
    assert cache.key_of(["ab", "c"]) != cache.key_of(["a", "bc"])
    assert cache.key_of(["a"]) != cache.key_of(["a", ""])


def test_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("OPENWEEK_CACHE", "~/own")
    assert cache.folder() == Path("/h/own")
    monkeypatch.delenv("OPENWEEK_CACHE")
    assert cache.folder() == Path("/x/openweek")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache.folder() == Path("/h/.cache/openweek")


def flip_a_bit(entry: Path) -> None:
    content = bytearray((entry / "b").read_bytes())
    content[0] ^= 1
    (entry / "b").write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flip_a_bit,
    "truncated": lambda entry: (entry / "a").write_text(""),
    "a file is missing": lambda entry: (entry / "a").unlink(),
    "a file too many": lambda entry: (entry / "c").write_text("c"),
    "a folder too many": lambda entry: (entry / "c").mkdir(),
    "no checksums": lambda entry: (entry / "checksums.json").unlink(),
    "checksums of nothing": lambda entry: (entry / "checksums.json").write_text("{}"),
    "checksums are no JSON": lambda entry: (entry / "checksums.json").write_bytes(b"\xff{"),
    "empty folder": lambda entry: [path.unlink() for path in entry.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_entry_is_made_again(damage: Callable[[Path], object]) -> None:
    calls: list[str] = []
    damage(cache.get("kernels", KEY, writer("x", calls)))
    for _ in range(2):
        entry = cache.get("kernels", KEY, writer("x", calls))
        assert (entry / "a").read_text() + (entry / "b").read_text() == "xxx"
    assert calls == ["x", "x"]


def test_failed_maker_leaves_nothing(folder: Path) -> None:
    def fail(draft: Path) -> None:
        (draft / "a").write_text("half")
        raise ValueError("wrong source")

    with pytest.raises(ValueError, match="wrong source"):
        cache.get("kernels", KEY, fail)
    assert [path.name for path in (folder / "kernels").iterdir()] == [f"{KEY}.lock"]
    assert (cache.get("kernels", KEY, writer("x", [])) / "a").read_text() == "x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_unwritable_folder_is_named(folder: Path, code: int) -> None:
    def fail(_: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(cache.CacheError) as caught:
        cache.get("kernels", KEY, fail)
    assert str(caught.value) == (
        f"cache: folder must be writable, got {folder}: {os.strerror(code)}"
        " (free space there, or name another folder in OPENWEEK_CACHE)"
    )
    assert [path.name for path in (folder / "kernels").iterdir()] == [f"{KEY}.lock"]


def test_error_of_the_maker_is_not_the_folders() -> None:
    def fail(_: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, "no such program", "nvcc")

    with pytest.raises(FileNotFoundError, match="nvcc"):
        cache.get("kernels", KEY, fail)


@pytest.mark.parametrize("parent", ["file", "proc"])
def test_folder_that_cannot_be_created(
    parent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    place = "/proc/self/cache" if parent == "proc" else str(tmp_path / "file" / "cache")
    monkeypatch.setenv("OPENWEEK_CACHE", place)
    with pytest.raises(cache.CacheError, match=r"folder must be writable, got .*cache: "):
        cache.get("kernels", KEY, writer("x", []))


def test_hit_needs_no_right_to_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cache.get("kernels", KEY, writer("x", calls))

    def read_only(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert cache.get("kernels", KEY, writer("y", calls)) == folder / "kernels" / KEY
    with pytest.raises(cache.CacheError, match="Read-only"):
        cache.get("kernels", cache.key_of(["two"]), writer("y", calls))
    assert calls == ["x"]


def start(log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, cache_process.__file__, cache.__file__, str(log), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_eight_processes_make_once(tmp_path: Path) -> None:
    processes = [start(tmp_path / "log", 0.5) for _ in range(8)]
    outputs = [process.communicate(timeout=TIMEOUT_S)[0].split() for process in processes]
    assert sorted(outputs) == [["half", "whole"]] + [["whole"]] * 7
    assert (tmp_path / "log").read_text() == "made\n"


def test_killed_maker_blocks_nobody(folder: Path, tmp_path: Path) -> None:
    killed = start(tmp_path / "log", 1000)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "half\n"
    waiting = [start(tmp_path / "log", 0) for _ in range(2)]
    with pytest.raises(subprocess.TimeoutExpired):
        waiting[0].communicate(timeout=1)  # it waits for the lock
    assert (tmp_path / "log").read_text() == "made\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=TIMEOUT_S)
    outputs = [process.communicate(timeout=TIMEOUT_S)[0].split() for process in waiting]
    assert sorted(outputs) == [["half", "whole"], ["whole"]]
    assert (tmp_path / "log").read_text() == "made\nmade\n"
    assert {path.name for path in (folder / "kernels").iterdir()} == {KEY, f"{KEY}.lock"}
