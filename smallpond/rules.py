"""Rules that turn a plan into a better one with the same rows; each is a pure function.

``optimise`` moves filters and columns towards the data. ``distribute`` replaces global nodes by
local ones with a `Repartition` between, for workers that share no memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from smallpond.leaves import size_of
from smallpond.plan import (
    Aggregate,
    By,
    Distinct,
    Files,
    Filter,
    Function,
    Gather,
    Held,
    How,
    Join,
    Limit,
    Plan,
    Project,
    Repartition,
    Shape,
    Sort,
    Sql,
    Union,
    Window,
    walk,
)
from smallpond.sql import (
    Aggregated,
    Refers,
    collates,
    fill,
    in_two_steps,
    named,
    placeholders,
    quote,
    refers,
)


def is_rowwise(select: str) -> bool:
    """Whether a select list makes each row of one input row, whatever its neighbours are."""
    uses = refers(select)
    if uses.has_window or uses.has_subquery or uses.has_distinct or uses.volatile:
        return False
    return not uses.has_aggregate


# ---- optimise


def optimise(plan: Plan) -> Plan:
    """Filters, limits and columns next to the data."""
    plan = bottom_up(plan, flat_union)
    plan = bottom_up(plan, push_filter)
    plan = bottom_up(plan, push_limit)
    return prune(plan)


def bottom_up(plan: Plan, rule: Callable[[Plan], Plan]) -> Plan:
    """Applies a rule to every node, inputs first; shared nodes stay shared."""
    done: dict[int, Plan] = {}
    for node in walk(plan):
        inputs = tuple(done[id(source)] for source in node.inputs)
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        done[id(node)] = rule(node if same else node.with_inputs(inputs))
    return done[id(plan)]


def replaced(plan: Plan, other: Callable[[Plan], Plan | None]) -> Plan:
    """Puts other plans in the place of nodes, from the top down; shared nodes stay shared.

    Args:
        plan: what to look at.
        other: what comes in the place of a node; None keeps it, over inputs that are looked at.
    """
    done: dict[int, Plan] = {}

    def visit(node: Plan) -> Plan:
        if id(node) not in done:
            found = other(node)
            done[id(node)] = over_inputs(node) if found is None else found
        return done[id(node)]

    def over_inputs(node: Plan) -> Plan:
        inputs = [visit(source) for source in node.inputs]
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        return node if same else node.with_inputs(tuple(inputs))

    return visit(plan)


def flat_union(node: Plan) -> Plan:
    """A union of unions as one, so that hundreds, made one after another, are not as deep."""
    if not isinstance(node, Union) or not any(isinstance(s, Union) for s in node.sources):
        return node
    sources = (s.sources if isinstance(s, Union) else (s,) for s in node.sources)
    return node.with_inputs(tuple(itertools.chain.from_iterable(sources)))


def push_filter(node: Plan) -> Plan:
    """A filter below what moves or sorts rows: fewer rows to move."""
    if not isinstance(node, Filter) or node.udfs or not _passes(node.condition, node.input):
        return node
    pushed = (push_filter(dataclasses.replace(node, input=s)) for s in node.input.inputs)
    return node.input.with_inputs(tuple(pushed))


def _passes(condition: str, below: Plan) -> bool:
    """Whether it makes no difference if rows are filtered before or after a node."""
    uses = refers(condition, "where")
    if uses.volatile or uses.has_subquery or placeholders(condition):
        return False
    match below:
        # Not a union: an input may lack the column, or have it in another type.
        case Sort() | Distinct(on=()) | Repartition(by=By.HASH | By.COLUMN, keep_column=None):
            return True
        case Aggregate():
            return bool(below.keys) and _only_keys(uses, below)
    return False


def _only_keys(uses: Refers, node: Aggregate) -> bool:
    """Whether a condition speaks of plain key columns only."""
    plain = {name for name, expression in node.keys if expression in (name, quote(name))}
    return uses.columns is not None and uses.columns <= plain


def push_limit(node: Plan) -> Plan:
    """A limit below a projection that gives one row for each."""
    if not isinstance(node, Limit):
        return node
    below = node.input
    if isinstance(below, Project) and _one_to_one(below):
        return below.with_inputs((push_limit(Limit(below.input, node.num_rows)),))
    if isinstance(below, Function) and below.shape is Shape.ROW:
        return below.with_inputs((push_limit(Limit(below.sources[0], node.num_rows)),))
    if isinstance(below, Limit):
        return push_limit(Limit(below.input, min(node.num_rows, below.num_rows)))
    return node


def _one_to_one(node: Project) -> bool:
    return is_rowwise(node.select) and not refers(node.select).has_unnest


def prune(plan: Plan) -> Plan:
    """Columns that nobody asks for are neither read nor moved."""
    return _prune(plan, None)


def _prune(node: Plan, needed: frozenset[str] | None) -> Plan:
    match node:
        case Files() if needed is not None:
            return _read_only(node, needed)
        case Repartition() if needed is not None:
            return _move_only(node, needed)
    wants = _wants(node, needed)
    inputs = tuple(_prune(s, w) for s, w in zip(node.inputs, wants, strict=True))
    same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
    return node if same else node.with_inputs(inputs)


def _read_only(node: Files, needed: frozenset[str]) -> Files:
    """Columns in the order of the file are not known here; any order will do, for nodes above
    name what they take. Names differ from the file's in case only at most, as in SQL.
    """
    if node.columns is None:
        return node
    lowered = {name.lower() for name in needed}
    kept = tuple(name for name in node.columns if name.lower() in lowered)
    return dataclasses.replace(node, columns=kept or node.columns[:1])


def _move_only(node: Repartition, needed: frozenset[str]) -> Plan:
    keys = [refers(f"({expression})") for expression in node.columns]
    if not keys or any(key.columns is None for key in keys):
        return node.with_inputs(tuple(_prune(s, None) for s in node.inputs))
    wanted = needed.union(*(key.columns or () for key in keys))
    if node.keep_column is not None:
        wanted -= {node.keep_column}
    return node.with_inputs(tuple(_narrowed(_prune(s, wanted), wanted) for s in node.inputs))


def _narrowed(source: Plan, wanted: frozenset[str]) -> Plan:
    """Takes the wanted columns, however their names are written; those that exist, at least."""
    if isinstance(source, Files) and source.columns is not None:
        return source
    pattern = "|".join(_escaped(name) for name in sorted(wanted))
    if not pattern:
        return source
    return Project(source, f"COLUMNS('(?i)^({pattern})$')", label="repartition")


def _escaped(name: str) -> str:
    return re.escape(name).replace("'", "''")


def _wants(node: Plan, needed: frozenset[str] | None) -> tuple[frozenset[str] | None, ...]:
    """The columns that a node needs of each input, None for all."""
    match node:
        case Project():
            return (refers(node.select).columns,)
        case Filter():
            return (_plus(needed, refers(node.condition, "where")),)
        case Aggregate():
            expressions = ", ".join(e for _, e in (*node.keys, *node.aggregates))
            return (refers(expressions).columns,)
        case Sort():
            keys = refers(", ".join(key.expression for key in node.keys))
            return (_plus(needed, keys),)
        case Limit() | Gather():
            return (needed,)
        case Sql(setup=()):
            uses = _query_refers(node)
            return (uses.columns if uses else None,) * len(node.sources)
    return (None,) * len(node.inputs)


def _query_refers(node: Sql) -> Refers | None:
    """What a query refers to; None for what only DuckDB understands as it runs."""
    try:
        names = {str(i): f"t{i}" for i in range(len(node.sources))}
        return refers(fill(node.query, names), "query")
    except ValueError:
        return None


def _plus(needed: frozenset[str] | None, uses: Refers) -> frozenset[str] | None:
    if needed is None or uses.columns is None:
        return None
    return needed | uses.columns


def is_made_once(node: Plan) -> bool:
    """Whether a node's rows may be others if they are made again, or at the cost of functions."""
    match node:
        case Function():
            return True
        case Project() | Filter() | Sql() if node.udfs:
            return True
        case Project() | Window():
            return refers(node.select).volatile
        case Filter():
            return refers(node.condition, "where").volatile
        case Aggregate():
            return any(refers(text).volatile for _, text in (*node.keys, *node.aggregates))
        case Distinct():
            return bool(node.on)  # any of the rows that are equal there
        case Sort():
            return any(refers(f"({key.expression})").volatile for key in node.keys)
        case Sql():
            uses = _query_refers(node)
            return uses is not None and uses.volatile
    return False


