"""Manifests: the first wins, whole or not at all, and damage never goes unseen."""

import errno
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from smallpond import manifest
from smallpond.errors import CorruptedDataError
from smallpond.handoff import PartWriter, part_from_dict, part_to_dict, slice_part
from smallpond.manifest import load_manifest, save_manifest


def test_a_part_survives_its_manifest(folder: str) -> None:
    table = pa.table({"n": range(9)})
    with PartWriter(f"{folder}/a", table.schema, lossless=False) as writer:
        writer.append(0, table)
        [whole] = writer.close()
    part = slice_part(whole, 2, 7)
    save_manifest(f"{folder}/m.json", {"parts": [part_to_dict(part)]})
    value = load_manifest(f"{folder}/m.json")
    assert value is not None
    assert [part_from_dict(each) for each in value["parts"]] == [part]


def test_no_manifest(folder: str) -> None:
    assert load_manifest(f"{folder}/m.json") is None


def test_the_first_manifest_wins(folder: str) -> None:
    url = f"{folder}/m.json"
    assert save_manifest(url, {"attempt": 1, "ü": [1.5, None]}) == {"attempt": 1, "ü": [1.5, None]}
    assert save_manifest(url, {"attempt": 2}) == {"attempt": 1, "ü": [1.5, None]}


def test_one_of_many_at_once_wins(tmp_path: Path) -> None:
    url = str(tmp_path / "m.json")
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda i: save_manifest(url, {"attempt": i}), range(64)))
    assert results == [load_manifest(url)] * 64
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_a_race_that_the_check_beforehand_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path / "m.json")
    real = manifest._create_local

    def late(path: Path, data: bytes) -> bool:
        monkeypatch.setattr(manifest, "_create_local", real)
        save_manifest(url, {"attempt": "faster"})
        return real(path, data)

    monkeypatch.setattr(manifest, "_create_local", late)
    assert save_manifest(url, {"attempt": "slower"}) == {"attempt": "faster"}


def test_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", no_link)
    url = str(tmp_path / "m.json")
    assert save_manifest(url, {"attempt": 1}) == {"attempt": 1}
    assert save_manifest(url, {"attempt": 2}) == {"attempt": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_a_damaged_manifest_never_gives_another_value(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    value = {"rows": 12, "url": "ä/b", "share": 0.5, "none": None}
    save_manifest(str(path), value)
    data = path.read_bytes()
    damaged = [data[:size] for size in range(len(data))]
    damaged += [data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :] for i in range(len(data))]
    for content in damaged:
        path.write_bytes(content)
        try:
            assert load_manifest(str(path)) == value  # an escape may be in capitals, say
            assert len(content) == len(data)
        except CorruptedDataError as error:
            assert str(path) in str(error)  # noqa: PT017 (either is right)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"\0" * 40, b'{"value":{}'])
def test_a_damaged_manifest_is_an_error_and_can_be_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(CorruptedDataError, match=r"m\.json: "):
        load_manifest(str(path))
    assert save_manifest(str(path), {"attempt": 2}) == {"attempt": 2}


@pytest.mark.parametrize("when", ["before the manifest", "before its link"])
def test_a_process_killed_before_the_commit_commits_nothing(when: str, tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        import pyarrow as pa
        from smallpond.handoff import PartWriter, part_to_dict
        from smallpond.manifest import save_manifest
        die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        table = pa.table({{"n": [1]}})
        with PartWriter({str(tmp_path / "a")!r}, table.schema, lossless=False) as w:
            w.append(0, table)
            [part] = w.close()
        if {when == "before the manifest"}:
            die()
        os.link = die
        save_manifest({str(tmp_path / "m.json")!r}, {{"part": part_to_dict(part)}})
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").exists()
    assert load_manifest(str(tmp_path / "m.json")) is None
    assert save_manifest(str(tmp_path / "m.json"), {"attempt": 2}) == {"attempt": 2}
