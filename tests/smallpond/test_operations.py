"""Every operation against one SQL statement over the whole data, however the rows are spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import smallpond
from smallpond.dataframe import DataFrame
from tests.oracles.smallpond import (
    Op,
    assert_first,
    assert_in_order,
    assert_same,
    bag,
    query,
    run,
    types,
)
from tests.smallpond.ray_cluster import QUIET_RAY, connected
from tests.smallpond.strategies import HASHABLE, KINDS, ORDERED, Drawn, tables

TABLE = Op("table", ("t",))
ON_RAY = [pytest.mark.slow, *QUIET_RAY]


def examples(few: int, many: int) -> pytest.MarkDecorator:
    """In each kind of session, with the number of plans to try: few where each takes long."""
    cases = [
        ("shared memory", few),
        ("spread", few),
        pytest.param("ray", few, marks=ON_RAY),
        pytest.param("shared memory", many, marks=pytest.mark.slow),
        pytest.param("spread", many, marks=pytest.mark.slow),
    ]
    return pytest.mark.parametrize(("sp", "examples"), cases, indirect=["sp"], scope="module")


EXAMPLES = examples(4, 25)


@pytest.fixture(
    scope="module", params=["shared memory", "spread", pytest.param("ray", marks=ON_RAY)]
)
def sp(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[smallpond.Session]:
    """A session that plans for this machine, one that plans as for a cluster, and one on Ray."""
    root = str(tmp_path_factory.mktemp("root"))
    if request.param == "ray":
        yield from on_two_nodes(request.getfixturevalue("two_nodes").address, root)
        return
    with smallpond.init(data_root=root, cpus=2, progress=False) as session:
        if request.param == "spread":
            session.job.executor.shared_memory = False
        yield session


def on_two_nodes(address: str, root: str) -> Iterator[smallpond.Session]:
    """A session on Ray, where tasks really have run in the end."""
    ran_on = set()
    with (
        connected(address) as ray,
        smallpond.init(data_root=root, ray_address=address, progress=False) as session,
    ):
        session.on_event(lambda event: ran_on.add(getattr(event, "worker", "")))
        yield session
        nodes = {node["NodeID"][:6] for node in ray.nodes()}
        assert nodes & {worker.rpartition(" ")[2] for worker in ran_on}


def frame(sp: smallpond.Session, drawn: Drawn) -> DataFrame:
    return sp.from_arrow(drawn.table).map(drawn.select)


def build(op: Op, frames: dict[str, DataFrame]) -> DataFrame:
    """The plan with smallpond's operations."""
    inputs = [build(source, frames) for source in op.inputs]
    match op.name, op.args:
        case "table", (name,):
            return frames[name]
        case "repartition", (how,):
            return inputs[0].repartition(**how)
        case "filter", (condition,):
            return inputs[0].filter(condition)
        case "map", (select,):
            return inputs[0].map(select)
        case "sort", keys:
            return inputs[0].sort(*keys)
        case "limit", (count,):
            return inputs[0].limit(count)
        case "distinct", ():
            return inputs[0].distinct()
        case "aggregate", ((), aggregates):
            return inputs[0].agg(*aggregates)
        case "aggregate", (keys, aggregates):
            return inputs[0].group_by(*keys).agg(*aggregates)
        case "union", ():
            return inputs[0].union(*inputs[1:])
        case "join", (keys, how):
            return inputs[0].join(inputs[1], on=list(keys), how=how)
    raise AssertionError(op)


PARTITIONS: list[dict[str, Any]] = [
    {"npartitions": 1},
    {"npartitions": 3},
    {"npartitions": 3, "by_rows": True},
    {"npartitions": 2, "hash_by": "n"},
    {"npartitions": 3, "by": "n % 3"},
    {"npartitions": 2, "hash_by": "n", "random_shuffle": True},
]


def spread(draw: st.DrawFn, op: Op) -> Op:
    """The operation's rows as they are, or in other partitions."""
    how = draw(st.none() | st.sampled_from(PARTITIONS))
    return op if how is None else Op("repartition", (how,), (op,))


def check(sp: smallpond.Session, op: Op, drawn: Drawn, other: Drawn | None = None) -> None:
    """Builds a plan on both sides, and compares."""
    given_tables = {"t": drawn} if other is None else {"t": drawn, "u": other}
    expected = run(
        op,
        {name: query(f"SELECT {d.select} FROM t", t=d.table) for name, d in given_tables.items()},
    )
    actual = build(op, {name: frame(sp, d) for name, d in given_tables.items()}).to_arrow()
    assert_same(actual, expected)