def hold_shared(plan: Plan) -> Plan:
    """Rows of functions and of chance that are read in several places are made for them once."""
    nodes = {node.key: node for node in walk(plan)}  # inputs first
    uses = Counter(source.key for node in nodes.values() for source in node.inputs)
    if max(uses.values(), default=0) < 2:
        return plan
    costly: set[str] = set()
    for key, node in nodes.items():
        if is_made_once(node) or any(source.key in costly for source in node.inputs):
            costly.add(key)
    made: dict[str, Plan] = {}

    def visit(node: Plan) -> Plan:
        if node.key not in costly:
            return node
        if node.key not in made:
            node_made = node.with_inputs(tuple(visit(source) for source in node.inputs))
            made[node.key] = Held(node_made) if uses[node.key] > 1 else node_made
        return made[node.key]

    return visit(plan)


# ---- distribute


@dataclass(frozen=True)
class Spread:
    """How widely to spread global work.

    Attributes:
        npartitions: of an exchange where the user said nothing; None to keep everything in one.
        broadcast_bytes: a join's right side up to this size goes whole to every partition.
        kind_of: gives the SQL type of an expression over a plan's rows; None takes all averages
            for averages of numbers.
    """

    npartitions: int | None
    broadcast_bytes: int = 64 << 20
    kind_of: Callable[[Plan, str], str] | None = None


