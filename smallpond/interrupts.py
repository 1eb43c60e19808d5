"""Ctrl-C while something is being cleared away."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Lets what clears away come to its end although the user presses Ctrl-C, once.

    Whoever is impatient presses it twice; half a clean-up would leave files, and a second
    traceback on top of the first. If the clean-up itself is too slow, one more ends it. A Ctrl-C
    that was no second one comes late, but comes.

    Only the main thread is told of signals, and only Python's own handler is replaced: a program
    that has another one decides itself.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    interrupted = isinstance(sys.exc_info()[1], KeyboardInterrupt)
    pressed = 0

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed and not interrupted:
        raise KeyboardInterrupt
