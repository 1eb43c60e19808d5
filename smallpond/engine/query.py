"""A program as one SQL query: each node a common table expression over those before it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from smallpond.engine.enums import agreed, restored
from smallpond.errors import DeviceError, OutOfMemory, TaskError
from smallpond.handoff import read_part
from smallpond.plan import (
    Aggregate,
    Concat,
    Distinct,
    Files,
    FileSlice,
    Filter,
    Format,
    Function,
    How,
    Join,
    Limit,
    Memory,
    Parts,
    Plan,
    Project,
    Sort,
    Sql,
    Union,
    Window,
    walk,
)
from smallpond.rules import is_rowwise
from smallpond.sql import collates, fill, literal, named, quote
from smallpond.storage import filesystem_of, register_with_duckdb

NO_COLUMNS = "__smallpond_no_columns"
_names = itertools.count()


@dataclass(frozen=True)
class Step:
    """One common table expression.

    Attributes:
        operation: what the user called it.
        written: the SQL that the user wrote, if any.
        once: whether its rows can be read only once.
    """

    name: str
    text: str
    operation: str
    written: str = ""
    once: bool = False


_TOO_DEEP = ("Max expression depth limit", "Maximum tree depth")


@dataclass
class Query:
    """Collects the steps of a program, and registers what they read.

    Attributes:
        con: the connection that will run it.
        placeholders: values for ``{name}`` in users' queries.
        stream: makes a reader of a Python function's rows.
        spoil: told before the user's own statements run.
        purpose: what the query is for, where it is not one of the user's steps that is wrong.
    """

    con: Any
    placeholders: Mapping[str, object]
    stream: Callable[[Function], pa.RecordBatchReader]
    spoil: Callable[[], None] = lambda: None
    purpose: str = "read"
    steps: list[Step] = field(default_factory=list)
    _known: dict[int, str] = field(default_factory=dict)
    _nothing: set[str] = field(default_factory=set)

    def text(self, plan: Plan, select: str = "*") -> str:
        """The whole query, with other columns if so wished."""
        return self._with(self.relation(plan), select)

    def columns(self, plan: Plan) -> list[str]:
        """The names of a node's columns."""
        return [str(name) for name in self.bound(self.text(plan)).columns]

    def types(self, plan: Plan, expressions: Sequence[str]) -> list[str]:
        """The SQL types of expressions over a node's rows; nothing is computed.

        Raises:
            TaskError: an expression does not fit the rows.
        """
        text = self.text(plan, ", ".join(f"({expression})" for expression in expressions))
        return [str(kind) for kind in self.bound(text).types]

    def bound(self, text: str) -> Any:
        """A query's relation, ready to run.

        Raises:
            TaskError: it does not fit the rows; the message says which of the user's steps.
        """
        import duckdb  # noqa: PLC0415

        try:
            return self.con.sql(text)
        except duckdb.Error as error:
            raise self.explain(error) from error

    def open_files(self, plan: Plan) -> None:
        """Lets the connection read the files of a program, wherever they lie."""
        for node in walk(plan):
            if isinstance(node, Files):
                register_with_duckdb(
                    self.con, [file.url for file in node.files], dict(node.storage)
                )

    def relation(self, plan: Plan) -> str:
        """The name under which later steps can select from a node."""
        if id(plan) not in self._known:
            self._known[id(plan)] = self._add(plan)
        return self._known[id(plan)]

    def is_nothing(self, plan: Plan) -> bool:
        """Whether a node has neither rows nor columns.

        A Python function without a schema shows its columns by its rows. Where it has made none,
        what would only pick or reshape rows has none either, whatever columns it speaks of.
        """
        return self.relation(plan) in self._nothing

    def close(self) -> None:
        """Ends the query, and lets go of what was registered."""
        self.con.close()

    def _with(self, name: str, select: str = "*") -> str:
        """Names are unique, so that `name` finds the step and nothing else."""
        if not self.steps:
            return f"SELECT {select} FROM {name}"
        steps = ",\n".join(
            f"{step.name} AS {'MATERIALIZED ' if self._read_twice(step) else ''}(\n{step.text}\n)"
            for step in self.steps
        )
        return f"WITH {steps}\nSELECT {select} FROM {name}"

    def _read_twice(self, step: Step) -> bool:
        """Whether a stream is read in several places, so that DuckDB has to keep its rows."""
        word = re.compile(rf"\b{step.name}\b")
        return step.once and sum(len(word.findall(other.text)) for other in self.steps) > 1

    def _step(self, text: str, operation: str, written: str = "", *, once: bool = False) -> str:
        name = f"s{next(_names)}"
        self.steps.append(Step(name, text, operation, written, once))
        return name

    def _made(self, text: str, operation: str, written: str) -> str:
        """A step of the user's that makes columns; a collation ends with it.

        Whether later steps run in the same task must not show, and others get the values alone.
        """
        import duckdb  # noqa: PLC0415

        name = self._step(text, operation, written)
        if not collates(written):
            return name
        try:
            relation = self.con.sql(self._with(name))
        except duckdb.Error:
            return name  # what is wrong will be said of all steps together
        columns = zip(relation.columns, map(str, relation.types), strict=True)
        plain = ", ".join(
            f"decode(encode({quote(column)})) AS {quote(column)}"
            for column, kind in columns
            if kind == "VARCHAR"
        )
        if not plain:
            return name
        return self._step(f"SELECT * REPLACE ({plain}) FROM {name}", operation)

    def _register(self, source: Any, operation: str = "read") -> str:
        import duckdb  # noqa: PLC0415

        name = f"t{next(_names)}"
        if not len(source.schema):
            self._nothing.add(name)
            source = pa.table({NO_COLUMNS: pa.array([], pa.bool_())})  # DuckDB wants one
        try:
            self.con.register(name, source)
        except duckdb.NotImplementedException as error:
            raise TaskError(
                f"{operation}: DuckDB has no type for what Arrow calls "
                f"{self._without_type(source.schema)} (cast it first)"
            ) from error
        return name

    def _without_type(self, schema: pa.Schema) -> str:
        import duckdb  # noqa: PLC0415

        unknown = []
        for column in schema:
            try:
                self.con.register("tried", pa.schema([column]).empty_table())
            except duckdb.NotImplementedException:
                unknown.append(f"{column.type} (column {column.name!r})")
        return ", ".join(unknown)

    def _those_with_columns(self, sources: Sequence[Plan]) -> list[str]:
        names = [self.relation(source) for source in sources]
        return [name for name in names if name not in self._nothing] or names[:1]

    def _add(self, plan: Plan) -> str:
        if passes_nothing_on(plan):
            nothing = next((one for one in plan.inputs if self.is_nothing(one)), None)
            if nothing is not None:
                return self.relation(nothing)
        match plan:
            case Files(format=Format.IPC):
                return self._register(ipc_table(plan))
            case Files():
                return self._step(scan(plan), "read", "")
            case Memory():
                return self._register(plan.table, "from_arrow")
            case Parts():
                table = table_of(plan)
                name, select = self._register(table), restored(table.schema)
                if select == "*":
                    return name
                return self._step(f"SELECT {select} FROM {name}", "read")
            case Function():
                name = self._register(self.stream(plan), plan.label)
                if name in self._nothing:
                    return name
                return self._step(f"FROM {name}", plan.label, once=True)
            case Project():
                source = self.relation(plan.input)
                select = fill(plan.select, self.placeholders)
                written = "" if plan.label == "repartition" else select  # ours, in that case
                return self._made(f"SELECT\n{select}\nFROM {source}", plan.label, written)
            case Filter():
                source = self.relation(plan.input)
                condition = fill(plan.condition, self.placeholders)
                return self._step(
                    f"SELECT * FROM {source} WHERE (\n{condition}\n)", "filter", condition
                )
            case Sql():
                sources = [self.relation(source) for source in plan.sources]
                if plan.setup:
                    sources = [self._view(source) for source in sources]
                values = {**self.placeholders, **{str(i): s for i, s in enumerate(sources)}}
                values["batch_index"] = plan.batch_idx
                self._set_up(plan, values)
                written = fill(plan.query.strip().rstrip(";"), values)
                return self._made(written, plan.label, written)
            case Concat():
                sources = self._those_with_columns(plan.sources)
                if len(sources) == 1:
                    return sources[0]
                return self._step("\nUNION ALL\n".join(f"FROM {s}" for s in sources), "concat")
            case Union():
                sources = self._those_with_columns(plan.sources)
                if len(sources) == 1:
                    return sources[0]
                text = "\nUNION ALL BY NAME\n".join(f"SELECT * FROM {s}" for s in sources)
                return self._step(text, "union")
            case Aggregate():
                return self._aggregate(plan)
            case Distinct():
                source = self.relation(plan.input)
                on = f"ON ({', '.join(quote(name) for name in plan.on)}) " if plan.on else ""
                return self._step(f"SELECT DISTINCT {on}* FROM {source}", "distinct")
            case Sort():
                source = self.relation(plan.input)
                order = ", ".join(key.sql() for key in plan.keys)
                return self._step(f"SELECT * FROM {source} ORDER BY\n{order}", "sort", order)
            case Window():
                source = self.relation(plan.input)
                text = f"SELECT *,\n{plan.select}\nFROM {source}"
                return self._made(text, "window", plan.select)
            case Limit():
                source = self.relation(plan.input)
                return self._step(f"SELECT * FROM {source} LIMIT {plan.num_rows}", "limit")
            case Join():
                return self._join(plan)
        msg = f"{type(plan).__name__} cannot be part of a task"
        raise AssertionError(msg)

    def _view(self, source: str) -> str:
        """A name that statements of their own can read as well."""
        name = f"v{next(_names)}"
        self.con.execute(f"CREATE TEMP VIEW {name} AS {self._with(source)}")
        return name

    def _set_up(self, plan: Sql, values: Mapping[str, object]) -> None:
        import duckdb  # noqa: PLC0415

        for i, statement in enumerate(plan.setup):
            text = fill(statement, {**values, "query_index": i})
            self.spoil()
            try:
                self.con.execute(text).fetchall()
            except duckdb.OutOfMemoryException as error:
                raise OutOfMemory(str(error)) from error
            except duckdb.Error as error:
                raise TaskError(f"{plan.label}: {error}\nin {plan.label}: {text}") from error

    def _aggregate(self, plan: Aggregate) -> str:
        source = self.relation(plan.input)
        items = [*plan.keys, *plan.aggregates]
        select = ",\n".join(named(name, expression) for name, expression in items)
        group = f"\nGROUP BY {', '.join(expr for _, expr in plan.keys)}" if plan.keys else ""
        written = ", ".join(expression for _, expression in items)
        return self._made(f"SELECT\n{select}\nFROM {source}{group}", plan.label, written)

    def _join(self, plan: Join) -> str:
        left, right = self.relation(plan.left), self.relation(plan.right)
        if plan.how is How.CROSS:
            return self._step(f"SELECT {plan.select}\nFROM {left} l CROSS JOIN {right} r", "join")
        on = " AND ".join(
            f"l.{quote(a)} = r.{quote(b)}"
            for a, b in zip(plan.left_keys, plan.right_keys, strict=True)
        )
        kind = plan.how.value.upper()
        text = f"SELECT {plan.select}\nFROM {left} l {kind} JOIN {right} r\nON {on}"
        return self._step(text, "join", on)

    def explain(self, error: Exception, text: str = "") -> Exception:
        """The user's error from DuckDB's: which operation it was, and its SQL.

        Args:
            error: what DuckDB raised.
            text: the query that it raised it for.
        """
        import duckdb  # noqa: PLC0415

        # Through an Arrow reader, only the text of DuckDB's error comes.
        if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error):
            return OutOfMemory(str(error))
        if any(limit in str(error) for limit in _TOO_DEEP):
            return TaskError(
                f"{self.purpose}: {len(self.steps)} steps are more than DuckDB takes at once; "
                f"compute() some of them first ({error})"
            )
        guilty = self._first_that_does_not_bind()
        if guilty is not None:
            step, error = guilty
            message = _placed(_readable(str(error), step), self._with(step.name), step)
            if self._nothing:
                message = (
                    "the function before it made no rows here, so that its columns are unknown "
                    f"(pass schema= to it)\n{message}"
                )
            return TaskError(f"{step.operation}: {message}{_quoted(step)}")
        kind = DeviceError if isinstance(error, duckdb.IOException) else TaskError
        if isinstance(error, duckdb.BinderException | duckdb.CatalogException):
            return kind(f"{self.purpose}: {error}")  # all steps bind, so it is what is around them
        meant = next((s for s in self.steps if _is_meant(str(error), text, s)), None)
        if meant is not None:
            return kind(f"{meant.operation}: {_placed(str(error), text, meant)}{_quoted(meant)}")
        written = "".join(_quoted(step) for step in self.steps if step.written)
        operation = self.steps[-1].operation if written else self.purpose
        return kind(f"{operation}: {error}{written}")

    def _first_that_does_not_bind(self) -> tuple[Step, Exception] | None:
        import duckdb  # noqa: PLC0415

        steps, self.steps = self.steps, []
        try:
            for step in steps:
                self.steps.append(step)
                try:
                    self.con.sql(self._with(step.name))
                except duckdb.Error as error:
                    return step, error
        finally:
            self.steps = steps
        return None


