"""Sessions: where DataFrames come from."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from smallpond import sources
from smallpond.config import Config
from smallpond.errors import PlanError
from smallpond.events import Event
from smallpond.job import Job
from smallpond.keywords import Keywords
from smallpond.plan import Format, Gather, Plan, Sql
from smallpond.sql import fill, literal, makes_rows_of_rows, placeholders, refers
from smallpond.storage import AnyPath, Paths, path_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from graphviz import Digraph

    from smallpond.dataframe import DataFrame


class Session:
    """Reads data into DataFrames, and computes them as one job.

    A session is a context manager; leaving it, or the end of the program, shuts it down. Threads
    may share it, and their queries run one after another; a fork makes one of its own.
    """

    def __init__(self, config: Config | None = None, **kwargs: Any) -> None:
        self.config = config or Config.from_args_and_env(**kwargs)
        self.job = Job(self.config)

    # ---- reading

    def read_parquet(
        self,
        paths: Paths,
        recursive: bool = False,
        columns: list[str] | None = None,
        union_by_name: bool = False,
    ) -> DataFrame:
        """Reads Parquet files.

        Args:
            paths: files, folders or patterns, on this machine or at an address that fsspec knows
                (``s3://``, ``gs://``, ``hf://``, ``3fs://``).
            recursive: look into folders of folders, and take ``column=value`` in their names for
                columns.
            columns: those to read.
            union_by_name: files may have different columns.

        Raises:
            FileNotFoundError: a path or pattern matches nothing.
        """
        options = {"union_by_name": "true"} if union_by_name else {}
        if recursive:
            options["hive_partitioning"] = "true"
        return self._files(paths, Format.PARQUET, recursive, columns=columns, options=options)

    def read_csv(
        self,
        paths: Paths,
        schema: dict[str, str] | None = None,
        delim: str = ",",
        *,
        header: bool | None = None,
    ) -> DataFrame:
        """Reads CSV files.

        Args:
            paths: as for `read_parquet`.
            schema: SQL type of each column, in order; then files have no header unless
                ``header=True``. Without it names and types are found out.
            delim: what separates columns.
            header: whether the first line has names.
        """
        options = {"delim": literal(delim)}
        if header is not None or schema is not None:
            options["header"] = "true" if header else "false"
        return self._files(paths, Format.CSV, recursive=False, schema=schema, options=options)

    def read_json(self, paths: Paths, schema: dict[str, str] | None = None) -> DataFrame:
        """Reads JSON files with an object a line; without ``schema`` types are found out."""
        options = {"format": "'newline_delimited'", "maximum_object_size": str(1 << 30)}
        return self._files(paths, Format.JSON, recursive=False, schema=schema, options=options)

    def read_ipc(self, paths: Paths, recursive: bool = False) -> DataFrame:
        """Reads Arrow IPC (Feather) files."""
        return self._files(paths, Format.IPC, recursive)

    def read_delta(self, path: AnyPath, version: int | None = None) -> DataFrame:
        """Reads the current or an earlier version of a Delta table."""
        from smallpond.tables import delta_files  # noqa: PLC0415

        return self._frame(delta_files(path_of(path), version, self.config.storage))

    def read_iceberg(self, path: AnyPath, snapshot_id: int | None = None) -> DataFrame:
        """Reads the current or an earlier snapshot of an Iceberg table.

        Args:
            path: of the table's folder, or of a metadata file.
            snapshot_id: of the snapshot; the current one by default.
        """
        from smallpond.tables import iceberg_files  # noqa: PLC0415

        return self._frame(iceberg_files(path_of(path), snapshot_id, self.config.storage))

    def _files(
        self,
        paths: Paths,
        file_format: Format,
        recursive: bool,
        *,
        columns: Iterable[str] | None = None,
        schema: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> DataFrame:
        return self._frame(
            sources.files(
                paths,
                file_format,
                self.config.storage,
                recursive=recursive,
                columns=columns,
                schema=schema,
                options=options,
            )
        )

    def from_items(self, items: list[Any]) -> DataFrame:
        """Rows from dicts, or from other values as a column "item"."""
        return self.from_arrow(sources.items(items))

    def from_pandas(self, df: pd.DataFrame) -> DataFrame:
        """Rows from a pandas DataFrame, without its index."""
        if not hasattr(df, "columns"):
            raise PlanError(f"from_pandas: a DataFrame expected, got {type(df).__name__}")
        try:
            table = pa.Table.from_pandas(df, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError) as error:
            raise PlanError(f"from_pandas: {'; '.join(map(str, error.args))}") from error
        return self.from_arrow(table)

    def from_polars(self, df: pl.DataFrame) -> DataFrame:
        """Rows from a Polars DataFrame."""
        if not hasattr(df, "columns"):
            raise PlanError(f"from_polars: a DataFrame expected, got {type(df).__name__}")
        return self.from_arrow(df.to_arrow())

    def from_arrow(self, table: pa.Table) -> DataFrame:
        """Rows from an Arrow table."""
        if not isinstance(table, pa.Table):
            raise PlanError(f"from_arrow: a pyarrow.Table expected, got {type(table).__name__}")
        for name, number in Counter(table.column_names).items():
            if number > 1:
                raise PlanError(f"from_arrow: {number} columns are called {name!r}, rename them")
        return self._frame(sources.table(table, named=self.config.named))

    def partial_sql(self, query: str, *inputs: DataFrame, **kwargs: Any) -> DataFrame:
        """A query over each partition by itself.

        Args:
            query: SQL with the inputs as ``{0}``, ``{1}`` and so on.
            inputs: DataFrames whose partitions match, or of one partition, which then goes to
                all of them.
            kwargs: ``udfs``, ``cpu_limit``, ``memory_limit`` and the like.
        """
        more = Keywords("partial_sql", kwargs)
        names = {str(i): f"input{i}" for i in range(len(inputs))}
        try:
            from_rows = makes_rows_of_rows(fill(query, names))
        except PlanError as error:
            unknown = [name for name in placeholders(query) if name.isdigit()]
            raise _unparsed("partial_sql", query, error, unknown, names) from error
        plans = tuple(df.plan for df in inputs)
        node = Sql(plans, query, more.udfs(), demand=more.demand(), from_rows=from_rows)
        more.done()
        return self._frame(node)

    def sql(self, query: str, **tables: DataFrame) -> DataFrame:
        """A query over whole DataFrames, ``sql("from {a} join {b} using (k)", a=a, b=b)``."""
        numbered = fill(query, {name: f"{{{i}}}" for i, name in enumerate(tables)})
        gathered = tuple(Gather(df.plan) for df in tables.values())
        try:
            refers(fill(numbered, {str(i): f"t{i}" for i in range(len(tables))}), "query")
        except PlanError as error:
            raise _unparsed("sql", query, error, placeholders(query), tables) from error
        return self._frame(Sql(gathered, numbered, label="sql"))

    def _frame(self, plan: Plan) -> DataFrame:
        from smallpond.dataframe import DataFrame  # noqa: PLC0415

        return DataFrame(self, plan)

    # ---- the job

    def wait(self, *dfs: DataFrame) -> None:
        """Computes several DataFrames."""
        for df in dfs:
            df.compute()

    def on_event(self, listener: Callable[[Event], None]) -> None:
        """Has a function called with every event of every run, see `smallpond.events`."""
        self.job.listeners.append(listener)

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Event], None]) -> Iterator[None]:
        """Has a function called with every event while the context lasts."""
        self.job.listeners.append(listener)
        try:
            yield
        finally:
            self.job.listeners.remove(listener)

    def report(self, path: AnyPath) -> None:
        """Writes what has run so far as one HTML page: stages, a timeline of tasks, retries."""
        from smallpond.report.timeline import write_html  # noqa: PLC0415

        write_html(self.job.recorder, Path(path))

    def graph(self) -> Digraph:
        """The plans that have been run, as one ``graphviz.Digraph``; shared parts appear once.

        Raises:
            PlanError: the graphviz package is not installed.
        """
        from smallpond.explain import digraph  # noqa: PLC0415

        return digraph(self.job.plans)

    def dump_graph(self, path: AnyPath | None = None) -> str:
        """Writes `graph` in DOT, into the job's folder by default; returns the file's path."""
        return self._dump(path, "graph.dot", lambda file: file.write_text(self.graph().source))

    def dump_timeline(self, path: AnyPath | None = None) -> str:
        """Writes `report`, into the job's folder by default; returns the file's path."""
        return self._dump(path, "timeline.html", lambda file: self.report(str(file)))

    def _dump(self, path: AnyPath | None, name: str, write: Callable[[Path], object]) -> str:
        file = Path(path or f"{self.config.job_root}/{name}")
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file)
        return str(file)

    def shutdown(self) -> None:
        """Stops what runs, and removes the job's folder."""
        self.job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.job.close(failed=error is not None)


def _unparsed(
    operation: str, query: str, error: PlanError, asked: list[str], given: Mapping[str, object]
) -> PlanError:
    """What is wrong with a query: it reads an input that there is not, or it is no SQL."""
    absent = [name for name in asked if name not in given]
    what = f"there is no input {{{absent[0]}}}" if absent else str(error)
    return PlanError(f"{operation}: {what}\nin {operation}: {query}")


SessionBase = Session
