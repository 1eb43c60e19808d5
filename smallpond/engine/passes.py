"""The same rows from several smaller programs, for when one needs too much memory."""

from __future__ import annotations

import dataclasses

from smallpond.plan import (
    Aggregate,
    Distinct,
    Filter,
    How,
    Join,
    Plan,
    Project,
)
from smallpond.sql import quote


def in_passes(program: Plan, passes: int) -> list[Plan]:
    """Programs whose rows together are those of one program, in some order.

    Only the topmost operation that keeps rows in memory is cut, by a hash of its keys: each pass
    reads the input again and keeps its share of the keys. What cannot be cut is returned whole.

    Args:
        program: of a task.
        passes: how many programs to make; 1 returns the program.
    """
    if passes == 1:
        return [program]
    return [_share(program, passes, i) for i in range(passes)] if _can(program) else [program]


def can_be_cut(program: Plan) -> bool:
    """Whether `in_passes` has a way."""
    return _can(program)


def _can(plan: Plan) -> bool:
    match plan:
        case Project() | Filter():
            return _can(plan.input)
        case Aggregate():
            return bool(plan.keys)
        case Distinct():
            return True
        case Join():
            return plan.how is not How.CROSS
    return False


def _share(plan: Plan, passes: int, index: int) -> Plan:
    match plan:
        case Project() | Filter():
            return plan.with_inputs((_share(plan.input, passes, index),))
        case Aggregate():
            keys = [expression for _, expression in plan.keys]
            return plan.with_inputs((_kept(plan.input, keys, passes, index),))
        case Distinct(on=()):
            return plan.with_inputs((_kept(plan.input, ["*COLUMNS(*)"], passes, index),))
        case Distinct():
            keys = [quote(name) for name in plan.on]
            return plan.with_inputs((_kept(plan.input, keys, passes, index),))
        case Join():
            return _join(plan, passes, index)
    raise AssertionError(type(plan).__name__)


def _kept(source: Plan, keys: list[str], passes: int, index: int) -> Plan:
    return Filter(source, f"hash({', '.join(keys)}) % {passes} = {index}")


def _join(plan: Join, passes: int, index: int) -> Plan:
    """Both sides cut alike; keys that compare equal must hash alike, so they go through text."""
    left, right = (
        [_text(quote(key)) for key in keys] for keys in (plan.left_keys, plan.right_keys)
    )
    return dataclasses.replace(
        plan,
        left=_kept(plan.left, left, passes, index),
        right=_kept(plan.right, right, passes, index),
    )


def _text(key: str) -> str:
    return f"coalesce(TRY_CAST({key}::VARCHAR AS DOUBLE)::VARCHAR, {key}::VARCHAR)"
