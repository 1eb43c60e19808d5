"""The same rows from several smaller programs, for when one needs too much memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from smallpond.plan import (
    Aggregate,
    Distinct,
    Filter,
    How,
    Join,
    Plan,
    Project,
    Sort,
    Sql,
    Window,
    walk,
)
from smallpond.rules import is_made_once
from smallpond.sql import quote, refers

KEEPING = Aggregate | Distinct | Join | Sort | Sql | Window  # rows, while they work


def in_passes(program: Plan, passes: int) -> list[Plan]:
    """Programs whose rows together are those of one program, in some order.

    Only the topmost operation that keeps rows in memory is cut, by a hash of its keys: each pass
    reads the input again and keeps its share of the keys. What cannot be cut is returned whole.
    The user's own query is cut where he has said that its input may come in batches.

    Args:
        program: of a task.
        passes: how many programs to make; 1 returns the program.
    """
    if passes == 1 or not _can(program):
        return [program]
    return [_share(program, passes, i) for i in range(passes)]


def can_be_cut(program: Plan) -> bool:
    """Whether some operation of a program can be cut, or done before another."""
    keeping = [node for node in walk(program) if isinstance(node, KEEPING)]
    return len(keeping) > 1 or any(_can(node) for node in keeping)


def one_by_one(program: Plan, put_aside: Callable[[Plan], Plan]) -> Plan:
    """The program with its inner operations done before the topmost one.

    DuckDB runs all operations of a query at the same time, each with its share of the memory. Rows
    that functions or chance make are put aside, too: passes have to find the same ones again.

    Args:
        program: of a task.
        put_aside: computes a program and returns a leaf with its rows.
    """
    if not isinstance(program, KEEPING):
        return program.with_inputs(tuple(one_by_one(s, put_aside) for s in program.inputs))
    return program.with_inputs(
        tuple(
            put_aside(source)
            if any(isinstance(node, KEEPING) or is_made_once(node) for node in walk(source))
            else source
            for source in program.inputs
        )
    )


def _can(plan: Plan) -> bool:
    match plan:
        case Project() | Filter():
            return _can(plan.input)
        case Aggregate():
            return bool(plan.keys) and not any(refers(key).volatile for _, key in plan.keys)
        case Distinct():
            return True
        case Join():
            return plan.how is not How.CROSS
        case Sql():
            return plan.batched and len(plan.sources) == 1 and not plan.setup
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
        case Sql():
            batch = _kept(plan.sources[0], ["*COLUMNS(*)"], passes, index)
            return dataclasses.replace(plan, sources=(batch,), batch_idx=index)
    raise AssertionError(type(plan).__name__)


def _kept(source: Plan, keys: list[str], passes: int, index: int) -> Plan:
    return Filter(source, f"hash({', '.join(keys)}) % {passes} = {index}")


def _join(plan: Join, passes: int, index: int) -> Plan:
    """Both sides cut alike, by the hash that DuckDB itself joins by."""
    return dataclasses.replace(
        plan,
        left=_kept(plan.left, list(plan.compared(plan.left_keys)), passes, index),
        right=_kept(plan.right, list(plan.compared(plan.right_keys)), passes, index),
    )