# ---- every type through every way of moving rows


@EXAMPLES
def test_columns_of_every_type_survive_every_repartition(
    sp: smallpond.Session, examples: int
) -> None:
    everything = {f"v_{kind}": kind for kind in KINDS}
    ways = [*PARTITIONS, *({"npartitions": 3, "hash_by": f"v_{kind}"} for kind in KINDS)]

    @settings(max_examples=2 * examples)
    @given(tables(everything), st.sampled_from(ways))
    def property_holds(drawn: Drawn, how: dict[str, Any]) -> None:
        check(sp, Op("repartition", (how,), (TABLE,)), drawn)

    property_holds()


@pytest.mark.parametrize("how", PARTITIONS, ids=str)
def test_rows_come_into_the_partitions_they_belong_to(
    sp: smallpond.Session, how: dict[str, Any]
) -> None:
    count = how["npartitions"]
    source = pa.table({"n": list(range(50)), "m": [i % 7 for i in range(50)]})
    if how.get("hash_by"):
        how = {**how, "hash_by": "m"}
    df = sp.from_arrow(source).repartition(**how)
    made = sp.partial_sql("SELECT {__data_partition__} AS p, * FROM {0}", df).to_arrow()
    members: dict[int, list[dict[str, int]]] = {i: [] for i in range(count)}
    for row in made.to_pylist():
        members[row.pop("p")].append(row)
    assert sorted(row["n"] for rows_ in members.values() for row in rows_) == list(range(50))
    if "by" in how:
        assert all(row["n"] % 3 == p for p, rows_ in members.items() for row in rows_)
    elif "random_shuffle" in how:
        assert all(members.values())
    elif "hash_by" in how:
        assert sum(len({row["m"] for row in rows_}) for rows_ in members.values()) == 7
    else:
        assert [row["n"] for rows_ in members.values() for row in rows_] == list(range(50))
        assert max(map(len, members.values())) - min(map(len, members.values())) <= 1


def test_values_that_compare_equal_meet_whatever_their_types(sp: smallpond.Session) -> None:
    texts = ["0", "1", "2", "3", "-1", "16777216"]
    counted: dict[int, int] = {}
    for kind in ("TINYINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL(12,3)"):
        df = sp.from_arrow(pa.table({"t": texts})).map(f"try_cast(t AS {kind}) AS k")
        df = df.filter("k IS NOT NULL").repartition(5, hash_by="k")
        placed = sp.partial_sql("SELECT {__data_partition__} AS p, k::DOUBLE AS k FROM {0}", df)
        for row in placed.take_all():
            assert counted.setdefault(row["k"], row["p"]) == row["p"], (kind, row)


# ---- rows


CONDITIONS = ["n > 3", "v IS NULL", "v = v", "n % 2 = 0 AND v IS NOT NULL", "false", "n IS NULL"]


@EXAMPLES
def test_filter_and_map(sp: smallpond.Session, examples: int) -> None:
    @st.composite
    def plans(draw: st.DrawFn) -> tuple[Op, Drawn]:
        drawn = draw(tables({"v": draw(st.sampled_from(list(KINDS)))}))
        kept = Op("filter", (draw(st.sampled_from(CONDITIONS)),), (spread(draw, TABLE),))
        select = draw(st.sampled_from(["v", "*", "n + 1 AS m, v", "{'n': n, 'v': v} AS both"]))
        return Op("map", (select,), (spread(draw, kept),)), drawn

    @settings(max_examples=examples)
    @given(plans())
    def property_holds(case: tuple[Op, Drawn]) -> None:
        check(sp, *case)

    property_holds()


@pytest.mark.parametrize("limit", [0, 1, 7, 20, 21])
def test_limit_gives_the_first_rows_where_rows_have_an_order(
    sp: smallpond.Session, limit: int
) -> None:
    source = pa.table({"n": list(range(20))})
    df = sp.from_arrow(source)
    for whole in (df, df.repartition(3), df.repartition(6, by_rows=True)):
        assert_same(whole.limit(limit).to_arrow(), source.slice(0, limit), ordered=True)
        later = whole.filter("n >= 4").map("n").limit(limit).to_arrow()
        assert_same(later, source.slice(4, limit), ordered=True)