def passes_nothing_on(plan: Plan) -> bool:
    """Whether a node has no rows if an input has none, whatever the columns are."""
    match plan:
        case Filter() | Sort() | Distinct() | Limit() | Window():
            return True
        case Project():
            return is_rowwise(plan.select)
        case Aggregate():
            return bool(plan.keys)
        case Sql():
            return plan.from_rows
    return False


def _quoted(step: Step) -> str:
    return f"\nin {step.operation}: {step.written}" if step.written else ""


_LINE = re.compile(r"LINE (\d+):")
# What DuckDB calls wrong without saying where it stands.
_WRONG = re.compile(r"(?:[Cc]olumn|[Nn]ame|[Ff]unction|[Tt]able)(?: with name)? \"?(\w+)\"?")


def _lines_before(text: str, step: Step) -> int | None:
    """How many lines of a query are before the user's own text; None if that is not there."""
    if not step.written or step.written not in text:
        return None
    return text[: text.rindex(step.written)].count("\n")


def _is_meant(message: str, text: str, step: Step) -> bool:
    """Whether the line that a message speaks of belongs to a step's text."""
    line, before = _LINE.search(message), _lines_before(text, step)
    if line is None or before is None:
        return False
    return before < int(line[1]) <= before + len(step.written.splitlines())


