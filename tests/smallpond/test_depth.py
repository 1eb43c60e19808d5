"""Plans of many steps, as loops make them."""

from __future__ import annotations

import functools
import sys
import threading

import pytest

import smallpond
from smallpond.dataframe import DataFrame
from smallpond.depth import deep
from smallpond.errors import PlanError, SmallpondError, UserCodeError

STEPS = 400


@pytest.fixture(scope="module")
def df(session_of_module: smallpond.Session) -> DataFrame:
    return session_of_module.from_items([{"a": i} for i in range(STEPS + 10)])


def test_many_steps(df: DataFrame) -> None:
    usual = sys.getrecursionlimit()
    numbers = range(STEPS)
    chain = functools.reduce(lambda frame, i: frame.map(f"a + {i} as a"), numbers, df)
    assert chain.columns == ["a"]
    assert chain.limit(1).take_all() == [{"a": sum(numbers)}]
    assert functools.reduce(lambda f, i: f.filter(f"a <> {i}"), numbers, df).count() == 10
    called = functools.reduce(lambda f, _: f.map(lambda row: row), range(100), df)
    assert called.map("a + 1 as a").agg("max(a) as m").take_all() == [{"m": STEPS + 10}]
    assert chain.map(lambda row: row).limit(1).take_all() == [{"a": sum(numbers)}]  # in a process
    assert chain.explain().count("map: a + 399 as a") == 3
    assert "map: a + 399 as a" in repr(chain)
    assert sys.getrecursionlimit() == usual


def test_many_unions(df: DataFrame) -> None:
    united = functools.reduce(
        lambda f, i: f.union(df.filter(f"a = {i}")), range(STEPS), df.limit(0)
    )
    assert united.count() == STEPS


def test_many_columns(df: DataFrame) -> None:
    wide = functools.reduce(lambda f, i: f.with_column(f"c{i}", f"a + {i}"), range(60), df)
    assert wide.columns == ["a", *(f"c{i}" for i in range(60))]
    assert wide.limit(1).take_all() == [{"a": 0, **{f"c{i}": i for i in range(60)}}]


def test_more_steps_than_duckdb_takes(df: DataFrame) -> None:
    chain = functools.reduce(lambda frame, i: frame.map(f"a + {i} as a"), range(1200), df)
    assert repr(chain).count("\n") == 1201
    with pytest.raises(SmallpondError, match=r"steps .*; compute\(\) some of them first"):
        chain.agg("sum(a) as s").take_all()
    chain = functools.reduce(lambda frame, i: frame.map(f"a + {i} as a"), range(10_000), df)
    with pytest.raises(PlanError, match=r"too many steps at once; compute\(\) some of them first"):
        chain.agg("sum(a) as s").take_all()


def test_the_limit_is_back_when_the_last_thread_has_returned() -> None:
    usual = sys.getrecursionlimit()
    inside, leave = threading.Event(), threading.Event()
    seen = []

    @deep
    def first() -> None:
        inside.set()
        leave.wait(10)
        seen.append(sys.getrecursionlimit())

    @deep
    def second() -> None:
        seen.append(sys.getrecursionlimit())

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    second()
    assert sys.getrecursionlimit() > usual
    leave.set()
    thread.join()
    assert seen == [seen[0]] * 2
    assert seen[0] > usual
    assert sys.getrecursionlimit() == usual


def test_functions_that_call_themselves_for_ever(df: DataFrame) -> None:
    """In a worker, where plans have been walked through."""

    def endless(row: dict[str, int]) -> dict[str, int]:
        return dict(map(endless, [row]))  # type: ignore[arg-type]

    with pytest.raises(UserCodeError, match="RecursionError"):
        df.map(endless).count()