def test_what_follows_a_limit_sees_the_limited_rows_only(sp: smallpond.Session) -> None:
    df = sp.from_arrow(pa.table({"n": list(range(20))}))
    for whole in (df, df.repartition(4, by_rows=True), df.repartition(4, hash_by="n")):
        two = whole.limit(2)
        assert two.count() == two.map("n").count() == two.filter("n >= 0").count() == 2
        assert two.map("count(*) AS c").take_all() == [{"c": 2}]
        assert two.agg("count(*) AS c").take_all() == [{"c": 2}]
        assert two.repartition(3, by_rows=True).count() == 2
        assert two.union(two).count() == 4
        assert two.limit(5).limit(1).count() == 1
        assert two.flat_map("unnest([n, n]) AS m").count() == 4
        assert two.flat_map("unnest([n, n]) AS m").limit(3).count() == 3


# ---- sort


SIZE = "ENUM('small', 'big', 'huge')"


@pytest.mark.parametrize("how", PARTITIONS, ids=str)
def test_an_enum_stays_one_when_it_is_handed_on(sp: smallpond.Session, how: dict[str, Any]) -> None:
    names = ["huge", None, "small", "big", "huge", "small", None]
    table = pa.table({"n": range(7), "name": names})
    columns = f"n, CAST(name AS {SIZE}) AS size, [CAST(name AS {SIZE})] AS sizes"
    df = sp.from_arrow(table).map(columns).repartition(**how)
    order = [2, 5, 3, 0, 4, 1, 6]
    for sorted_df in (df.sort("size", "n"), df.sort("sizes NULLS LAST", "n", npartitions=2)):
        assert [row["n"] for row in sorted_df.take_all()][:5] == order[:5]
        assert [row["size"] for row in sorted_df.take_all()] == [names[n] for n in order]
    told = df.map("n, typeof(size) AS one, typeof(sizes) AS many").sort("n").take(1)
    assert told == [{"n": 0, "one": SIZE, "many": f"{SIZE}[]"}]
    groups = df.group_by("size").agg("count(*) AS number").sort("size").take_all()
    assert groups == [
        {"size": size, "number": number}
        for size, number in [("small", 2), ("big", 1), ("huge", 2), (None, 2)]
    ]
    assert df.filter("n > 99").sort("size").count() == 0


@pytest.mark.parametrize("other", ["VARCHAR", "ENUM('other')"])
def test_an_enum_beside_another_type_is_a_text(sp: smallpond.Session, other: str) -> None:
    table = pa.table({"n": range(2), "a": ["small", "huge"], "b": ["other", "other"]})
    df = sp.from_arrow(table)
    mixed = df.map(f"n, CAST(a AS {SIZE}) AS size").repartition(2, hash_by="n")
    mixed = mixed.union(df.map(f"n, CAST(b AS {other}) AS size").repartition(2, hash_by="n"))
    found = mixed.repartition(3, by_rows=True).sort("size", "n").map("size").take_all()
    assert [row["size"] for row in found] == ["huge", "other", "other", "small"]


@EXAMPLES
@pytest.mark.parametrize("npartitions", [None, 1, 3])
def test_sort_puts_all_rows_in_order(
    sp: smallpond.Session, npartitions: int | None, examples: int
) -> None:
    @st.composite
    def cases(draw: st.DrawFn) -> tuple[Drawn, list[str], Op]:
        # Of an ENUM the oracle sees the texts, which have another order.
        ordered = [kind for kind in ORDERED if kind != "enum"]
        kinds = {name: draw(st.sampled_from(ordered)) for name in ("v", "w")}
        names = draw(st.sampled_from([["v"], ["v", "w"], ["w", "n"]]))
        nulls = ["", " nulls first", " nulls last"]
        keys = [
            name + draw(st.sampled_from(["", " asc", " DESC"])) + draw(st.sampled_from(nulls))
            for name in names
        ]
        return draw(tables(kinds, max_rows=30)), keys, spread(draw, TABLE)

    @settings(max_examples=examples)
    @given(cases())
    def property_holds(case: tuple[Drawn, list[str], Op]) -> None:
        drawn, keys, source = case
        everything = query(f"SELECT {drawn.select} FROM t", t=drawn.table)
        written = [key if "nulls" in key else f"{key} NULLS LAST" for key in keys]
        expected = run(Op("sort", tuple(written), (source,)), {"t": everything})
        df = build(source, {"t": frame(sp, drawn)}).sort(*keys, npartitions=npartitions)
        whole = df.to_arrow()
        assert_same(whole, expected)
        assert_in_order(whole, written)
        top = df.limit(3).to_arrow()
        assert_first(top, expected, 3)
        # None of the others is before them.
        last = top.slice(max(0, top.num_rows - 1))
        assert_in_order(pa.concat_tables([last, expected.slice(3)]), written)

    property_holds()


