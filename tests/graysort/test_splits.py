"""Partitions are ranges of (key, position), of equal size whatever the keys are."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.graysort.order import MAX_ROWS, stable_order
from benchmarks.graysort.plan import MAX_PARTS, PROCESS_BYTES, make_plan
from benchmarks.graysort.records import generate
from benchmarks.graysort.splits import (
    choose_splits,
    partition_ends,
    sample_positions,
    split_point,
)
from benchmarks.graysort.tasks import GraySortError
from tests.graysort.running import rows_of

KEYS = [b"a" * 10, b"a" * 8 + b"bb", b"a" * 9 + b"b", b"b" * 10, b"\x00" * 10, b"\xff" * 10]
points = st.tuples(st.sampled_from(KEYS), st.integers(0, 120))


@given(
    st.lists(st.sampled_from(KEYS), max_size=60),
    st.lists(points, max_size=8),
    st.sampled_from([0, 1, 40, 2**40]),
)
@example([KEYS[0]] * 10, [(KEYS[0], 35), (KEYS[0], 36)], 40)
def test_ends_are_counts_of_smaller_points(
    keys: list[bytes], wanted: list[tuple[bytes, int]], first: int
) -> None:
    rows = rows_of(b"".join(key + bytes(90) for key in keys))
    splits = sorted(
        (key, first + position - 30) for key, position in wanted if first + position >= 30
    )
    own = [(key, first + idx) for idx, key in enumerate(keys)]
    ends = partition_ends(
        rows, stable_order(rows), first, [split_point(*split) for split in splits]
    )
    counts = [sum(point < split for point in own) for split in splits]
    assert ends.tolist() == [*counts, len(keys)]


@pytest.mark.parametrize("num_partitions", [1, 2, 7, 40])
@pytest.mark.parametrize("kind", ["plain", "skewed", "equal", "ascending"])
def test_partitions_are_of_equal_size(kind: str, num_partitions: int) -> None:
    rows = generate(0, 30_000, skewed=kind == "skewed")
    if kind == "equal":
        rows[:, :10] = 7
    order = stable_order(rows)
    if kind == "ascending":
        rows, order = rows[order], np.arange(len(rows))
    samples = [
        split_point(rows[at, :10].tobytes(), at)
        for at in sample_positions(len(rows), 128 * num_partitions, seed=1)
    ]
    ends = partition_ends(rows, order, 0, choose_splits(samples, num_partitions))
    sizes = np.diff(ends, prepend=0)
    assert len(sizes) == num_partitions
    assert sizes.sum() == len(rows)
    assert sizes.max() < 1.5 * len(rows) / num_partitions
    assert sizes.min() > 0.5 * len(rows) / num_partitions


@given(st.integers(0, 500), st.integers(1, 50), st.integers(0, 9))
def test_samples_are_spread_over_the_input(num_records: int, num_samples: int, seed: int) -> None:
    positions = sample_positions(num_records, num_samples, seed)
    assert len(positions) == min(num_records, num_samples)
    assert positions == sorted(set(positions))
    assert all(0 <= position < num_records for position in positions)
    gaps = np.diff([-1, *positions, num_records])
    assert gaps.max() <= 2 * (num_records // num_samples + 1)


def test_samples_differ_within_their_stretches() -> None:
    """Data with a period would fool samples at equal distances."""
    offsets = {position % 100 for position in sample_positions(10_000, 100, seed=0)}
    assert len(offsets) > 50


@pytest.mark.parametrize("num_records", [0, 1, 999, 250_001, 10**7, 2 * 10**9])
@pytest.mark.parametrize("memory", [10**9, 64 * 10**9])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_plan_covers_the_input_within_memory(
    num_records: int, memory: int, num_workers: int
) -> None:
    plan = make_plan(num_records, memory, num_workers)
    end = 0
    for first, count in plan.chunks():
        assert first == end
        assert 0 < count <= plan.capacity_records
        end += count
    assert end == num_records
    assert plan.num_chunks * plan.num_partitions <= 1.01 * MAX_PARTS
    assert num_workers * (PROCESS_BYTES + 200 * plan.capacity_records) <= memory
    assert 2 * num_records <= plan.num_partitions * plan.capacity_records or num_records == 0
    assert plan.num_partitions >= 1


@pytest.mark.parametrize(
    ("num_records", "least"), [(1000, 370), (10**7, 372), (10**10, 3132)], ids=str
)
def test_too_little_memory_is_refused(num_records: int, least: int) -> None:
    with pytest.raises(GraySortError, match=f"--memory-limit: memory must be at least {least} MB"):
        make_plan(num_records, (least - 1) * 10**6, 2)
    plan = make_plan(num_records, least * 10**6, 2)
    assert plan.num_chunks * plan.num_partitions <= 1.01 * MAX_PARTS


def test_more_than_two_passes_can_do_is_refused() -> None:
    with pytest.raises(GraySortError, match="--bytes: two passes sort at most about 3886"):
        make_plan(10**12, 2**60, 2)
    assert make_plan(380 * 10**9, 2**60, 2).capacity_records == MAX_ROWS
