"""The files of a data set, written by DuckDB's COPY."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smallpond.plan import OWN_FILES, Dim, Files, Format, Plan, Write
from smallpond.sql import literal, quote
from smallpond.storage import filesystem_of, register_with_duckdb

if TYPE_CHECKING:
    from smallpond.engine.query import Query
    from smallpond.engine.run import Run

_SUFFIX = {
    Format.PARQUET: "parquet",
    Format.CSV: "csv",
    Format.JSON: "json",
    Format.IPC: "arrow",
}


def write_files(plan: Write, running: Run) -> tuple[list[str], int]:
    """Writes the rows of the plan's input; returns the files and the number of rows."""
    attempt = running.attempt
    there = _whole_files(plan) if plan.as_is else []
    if there:
        return there, 0
    folder = plan.folder or f"{attempt.settings.output_root}/{OWN_FILES}"
    base = f"{folder}/{attempt.id}"
    if "://" not in folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    if plan.format is Format.IPC:
        return _write_ipc(plan, running, f"{base}.arrow")
    many = plan.partition_by or plan.file_bytes is not None
    target = base if many else f"{base}.{_SUFFIX[plan.format]}"
    if many and "://" not in folder:
        Path(target).mkdir(parents=True, exist_ok=True)
    query = running.query(plan.input)
    if query.is_nothing(plan.input):
        return [], 0
    register_with_duckdb(query.con, [folder], dict(plan.storage))
    options = _options(plan, attempt.task.dims)
    select = _exact(query, plan.input) if plan.format is Format.PARQUET else "*"
    text = f"COPY (\n{query.text(plan.input, select)}\n) TO {literal(target)} ({options})"
    running.settle(query, text)
    return copy(query, text)


def _exact(query: Query, source: Plan) -> str:
    """The columns, sums of integers as DECIMAL(38, 0).

    Such sums are 128 bits wide; Parquet has no such integer, and DuckDB would write doubles.
    """
    relation = query.bound(query.text(source))
    wide = [
        quote(str(name))
        for name, kind in zip(relation.columns, relation.types, strict=True)
        if str(kind) in ("HUGEINT", "UHUGEINT")
    ]
    if not wide:
        return "*"
    return f"* REPLACE ({', '.join(f'CAST({name} AS DECIMAL(38, 0)) AS {name}' for name in wide)})"


def copy(query: Query, text: str) -> tuple[list[str], int]:
    """Runs a COPY statement that returns its files."""
    import duckdb  # noqa: PLC0415

    try:
        [(rows, files)] = query.con.execute(text).fetchall()
    except duckdb.Error as error:
        raise query.explain(error, text) from error
    return [str(file) for file in files], int(rows)


def _whole_files(plan: Write) -> list[str]:
    """The input's files, if they are of the wanted format and nothing of them is left out."""
    source = plan.input
    if not isinstance(source, Files) or source.format is not plan.format:
        return []
    if source.columns is not None or source.generated or source.options:
        return []
    # A file of which nothing is taken only says what the columns are.
    wanted = [file for file in source.files if file.end != 0]
    if any(file.begin or file.end is not None for file in wanted):
        return []
    return [file.url for file in wanted]


def _options(plan: Write, dims: tuple[Dim, ...]) -> str:
    options: dict[str, Any] = {"FORMAT": plan.format.value, **dict(plan.options)}
    if plan.format is Format.PARQUET and dims:
        # Which partition the file is, for those who load it as one.
        pairs = (f"{literal('SMALLPOND:' + dim.dimension)}: '{dim.index}'" for dim in dims)
        options["KV_METADATA"] = f"{{{', '.join(pairs)}}}"
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
