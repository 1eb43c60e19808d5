"""Each rule by itself keeps the rows, and does what it is for."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.engine.passes import in_passes
from smallpond.plan import (
    Aggregate,
    By,
    Distinct,
    Files,
    Gather,
    Join,
    Limit,
    Plan,
    Repartition,
    Sort,
    Sql,
    Window,
    walk,
)
from smallpond.rules import (
    Spread,
    bottom_up,
    distribute,
    flat_union,
    optimise,
    prune,
    push_filter,
    push_limit,
    replaced,
    top_rows,
)
from tests.oracles.smallpond import Op, assert_first, assert_same, query, run
from tests.smallpond.planned import rows_of
from tests.smallpond.strategies import Drawn, tables
from tests.smallpond.test_operations import build, chains

EXAMPLES = pytest.mark.parametrize("examples", [5, pytest.param(40, marks=pytest.mark.slow)])
GLOBAL = (Aggregate, Distinct, Sort, Window, Join)


@pytest.fixture(scope="module")
def sp(session_of_module: smallpond.Session) -> smallpond.Session:
    return session_of_module


RULES: dict[str, Callable[[Plan], Plan]] = {
    "flat_union": lambda plan: bottom_up(plan, flat_union),
    "push_filter": lambda plan: bottom_up(plan, push_filter),
    "push_limit": lambda plan: bottom_up(plan, push_limit),
    "prune": prune,
    "top_rows": lambda plan: bottom_up(plan, top_rows),
    "optimise": optimise,
    "distribute 1": lambda plan: distribute(plan, Spread(1)),
    "distribute 2": lambda plan: distribute(plan, Spread(2)),
    "distribute 7": lambda plan: distribute(plan, Spread(7)),
    "no broadcast": lambda plan: distribute(optimise(plan), Spread(3, broadcast_bytes=0)),
}


@EXAMPLES
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_keeps_the_rows(sp: smallpond.Session, rule: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(chains(), tables({"v": "string", "w": "int8"}), st.integers(0, 4))
    def property_holds(op: Op, drawn: Drawn, limit: int) -> None:
        source = query("SELECT n, v, (w % 100)::INT AS w FROM t", t=drawn.table)
        frames = {"t": sp.from_arrow(source)}
        expected = run(op, {"t": source})
        df = build(op, frames)
        assert_same(rows_of(sp, RULES[rule](df.plan)), expected)
        narrow = df.map("v, n").plan
        assert_same(rows_of(sp, RULES[rule](narrow)), expected.select(["v", "n"]))
        first = df.map("v, n").limit(limit).plan
        assert_first(rows_of(sp, RULES[rule](first)), expected.select(["v", "n"]), limit)

    property_holds()


# ---- what is pushed, and what is not


@pytest.fixture(scope="module")
def df(sp: smallpond.Session) -> DataFrame:
    table = pa.table({"a": [1, 2, 3, 4], "b": [1, 1, 2, None], "c": ["x", "y", "z", "w"]})
    return sp.from_arrow(table)


def kinds(plan: Plan) -> list[str]:
    """The nodes from the top down along the first inputs."""
    names = [type(plan).__name__]
    while plan.inputs:
        plan = plan.inputs[0]
        names.append(type(plan).__name__)
    return names


BELOW: dict[str, Callable[[DataFrame], DataFrame]] = {
    "Sort": lambda df: df.sort("a").filter("b > 1"),
    "Repartition": lambda df: df.repartition(3, hash_by="a").filter("b > 1"),
    "Repartition by a number": lambda df: df.repartition(9, by="a").filter("a > 1"),
    "Distinct": lambda df: df.distinct().filter("b > 1"),
    "Aggregate": lambda df: df.group_by("a").agg("sum(b) AS s").filter("a > 1"),
    "Aggregate of a quoted key": lambda df: df.group_by('"a"').agg("sum(b) AS s").filter("a > 1"),
}


@pytest.mark.parametrize("case", BELOW)
def test_filters_go_below_what_moves_rows(sp: smallpond.Session, df: DataFrame, case: str) -> None:
    plan = BELOW[case](df).plan
    pushed = push_filter(plan)
    assert kinds(pushed) == [case.split(maxsplit=1)[0], "Filter", "Memory"]
    assert_same(rows_of(sp, pushed), rows_of(sp, plan))


@smallpond.udf(params=[smallpond.UDFType.BIGINT], return_type=smallpond.UDFType.BOOLEAN)
def known(a: int) -> bool:
    return a > 2


ABOVE: dict[str, Callable[[DataFrame], DataFrame]] = {
    "limit": lambda df: df.limit(2).filter("a > 1"),
    "aggregate": lambda df: df.group_by("a").agg("sum(b) AS s").filter("s > 1"),
    "no keys": lambda df: df.agg("sum(b) AS s", "max(a) AS a").filter("a < 1"),
    "nothing": lambda df: df.agg("count(*) AS n").filter("1 = 0"),
    "all columns": lambda df: df.group_by("a").agg("sum(b) AS s").filter("COLUMNS(*) > 1"),
    "computed key": lambda df: df.group_by("a % 2 AS a").agg("sum(b) AS s").filter("a = 1"),
    "some of each": lambda df: df.distinct("b").filter("a > 100"),
    "window": lambda df: df.window(order_by="a", r="row_number()").filter("a > 2"),
    "projection": lambda df: df.map("a + 1 AS a").filter("a > 2"),
    "rows": lambda df: df.repartition(2, by_rows=True).filter("a > 2"),
    "number": lambda df: df.repartition(9, by="a", drop_partition_column=False).filter(
        "__data_partition__ > 2"
    ),
    "number of the partition": lambda df: df.repartition(5, by="a").filter(
        "a = {__data_partition__}"
    ),
    "chance": lambda df: df.sort("a").filter("random() >= 0"),
    "subquery": lambda df: df.sort("a").filter("a > (SELECT 2)"),
    "unknown function": lambda df: df.sort("a").filter("known(a)", udfs=[known]),
    "union": lambda df: df.union(df.map("a")).filter("b IS NULL"),
    "join": lambda df: df.join(df, on="a", how="left").filter("b_right > 1"),
}


@pytest.mark.parametrize("case", ABOVE)
def test_filters_stay_above_what_they_depend_on(
    sp: smallpond.Session, df: DataFrame, case: str
) -> None:
    plan = ABOVE[case](df).plan
    assert push_filter(plan) is plan
    assert_same(rows_of(sp, optimise(plan)), rows_of(sp, plan))


def test_unions_of_unions_are_one(sp: smallpond.Session, df: DataFrame) -> None:
    others = [df.select("a", f"{i} as d") for i in range(3)]
    nested = df.union(others[0]).union(others[1].union(df, others[2])).union(df)
    flat = bottom_up(nested.plan, flat_union)
    assert [type(node).__name__ for node in flat.inputs] == [
        *["Memory", "Project", "Project", "Memory", "Project", "Memory"]
    ]
    assert rows_of(sp, flat).equals(rows_of(sp, nested.plan))
    assert flat_union(df.union(df).plan) == df.union(df).plan


def test_limits_go_below_what_keeps_the_number_of_rows(
    sp: smallpond.Session, df: DataFrame
) -> None:
    plan = df.map("a + 1 AS x").map(lambda row: row).limit(3).limit(2).plan
    pushed = bottom_up(plan, push_limit)
    assert kinds(pushed) == ["Function", "Project", "Limit", "Memory"]
    [limit] = [node for node in walk(pushed) if isinstance(node, Limit)]
    assert limit.num_rows == 2
    assert rows_of(sp, pushed).to_pylist() == [{"x": 2}, {"x": 3}]
    [limit] = [n for n in walk(push_limit(df.limit(2).limit(3).plan)) if isinstance(n, Limit)]
    assert limit.num_rows == 2
    for stays in (
        df.flat_map("unnest([a, a]) AS x"),
        df.map("DISTINCT b"),
        df.map("sum(a) AS s"),
        df.map("row_number() OVER (ORDER BY a DESC) AS r"),
        df.map("random() AS r"),
        df.map("a + (SELECT 2) AS s"),
        df.filter("a > 1"),
        df.flat_map(lambda row: [row, row]),
        df.filter(lambda row: row["a"] > 1),
        df.map_batches(lambda table: table.slice(1)),
        df.sort("a"),
        df.union(df),
    ):
        assert kinds(push_limit(stays.limit(2).plan))[0] == "Limit"


@pytest.fixture(scope="module")
def read(sp: smallpond.Session, tmp_path_factory: pytest.TempPathFactory) -> DataFrame:
    """Columns a, b, c and one whose name holds theirs and what patterns and texts end with."""
    folder = tmp_path_factory.mktemp("data")
    table = pa.table(
        {"a": [1, 2, 3, 4], "b": [1, 1, 2, 5], "c": ["x", "y", "z", "w"], "b'(a": [5, 6, 7, 8]}
    )
    pq.write_table(table, folder / "t.parquet")
    return sp.read_parquet(str(folder), columns=table.column_names)


ALL = ("a", "b", "c", "b'(a")

READ: dict[str, tuple[Callable[[DataFrame], DataFrame], tuple[str, ...]]] = {
    "all": (lambda df: df, ALL),
    "star": (lambda df: df.map("*"), ALL),
    "one": (lambda df: df.map("b"), ("b",)),
    "capitals": (lambda df: df.map("B + 1 AS x"), ("b",)),
    "none": (lambda df: df.agg("count(*) AS n"), ("a",)),
    "condition": (lambda df: df.filter("c = 'x'").map("a"), ("a", "c")),
    "order": (lambda df: df.sort("b").map("a"), ("a", "b")),
    "group": (lambda df: df.group_by("b").agg("sum(a) AS s"), ("a", "b")),
    "group without aggregate": (lambda df: df.group_by("b").agg("count(*) AS n"), ("b",)),
    "whole window": (lambda df: df.select("sum(b) OVER () AS s"), ("b",)),
    "rows that differ": (lambda df: df.distinct().map("b"), ALL),
    "pattern": (lambda df: df.map("COLUMNS('a')"), ALL),
    "pattern in a condition": (lambda df: df.filter("COLUMNS('b') > 1").map("a"), ALL),
    "pattern in an order": (lambda df: df.sort("COLUMNS('^b$')").map("a"), ALL),
    "pattern in an aggregate": (lambda df: df.agg("sum(COLUMNS('^b$'))"), ALL),
    "query": (lambda df: df.session.partial_sql("SELECT b FROM {0}", df), ("b",)),
    "query for a pattern": (
        lambda df: df.session.partial_sql("SELECT COLUMNS('b') FROM {0}", df), ALL
    ),
    "function": (lambda df: df.map(lambda row: {"b": row["b"]}), ALL),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_columns_that_nobody_asks_for_are_not_read(
    sp: smallpond.Session, read: DataFrame, case: str
) -> None:
    make, wanted = READ[case]
    plan = make(read).plan
    pruned = prune(plan)
    assert [node.columns for node in walk(pruned) if isinstance(node, Files)] == [wanted]
    assert_same(rows_of(sp, pruned), rows_of(sp, plan))


def test_queries_that_are_set_up_may_take_any_column(read: DataFrame) -> None:
    setup = ("CREATE MACRO f() AS b",)
    plan = Sql((read.plan,), "SELECT f() FROM {0}", setup=setup, label="sql")
    assert [node.columns for node in walk(prune(plan)) if isinstance(node, Files)] == [ALL]


MOVED: dict[str, tuple[Callable[[DataFrame], DataFrame], set[str]]] = {
    "key and value": (lambda df: df.repartition(2, hash_by="b").map("a"), {"a", "b"}),
    "capitals": (lambda df: df.repartition(2, hash_by="B").map("A"), {"a", "b"}),
    "name for patterns": (lambda df: df.repartition(2, hash_by="b'(a").map("a"), {"a", "b'(a"}),
    "number": (lambda df: df.repartition(9, by="a + 1").map("b"), {"a", "b"}),
    "number of any column": (
        lambda df: df.repartition(9, by="least(*COLUMNS('a$'))").map("b"), {*ALL}
    ),
    "no column": (lambda df: df.repartition(2, by="0").agg("count(*) AS n"), set()),
    "kept number": (
        lambda df: df.repartition(2, by="0", drop_partition_column=False).map("__data_partition__"),
        set(),
    ),
    "equal pieces": (lambda df: df.repartition(2, by_rows=True).map("a"), {*ALL}),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVED)
@pytest.mark.parametrize("source", ["memory", "files"])
def test_columns_that_nobody_asks_for_are_not_moved(
    sp: smallpond.Session, read: DataFrame, source: str, case: str
) -> None:
    make, wanted = MOVED[case]
    plan = make(sp.from_arrow(rows_of(sp, read.plan)) if source == "memory" else read).plan
    pruned = prune(plan)
    [repartition] = [node for node in walk(pruned) if isinstance(node, Repartition)]
    below = repartition.inputs[0]
    if source == "files":
        assert isinstance(below, Files)  # which can be cut without being read
        wanted = wanted or {"a"}
    assert {*rows_of(sp, below).column_names} == (wanted or {*ALL})
    assert_same(rows_of(sp, pruned), rows_of(sp, plan))


# ---- distribute


SPREAD: dict[str, tuple[Callable[[DataFrame, int | None], DataFrame], str]] = {
    "group": (lambda df, n: df.group_by("b", npartitions=n).agg("sum(a) AS s"), "b"),
    "distinct": (lambda df, n: df.distinct(npartitions=n), ""),
    "distinct on": (lambda df, n: df.distinct("b", npartitions=n), "b"),
    "sort": (lambda df, n: df.sort("b desc", "a", npartitions=n), ""),
    "window": (lambda df, n: df.window(partition_by="b", s="sum(a)", npartitions=n), "b"),
    "join": (
        lambda df, n: df.join(df, on="b", how="full", broadcast=False, npartitions=n), "b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("case", SPREAD)
def test_global_nodes_become_local_ones_over_exchanges(
    sp: smallpond.Session, df: DataFrame, case: str, n: int
) -> None:
    make, keys = SPREAD[case]
    whole = make(df, None).plan
    for spread_out in (distribute(whole, Spread(n)), distribute(make(df, n).plan, Spread(None))):
        if case == "sort" and n == 1:
            continue
        exchanges = [node for node in walk(spread_out) if isinstance(node, Repartition)]
        assert exchanges
        assert {node.npartitions for node in exchanges} == {n}
        assert isinstance(spread_out, Gather)
        wanted = By.RANGE if case == "sort" else By.HASH
        assert {node.by for node in exchanges} == {wanted}
        left = [node for node in walk(spread_out) if isinstance(node, GLOBAL)]
        assert all(isinstance(node, Sort) and node.partial for node in left)
        got, expected = rows_of(sp, spread_out), rows_of(sp, whole)
        if case == "distinct on":
            got, expected = got.select([keys]), expected.select([keys])
        assert_same(got, expected, ordered=case == "sort")
    assert distribute(whole, Spread(None)) is whole


STAYS: dict[str, Callable[[DataFrame], DataFrame]] = {
    "sort of each partition": lambda df: df.repartition(2, by_rows=True).partial_sort("a desc"),
    "first of sorted partitions": lambda df: (
        df.repartition(2, by_rows=True).partial_sort("a desc").limit(1)
    ),
    "window over all": lambda df: df.window(order_by="a", r="row_number()"),
    "sort into one": lambda df: df.sort("a", npartitions=1),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_stays_as_it_is(sp: smallpond.Session, df: DataFrame, case: str) -> None:
    plan = STAYS[case](df).plan
    assert distribute(plan, Spread(3)) is plan


PARTITIONED: dict[str, Callable[[DataFrame], DataFrame]] = {
    "sum": lambda df: df.agg("sum(a) AS s", "count(*) AS n"),
    "sum of some partitions": lambda df: df.flat_map(lambda row: [row] if row["a"] > 2 else []).agg(
        "sum(a) AS s"
    ),
    # As floats some of these are equal.
    "join of an integer with a float": lambda df: (
        df.map("a, (16777216 + a)::INT AS n")
        .join(df.map("c, (16777216 + a)::FLOAT AS n"), on="n", broadcast=False)
        .map("a, c")
    ),
    "median": lambda df: df.agg("median(a) AS m"),
    "groups": lambda df: df.group_by("b").agg("median(a) AS m", "sum(a) AS s"),
    "first": lambda df: df.sort("a desc").limit(2),
    "distinct": lambda df: df.distinct("b").map("b"),
    "window": lambda df: df.window(partition_by="b", order_by="a", r="row_number()"),
    "sorted": lambda df: df.sort("a desc").select("a", "row_number() OVER () AS r"),
}


@pytest.mark.parametrize("case", PARTITIONED)
def test_rows_that_lie_in_partitions_come_together(
    sp: smallpond.Session, df: DataFrame, case: str
) -> None:
    whole = rows_of(sp, PARTITIONED[case](df).plan)
    parts = PARTITIONED[case](df.repartition(4, by_rows=True)).plan
    for spread in (Spread(1), Spread(3)):
        assert_same(rows_of(sp, distribute(parts, spread)), whole)


NOTHING: dict[str, Callable[[DataFrame], DataFrame]] = {
    "groups": lambda df: df.group_by("b").agg("sum(a) AS s"),
    "groups, whole": lambda df: df.group_by("b").agg("median(a) AS s"),
    "distinct": lambda df: df.distinct("b"),
    "first": lambda df: df.sort("a").limit(2),
    "window": lambda df: df.window(partition_by="b", s="sum(a)"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_of_rows_that_a_function_did_not_make_there_is_nothing(
    sp: smallpond.Session, df: DataFrame, case: str
) -> None:
    """What columns they would have, nobody knows."""
    plan = NOTHING[case](df).plan
    nothing = df.flat_map(lambda _: []).plan
    plan = replaced(plan, lambda node: nothing if node is df.plan else None)
    assert rows_of(sp, distribute(plan, Spread(3))).num_rows == 0


def test_numbers_of_nothing_are_0(sp: smallpond.Session, df: DataFrame) -> None:
    nothing = df.flat_map(lambda _: [])
    for spread in (Spread(None), Spread(3)):
        counted = distribute(nothing.agg("count(*) AS n").plan, spread)
        assert rows_of(sp, counted).to_pylist() == [{"n": 0}]


def test_what_can_be_combined_is_combined_before_rows_move(
    sp: smallpond.Session, df: DataFrame
) -> None:
    def partial(plan: Plan) -> list[str]:
        moved = distribute(plan, Spread(3))
        return [n.label for n in walk(moved) if isinstance(n, Sql) and n.splits]

    grouped = df.group_by("b")
    assert partial(grouped.agg("sum(a) AS s", "count(*) AS n", "avg(a) AS m").plan) == [
        "group_by (partial)"
    ]
    assert partial(df.agg("min(a) AS s").plan) == ["agg (partial)"]
    assert partial(df.distinct("b").plan) == ["distinct (partial)"]
    assert partial(df.sort("a").limit(3).plan) == ["sort (partial)"]
    for whole in ("count(DISTINCT a) AS n", "median(a) AS m", "sum(a) FILTER (a > 1) AS f"):
        assert partial(grouped.agg(whole, "sum(a) AS s").plan) == []
    average = df.agg("avg(a) AS m").plan
    for kind, labels in (("BIGINT", ["agg (partial)"]), ("HUGEINT", [])):
        moved = distribute(average, Spread(3, kind_of=lambda *_, kind=kind: kind))
        assert [n.label for n in walk(moved) if isinstance(n, Sql) and n.splits] == labels
    first = distribute(df.sort("a desc").limit(2).plan, Spread(3))
    [some] = [node for node in walk(first) if isinstance(node, Sql)]
    assert rows_of(sp, some)["a"].to_pylist() == [4, 3]
    graph = sp.job.graph(df.repartition(4, by_rows=True).group_by("b", npartitions=2).count().plan)
    splits = [task for task in graph.tasks if task.sink.num_outputs == 2]
    assert splits
    assert all(any(isinstance(n, Sql) for n in walk(task.program)) for task in splits)


def test_small_right_sides_are_sent_whole(sp: smallpond.Session, df: DataFrame) -> None:
    def moved(how: str, broadcast: bool | None = None, most: int = 1 << 20) -> bool:
        on = None if how == "cross" else "a"
        plan = df.join(df, on=on, how=how, broadcast=broadcast).plan  # type: ignore[arg-type]
        spread_out = distribute(plan, Spread(3, broadcast_bytes=most))
        return any(isinstance(node, Repartition) for node in walk(spread_out))

    for how in ("inner", "left", "semi", "anti"):
        assert not moved(how)
        assert moved(how, most=1)
        assert moved(how, broadcast=False)
        assert not moved(how, broadcast=True, most=1)
    for how in ("right", "full"):
        assert moved(how)
    assert not moved("cross", most=1)
    whole = distribute(df.join(df, on="a").plan, Spread(3))
    assert [node.broadcast for node in walk(whole) if isinstance(node, Join)] == [True]
    asked = distribute(df.join(df, on="a", npartitions=2).plan, Spread(3))
    assert {node.npartitions for node in walk(asked) if isinstance(node, Repartition)} == {2}
    made = DataFrame(sp, Sql((), "SELECT 1 AS a", label="sql"))  # of a size that nobody knows
    spread_out = distribute(df.join(made, on="a").plan, Spread(3))
    assert any(isinstance(node, Repartition) for node in walk(spread_out))


# ---- passes


PASSES: dict[str, Callable[[DataFrame, DataFrame], DataFrame]] = {
    "group": lambda df, _: df.group_by("v").agg("count(*) AS c", "list(n ORDER BY n) AS l"),
    "groups": lambda df, _: df.group_by("v", "w").agg("sum(n) AS s").filter("s > 2"),
    "distinct": lambda df, _: df.distinct().map("v, n"),
    "inner": lambda df, other: df.join(other, on="v"),
    "left": lambda df, other: df.join(other, on=["v", "w"], how="left"),
    "full": lambda df, other: df.join(other, on="v", how="full"),
    "anti": lambda df, other: df.join(other, on="v", how="anti"),
    "right": lambda df, other: df.join(other, left_on="w", right_on="n", how="right"),
    "mixed": lambda df, other: df.join(
        other.map("w::FLOAT AS w, n AS m"), on="w", how="full"
    ),
}  # fmt: skip


@EXAMPLES
@pytest.mark.parametrize("case", PASSES)
def test_passes_have_the_rows_together(sp: smallpond.Session, case: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.data())
    def property_holds(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(["double", "string", "date", "decimal18", "blob", "uuid"]))
        kinds_ = {"v": kind, "w": "int16"}
        sides = [data.draw(tables(kinds_, max_rows=20)) for _ in range(2)]
        frames = [sp.from_arrow(side.table).map(side.select) for side in sides]
        plan = PASSES[case](*frames).plan
        passes = data.draw(st.sampled_from([2, 4, 16]))
        programs = in_passes(plan, passes)
        assert len(programs) == passes
        parts = [rows_of(sp, program) for program in programs]
        assert_same(pa.concat_tables(parts), rows_of(sp, plan))

    property_holds()


def test_passes_share_the_work(sp: smallpond.Session) -> None:
    df = sp.from_arrow(pa.table({"n": list(range(1000))}))
    parts = [rows_of(sp, p).num_rows for p in in_passes(df.distinct().plan, 4)]
    assert sum(parts) == 1000
    assert min(parts) > 100
    for whole in (df.sort("n"), df.agg("sum(n) AS s"), df.limit(3), df.filter("n > 3")):
        assert in_passes(whole.plan, 4) == [whole.plan]