def test_sort_takes_expressions_and_a_list_of_directions(sp: smallpond.Session) -> None:
    source = pa.table({"a": [3, -5, 1, None, -1], "b": ["x", "y", "x", "y", "x"]})
    df = sp.from_arrow(source)
    for npartitions in (None, 3):
        got = df.sort("abs(a) desc, b", npartitions=npartitions).to_arrow()
        expected = query("FROM t ORDER BY abs(a) DESC NULLS LAST, b NULLS LAST", t=source)
        assert_same(got, expected, ordered=True)
        got = df.sort("b", "a", descending=[True, False], npartitions=npartitions).to_arrow()
        expected = query("FROM t ORDER BY b DESC NULLS LAST, a NULLS LAST", t=source)
        assert_same(got, expected, ordered=True)


def test_a_range_partitioned_sort_really_cuts_by_the_keys(sp: smallpond.Session) -> None:
    source = pa.table({"a": [(i * 7919) % 10_000 for i in range(10_000)]})
    graph = sp.job.graph(sp.from_arrow(source).sort("a desc", npartitions=4).plan)
    results = sp.job.scheduler.run(graph)
    [split] = {t.key: t for t in graph.tasks if t.sink.num_outputs == 4}.values()
    sizes = [sum(p.rows for p in parts) for parts in results[split.key].outputs]
    assert sum(sizes) == 10_000
    assert min(sizes) > 1_500, sizes


def test_partial_sort_puts_each_partition_in_order(sp: smallpond.Session) -> None:
    source = pa.table({"k": [i % 3 for i in range(30)], "v": [(i * 11) % 30 for i in range(30)]})
    df = sp.from_arrow(source).repartition(3, by="k").partial_sort(["k", "v desc"])
    expected = query("FROM t ORDER BY k, v DESC", t=source)
    assert_same(df.to_arrow(), expected, ordered=True)


# ---- all rows together


AGGREGATES = [
    "count(*) AS c",
    "count(v) AS c1",
    "min(n) AS c2",
    "max(n) AS c3",
    "sum(n) AS c4",
    "avg(n) AS c5",
    "count(DISTINCT v) AS c6",
    "sum(n) FILTER (n > 2) AS c7",
    "bool_and(n > 1) AS c8",
    "bool_or(n > 1) AS c9",
    "list(n ORDER BY n) AS c10",
    "sum(n) + 1 AS c11",
    "median(n) AS c12",
    "string_agg(n::VARCHAR, ',' ORDER BY n DESC) AS c13",
    "arg_max(n, n) AS c14",
    "bit_xor(n) AS c15",
    "mean(n) AS c16",
    "sum(DISTINCT n % 3) AS c17",
    "count() AS c18",
    "count_if(n > 1) AS c19",
]


@EXAMPLES
@pytest.mark.parametrize("npartitions", [None, 1, 3])
def test_group_by(sp: smallpond.Session, npartitions: int | None, examples: int) -> None:
    @st.composite
    def cases(draw: st.DrawFn) -> tuple[Drawn, list[str], list[str], Op]:
        drawn = draw(tables({"v": draw(st.sampled_from(HASHABLE))}))
        keys = draw(st.sampled_from([["v"], [], ["n"], ["n % 2 AS half", "v"], ["v", "n"]]))
        chosen = draw(st.lists(st.sampled_from(AGGREGATES), min_size=1, max_size=5, unique=True))
        return drawn, keys, chosen, spread(draw, TABLE)

    @settings(max_examples=examples)
    @given(cases())
    def property_holds(case: tuple[Drawn, list[str], list[str], Op]) -> None:
        drawn, keys, chosen, source = case
        everything = query(f"SELECT {drawn.select} FROM t", t=drawn.table)
        grouped = ", ".join(str(i + 1) for i in range(len(keys)))
        expected = query(
            f"SELECT {', '.join([*keys, *chosen])} FROM t"
            + (f" GROUP BY {grouped}" if keys else ""),
            t=everything,
        )
        df = build(source, {"t": frame(sp, drawn)})
        made = df.group_by(*keys, npartitions=npartitions).agg(*chosen) if keys else df.agg(*chosen)
        assert_same(made.to_arrow(), expected)

    property_holds()