_NO_COLUMNS = re.compile(r'No matching columns found that match regex "\(\?i\)\^\((.*)\)\$"')


def _readable(message: str, step: Step) -> str:
    """DuckDB's message in the user's terms, where it speaks of what we have made of his."""
    none = _NO_COLUMNS.search(message)
    if none is not None and not step.written:
        names = re.sub(r"\\(.)", r"\1", none[1])
        return f"there is no column {names!r}{message[none.end() :]}"
    if step.operation in ("sql", "partial_sql") and "Table with name" in message:
        return f"{message}\n(inputs are tables that stand in braces, as in FROM {{0}} or {{name}})"
    return message


def _placed(message: str, text: str, step: Step) -> str:
    """The message with the line of the user's own text instead of the whole query's."""
    before = _lines_before(text, step)
    if before is None:
        return message
    if _LINE.search(message):
        return _LINE.sub(lambda match: f"LINE {max(1, int(match[1]) - before)}:", message)
    for wrong in _WRONG.findall(message):
        for number, line in enumerate(step.written.splitlines(), start=1):
            if re.search(rf"\b{wrong}\b", line):
                return f"{message}\nLINE {number}: {line}"
    return message


def table_of(plan: Parts) -> pa.Table:
    """The rows of parts as one table, memory mapped where they are local.

    Raises:
        TaskError: the parts' types do not go together.
    """
    tables = [read_part(part) for part in plan.parts]
    tables = [table for table in tables if table.num_columns] or tables[:1] or [pa.table({})]
    schema = agreed(tables)
    tables = [tables[0].cast(schema), *tables[1:]]
    if all(table.schema.equals(schema) for table in tables):
        return pa.concat_tables(tables)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TaskError(
            f"partitions have different types: {error}; give the function that made them schema="
        ) from error


