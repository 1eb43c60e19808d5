"""SQL text: the users' placeholders, names in quotes, and what an expression refers to."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from smallpond.errors import PlanError

# A brace pair is a placeholder only if its name is known; `{'x': a}` is a struct, and stays one.
_BRACES = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NAMED = re.compile(r"(?<!\{)\{[A-Za-z_]\w*\}(?!\})")
_COLLATE = re.compile(r"\bcollate\b", re.IGNORECASE)
# Aggregates that can be computed from themselves over parts, and how.
COMBINE = {
    "sum": "sum",
    "min": "min",
    "max": "max",
    "count": "sum",
    "count_star": "sum",
    "bool_and": "bool_and",
    "bool_or": "bool_or",
    "bit_and": "bit_and",
    "bit_or": "bit_or",
    "bit_xor": "bit_xor",
}


def quote(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def named(name: str, expression: str) -> str:
    """An item of a select list; a plain column needs no name, and errors then speak of itself."""
    return expression if expression in (name, quote(name)) else f"{expression} AS {quote(name)}"


def placeholders(query: str) -> list[str]:
    """The names in single braces."""
    return [match[1] for match in _BRACES.finditer(query) if match[1] is not None]


def fill(query: str, values: Mapping[str, object]) -> str:
    """Replaces ``{name}`` by its value where the name is known; other braces stay as they are.

    Doubled braces become single ones when the text holds a placeholder-like pair inside them, as
    queries written for the original have them.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        return str(values[name]) if name in values else match[0]

    return _BRACES.sub(replace, query) if _written_for_format(query) else _fill_known(query, values)


def fill_some(query: str, values: Mapping[str, object]) -> str:
    """Replaces ``{name}`` by its value where the name is known; all else stays for `fill`."""
    if not values or "{" not in query:
        return query

    def replace(match: re.Match[str]) -> str:
        return str(values[match[1]]) if match[1] in values else match[0]

    return (_BRACES if _written_for_format(query) else _PLACEHOLDER).sub(replace, query)


def _written_for_format(query: str) -> bool:
    """Whether every brace of the text is doubled or part of a placeholder."""
    return "{{" in query and not re.search(r"[{}]", _BRACES.sub("", query))


def _fill_known(query: str, values: Mapping[str, object]) -> str:
    return _PLACEHOLDER.sub(lambda m: str(values[m[1]]) if m[1] in values else m[0], query)


@dataclass(frozen=True)
class Refers:
    """What a piece of SQL refers to.

    Attributes:
        columns: names of columns, without tables; None if it takes all (``*``, COLUMNS(...)).
        functions: names in lower case.
        has_window, has_subquery, has_lambda, has_distinct, has_sample: what makes it more than a
            plain expression.
    """

    columns: frozenset[str] | None
    functions: frozenset[str]
    has_window: bool = False
    has_subquery: bool = False
    has_lambda: bool = False
    has_distinct: bool = False
    has_sample: bool = False

    @property
    def has_aggregate(self) -> bool:
        """Whether it is (or may be) one value of many rows."""
        return not self.functions.isdisjoint(_functions().aggregates)

    @property
    def has_unnest(self) -> bool:
        """Whether one row may become several."""
        return not self.functions.isdisjoint(_functions().unnesting)

    @property
    def volatile(self) -> bool:
        """Whether two evaluations may differ."""
        return self.has_sample or not self.functions.isdisjoint(_functions().volatile)


@functools.lru_cache(maxsize=4096)
def parse(statement: str) -> Any:
    """The parsed statement as DuckDB describes it.

    Raises:
        ParseError: it does not parse.
    """
    import duckdb  # noqa: PLC0415

    con = _parser()
    try:
        rows = con.execute("SELECT json_serialize_sql($1::VARCHAR)", [statement]).fetchall()
    except duckdb.Error as error:
        raise PlanError(str(error)) from error
    tree = json.loads(rows[0][0])
    if tree["error"]:
        if "Only SELECT statements" in tree["error_message"]:
            word = statement.split(None, 1)[0].upper()
            raise PlanError(f"a query expected (SELECT, FROM, WITH, VALUES), got {word}")
        message = f"{tree.get('error_type', 'parser')} error: {tree['error_message']}"
        position = str(tree.get("position"))
        raise ParseError(message, int(position) if position.isdigit() else None)
    return tree["statements"]


class ParseError(PlanError):
    """A text is no SQL.

    Attributes:
        position: of the mistake in the text, where it is known.
    """

    def __init__(self, message: str, position: int | None) -> None:
        super().__init__(message)
        self.position = position


def statement_kind(statement: str) -> str:
    """What kind of statement a text is, such as "SELECT" or "CREATE".

    Raises:
        PlanError: it does not parse, or is not exactly one statement.
    """
    import duckdb  # noqa: PLC0415

    try:
        found = duckdb.extract_statements(without_names(statement))
    except duckdb.Error as error:
        raise PlanError(str(error)) from error
    if len(found) != 1:
        raise PlanError(f"one statement expected, got {len(found)} (pass a list of statements)")
    return str(found[0].type.name).removesuffix("_STATEMENT")


