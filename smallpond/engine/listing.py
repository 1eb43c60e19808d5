"""Data sets as rows: a table that names files is read as the rows of these files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from smallpond.columns import array_of
from smallpond.plan import FileSlice, Listed, Plan
from smallpond.rules import bottom_up

if TYPE_CHECKING:
    from smallpond.engine.run import Run

LISTING = pa.schema([("file", pa.string())])
SLICES = pa.schema([*LISTING, ("begin", pa.int64()), ("end", pa.int64())])


def listing_of(files: Sequence[str]) -> pa.Table:
    """The table that names these files."""
    return pa.table({"file": array_of(files)}).cast(LISTING)


def located(plan: Plan, running: Run) -> Plan:
    """The program with files in the place of tables that list them."""

    def visit(node: Plan) -> Plan:
        if not isinstance(node, Listed):
            return node
        rows = running.table(node.input)[0].to_pylist()
        files = (FileSlice(r["file"], 0, begin=r.get("begin") or 0, end=r.get("end")) for r in rows)
        return dataclasses.replace(node.like, files=tuple(files))

    return bottom_up(plan, visit)
