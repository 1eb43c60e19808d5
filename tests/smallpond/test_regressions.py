"""What the original did wrong without saying so, and what we once did, with the right results."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import smallpond
from smallpond.errors import MissingInputError, OutputExistsError, PlanError, TaskError
from tests.oracles.smallpond import assert_same, query

TWENTY = pa.table({"a": list(range(20)), "k": [1] * 20})


# ---- the original's


@pytest.mark.parametrize("npartitions", [1, 10])
def test_a_limit_stays_global_under_what_follows(sp: smallpond.Session, npartitions: int) -> None:
    df = sp.from_arrow(TWENTY).repartition(npartitions, by_rows=True)
    assert df.limit(2).map("a").count() == 2
    assert df.limit(2).filter("a >= 0").count() == 2
    assert df.limit(2).map("a").take_all() == [{"a": 0}, {"a": 1}]


def test_partitions_by_rows_are_written_once(sp: smallpond.Session, tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    sp.from_arrow(TWENTY).repartition(10, by_rows=True).write_parquet(folder)
    assert_same(sp.read_parquet(folder).to_arrow(), query("FROM t", t=TWENTY))
    again = str(tmp_path / "again")
    sp.read_parquet(folder).repartition(7, by_rows=True).write_parquet(again)
    assert_same(sp.read_parquet(again).to_arrow(), query("FROM t", t=TWENTY))


def test_integers_and_doubles_that_are_equal_meet(sp: smallpond.Session) -> None:
    ints = sp.from_items([{"id": i} for i in range(4)]).repartition(4, hash_by="id")
    doubles = sp.from_items([{"id": float(i)} for i in range(4)]).repartition(4, hash_by="id")
    joined = sp.partial_sql("SELECT a.id FROM {0} a JOIN {1} b ON a.id = b.id", ints, doubles)
    assert joined.count() == 4


@pytest.mark.parametrize("path", ["missing/*.parquet", "missing", "missing.parquet"])
def test_what_is_not_there_cannot_be_read(sp: smallpond.Session, tmp_path: Path, path: str) -> None:
    with pytest.raises(MissingInputError, match="missing"):
        sp.read_parquet(str(tmp_path / path))
    assert issubclass(MissingInputError, FileNotFoundError)


def test_an_address_is_no_local_path(sp: smallpond.Session) -> None:
    with pytest.raises(MissingInputError, match="memory://nowhere"):
        sp.read_parquet("memory://nowhere/*.parquet")
    with pytest.raises(PlanError, match="nosuch://"):
        sp.read_parquet("nosuch://bucket/a.parquet")


def test_writing_twice_is_said_to_be_wanted(sp: smallpond.Session, tmp_path: Path) -> None:
    df, folder = sp.from_arrow(TWENTY), str(tmp_path / "out")
    df.write_parquet(folder)
    with pytest.raises(OutputExistsError, match=r"holds data already .*mode='overwrite'"):
        df.write_parquet(folder)
    assert sp.read_parquet(folder).count() == 20
    df.filter("a < 5").write_parquet(folder, mode="overwrite")
    assert sp.read_parquet(folder).count() == 5
    df.write_parquet(folder, mode="append")
    assert sp.read_parquet(folder).count() == 25


def test_a_struct_in_sql_is_no_placeholder(sp: smallpond.Session) -> None:
    df = sp.from_arrow(TWENTY)
    assert df.map("{'x': a} AS s").take(1) == [{"s": {"x": 0}}]
    assert df.map("{{'x': a}} AS s").take(1) == [{"s": {"x": 0}}]  # as for str.format
    assert df.filter("{'x': a} = {'x': 3}").count() == 1
    assert sp.partial_sql("SELECT {'x': a} AS s FROM {0}", df).take(1) == [{"s": {"x": 0}}]
    text = "SELECT regexp_matches('aab', 'a{2}b') AS yes FROM {0}"
    assert sp.partial_sql(text, df).take(1) == [{"yes": True}]


def test_pandas_frames_have_all_operations(sp: smallpond.Session) -> None:
    df = sp.from_pandas(pd.DataFrame({"a": [3, 1, 2]}, index=[7, 8, 9]))
    assert df.columns == ["a"]
    assert df.count() == 3
    assert df.map(lambda row: {"b": row["a"] + 1}).take_all() == [{"b": 4}, {"b": 2}, {"b": 3}]
    assert df.repartition(2, by_rows=True).sort("a").take_all() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_csv_files_have_all_operations(sp: smallpond.Session, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("1,x\n2,y\n3,\n")
    df = sp.read_csv(str(tmp_path / "in.csv"), {"a": "BIGINT", "b": "VARCHAR"})
    expected = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": None}]
    assert df.take_all() == expected
    assert df.map(lambda row: {"c": row["a"] * 2}).take_all() == [{"c": 2}, {"c": 4}, {"c": 6}]
    assert df.repartition(3, hash_by="a").sort("a").take_all() == expected
    assert df.repartition(2, by_rows=True).take_all() == expected
    assert df.repartition(2).take_all() == expected
    df.write_parquet(str(tmp_path / "out"))
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".parquet"]
    assert sp.read_parquet(str(tmp_path / "out")).take_all() == expected


def test_the_partitions_number_is_a_column_only_if_asked_for(sp: smallpond.Session) -> None:
    df = sp.from_arrow(TWENTY)
    assert df.repartition(2, hash_by="a").columns == ["a", "k"]
    assert df.random_shuffle().columns == ["a", "k"]
    for how in ({"hash_by": "a"}, {"by": "a % 3"}, {"hash_by": "a", "random_shuffle": True}):
        options: dict[str, Any] = how
        kept = df.repartition(3, drop_partition_column=False, **options)
        assert kept.columns == ["a", "k", "__data_partition__"]
        checked = sp.partial_sql(
            "SELECT * FROM {0} WHERE __data_partition__ <> {__data_partition__}", kept
        )
        assert checked.count() == 0
        assert kept.count() == 20


def test_no_rows_are_a_table_too(sp: smallpond.Session) -> None:
    none = sp.from_arrow(TWENTY).filter("a > 100")
    assert none.map_batches(lambda table: table.select(["a"])).to_arrow().column_names == ["a"]
    assert none.map_batches(lambda table: table).count() == 0
    assert none.repartition(3, hash_by="a").to_arrow().column_names == ["a", "k"]
    schema = pa.schema([("c", pa.int64())])
    made = none.map(lambda row: {"c": row["a"]}, schema=schema)
    assert made.to_arrow().schema == schema
    assert made.map("c + 1 AS d").agg("sum(d) AS s").take_all() == [{"s": None}]


def test_more_than_the_machine_has_is_clamped(
    sp: smallpond.Session, caplog: pytest.LogCaptureFixture
) -> None:
    df = sp.from_arrow(TWENTY)
    with caplog.at_level(logging.WARNING, "smallpond"):
        assert df.map("a", cpu_limit=8).count() == 20
        assert df.map("a", memory_limit=1 << 50).count() == 20
    assert "asks for 8 CPUs" in caplog.text
    assert "more than any worker has" in caplog.text
    with pytest.raises(PlanError, match=r"gpu_limit=1 is more than any worker has \(0\)"):
        df.map("a", gpu_limit=1).count()


# ---- ours


def test_a_function_may_make_no_rows_in_some_partitions(sp: smallpond.Session) -> None:
    def double(row: dict[str, int]) -> dict[str, int]:
        return {"c": 2 * row["a"]}

    made = sp.from_arrow(TWENTY).repartition(3, hash_by="k").map(double)
    other = sp.from_arrow(TWENTY).repartition(3, hash_by="a")
    assert made.filter("c >= 0").sort("c").take(1) == [{"c": 0}]
    assert made.filter("true").map("c + 1 AS d").agg("sum(d) AS s").take_all() == [{"s": 400}]
    assert made.filter("true").columns == made.filter("true").to_arrow().column_names == ["c"]
    assert sp.partial_sql("SELECT * FROM {0}", made).to_arrow().column_names == ["c"]
    assert made.repartition(4, hash_by="c").repartition(2).count() == 20
    assert made.union(made.map("c")).count() == 40
    assert sp.partial_sql("SELECT a FROM {0} JOIN {1} ON a = c", other, made).count() < 20
    # What depends on its columns otherwise cannot be answered, and is not answered wrongly.
    left = sp.partial_sql("SELECT a FROM {0} LEFT JOIN {1} ON a = c", other, made)
    with pytest.raises(TaskError, match=r"made no rows here.*pass schema="):
        left.count()
    typed = sp.from_arrow(TWENTY).repartition(3, hash_by="k")
    typed = typed.map(double, schema=pa.schema([("c", pa.int64())]))
    left = sp.partial_sql("SELECT a FROM {0} LEFT JOIN {1} ON a = c", other, typed)
    assert left.count() == 20
    counted = sp.partial_sql("SELECT count(*) AS n FROM {0}", made)
    assert sorted(row["n"] for row in counted.take_all()) == [0, 0, 20]


def test_a_function_may_make_no_rows_at_all(sp: smallpond.Session, tmp_path: Path) -> None:
    made = sp.from_arrow(TWENTY).filter("a > 100").map(lambda row: {"c": row["a"]})
    assert made.count() == made.map("c + 1 AS d").sort("d").distinct().count() == 0
    assert made.columns == []
    assert made.group_by("c").agg("count(*) AS n").take_all() == []
    assert made.repartition(3, hash_by="c").take_all() == []
    with pytest.raises(TaskError, match=r"made no rows here.*pass schema="):
        made.agg("sum(c) AS s").take_all()
    made.write_parquet(str(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_every_aggregate_of_the_engine_is_known_as_one(sp: smallpond.Session) -> None:
    df = sp.from_arrow(TWENTY).repartition(4, by_rows=True)
    for name, expected in (("count_if(a > 1)", 18), ("max_by(a, a)", 19), ("countif(a > 1)", 18)):
        assert df.select(f"{name} AS x").take_all() == [{"x": expected}]
    assert len(df.map("count_if(a > 1) AS x").take_all()) == 4  # of each partition, as map() says


def test_queries_that_need_functions_have_a_schema(sp: smallpond.Session) -> None:
    @smallpond.udf(params=[smallpond.UDFType.BIGINT], return_type=smallpond.UDFType.DOUBLE)
    def half(a: int) -> float:
        return a / 2

    df = sp.from_arrow(TWENTY)
    made = df.map("half(a) AS h, a", udfs=[half])
    assert made.schema == pa.schema([("h", pa.float64()), ("a", pa.int64())])
    assert made.with_column("i", "h + 1").rename({"h": "j"}).columns == ["j", "a", "i"]
    numbered = sp.partial_sql("SELECT {__data_partition__} AS p, a FROM {0}", df.repartition(2))
    assert numbered.columns == ["p", "a"]
    assert made.join(df.filter("half(a) > 2", udfs=[half]), on="a").count() == 15


def test_partition_numbers_in_queries_stay_with_their_partitions(sp: smallpond.Session) -> None:
    three = sp.from_arrow(TWENTY).repartition(3, by="a % 3")
    for df in (
        three.map("{__data_partition__} AS p, a"),
        three.filter("a % 3 = {__data_partition__}").map("{__data_partition__} AS p, a").sort("a"),
        three.map("{__data_partition__} AS p, a").map(lambda row: row).repartition(2, hash_by="p"),
    ):
        rows = df.take_all()
        assert len(rows) == 20
        assert all(row["p"] == row["a"] % 3 for row in rows)


def test_parquet_files_without_rows_take_part(sp: smallpond.Session, tmp_path: Path) -> None:
    for i, rows in enumerate([0, 3, 0, 2]):
        pq.write_table(TWENTY.slice(i, rows), tmp_path / f"{i}.parquet")
    df = sp.read_parquet(str(tmp_path))
    assert df.count() == 5
    for moved in (df.repartition(4), df.repartition(3, by_rows=True), df.repartition(9)):
        assert moved.map("a").sort("a").take_all() == [{"a": a} for a in (1, 2, 3, 3, 4)]
    assert df.repartition(4).map(lambda row: {"b": row["a"]}).count() == 5


def test_sums_of_integers_are_written_exactly(sp: smallpond.Session, tmp_path: Path) -> None:
    large = 2**60 + 1
    df = sp.from_arrow(pa.table({"k": [1, 1, 2], "v": [large, large, 1]}))
    df.group_by("k").agg(s="sum(v)").write_parquet(str(tmp_path / "out"))
    back = sp.read_parquet(str(tmp_path / "out")).sort("k")
    assert back.take_all() == [{"k": 1, "s": 2 * large}, {"k": 2, "s": 1}]
    assert str(back.to_pandas()["s"].dtype) == "int64"


def test_a_filter_stays_above_a_union_whose_inputs_differ(sp: smallpond.Session) -> None:
    numbers = pa.table({"a": [10, 3], "b": [1, 2]})
    texts = pa.table({"a": ["9", "2"]})
    both = sp.from_arrow(numbers).union(sp.from_arrow(texts))
    everything = query("FROM t UNION ALL BY NAME FROM u", t=numbers, u=texts)
    for condition in ("a < '5'", "b IS NULL", "b = 2 OR a = '9'"):
        expected = query(f"FROM t WHERE {condition}", t=everything)
        assert_same(both.filter(condition).to_arrow(), expected)


def test_a_limit_stays_above_what_makes_several_rows_of_one_or_one_of_several(
    sp: smallpond.Session,
) -> None:
    df = sp.from_arrow(TWENTY).repartition(2, by_rows=True)
    for many in (
        "unnest([1, 2, 3])",
        "unlist([1, 2, 3])",
        "generate_subscripts([1, 2, 3], 1)",
        "regexp_split_to_table('a b c', ' ')",
    ):
        assert df.flat_map(f"{many} AS x").limit(4).count() == 4
    assert df.sort("a").map("DISTINCT a // 10 AS tens").limit(2).count() == 2
    assert df.map("DISTINCT k").count() == 2  # in each partition, as map() says
    assert df.select("DISTINCT k").count() == 1


def test_aggregates_in_two_steps_are_those_in_one(sp: smallpond.Session) -> None:
    source = pa.table({"n": list(range(20)), "x": [2**62, 1, -(2**62), 0] * 5})
    items = [
        "max(n, 2) AS a",
        "min(n, 3) AS b",
        "avg(x) AS c",
        "avg(n::DECIMAL(10, 3) / 7) AS d",
        "avg(DATE '2020-01-01' + n::INTEGER) AS e",
        "avg(to_days(n::INTEGER)) AS f",
        "avg(n::UTINYINT) AS g",
        "sum(n > 3) AS h",
        "i: count(*)",
        'count(n) AS "j k"',
    ]
    expected = query(f"SELECT n % 3 AS k, {', '.join(items)} FROM t GROUP BY k", t=source)
    df = sp.from_arrow(source).repartition(5, by_rows=True)
    assert_same(df.group_by("k: n % 3", npartitions=3).agg(*items).to_arrow(), expected)
    sp.job.executor.shared_memory = False
    assert_same(df.group_by("n % 3 AS k").agg(*items).to_arrow(), expected)
    everything = query(f"SELECT {', '.join(items)} FROM t", t=source)
    assert_same(df.agg(*items).to_arrow(), everything)


def test_a_comma_at_the_end_of_a_list(sp: smallpond.Session) -> None:
    df = sp.from_arrow(TWENTY)
    assert df.agg("sum(a) as s, ").take_all() == [{"s": 190}]
    assert df.group_by("k, ").agg("max(a) as m, ").take_all() == [{"k": 1, "m": 19}]
    assert df.select("a, ").limit(1).take_all() == [{"a": 0}]
    with pytest.raises(PlanError, match="sort: a key is missing in 'a desc, '"):
        df.sort("k", "a desc, ")