def test_aggregates_of_every_kind_of_number_have_their_own_types(sp: smallpond.Session) -> None:
    kinds = ["TINYINT", "UBIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL(10,2)", "BOOLEAN"]
    source = pa.table({"k": [1, 2, 1, 2, 1], "t": ["1", "0", None, "1", "1"]})
    for kind in kinds:
        typed = f"k, CAST(t AS {kind}) AS v"
        items = "sum(v) AS s, avg(v) AS a, min(v) AS lo, max(v) AS hi, count(v) AS c"
        if kind == "BOOLEAN":
            items = "sum(v) AS s, min(v) AS lo, max(v) AS hi, count(v) AS c"
        expected = query(f"SELECT k, {items} FROM (SELECT {typed} FROM t) GROUP BY k", t=source)
        df = sp.from_arrow(source).map(typed).repartition(2, by_rows=True)
        for npartitions in (None, 3):
            made = df.group_by("k", npartitions=npartitions).agg(*items.split(", "))
            assert_same(made.to_arrow(), expected)


@EXAMPLES
@pytest.mark.parametrize("npartitions", [None, 3])
def test_distinct(sp: smallpond.Session, npartitions: int | None, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.data())
    def property_holds(data: st.DataObject) -> None:
        drawn = data.draw(tables({"v": data.draw(st.sampled_from(HASHABLE))}))
        everything = query(f"SELECT {drawn.select} FROM t", t=drawn.table)
        source = data.draw(st.composite(lambda draw: spread(draw, TABLE))())
        df = build(source, {"t": frame(sp, drawn)})
        of_v = df.select("v").distinct(npartitions=npartitions).to_arrow()
        assert_same(of_v, query("SELECT DISTINCT v FROM t", t=everything))
        one_of_each = df.distinct("v", npartitions=npartitions).to_arrow()
        assert not bag(one_of_each) - bag(everything)
        assert_same(one_of_each.select(["v"]), query("SELECT DISTINCT v FROM t", t=everything))

    property_holds()


JOINED = [kind for kind in HASHABLE if kind not in ("null", "map")]


@EXAMPLES
@pytest.mark.parametrize("how", ["inner", "left", "right", "full", "semi", "anti"])
def test_join(sp: smallpond.Session, how: str, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.data())
    def property_holds(data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(JOINED))
        left = data.draw(tables({"k": kind, "v": "string"}))
        right = data.draw(tables({"k": kind, "w": "int8"}))
        sides = {
            name: query(f"SELECT {d.select} FROM t", t=d.table)
            for name, d in (("t", left), ("u", right))
        }
        frames = {"t": frame(sp, left), "u": frame(sp, right)}
        make = st.composite(lambda draw, name: spread(draw, Op("table", (name,))))
        inputs = (data.draw(make("t")), data.draw(make("u")))
        on = data.draw(st.sampled_from([("k",), ("k", "n")]))
        expected = run(Op("join", (on, how), inputs), sides)
        broadcasts = [None, False] if how in ("right", "full") else [None, False, True]
        for npartitions in data.draw(st.sampled_from([(None,), (3,)])):
            for broadcast in (data.draw(st.sampled_from(broadcasts)),):
                df, other = (build(source, frames) for source in inputs)
                made = df.join(
                    other, on=list(on), how=how, npartitions=npartitions, broadcast=broadcast
                )
                assert_same(made.to_arrow(), expected)

    property_holds()


MIXED = [
    ("TINYINT", "BIGINT"),
    ("BIGINT", "DOUBLE"),
    ("HUGEINT", "INTEGER"),
    ("DECIMAL(6,2)", "INTEGER"),
    ("DECIMAL(6,2)", "DOUBLE"),
    ("FLOAT", "DOUBLE"),
    ("FLOAT", "INTEGER"),
    ("DATE", "TIMESTAMP"),
    ("TIMESTAMP_S", "TIMESTAMP_NS"),
]


