"""What the fields of a trace event say, whatever JSON value they hold: nothing here raises."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from benchmarks.trace.model import NONE

Scalar: TypeAlias = str | float
Thread: TypeAlias = tuple[Scalar, Scalar]

_MAX_INTEGER = 2**62
_SCALARS = (str, int, float)


def text(value: object) -> str:
    """A name; numbers count as names, and what holds values as no name."""
    return value if isinstance(value, str) else str(scalar(value))


def scalar(value: object) -> Scalar:
    """A process, thread, device or stream; "" for none and for what is no name."""
    return value if isinstance(value, _SCALARS) else ""


def number(value: object) -> float:
    """A time; NaN for what is no number. Some profilers write numbers as strings."""
    if isinstance(value, float):
        return value
    if not isinstance(value, _SCALARS):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def correlation(args: dict[str, Any]) -> int:
    """The positive id that work shares with its launch, or NONE."""
    value = args.get("correlation")
    return value if isinstance(value, int) and 0 < value < _MAX_INTEGER else NONE


def num_blocks(args: dict[str, Any]) -> int:
    """Thread blocks of the grid; 0 where it is not said."""
    grid = args.get("grid")
    if not isinstance(grid, list) or not all(isinstance(extent, int) for extent in grid):
        return 0
    blocks = math.prod(grid)
    return blocks if grid and 0 < blocks < _MAX_INTEGER else 0


def arguments(event: dict[str, Any]) -> dict[str, Any]:
    """The event's `args`, empty if there are none."""
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def thread(event: dict[str, Any]) -> Thread:
    """(process, thread) of an event."""
    return scalar(event.get("pid")), scalar(event.get("tid"))
