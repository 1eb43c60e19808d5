"""Events: when the result of an asynchronous call may be used."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch


class EventHandle:
    """A point in the work of a call that can be waited for.

    Args:
        finish: on CPU, what ends the call: it waits for the exchange that is in flight on gloo's
            threads and writes the results. None is an event that has happened already.
    """

    def __init__(self, finish: Callable[[], None] | None = None) -> None:
        self._finish = finish

    def current_stream_wait(self) -> None:
        """Return when the results may be used; raise what the call failed with.

        Raises:
            RuntimeError: a peer was lost. Waiting again raises again.
            ValueError: the ranks made different calls.
        """
        if self._finish is not None:
            self._finish()
            # Only a success is final, and it lets go of the buffers of the exchange.
            self._finish = None


class EventOverlap:
    """What an asynchronous call returns beside its results, and what the next one may wait for.

    Args:
        event: the event, or None for a call that has ended already.
        extra_tensors: tensors to keep alive as long as this object.

    Example:
        >>> with EventOverlap(EventHandle()):
        ...     pass  # work that needs no result of the call; the wait comes on exit
    """

    def __init__(
        self,
        event: EventHandle | None = None,
        extra_tensors: tuple[torch.Tensor, ...] | None = None,
    ) -> None:
        self.event = event
        self.extra_tensors = extra_tensors

    def current_stream_wait(self) -> None:
        """Wait for the event, if there is one: after it the results of the call are valid."""
        if self.event is not None:
            self.event.current_stream_wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An error of the body goes first: a wait could hide it, or take the group's whole timeout.
        if error is None:
            self.current_stream_wait()
