"""What a join's result looks like: its columns, and whether its keys can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from smallpond.errors import PlanError
from smallpond.names import column_of, folded
from smallpond.plan import How, Join
from smallpond.sql import quote

if TYPE_CHECKING:
    from smallpond.dataframe import DataFrame


def joined(
    left: DataFrame,
    right: DataFrame,
    on: str | Sequence[str] | None,
    how: str,
    left_on: str | Sequence[str] | None,
    right_on: str | Sequence[str] | None,
    suffix: str,
    broadcast: bool | None,
    npartitions: int | None,
) -> Join:
    """The node for `DataFrame.join`.

    Raises:
        PlanError: keys are missing, differ in number, or cannot be equal.
    """
    if how not in [kind.value for kind in How]:
        raise PlanError(f"join: how must be one of {[kind.value for kind in How]}, got {how!r}")
    kind = How(how)
    if broadcast and kind in (How.RIGHT, How.FULL):
        raise PlanError(
            f"join: how={how!r} keeps right rows without a partner, which no worker alone can tell "
            "(leave broadcast out)"
        )
    left_keys, right_keys = _keys(on, left_on, right_on, kind)
    left_schema, right_schema = left.schema, right.schema
    left_keys = _found("left", left_keys, left_schema.names)
    right_keys = _found("right", right_keys, right_schema.names)
    for a, b in zip(left_keys, right_keys, strict=True):
        families = _family(left_schema.field(a).type), _family(right_schema.field(b).type)
        if families[0] != families[1]:
            raise PlanError(
                f"join: {a!r} is {left_schema.field(a).type} and {b!r} is "
                f"{right_schema.field(b).type}, which are never equal (cast one of them)"
            )
    select = _select(left_schema, right_schema, left_keys, right_keys, kind, suffix)
    left_types, right_types = (
        side.session.job.schemas.sql_types(side.plan) if left_keys else {} for side in (left, right)
    )
    compared_as = tuple(
        _compared(left_types[a], right_types[b]) for a, b in zip(left_keys, right_keys, strict=True)
    )
    return Join(
        left.plan, right.plan, left_keys, right_keys, kind, select, compared_as, broadcast,
        npartitions,
    )  # fmt: skip


def _compared(a: str, b: str) -> str:
    """The type in which SQL compares two, "" if they are the same."""
    if a == b:
        return ""
    if {a, b} == {"VARCHAR", "UUID"}:
        return "UUID"
    import duckdb  # noqa: PLC0415

    try:
        query = f"SELECT typeof(CASE WHEN true THEN NULL::{a} ELSE NULL::{b} END)"
        return str(duckdb.connect().execute(query).fetchall()[0][0])
    except duckdb.Error:
        return ""  # the join itself will say what is wrong


def _keys(
    on: str | Sequence[str] | None,
    left_on: str | Sequence[str] | None,
    right_on: str | Sequence[str] | None,
    kind: How,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    def names(value: str | Sequence[str] | None) -> tuple[str, ...]:
        return () if value is None else (value,) if isinstance(value, str) else tuple(value)

    both, left, right = names(on), names(left_on), names(right_on)
    if both and (left or right):
        raise PlanError("join: either on, or left_on and right_on")
    if len(left) != len(right):
        raise PlanError(f"join: left_on has {len(left)} columns and right_on {len(right)}")
    keys = (both, both) if both else (left, right)
    if kind is How.CROSS and keys[0]:
        raise PlanError("join: a cross join has no keys")
    if kind is not How.CROSS and not keys[0]:
        raise PlanError("join: on, or left_on and right_on, are needed (or how='cross')")
    return keys


def _found(side: str, keys: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    """The keys as the side spells them."""
    found = []
    for key in keys:
        column = column_of(key, columns)
        if column is None:
            raise PlanError(f"join: the {side} side has no column {key!r}; it has {columns}")
        found.append(column)
    return tuple(found)


def _family(kind: pa.DataType) -> str:
    """What compares with each other in SQL without a cast that may fail."""
    types = pa.types
    if types.is_dictionary(kind):
        return _family(kind.value_type)
    for name, belongs in (
        ("number", (types.is_integer, types.is_floating, types.is_decimal)),
        ("text", (types.is_string, types.is_large_string, types.is_string_view)),
        ("time", (types.is_timestamp, types.is_date)),
        ("bytes", (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)),
    ):
        if any(test(kind) for test in belongs):
            return name
    return str(kind)


def _select(
    left: pa.Schema,
    right: pa.Schema,
    left_keys: tuple[str, ...],
    right_keys: tuple[str, ...],
    kind: How,
    suffix: str,
) -> str:
    """Left columns, then right ones; keys of one name appear once, with the value there is."""
    if kind in (How.SEMI, How.ANTI):
        return "l.*"
    same = {folded(a) for a, b in zip(left_keys, right_keys, strict=True) if folded(a) == folded(b)}
    items = []
    for name in left.names:
        column = f"l.{quote(name)}"
        if folded(name) in same and kind is How.RIGHT:
            column = f"r.{quote(name)} AS {quote(name)}"
        elif folded(name) in same and kind is How.FULL:
            column = f"coalesce(l.{quote(name)}, r.{quote(name)}) AS {quote(name)}"
        items.append(column)
    taken = set(map(folded, left.names))
    for name in right.names:
        if folded(name) in same:
            continue
        new = name
        while folded(new) in taken:
            new += suffix
            if not suffix:
                raise PlanError(f"join: both sides have a column {name!r}, and suffix is empty")
        taken.add(folded(new))
        items.append(f"r.{quote(name)} AS {quote(new)}")
    return ", ".join(items)
