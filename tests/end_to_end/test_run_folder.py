"""Files that appear whole or not at all, and the errors of a folder that cannot take them."""

import errno
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from benchmarks.end_to_end.run_folder import RunError, RunFolder


def test_gives_back_what_was_saved(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    arrays = {"a": np.arange(6).reshape(2, 3), "b.c": np.zeros(0, np.float32)}
    folder.save_arrays("numbers", arrays)
    folder.save_json("words", {"x": [1, "two"]})
    found = folder.load_arrays("numbers", made_by="train")
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert folder.load_json("words", made_by="train") == {"x": [1, "two"]}
    names = {path.name for path in folder.path.iterdir()}
    assert names == {"numbers.npz", "words.json"}


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.save_json("kept", "old").open() as reader:
        folder.save_json("kept", "new")
        assert reader.read() == '"old"\n'


@pytest.mark.parametrize("reason", ["full", "interrupted"])
def test_an_unfinished_file_leaves_the_old_one_and_no_rest(tmp_path: Path, reason: str) -> None:
    folder = RunFolder(tmp_path)
    folder.save_json("kept", "old")

    def fill(file: IO[bytes]) -> None:
        file.write(b'"ne')
        raise KeyboardInterrupt if reason == "interrupted" else OSError(errno.ENOSPC, "No space")

    expected: type[BaseException] = KeyboardInterrupt if reason == "interrupted" else RunError
    message = "^$" if reason == "interrupted" else "its disk is full"
    with pytest.raises(expected, match=message):
        folder.write("kept.json", fill)
    assert folder.load_json("kept", made_by="data") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_refuses_what_the_disk_has_no_room_for(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"needs 1000000000000 MB, its disk has \d+ MB left"):
        RunFolder(tmp_path).check_space(10**18)


def test_names_the_stage_that_writes_a_missing_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"weights.npz is not there, the stage train writes it"):
        folder.load_arrays("weights", made_by="train")
    with pytest.raises(RunError, match=r"spans.json is not there, the stage train writes it"):
        folder.load_json("spans", made_by="train")


@pytest.mark.parametrize("content", [b"", b"half a fi", b"PK\x03\x04 half a fi"])
def test_says_that_a_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    for name in ("weights.npz", "spans.json"):
        (tmp_path / name).write_bytes(content)
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match=r"weights.npz is damaged \(run the stage train again"):
        folder.load_arrays("weights", made_by="train")
    with pytest.raises(RunError, match=r"spans.json is damaged \(run the stage train again"):
        folder.load_json("spans", made_by="train")


def test_says_that_the_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot make the folder .*name another folder"):
        RunFolder(tmp_path / "file" / "run")
