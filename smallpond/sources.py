"""What can be read: files of several formats, tables in memory, tables of other systems."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from smallpond.columns import table_of_rows
from smallpond.errors import PlanError
from smallpond.plan import Files, FileSlice, Format, Memory
from smallpond.storage import Paths, filesystem_of, resolve

_tables = itertools.count()
_SUFFIXES = {
    Format.PARQUET: (".parquet", ".pq"),
    Format.CSV: (".csv", ".csv.gz", ".csv.zst", ".tsv"),
    Format.JSON: (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".json.zst"),
    Format.IPC: (".arrow", ".feather", ".ipc"),
}


def files(
    paths: Paths,
    file_format: Format,
    storage: tuple[tuple[str, Any], ...],
    *,
    recursive: bool = False,
    columns: Iterable[str] | None = None,
    schema: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
) -> Files:
    """A plan that reads files; they are looked for now, and read later.

    Raises:
        FileNotFoundError: a path or pattern matches nothing.
    """
    found = resolve(
        paths, recursive=recursive, suffixes=_SUFFIXES[file_format], storage_options=dict(storage)
    )
    return Files(
        tuple(FileSlice(info.url, info.size_bytes, info.version) for info in found),
        file_format,
        None if columns is None else tuple(columns),
        None if schema is None else tuple(schema.items()),
        tuple((options or {}).items()),
        storage=storage,
    )


def counted(plan: Files) -> Files:
    """The same files with their numbers of rows, where the format says them."""
    if plan.format is not Format.PARQUET or all(f.num_rows is not None for f in plan.files):
        return plan
    with ThreadPoolExecutor(max_workers=16) as pool:
        rows = list(pool.map(lambda f: _num_rows(f, plan.storage), plan.files))
    with_rows = (dataclasses.replace(f, num_rows=n) for f, n in zip(plan.files, rows, strict=True))
    return dataclasses.replace(plan, files=tuple(with_rows))


def _num_rows(file: FileSlice, storage: tuple[tuple[str, Any], ...]) -> int:
    import pyarrow.parquet as pq  # noqa: PLC0415

    filesystem, path = filesystem_of(file.url, dict(storage))
    with filesystem.open(path, "rb") as source:
        try:
            return int(pq.read_metadata(source).num_rows)
        except pa.ArrowInvalid as error:
            raise PlanError(f"read_parquet: {file.url} is no Parquet file: {error}") from error


def table(value: pa.Table, *, named: bool = True) -> Memory:
    """A plan that reads a table of the driver's.

    Args:
        value: the table.
        named: whether a later run of the job has to know the table again, which takes the time
            to read it once.
    """
    if not named:
        return Memory(f"table {next(_tables)}", value)
    digest = blake2b(value.schema.serialize().to_pybytes(), digest_size=16)
    for batch in value.to_batches():
        # The record batch as it would travel: two equal tables have the same bytes.
        digest.update(batch.serialize())
    return Memory(digest.hexdigest(), value)


def items(values: Sequence[Any]) -> pa.Table:
    """Dicts become rows; other values rows of one column, "item".

    Raises:
        PlanError: there are none, so that no columns can be known.
    """
    if not values:
        raise PlanError("from_items: items must not be empty (use from_arrow with a schema)")
    rows = [value if isinstance(value, dict) else {"item": value} for value in values]
    try:
        return table_of_rows(rows)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise PlanError(
            f"from_items: the items have no common type: {error} (use from_arrow with a schema)"
        ) from error