@pytest.mark.parametrize("kinds", MIXED, ids=" = ".join)
def test_join_of_keys_of_different_types(sp: smallpond.Session, kinds: tuple[str, str]) -> None:
    a, b = kinds
    texts = ["0", "1", "2", "-3", "1.5", "16777217", None]
    if a.startswith(("DATE", "TIME")):
        texts = ["2020-01-01", "2020-01-01 00:00:00", "1969-12-31 23:59:59", "2020-06-01", None]
    source = pa.table({"t": texts})
    left, right = f"try_cast(t AS {a}) AS k", f"try_cast(t AS {b}) AS k, t AS w"
    expected = query(
        f"SELECT l.k, r.w FROM (SELECT {left} FROM t) l "
        f"JOIN (SELECT {right} FROM t) r ON l.k = r.k",
        t=source,
    )
    df, other = sp.from_arrow(source).map(left), sp.from_arrow(source).map(right)
    for npartitions in (None, 4):
        made = df.join(other, on="k", npartitions=npartitions, broadcast=False)
        assert_same(made.to_arrow(), expected)


def test_join_with_other_names_a_suffix_and_cross(sp: smallpond.Session) -> None:
    t = pa.table({"a": [1, 2, 3, None], "v": ["x", "y", "z", "w"]})
    u = pa.table({"b": [2, 3, 3, None], "v": ["Y", "Z", "ZZ", "W"]})
    df, other = sp.from_arrow(t), sp.from_arrow(u)
    for npartitions in (None, 2):
        made = df.join(other, left_on="a", right_on="b", suffix="_u", npartitions=npartitions)
        expected = query("SELECT a, t.v, b, u.v AS v_u FROM t JOIN u ON a = b", t=t, u=u)
        assert_same(made.to_arrow(), expected)
        crossed = df.join(other, how="cross", npartitions=npartitions).to_arrow()
        assert_same(crossed, query("SELECT a, t.v, b, u.v AS v_right FROM t, u", t=t, u=u))


def test_union_matches_columns_by_name_and_fills_those_that_are_missing(
    sp: smallpond.Session,
) -> None:
    t = pa.table({"a": [1, 2], "b": ["x", None]})
    types = pa.schema([("b", pa.string()), ("c", pa.bool_()), ("a", pa.int32())])
    u = pa.table({"b": ["y"], "c": [True], "a": [None]}, types)
    expected = query("FROM t UNION ALL BY NAME FROM u UNION ALL BY NAME FROM t", t=t, u=u)
    df, other = sp.from_arrow(t), sp.from_arrow(u)
    assert_same(df.union(other, df).to_arrow(), expected)
    spread_out = df.repartition(2, by_rows=True).union(other.repartition(3, hash_by="b"), df)
    assert_same(spread_out.to_arrow(), expected)
    assert_same(
        spread_out.filter("a IS NOT NULL").select("c", "a").to_arrow(),
        query("SELECT c, a FROM e WHERE a IS NOT NULL", e=expected),
    )


WINDOWS = ["row_number()", "sum(n)", "lag(n)", "rank()", "count(*)", "first_value(n)"]


@EXAMPLES
@pytest.mark.parametrize("npartitions", [None, 3])
def test_window(sp: smallpond.Session, npartitions: int | None, examples: int) -> None:
    @settings(max_examples=examples)
    @given(st.data())
    def property_holds(data: st.DataObject) -> None:
        drawn = data.draw(tables({"v": data.draw(st.sampled_from(JOINED))}))
        everything = query(f"SELECT {drawn.select} FROM t", t=drawn.table)
        function = data.draw(st.sampled_from(WINDOWS))
        by = data.draw(st.sampled_from([[], ["v"]]))
        over = ("PARTITION BY v " if by else "") + "ORDER BY n DESC NULLS LAST"
        expected = query(f"SELECT *, {function} OVER ({over}) AS w FROM t", t=everything)
        source = data.draw(st.composite(lambda draw: spread(draw, TABLE))())
        df = build(source, {"t": frame(sp, drawn)})
        made = df.window(partition_by=by, order_by="n desc", npartitions=npartitions, w=function)
        assert_same(made.to_arrow(), expected)

    property_holds()


# ---- columns


