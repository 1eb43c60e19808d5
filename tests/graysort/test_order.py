"""The order is that of Python's stable sort by the ten bytes of the key."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graysort import order as order_module
from benchmarks.graysort.order import stable_order
from benchmarks.graysort.plan import BYTES_PER_RECORD
from benchmarks.graysort.records import Rows, generate


def expected(rows: Rows) -> list[int]:
    keys = [row[:10].tobytes() for row in rows]
    return sorted(range(len(keys)), key=keys.__getitem__)


def with_keys(keys: list[bytes]) -> Rows:
    """Records with these keys; the bytes after them would sort the other way round."""
    rows = np.zeros((len(keys), 100), np.uint8)
    for idx, key in enumerate(keys):
        rows[idx, :10] = np.frombuffer(key, np.uint8)
        rows[idx, 10:18] = np.frombuffer((2**60 - idx).to_bytes(8, "big"), np.uint8)
    return rows


byte = st.sampled_from([0, 1, 127, 128, 255])
few_keys = st.lists(st.lists(byte, min_size=10, max_size=10).map(bytes), min_size=1, max_size=6)


@given(few_keys.flatmap(lambda keys: st.lists(st.sampled_from(keys), max_size=200)))
def test_order_of_keys_that_repeat(keys: list[bytes]) -> None:
    rows = with_keys(keys)
    assert stable_order(rows).tolist() == expected(rows)


@given(st.integers(0, 79), st.integers(0, 300), st.integers(0, 2**32))
def test_order_of_keys_that_differ_in_few_bits(bit: int, count: int, start: int) -> None:
    """Whatever window of the key a round takes, the bits at its edges count."""
    chosen = np.random.default_rng(start).integers(0, 8, count)
    keys = [((int(x) << bit) % 2**80).to_bytes(10, "big") for x in chosen]
    rows = with_keys(keys)
    assert stable_order(rows).tolist() == expected(rows)


KINDS = {
    "plain": lambda rows: rows,
    "skewed": lambda rows: generate(0, len(rows), skewed=True),
    "all equal": lambda rows: with_keys([b"0123456789"] * len(rows)),
    "8 bytes equal": lambda rows: with_keys([b"01234567" + row[:2].tobytes() for row in rows]),
    "last byte only": lambda rows: with_keys([b"012345678" + row[:1].tobytes() for row in rows]),
    "in pairs": lambda rows: rows[np.arange(len(rows)) // 2],
    "ascending": lambda rows: rows[expected(rows)],
    "descending": lambda rows: rows[expected(rows)[::-1]],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, 256, 257, 20_000])
def test_order_of_many(kind: str, count: int) -> None:
    rows = KINDS[kind](generate(0, count))
    assert stable_order(rows).tolist() == expected(rows)


def test_order_where_a_third_round_is_needed(seed: int) -> None:
    """Many groups leave few bits for the key: two rounds know 75 bits of these."""
    chosen = np.random.default_rng(seed)
    alone, partners = generate(0, 50_000), generate(50_000, 75_000)[np.arange(150_000) // 2]
    partners[:, 9] ^= chosen.integers(0, 4, len(partners), np.uint8)
    rows = chosen.permutation(np.concatenate([alone, partners]))
    assert stable_order(rows).tolist() == expected(rows)


@pytest.mark.parametrize("kind", ["plain", "skewed", "all equal", "in pairs"])
def test_memory_is_what_the_plan_counts_on(kind: str) -> None:
    rows = KINDS[kind](generate(0, 100_000))
    tracemalloc.start()
    try:
        stable_order(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 100 + peak / len(rows) <= BYTES_PER_RECORD


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "MAX_ROWS", 3)
    with pytest.raises(ValueError, match="stable_order: rows must be at most 3, got 4"):
        stable_order(generate(0, 4))
