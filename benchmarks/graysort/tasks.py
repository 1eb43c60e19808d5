"""Functions from a dictionary to a dictionary, which any executor can run anywhere."""

from __future__ import annotations

import functools
import os
import re
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Item = dict[str, Any]
TaskFunction = Callable[[Item], Item]
# Runs a function on every item, and calls the listener each time that one of them is done.
RunAll = Callable[[TaskFunction, list[Item], Callable[[], None]], list[Item]]


class GraySortError(Exception):
    """What the user can repair: the message says how."""


class CorruptedDataError(Exception):
    """A file is no longer what was written to it."""


def task(function: TaskFunction) -> TaskFunction:
    """Makes a task of a function: adds what it cost, and hands expected failures on as values.

    A full disk or a corrupted file is no reason to try the task again, nor for a traceback.
    """

    @functools.wraps(function)
    def run(item: Item) -> Item:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            result = function(item)
        except CorruptedDataError as failure:
            result = {"corrupted": str(failure)}
        except OSError as failure:
            result = {"failed": str(failure)}
        return result | {
            "wall_s": time.perf_counter() - wall,
            "cpu_s": time.process_time() - cpu,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "peak_bytes": peak_memory_bytes(),
        }

    return run


def peak_memory_bytes() -> int:
    """Returns the most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage counts a parent's memory, too, if this process was forked and replaced itself.
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(result: Item) -> None:
    """Raises what a task handed on as a value."""
    if "corrupted" in result:
        raise CorruptedDataError(result["corrupted"])
    if "failed" in result:
        raise GraySortError(result["failed"])
