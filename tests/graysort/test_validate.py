"""The validator finds every fault that a sort can make, within parts and at their boundaries."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graysort import validate
from benchmarks.graysort.records import generate
from benchmarks.graysort.tasks import CorruptedDataError
from benchmarks.graysort.validate import (
    Summary,
    as_item,
    complaint,
    from_item,
    merge,
    summarise,
    summarise_file,
)
from tests.graysort import oracle
from tests.graysort.running import phases, rows_of

NUM_RECORDS, TASK_RECORDS, BLOCK_RECORDS = 100, 30, 7


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are summarised in tasks of 30 records and blocks of 7."""
    monkeypatch.setattr(validate, "_TASK_RECORDS", TASK_RECORDS)
    monkeypatch.setattr(validate, "_BLOCK_RECORDS", BLOCK_RECORDS)


def facts(summary: Summary) -> oracle.Facts:
    return oracle.Facts(
        summary.num_records, summary.num_unordered, summary.num_duplicates, summary.checksum
    )


@pytest.mark.parametrize("count", [0, 1, 2, 29, 30, 31, 100])
@pytest.mark.parametrize("skewed", [False, True], ids=["plain", "skewed"])
def test_summary_of_a_file(tmp_path: Path, small_parts: None, count: int, skewed: bool) -> None:
    data = generate(5, count, skewed=skewed).tobytes()
    (tmp_path / "file").write_bytes(data)
    summary = summarise_file(tmp_path / "file", phases())
    assert facts(summary) == oracle.facts(data)
    assert (summary.first_key, summary.last_key) == (data[:10], data[-100:][:10])


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([0, 1, 2])), max_size=40))
def test_order_and_duplicates_by_all_ten_bytes(keys: list[tuple[int, int]]) -> None:
    data = b"".join(bytes([0] * 7 + [high, 0, low]) + bytes(90) for high, low in keys)
    assert facts(summarise(rows_of(data))) == oracle.facts(data)


@given(st.lists(st.integers(0, 40), max_size=6).map(sorted), st.booleans())
def test_summaries_add_up_wherever_the_file_is_cut(cuts: list[int], by_key: bool) -> None:
    data = generate(0, 40, skewed=True).tobytes()
    data = oracle.sorted_records(data) if by_key else data
    bounds = [0, *cuts, 40]
    parts = [data[100 * a : 100 * b] for a, b in itertools.pairwise(bounds)]
    merged = merge([summarise(rows_of(part)) for part in parts])
    assert merged == summarise(rows_of(data))
    assert facts(merged) == oracle.facts(data)


def test_summaries_travel_with_checksums_of_128_bits() -> None:
    summary = Summary(3, 1, 2, 2**128 - 5, b"\x00" * 10, b"\xff" * 10)
    assert from_item(as_item(summary) | {"cpu_s": 1.0}) == summary
    assert summary.followed_by(Summary(1, 0, 0, 7, b"", b"")).checksum == 2


def swap(a: int, b: int) -> Callable[[list[bytes]], None]:
    def change(records: list[bytes]) -> None:
        records[a], records[b] = records[b], records[a]

    return change


def flip(idx: int, byte: int, bit: int) -> Callable[[list[bytes]], None]:
    def change(records: list[bytes]) -> None:
        changed = bytearray(records[idx])
        changed[byte] ^= 1 << bit
        records[idx] = bytes(changed)

    return change


def swap_parts(records: list[bytes]) -> None:
    """Each part is in order, only the boundaries are not."""
    records[:] = records[30:60] + records[:30] + records[60:]


FAULTS: dict[str, tuple[Callable[[list[bytes]], None], str]] = {
    "swapped in a block": (swap(1, 2), "1 records are smaller than the one before"),
    "swapped at a block's boundary": (swap(6, 7), "1 records are smaller"),
    "swapped at a part's boundary": (swap(29, 30), "1 records are smaller"),
    "swapped far apart": (swap(3, 90), "records are smaller"),
    "parts swapped": (swap_parts, "1 records are smaller"),
    "payload bit": (flip(50, 99, 0), "checksum"),
    "number bit": (flip(0, 12, 7), "checksum"),
    "last key bit, order kept": (flip(99, 9, 0), "checksum"),
    "missing record": (lambda records: records.pop(40), "99 records, the input has 100"),
    "missing last record": (lambda records: records.pop(), "99 records, the input has 100"),
    "record twice": (lambda records: records.insert(8, records[8]), "101 records, the input"),
    "one record for another": (
        lambda records: records.__setitem__(41, records[40]),
        "checksum",
    ),
    "payloads swapped": (
        lambda records: records.__setitem__(
            slice(0, 2), [records[0][:10] + records[1][10:], records[1][:10] + records[0][10:]]
        ),
        "checksum",
    ),
    "all zero": (lambda records: records.__setitem__(slice(None), [bytes(100)] * 100), "checksum"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(tmp_path: Path, small_parts: None, fault: str) -> None:
    data = generate(0, NUM_RECORDS).tobytes()
    expected = summarise(rows_of(data))
    change, message = FAULTS[fault]
    file, records = tmp_path / "sorted", oracle.records(oracle.sorted_records(data))
    file.write_bytes(b"".join(records))
    assert complaint(summarise_file(file, phases()), expected) is None
    change(records)
    file.write_bytes(b"".join(records))
    found = complaint(summarise_file(file, phases()), expected)
    assert found is not None
    assert message in found


def test_file_that_is_cut_off_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(150))
    with pytest.raises(CorruptedDataError, match="must be a multiple of 100 bytes, got 150"):
        summarise_file(tmp_path / "file", phases())
