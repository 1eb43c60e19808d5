"""The files of a data set, written by DuckDB's COPY."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smallpond.plan import Format, Write
from smallpond.sql import literal, quote
from smallpond.storage import filesystem_of, register_with_duckdb

if TYPE_CHECKING:
    from smallpond.engine.query import Query
    from smallpond.engine.run import Run

LISTING = pa.schema([("file", pa.string())])
_SUFFIX = {
    Format.PARQUET: "parquet",
    Format.CSV: "csv",
    Format.JSON: "json",
    Format.IPC: "arrow",
}


def write_files(plan: Write, running: Run) -> tuple[list[str], int]:
    """Writes the rows of the plan's input; returns the files and the number of rows."""
    attempt = running.attempt
    base = f"{plan.folder}/{attempt.id}"
    if "://" not in plan.folder:
        Path(plan.folder).mkdir(parents=True, exist_ok=True)
    if plan.format is Format.IPC:
        return _write_ipc(plan, running, f"{base}.arrow")
    many = plan.partition_by or plan.file_bytes is not None
    target = base if many else f"{base}.{_SUFFIX[plan.format]}"
    if many and "://" not in plan.folder:
        Path(target).mkdir(parents=True, exist_ok=True)
    query = running.query(plan.input)
    register_with_duckdb(query.con, [plan.folder], dict(plan.storage))
    text = f"COPY (\n{query.text(plan.input)}\n) TO {literal(target)} ({_options(plan)})"
    return copy(query, text)


def copy(query: Query, text: str) -> tuple[list[str], int]:
    """Runs a COPY statement that returns its files."""
    import duckdb  # noqa: PLC0415

    try:
        [(rows, files)] = query.con.execute(text).fetchall()
    except duckdb.Error as error:
        raise query.explain(error) from error
    return [str(file) for file in files], int(rows)


def _options(plan: Write) -> str:
    options: dict[str, Any] = {"FORMAT": plan.format.value, **dict(plan.options)}
    if plan.partition_by:
        options["PARTITION_BY"] = f"({', '.join(quote(name) for name in plan.partition_by)})"
        options["OVERWRITE_OR_IGNORE"] = "true"
    if plan.file_bytes is not None:
        options["FILE_SIZE_BYTES"] = f"'{plan.file_bytes}B'"
        options["OVERWRITE_OR_IGNORE"] = "true"
    options["RETURN_FILES"] = "true"
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _write_ipc(plan: Write, running: Run, target: str) -> tuple[list[str], int]:
    """One Arrow IPC file; DuckDB itself does not write them."""
    stream = running.stream(plan.input, lossless=False)
    rows = 0
    filesystem, path = filesystem_of(target, dict(plan.storage))
    with filesystem.open(path, "wb") as file, pa.ipc.new_file(file, stream.schema) as writer:
        for batch in stream.batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return [target], rows
