"""What a process and its descendants use, as Linux tells it; nothing where it does not."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def tree_of(pid: int) -> list[int]:
    """Returns a process and all its descendants that run now."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def memory_bytes(pids: Iterable[int]) -> int:
    """Returns what processes hold that is not in a file: mapped and cached files do not count.

    Memory that they share is counted once, as large as the one that has mapped most of it has it.
    """
    own, shared = 0, 0
    for pid in pids:
        sizes = dict(_sizes(pid))
        own += sizes.get("RssAnon", 0)
        shared = max(shared, sizes.get("RssShmem", 0))
    return own + shared


def cpu_seconds(pids: Iterable[int]) -> float:
    """Returns the processor time of processes, and of their children that have been waited for."""
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def end(pids: Iterable[int]) -> None:
    """Ends processes at once; those that are gone are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields after the name of the command, which may hold anything: state, parent, ..."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _sizes(pid: int) -> Iterator[tuple[str, int]]:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            yield name, 1024 * int(value.split()[0])