def test_columns_are_selected_replaced_dropped_and_renamed(sp: smallpond.Session) -> None:
    source = pa.table({"a": [1, 2, 3], "b b": ["x", None, "z"], 'q"': [0.5, 1.5, 2.5]})
    for df in (sp.from_arrow(source), sp.from_arrow(source).repartition(2, hash_by="a")):
        for made, expected in (
            (df.select("a", twice="a * 2"), "SELECT a, a * 2 AS twice FROM t"),
            (df.with_column("c", "a + 1"), "SELECT *, a + 1 AS c FROM t"),
            (
                df.with_column("b b", 'upper("b b")'),
                'SELECT a, upper("b b") AS "b b", "q""" FROM t',
            ),
            (df.drop("b b"), 'SELECT a, "q""" FROM t'),
            (df.rename({"b b": "c", 'q"': "d"}), 'SELECT a, "b b" AS c, "q""" AS d FROM t'),
            (df.select("max(a) AS m"), "SELECT max(a) AS m FROM t"),
            (
                df.with_column("rank", "row_number() OVER (ORDER BY a DESC)"),
                "SELECT *, row_number() OVER (ORDER BY a DESC) AS rank FROM t",
            ),
            (df.select("a").distinct().sort("a desc"), "SELECT a FROM t"),
        ):
            assert_same(made.to_arrow(), query(expected, t=source))
            assert made.columns == made.to_arrow().column_names


def test_the_schema_is_that_of_the_rows(sp: smallpond.Session) -> None:
    source = pa.table({"n": [1, 2], "s": ["a", "b"], "x": [0.5, None]})
    df = sp.from_arrow(source)
    for made in (
        df,
        df.map("n, s"),
        df.repartition(2, hash_by="s"),
        df.group_by("s").agg("sum(n) AS t"),
        df.map(lambda row: {"m": row["n"] * 1.5}),
        df.sort("x", npartitions=2),
        df.join(df, on="n"),
    ):
        assert made.schema.names == made.to_arrow().column_names
        assert types(made.schema.empty_table()) == types(made.to_arrow())
        assert made.dtypes == [(field.name, str(field.type)) for field in made.schema]


# ---- chains


@st.composite
def chains(draw: st.DrawFn, depth: int = 4) -> Op:
    """Operations on columns n, v and w, whose result has no freedom but the order of rows."""
    op = TABLE
    for _ in range(draw(st.integers(1, depth))):
        name = draw(
            st.sampled_from(["filter", "map", "sort", "distinct", "group", "union", "join", "move"])
        )
        match name:
            case "filter":
                condition = draw(st.sampled_from([*CONDITIONS, "w > 0", "w IS NULL OR n < 5"]))
                op = Op("filter", (condition,), (op,))
            case "map":
                select = draw(st.sampled_from(["n, v, w", "w, v, n + 1 AS n", "n, v, n % 3 AS w"]))
                op = Op("map", (select,), (op,))
            case "sort":
                op = Op("sort", draw(st.sampled_from([("n",), ("w", "n desc"), ("n % 2",)])), (op,))
            case "distinct":
                op = Op("distinct", (), (op,))
            case "group":
                items = ("sum(n)::BIGINT AS n", "count(*) AS m") if draw(st.booleans()) else (
                    "max(n) AS n", "count(DISTINCT n) AS m")  # fmt: skip
                grouped = Op("aggregate", (("v", "w"), items), (op,))
                op = Op("map", ("n, v, w + m AS w",), (grouped,))
            case "union":
                op = Op("union", (), (op, draw(st.sampled_from([op, TABLE]))))
            case "join":
                how = draw(st.sampled_from(["inner", "left", "semi", "anti"]))
                joined = Op("join", (("n",), how), (op, Op("map", ("n, w + 1 AS w2",), (TABLE,))))
                op = Op("map", ("n, v, w",), (joined,))
            case _:
                op = Op("repartition", (draw(st.sampled_from(PARTITIONS[:3])),), (op,))
    return op


@examples(15, 100)
def test_chains_of_operations(sp: smallpond.Session, examples: int) -> None:
    @settings(max_examples=examples)
    @given(chains(), tables({"v": "string", "w": "int32"}))
    def property_holds(op: Op, drawn: Drawn) -> None:
        narrow = drawn.table.set_column(
            2, "w", query("SELECT (w % 100)::INT AS w FROM t", t=drawn.table).column("w")
        )
        check(sp, op, Drawn(narrow, drawn.select))

    property_holds()