def distribute(plan: Plan, spread: Spread) -> Plan:
    """Global nodes as local ones with a `Repartition` between them."""
    if spread.npartitions:
        plan = bottom_up(plan, top_rows)
    return bottom_up(plan, lambda node: _distributed(node, spread))


def top_rows(node: Plan) -> Plan:
    """The first rows of a sort are among the first rows of its pieces."""
    if not isinstance(node, Limit) or not isinstance(node.input, Sort) or node.input.partial:
        return node
    sort = node.input
    order = ", ".join(key.sql() for key in sort.keys)
    query = f"SELECT * FROM {{0}} ORDER BY {order} LIMIT {node.num_rows}"
    first = Gather(Sql((sort.input,), query, label="sort (partial)", splits=True, from_rows=True))
    return Limit(Sort(first, sort.keys, npartitions=1), node.num_rows)


def _distributed(node: Plan, spread: Spread) -> Plan:
    match node:
        case Aggregate():
            n = node.npartitions or spread.npartitions
            return _aggregate(node, n, spread) if n else node
        case Distinct():
            n = node.npartitions or spread.npartitions
            return _distinct(node, n) if n else node
        case Sort(partial=False):
            n = node.npartitions or spread.npartitions
            return _sort(node, n) if n else node
        case Window():
            n = node.npartitions or spread.npartitions
            return _window(node, n) if n and node.partition_by else node
        case Join():
            n = node.npartitions or spread.npartitions
            return _join(node, n, spread) if n else node
    return node


def _aggregate(node: Aggregate, n: int, spread: Spread) -> Plan:
    """Partial results before rows move, where each aggregate has such."""
    # Keys of chance would be others where rows are sent, and others where they are grouped.
    if any(collates(key) or refers(key).volatile for _, key in node.keys):
        return node
    steps = [_steps(name, expression, node.input, spread) for name, expression in node.aggregates]
    keys = tuple(quote(name) for name, _ in node.keys)
    plain = tuple((name, quote(name)) for name, _ in node.keys)
    if all(step is not None for step in steps):
        first = tuple(item for step in steps if step is not None for item in step.first)
        then = tuple(
            (name, step.then)
            for (name, _), step in zip(node.aggregates, steps, strict=True)
            if step is not None
        )
        partial = _local(Aggregate(node.input, node.keys, first), splits=True)
        if not keys:
            return _local(Aggregate(Gather(partial), (), then))
        moved = Repartition((partial,), n, By.HASH, keys, dimension=_dimension(node))
        return Gather(_local(Aggregate(moved, plain, then)))
    if not keys:
        return node
    expressions = tuple(expression for _, expression in node.keys)
    moved = Repartition((node.input,), n, By.HASH, expressions, dimension=_dimension(node))
    return Gather(_local(Aggregate(moved, node.keys, node.aggregates)))