def without_names(text: str) -> str:
    """What the engine will put in is a number or a name of its own; braces alone are no SQL.

    The text keeps its length, so that errors point to the right place.
    """
    return _NAMED.sub(lambda match: "0".ljust(len(match[0])), fill(text, {}))


@functools.lru_cache(maxsize=1)
def _shared_parser() -> Any:
    import duckdb  # noqa: PLC0415

    return duckdb.connect(":memory:", config={"threads": "1"})


def _parser() -> Any:
    return _shared_parser().cursor()


@functools.lru_cache(maxsize=1)
def time_zone() -> str:
    """The driver's time zone, by the name that DuckDB gives it."""
    [(zone,)] = _parser().execute("SELECT current_setting('TimeZone')").fetchall()
    return str(zone)


def _pointed(error: ParseError, fragment: str, offset: int) -> PlanError:
    """The message with the line of the user's text that it means, and a mark below."""
    if error.position is None:
        return PlanError(str(error))
    place = max(0, error.position - offset)
    message = str(error)
    if place >= len(fragment):  # our own text follows
        place, message = len(fragment), "parser error: the text ends too soon"
    before = fragment[:place]
    number = before.count("\n")
    column = place - (before.rfind("\n") + 1)
    line = (fragment.splitlines() or [""])[min(number, fragment.count("\n"))]
    label = f"LINE {number + 1}: "
    return PlanError(f"{message}\n{label}{line}\n{' ' * (column + len(label))}^")


@dataclass(frozen=True)
class _Functions:
    aggregates: frozenset[str]
    volatile: frozenset[str]
    unnesting: frozenset[str]


@functools.lru_cache(maxsize=1)
def _functions() -> _Functions:
    """What DuckDB's functions are; macros are what they are made of."""
    rows = _parser().execute(
        "SELECT function_name, function_type, stability, macro_definition FROM duckdb_functions()"
    )
    aggregates, volatile, unnesting, macros = set(), set(), {"unnest", "unlist"}, {}
    for name, kind, stability, definition in rows.fetchall():
        if kind == "aggregate":
            aggregates.add(name)
        if stability == "VOLATILE":
            volatile.add(name)
        if kind == "macro" and definition:
            macros[name] = set(re.findall(r"\w+", definition))
    for found in (aggregates, volatile, unnesting):
        found |= {name for name, words in macros.items() if words & found}
    return _Functions(frozenset(aggregates), frozenset(volatile), frozenset(unnesting))


def refers(fragment: str, kind: str = "select") -> Refers:
    """What a select list, a condition, an ORDER BY list or a whole query refers to.

    Args:
        fragment: the user's text.
        kind: "select", "where" or "query".

    Raises:
        PlanError: the text does not parse.
    """
    written, fragment = fragment, without_names(fragment)
    before, after = {
        "select": ("SELECT ", "\nFROM t"),
        "where": ("SELECT 1 FROM t WHERE (", "\n)"),
        "query": ("", ""),
    }[kind]
    columns: set[str] = set()
    functions: set[str] = set()
    flags: set[str] = set()
    try:
        _collect(parse(f"{before}{fragment}{after}"), columns, functions, flags)
    except ParseError as error:
        shown = written if len(written) == len(fragment) else fragment
        raise _pointed(error, shown, len(before)) from error
    everything = "star" in flags
    return Refers(
        None if everything else frozenset(columns),
        frozenset(functions),
        "window" in flags,
        "subquery" in flags,
        "lambda" in flags,
        "distinct" in flags,
        "sample" in flags,
    )


