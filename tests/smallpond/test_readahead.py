"""An iterable in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from smallpond.utility import ConcurrentIter, ConcurrentIterError


@pytest.mark.parametrize("size", [1, 3, 100])
def test_all_items_in_order(size: int) -> None:
    with ConcurrentIter(range(20), max_buffer_size=size) as items:
        assert list(items) == list(range(20))
    with ConcurrentIter([], size) as nothing:
        assert list(nothing) == []


def test_it_works_while_the_reader_does() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(5):
            made.append(threading.get_ident())
            yield i

    with ConcurrentIter(source(), max_buffer_size=2) as items:
        first = next(iter(items))
        deadline = time.monotonic() + 10
        # One is read, two wait, and one more is made for when there is room.
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert (first, len(made)) == (0, 4)
    assert threading.get_ident() not in made


def test_what_it_raises() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    seen = []
    with (
        pytest.raises(ConcurrentIterError, match=r"KeyError: 'x'") as caught,
        ConcurrentIter(source()) as items,
    ):
        seen += list(items)  # raises in the reader
    assert isinstance(caught.value.__cause__, KeyError)
    with ConcurrentIter(source()) as items:
        for item in items:
            seen.append(item)
            break  # and only in the reader
    assert seen == [1]


def test_a_reader_that_stops_early() -> None:
    before = threading.active_count()
    with ConcurrentIter(iter(int, 1), max_buffer_size=2) as endless:
        for _, _ in zip(range(5), endless, strict=False):
            pass
        endless.clear()
    assert threading.active_count() == before
    assert list(endless) == []


def test_no_room() -> None:
    with pytest.raises(ValueError, match="max_buffer_size must be at least 1, got 0"):
        ConcurrentIter([], 0)