def _steps(name: str, expression: str, source: Plan, spread: Spread) -> Aggregated | None:
    steps = in_two_steps(name, expression)
    if steps is None or not steps.averaged or spread.kind_of is None:
        return steps
    return steps if spread.kind_of(source, steps.averaged).startswith(_SUMMED) else None


# Not those of 128 bits, whose sums may not fit.
_SUMMED = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
    *("FLOAT", "DOUBLE", "DECIMAL"),
)


def _dimension(node: Plan) -> str:
    """A name of its own, so that this exchange meets no other."""
    return f"{type(node).__name__.lower()}:{node.key[:8]}"


def _local(node: Aggregate | Distinct, *, splits: bool = False) -> Plan:
    """A global node applied to each partition by itself, as a query."""
    suffix = " (partial)" if splits else ""
    if isinstance(node, Distinct):
        on = f"ON ({', '.join(quote(name) for name in node.on)}) " if node.on else ""
        query = f"SELECT DISTINCT {on}* FROM {{0}}"
        return Sql((node.input,), query, label=f"distinct{suffix}", splits=splits, from_rows=True)
    items = ", ".join(named(name, e) for name, e in (*node.keys, *node.aggregates))
    group = f"\nGROUP BY {', '.join(e for _, e in node.keys)}" if node.keys else ""
    # Of no rows, a partial aggregate of columns need not be there; a number of rows is 0.
    from_rows = bool(node.keys) or (splits and bool(refers(items).columns))
    query = f"SELECT {items} FROM {{0}}{group}"
    label = f"{node.label}{suffix}"
    return Sql((node.input,), query, label=label, splits=splits, from_rows=from_rows)


def _distinct(node: Distinct, n: int) -> Plan:
    partial = _local(Distinct(node.input, node.on), splits=True)
    keys = tuple(quote(name) for name in node.on)
    moved = Repartition((partial,), n, By.HASH, keys, dimension=_dimension(node))
    return Gather(_local(Distinct(moved, node.on)))


def _sort(node: Sort, n: int) -> Plan:
    if n == 1 or any(collates(key.expression) for key in node.keys):
        return node
    moved = Repartition((node.input,), n, By.RANGE, order=node.keys, dimension=_dimension(node))
    return Gather(Sort(moved, node.keys, partial=True))


def _window(node: Window, n: int) -> Plan:
    moved = Repartition((node.input,), n, By.HASH, node.partition_by, dimension=_dimension(node))
    query = f"SELECT *,\n{node.select}\nFROM {{0}}"
    return Gather(Sql((moved,), query, label="window", from_rows=True))


def _join(node: Join, n: int, spread: Spread) -> Plan:
    small = node.how in (How.INNER, How.LEFT, How.SEMI, How.ANTI, How.CROSS)
    right_bytes = size_of(node.right)
    broadcast = node.broadcast
    if broadcast is None:
        broadcast = small and node.npartitions is None and 0 < right_bytes <= spread.broadcast_bytes
    if broadcast or node.how is How.CROSS:
        return dataclasses.replace(node, broadcast=True)
    dimension = _dimension(node)
    left, right = (
        Repartition((side,), n, By.HASH, node.compared(keys), dimension=dimension)
        for side, keys in ((node.left, node.left_keys), (node.right, node.right_keys))
    )
    on = " AND ".join(
        f"l.{quote(a)} = r.{quote(b)}" for a, b in zip(node.left_keys, node.right_keys, strict=True)
    )
    kind = node.how.value.upper()
    query = f"SELECT {node.select} FROM {{0}} l {kind} JOIN {{1}} r ON {on}"
    return Gather(Sql((left, right), query, label="join"))
