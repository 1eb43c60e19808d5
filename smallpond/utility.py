"""Names that programs written for the original import from here."""

from __future__ import annotations

from smallpond.commands import execute_command
from smallpond.contrib.overall_stats import overall_stats
from smallpond.readahead import ConcurrentIter, ConcurrentIterError

__all__ = ["ConcurrentIter", "ConcurrentIterError", "execute_command", "overall_stats"]


def __getattr__(name: str) -> object:
    if name == "InterceptHandler":
        raise ImportError(
            "smallpond.utility has no InterceptHandler, which hands records of Python's logging to "
            "loguru: messages here are records of Python's logging, of the logger 'smallpond'"
        )
    raise AttributeError(f"module 'smallpond.utility' has no attribute {name!r}")
