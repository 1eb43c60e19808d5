"""Reading ahead: an iterable runs in a thread of its own, a few items before its reader."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

from smallpond.errors import SmallpondError

Item = TypeVar("Item")


class ConcurrentIterError(SmallpondError):
    """The iterable raised; what it raised is the cause."""


class ConcurrentIter(Generic[Item]):
    """The items of an iterable, made in a thread while the reader works on earlier ones.

    Args:
        iterable: what to read; it is read in the thread alone.
        max_buffer_size: how many items wait at most.

    Example:
        >>> with ConcurrentIter(range(3), max_buffer_size=2) as numbers:
        ...     list(numbers)
        [0, 1, 2]
    """

    def __init__(self, iterable: Iterable[Item], max_buffer_size: int = 1) -> None:
        if max_buffer_size < 1:
            raise ValueError(
                f"ConcurrentIter: max_buffer_size must be at least 1, got {max_buffer_size}"
            )
        self._iterable = iterable
        self._size = max_buffer_size
        self._buffer: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False  # the iterable
        self._closed = False  # nobody reads any more
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._produce, name="readahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._buffer or self._ended or self._closed)
                if not self._buffer:
                    break
                item = self._buffer.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            kind = type(self._error).__name__
            raise ConcurrentIterError(f"{kind}: {self._error}") from self._error

    def clear(self) -> None:
        """Drops the items that wait."""
        with self._changed:
            self._buffer.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Ends the thread, once it has made the item that it is at; those that wait are dropped."""
        with self._changed:
            self._closed = True
        self.clear()
        self._thread.join()

    def _produce(self) -> None:
        try:
            for item in self._iterable:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._buffer) < self._size or self._closed)
                    if self._closed:
                        return
                    self._buffer.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 (it is the reader's to handle)
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()
