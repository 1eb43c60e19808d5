"""The leaves of a program: how much they hold, and pieces of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from smallpond.plan import Files, FileSlice, Memory, Parts, Plan, walk


def file_pieces(program: Files, wanted: int, least_bytes: int) -> list[Plan]:
    """Files and row ranges of about equal size, none much smaller than ``least_bytes``."""
    total = sum(file.size_bytes for file in program.files)
    n = max(1, min(wanted, total // least_bytes + 1)) if program.files else 1
    counted = all(file.num_rows is not None for file in program.files)
    if counted and n > 1:
        return row_slices(program, n)
    n = min(n, max(1, len(program.files)))
    files = program.files
    return [dataclasses.replace(program, files=files[share_of(len(files), n, i)]) for i in range(n)]


def row_slices(program: Files, n: int) -> list[Plan]:
    """Equal numbers of rows of files whose rows are counted."""
    total = sum(_rows(file) for file in program.files)
    made: list[Plan] = []
    for i in range(n):
        begin, end = total * i // n, total * (i + 1) // n
        made.append(
            dataclasses.replace(
                program, files=_between(program.files, begin, end) or no_rows(program)
            )
        )
    return made


def _between(files: Sequence[FileSlice], begin: int, end: int) -> tuple[FileSlice, ...]:
    kept, position = [], 0
    for file in files:
        first, last = max(begin, position), min(end, position + _rows(file))
        if first < last:
            offset = file.begin - position
            whole = first == position and last == position + _rows(file)
            kept.append(
                file
                if whole
                else dataclasses.replace(file, begin=first + offset, end=last + offset)
            )
        position += _rows(file)
    return tuple(kept)


def _rows(file: FileSlice) -> int:
    end = file.end if file.end is not None else file.num_rows
    assert end is not None  # noqa: S101 (callers have looked)
    return end - file.begin


def no_rows(files: Files) -> tuple[FileSlice, ...]:
    """Of the first file nothing, for its columns."""
    if files.schema is not None or not files.files:
        return ()
    return (dataclasses.replace(files.files[0], begin=0, end=0),)


def table_slices(program: Memory, n: int) -> list[Plan]:
    """Equal numbers of rows of a table."""
    table = program.table
    made: list[Plan] = []
    for i in range(n):
        begin, end = table.num_rows * i // n, table.num_rows * (i + 1) // n
        made.append(Memory(f"{program.content}[{begin}:{end}]", table.slice(begin, end - begin)))
    return made


def share_of(count: int, n: int, index: int) -> slice:
    """The ``index``-th of ``n`` runs of ``count`` items whose lengths differ by at most one."""
    return slice(count * index // n, count * (index + 1) // n)


def rows_of(program: Plan) -> int:
    """The rows that a program reads, 0 if that is not known of all its leaves."""
    total = 0
    for node in walk(program):
        match node:
            case Files():
                if any(file.num_rows is None and file.end is None for file in node.files):
                    return 0
                total += sum(_rows(file) for file in node.files)
            case Memory():
                total += node.table.num_rows
            case Parts():
                total += sum(part.rows for part in node.parts)
    return total


def size_of(program: Plan) -> int:
    """An estimate of the bytes that a program reads, 0 where unknown."""
    total = 0
    for node in walk(program):
        match node:
            case Files():
                for file in node.files:
                    share = 1.0
                    if file.num_rows and (file.begin or file.end is not None):
                        share = _rows(file) / file.num_rows
                    total += int(file.size_bytes * share)
            case Memory():
                total += node.table.nbytes
            case Parts():
                total += sum(part.num_bytes for part in node.parts)
    return total
