"""Text files to packed sequences, and the bigram model's loss on them."""

import itertools
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.end_to_end import text
from benchmarks.end_to_end.bigram import best_bigram_loss
from benchmarks.end_to_end.run_folder import RunError
from benchmarks.end_to_end.text import prepare

_SEQ_LEN = 64


def _fill(folder: Path, num_files: int = 60, num_bytes: int = 4000) -> None:
    """Files that each hold a word of their own, so that it is seen where their bytes went."""
    for number in range(num_files):
        line = f"file{number:03d} has this line, and again and again.\n"
        (folder / f"{number:03d}.txt").write_text((line * num_bytes)[:num_bytes])


def _words(sequences: text.Bytes) -> set[bytes]:
    found: set[bytes] = set()
    for sequence in sequences:
        raw = sequence.tobytes()
        places = (place for place in range(len(raw) - 7) if raw[place : place + 4] == b"file")
        found |= {raw[place : place + 7] for place in places}
    return found


def test_no_file_is_on_both_sides(tmp_path: Path) -> None:
    _fill(tmp_path)
    packed = prepare(tmp_path, _SEQ_LEN, seed=0)
    train, validation = _words(packed.train), _words(packed.validation)
    assert len(train) + len(validation) == 60
    assert not train & validation
    assert 5 <= len(validation) <= 8  # a tenth of the bytes


def test_one_big_file_is_cut_and_split(tmp_path: Path) -> None:
    lines = [f"line {number} is here\n" for number in range(20_000)]
    (tmp_path / "all.txt").write_text("".join(lines))
    packed = prepare(tmp_path, _SEQ_LEN, seed=0)
    total = len(packed.train) + len(packed.validation)
    assert 0.08 < len(packed.validation) / total < 0.15


def test_sequences_hold_the_text_and_begin_with_the_last_byte_of_another(tmp_path: Path) -> None:
    _fill(tmp_path)
    packed = prepare(tmp_path, _SEQ_LEN, seed=0)
    for part in (packed.train, packed.validation):
        assert part.dtype == np.uint8
        assert part.shape[1] == _SEQ_LEN + 1
        first, last = Counter(part[:, 0].tolist()), Counter(part[:, -1].tolist())
        # Only the first sequence begins, and only the last one ends, without a neighbour.
        assert sum((first - last).values()) <= 1
    length = (len(packed.train) + len(packed.validation)) * _SEQ_LEN
    assert 0 <= packed.figures.num_bytes + 60 - length < 2 * _SEQ_LEN + 2


def test_the_same_seed_gives_the_same_sequences(tmp_path: Path) -> None:
    _fill(tmp_path)
    first, again, other = (prepare(tmp_path, _SEQ_LEN, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.train, again.train)
    assert np.array_equal(first.validation, again.validation)
    assert not np.array_equal(first.train, other.train)


def test_leaves_out_what_is_not_text_and_what_was_there_before(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "copy.txt").write_bytes((tmp_path / "000.txt").read_bytes())
    # The same but for blanks at line ends.
    (tmp_path / "dos.txt").write_bytes(
        (tmp_path / "001.txt").read_bytes().replace(b"\n", b"  \r\n")
    )
    (tmp_path / "zero.bin").write_bytes(b"text with a zero \0 byte\n" * 100)
    (tmp_path / "latin.txt").write_bytes("Grüße\n".encode("latin-1") * 100)
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    hidden = tmp_path / ".git"
    hidden.mkdir()
    (hidden / "config.txt").write_text("not for the model\n" * 100)
    figures = prepare(tmp_path, _SEQ_LEN, seed=0).figures
    assert (figures.num_files, figures.num_duplicates, figures.num_not_text) == (60, 2, 2)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_counts_files_that_cannot_be_read(tmp_path: Path) -> None:
    _fill(tmp_path)
    (tmp_path / "007.txt").unlink()
    (tmp_path / "007.txt").symlink_to("/proc/self/mem")  # opens, and fails to be read
    figures = prepare(tmp_path, _SEQ_LEN, seed=0).figures
    assert (figures.num_files, figures.num_unreadable) == (59, 1)


def test_stops_at_enough_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(tmp_path)
    monkeypatch.setattr(text, "_MAX_TEXT_BYTES", 130_000)
    figures = prepare(tmp_path, _SEQ_LEN, seed=0).figures
    assert figures.truncated
    assert 130_000 <= figures.num_bytes < 134_000


def test_a_file_beyond_the_limit_is_cut_at_a_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "_MAX_TEXT_BYTES", 130_001)
    (tmp_path / "umlauts.txt").write_text("Ärger über Öl\n" * 20_000)
    figures = prepare(tmp_path, _SEQ_LEN, seed=0).figures
    assert figures.num_not_text == 0
    assert 129_980 < figures.num_bytes <= 130_001


def test_default_is_the_standard_library_without_its_tests() -> None:
    paths = list(text._text_files(None))
    names = {path.name for path in paths}
    assert {"argparse.py", "dataclasses.py"} <= names
    assert not any("site-packages" in path.parts or "test" in path.parts for path in paths)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", "does not exist"),
        ("file.txt", "is not a folder"),
        ("empty", "holds no files"),
        ("little", r"holds 8 kB of text in 2 files \(1 not text.*at least 100 kB are needed"),
    ],
)
def test_says_what_is_wrong_with_the_input(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file.txt").write_text("a file\n")
    (tmp_path / "empty").mkdir()
    little = tmp_path / "little"
    little.mkdir()
    _fill(little, num_files=2)
    (little / "image.png").write_bytes(bytes(range(256)))
    with pytest.raises(RunError, match=message):
        prepare(tmp_path / name, _SEQ_LEN, seed=0)


# The bigram model


def _slow_loss(train: list[bytes], validation: list[bytes], strength: float) -> float:
    pairs = Counter((s[i], s[i + 1]) for s in train for i in range(len(s) - 1))
    seconds = Counter(s[i] for s in train for i in range(1, len(s)))
    total = sum(seconds.values())
    nats, judged = 0.0, 0
    for sequence in validation:
        for a, b in itertools.pairwise(sequence):
            anywhere = (seconds[b] + 1) / (total + 256)
            after_a = sum(pairs[a, c] for c in range(256))
            nats -= math.log((pairs[a, b] + strength * anywhere) / (after_a + strength))
            judged += 1
    return nats / judged


_SEQUENCES = st.lists(st.binary(min_size=5, max_size=5), min_size=1, max_size=6)


@given(train=_SEQUENCES, validation=_SEQUENCES)
def test_bigram_loss_is_the_oracle_s_and_no_other_strength_is_better(
    train: list[bytes], validation: list[bytes]
) -> None:
    arrays = [np.array([list(s) for s in part], np.uint8) for part in (train, validation)]
    best = best_bigram_loss(arrays[0], arrays[1])
    assert best.nats == pytest.approx(_slow_loss(train, validation, best.strength), rel=1e-9)
    for strength in (0.01, 1.0, 100.0, 10_000.0):
        assert best.nats <= _slow_loss(train, validation, strength) + 1e-9