def ipc_table(plan: Files) -> pa.Table:
    """The rows of Arrow IPC files, memory mapped where they are local."""
    tables = []
    for file in plan.files:
        filesystem, path = filesystem_of(file.url, dict(plan.storage))
        source = pa.memory_map(path) if "://" not in file.url else filesystem.open(path, "rb")
        try:
            tables.append(pa.ipc.open_file(source).read_all())
        except pa.ArrowInvalid as error:
            raise TaskError(f"read_ipc: {file.url} is no Arrow IPC file: {error}") from error
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.select(list(plan.columns)) if plan.columns else table


_READERS = {Format.PARQUET: "read_parquet", Format.CSV: "read_csv", Format.JSON: "read_json"}


def scan(plan: Files) -> str:
    """The SELECT that reads files."""
    columns = (
        ", ".join(quote(name) for name in (*plan.columns, *plan.generated)) if plan.columns else "*"
    )
    if not plan.files:
        return _empty(plan, columns)
    whole = [file for file in plan.files if file.begin == 0 and file.end is None]
    if len(whole) == len(plan.files):
        return f"SELECT {columns} FROM {_reader(plan, whole, ())}"
    return "\nUNION ALL BY NAME\n".join(_slice(plan, file, columns) for file in plan.files)


def _slice(plan: Files, file: FileSlice, columns: str) -> str:
    if plan.format is not Format.PARQUET:
        msg = f"a slice of a {plan.format.value} file cannot be read"
        raise AssertionError(msg)
    shown = columns
    if columns == "*" and "file_row_number" not in plan.generated:
        shown = "* EXCLUDE (file_row_number)"
    end = f" AND file_row_number < {file.end}" if file.end is not None else ""
    reader = _reader(plan, [file], (("file_row_number", "true"),))
    return f"SELECT {shown} FROM {reader} WHERE file_row_number >= {file.begin}{end}"


def _reader(plan: Files, files: list[FileSlice], more: tuple[tuple[str, str], ...]) -> str:
    options = dict((*plan.options, *more))
    for name in plan.generated:
        options[name] = "true"
    if plan.schema is not None:
        types = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in plan.schema)
        options["columns"] = f"{{{types}}}"
    urls = ", ".join(literal(file.url) for file in files)
    named = "".join(f", {name} = {value}" for name, value in options.items())
    return f"{_READERS[plan.format]}([{urls}]{named})"


def _empty(plan: Files, columns: str) -> str:
    """No files, but columns: a slice of a data set that is smaller than its partitions."""
    if plan.schema is None:
        return "SELECT 1 AS none LIMIT 0"
    typed = ", ".join(f"NULL::{kind} AS {quote(name)}" for name, kind in plan.schema)
    return f"SELECT {columns} FROM (SELECT {typed} LIMIT 0)"