def _collect(node: Any, columns: set[str], functions: set[str], flags: set[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _collect(item, columns, functions, flags)
    elif isinstance(node, dict):
        kind = node.get("class")
        if kind == "COLUMN_REF":
            # `s.x` may be field x of column s, or column x of table s: both are taken as needed.
            columns.update(node["column_names"])
        elif kind == "FUNCTION":
            functions.add(str(node["function_name"]).lower())
        elif kind in ("STAR", "WINDOW", "SUBQUERY", "LAMBDA"):
            flags.add(str(kind).lower())
        if node.get("type") == "DISTINCT_MODIFIER":
            flags.add("distinct")
        if node.get("sample"):
            flags.add("sample")
        for value in node.values():
            _collect(value, columns, functions, flags)


def collates(text: str) -> bool:
    """Whether a text may compare strings by other rules than their bytes.

    Only the task that runs it knows these rules: hashes do not, nor do the boundaries of ranges.
    """
    return _COLLATE.search(text) is not None


def makes_rows_of_rows(query: str) -> bool:
    """Whether a query has no rows if one of its tables has none, whatever their columns are."""
    uses = refers(query, "query")
    node = parse(without_names(query))[0]["node"]
    if node["type"] != "SELECT_NODE" or not _inner(node["from_table"]):
        return False
    sets = node["group_sets"]
    if sets:
        return [] not in sets
    return node["aggregate_handling"] == "STANDARD_HANDLING" and not uses.has_aggregate


def _inner(table: Any) -> bool:
    if table["type"] == "JOIN":
        inner = table["join_type"] == "INNER"
        return inner and _inner(table["left"]) and _inner(table["right"])
    return bool(table["type"] == "BASE_TABLE")


@dataclass(frozen=True)
class Aggregated:
    """An aggregate that can be computed in two steps.

    Attributes:
        first: (name, expression) over rows.
        then: expression over the first step's results.
        averaged: what an average is taken of; it has to be a number for these steps.
    """

    first: tuple[tuple[str, str], ...]
    then: str
    averaged: str = ""


def in_two_steps(name: str, expression: str) -> Aggregated | None:
    """How an aggregate is computed from partial results; None if it is not known to be.

    Integers sum exactly; floating point sums may differ in their last digits, as they do between
    any two orders of addition.
    """
    call = _single_call(expression)
    if call is None or collates(expression):
        return None
    function = str(call["function_name"]).lower()
    plain = not call.get("distinct") and not call.get("order_bys", {}).get("orders")
    # max(x, 3) is a list, which does not combine as x does.
    if not plain or call.get("filter") is not None or len(call["arguments"]) > 1:
        return None
    if function in COMBINE:
        column = quote(f"{name}#0")
        combined = f"{COMBINE[function]}({column})"
        if function in ("count", "count_star"):
            combined = f"coalesce({combined}, 0)::BIGINT"
        return Aggregated(((f"{name}#0", expression),), combined)
    if function in ("avg", "mean"):
        inner = expression[expression.index("(") + 1 : expression.rindex(")")]
        total, count = f"{name}#0", f"{name}#1"
        return Aggregated(
            ((total, f"sum({inner})"), (count, f"count({inner})")),
            f"sum({quote(total)}) / nullif(sum({quote(count)}), 0)::BIGINT",
            averaged=inner,
        )
    return None


def _single_call(expression: str) -> Any:
    """The call, if the expression is nothing but one; else None."""
    selected = parse(f"SELECT {expression}\nFROM t")[0]["node"]["select_list"]
    if len(selected) != 1 or selected[0].get("class") != "FUNCTION" or selected[0]["is_operator"]:
        return None
    return selected[0]


def split_alias(expression: str) -> tuple[str, str]:
    """(name, expression) of ``expression AS name``; without a name, the text is the name."""
    refers(expression)  # says where it does not parse
    expression = expression.strip().removesuffix(",")  # one more is allowed in a list
    selected = parse(f"SELECT {expression}\nFROM t")[0]["node"]["select_list"]
    if len(selected) != 1:
        raise PlanError(f"one expression expected, got {len(selected)}: {expression!r}")
    alias = selected[0].get("alias") or ""
    if not alias:
        if selected[0].get("class") == "COLUMN_REF":
            return selected[0]["column_names"][-1], expression
        return expression.strip(), expression
    # The parser says that there is an alias, so it is the first word, as in `n: count(*)`, or the
    # last.
    name = r"(?:\"(?:[^\"]|\"\")+\"|\w+)"
    stripped = re.sub(rf"^\s*{name}\s*:(?!:)", "", expression)
    if stripped == expression:
        stripped = re.sub(rf"(\s+as)?\s+{name}\s*$", "", expression, flags=re.IGNORECASE)
    return alias, stripped.strip()


_ORDER = re.compile(
    r"^(?P<key>.*?)(?:\s+(?P<direction>asc|desc))?(?:\s+nulls\s+(?P<nulls>first|last))?\s*$",
    re.IGNORECASE | re.DOTALL,
)


def sort_keys(operation: str, text: str) -> list[tuple[str, bool, bool]]:
    """(expression, descending, nulls first) of each item of an ORDER BY list.

    Raises:
        PlanError: an item does not parse.
    """
    keys = []
    for item in _split_top_level(text):
        match = _ORDER.match(item)
        assert match is not None  # noqa: S101 (it matches any text)
        key = match["key"].strip()
        if not key:
            raise PlanError(f"{operation}: a key is missing in {text!r}")
        try:
            refers(f"({key})")
        except PlanError as error:
            raise PlanError(f"{operation}: {error}\nin {operation}: {item}") from error
        keys.append(
            (
                key,
                (match["direction"] or "").lower() == "desc",
                (match["nulls"] or "").lower() == "first",
            )
        )
    return keys


def _split_top_level(text: str) -> list[str]:
    """Parts between commas that are in no brackets and no quotes."""
    parts, depth, quoted, begin = [], 0, "", 0
    for i, char in enumerate(text):
        if quoted:
            quoted = "" if char == quoted else quoted
        elif char in "'\"":
            quoted = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[begin:i])
            begin = i + 1
    return [*parts, text[begin:]]
