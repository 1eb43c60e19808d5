"""The generator makes the published records, whatever range of them it is asked for."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.graysort.input_file import KNOWN_CHECKSUMS, write_input
from benchmarks.graysort.phases import Phases
from benchmarks.graysort.records import generate, key_words, text_keys
from benchmarks.graysort.workers import smallpond_workers
from tests.graysort import oracle
from tests.graysort.running import phases, rows_of

BLOCK = 16_384  # records are made in blocks of so many


def test_first_key_is_the_published_one() -> None:
    assert generate(0, 1).tobytes()[:10] == b"JimGrayRIP"


def test_checksum_of_a_thousand_is_the_published_one(tmp_path: Path) -> None:
    summary = write_input(tmp_path / "input", 1000, phases(), skewed=False)
    assert summary.checksum == 0x1F9FFE645EC
    assert (tmp_path / "input").read_bytes() == generate(0, 1000).tobytes()


@pytest.mark.slow
def test_checksum_of_ten_million_is_the_published_one(tmp_path: Path) -> None:
    with smallpond_workers(2, tmp_path / "tasks") as run_all:
        summary = write_input(tmp_path / "input", 10_000_000, Phases(run_all), skewed=False)
    (tmp_path / "input").unlink()  # 1 GB, which would stay on the disk for the next runs
    assert summary.num_records == 10_000_000
    assert summary.checksum == KNOWN_CHECKSUMS[10_000_000] == 0x4C49607AC53602


@pytest.mark.parametrize("skewed", [False, True], ids=["plain", "skewed"])
@pytest.mark.parametrize("first", [0, 1, 12_345, 2**32 - 3, 2**40, 2**62 + 7])
def test_records_are_those_of_plain_integers(first: int, skewed: bool) -> None:
    expected = [oracle.record(first + idx, skewed=skewed) for idx in range(40)]
    assert oracle.records(generate(first, 40, skewed=skewed).tobytes()) == expected


@pytest.mark.parametrize("skewed", [False, True], ids=["plain", "skewed"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_a_range_is_the_same_made_in_pieces(count: int, skewed: bool) -> None:
    whole = generate(77, count, skewed=skewed)
    assert whole.shape == (count, 100)
    pieces = [
        generate(77 + idx, min(999, count - idx), skewed=skewed) for idx in range(0, count, 999)
    ]
    assert whole.tobytes() == b"".join(piece.tobytes() for piece in pieces)
    for idx in {0, count // 2, count - 1} if count else ():
        assert whole[idx].tobytes() == oracle.record(77 + idx, skewed=skewed)


def test_skewed_records_share_keys_as_defined() -> None:
    rows = generate(0, 64_000, skewed=True)
    keys = [record[:10] for record in oracle.records(rows.tobytes())]
    shared = [oracle.value(zeros).to_bytes(16, "big")[:10] for zeros in range(5)]
    # A quarter has key 1, an eighth begins like key 2, a sixteenth has key 3.
    assert keys.count(shared[1]) == pytest.approx(16_000, rel=0.03)
    assert keys.count(shared[3]) == pytest.approx(4_000, rel=0.06)
    alike = [key for key in keys if key[:8] == shared[2][:8]]
    assert len(alike) == pytest.approx(8_000, rel=0.05)
    assert len(set(alike)) > 7_000


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, -1), (2**63 - 1, 2)])
def test_record_numbers_out_of_range_are_refused(first: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"generate: record numbers must lie within 0 and 2\^63"):
        generate(first, count)


def test_key_words_compare_as_keys_do(seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (500, 100), np.uint8) * np.uint8(127)
    high, low = key_words(rows)
    numbers = [int(first) << 16 | int(last) for first, last in zip(high, low, strict=True)]
    assert numbers == [int.from_bytes(row[:10].tobytes(), "big") for row in rows]


def test_text_records_are_lines_with_printable_keys() -> None:
    rows = generate(0, 5000)
    before = rows.copy()
    text = text_keys(rows).tobytes()
    lines = text.split(b"\n")
    assert lines.pop() == b""
    assert len(lines) == 5000
    assert all(len(line) == 99 and line.isascii() and line.decode().isprintable() for line in lines)
    assert len({line[:10] for line in lines}) == 5000
    assert np.array_equal(rows, before)
    # The extremes of a byte stay printable.
    extremes = np.zeros((2, 100), np.uint8)
    extremes[1] = 255
    assert {*text_keys(extremes)[:, 0]} == {32, 126}
    assert rows_of(text).shape == (5000, 100)
