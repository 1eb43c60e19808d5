"""Arrays from Python's values: the same as Arrow's own, without importing pandas."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smallpond
from smallpond.columns import array_of, int64_array, table_of_rows
from smallpond.engine.rows import apply
from smallpond.plan import Shape

_SCALARS = (
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.text(),
    st.binary(),
    st.dates(),
    st.lists(st.integers(0, 9), max_size=3),
    st.fixed_dictionaries({"a": st.integers(0, 9)}),
)
_COLUMNS = st.one_of(
    *(st.lists(st.one_of(st.none(), scalar), max_size=20) for scalar in _SCALARS),
    st.lists(st.one_of(st.booleans(), st.integers(-3, 3), st.floats(), st.text()), max_size=4),
)


@given(_COLUMNS)
def test_an_array_is_what_arrow_makes(values: list[object]) -> None:
    try:
        expected = pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        with pytest.raises(type(error)):
            array_of(values)
        return
    found = array_of(values)
    found.validate(full=True)
    assert found.type == expected.type
    assert found.null_count == expected.null_count
    assert str(found.to_pylist()) == str(expected.to_pylist())  # NaN is not equal to itself


@pytest.mark.parametrize("values", [[2**63], [-(2**63) - 1], [None, 2**70]])
def test_an_integer_that_does_not_fit_is_an_error(values: list[object]) -> None:
    with pytest.raises(OverflowError):
        array_of(values)


def test_a_text_that_is_no_unicode_is_an_error() -> None:
    with pytest.raises(UnicodeEncodeError):
        pa.array(["\ud800"])
    with pytest.raises(UnicodeEncodeError):
        array_of(["\ud800"])


def test_subclasses_are_left_to_arrow() -> None:
    values = [np.float64(1.5), np.float64(2.5)]
    assert array_of(values).equals(pa.array(values))


def test_places_share_memory_where_they_can() -> None:
    places = np.arange(5)
    assert int64_array(places).buffers()[1].address == places.ctypes.data
    assert int64_array(places[::2]).to_pylist() == [0, 2, 4]
    assert int64_array(np.array([1, 2], np.uint8)).to_pylist() == [1, 2]
    assert int64_array([]).type == pa.int64()


def test_a_table_keeps_the_order_of_its_columns() -> None:
    table = table_of_rows([{"b": 1, "a": "x"}, {"c": 2.5, "a": None}])
    assert table.to_pydict() == {"b": [1, None], "a": ["x", None], "c": [None, 2.5]}
    assert table.column_names == ["b", "a", "c"]
    assert table_of_rows([{"b": 1, "a": "x"}]).column_names == ["b", "a"]
    assert table_of_rows([]).num_columns == 0


def test_a_function_filters_a_batch_without_rows(sp: smallpond.Session) -> None:
    chunks = [pa.array(values, pa.int64()) for values in ([1, 2], [], [3])]
    df = sp.from_arrow(pa.table({"n": pa.chunked_array(chunks)}))
    assert df.filter(lambda row: row["n"] > 1).take_all() == [{"n": 2}, {"n": 3}]
    assert df.limit(0).filter(lambda row: row["n"] > 1).count() == 0
    node = SimpleNamespace(
        shape=Shape.ROW_TO_BOOL, label="filter", function=SimpleNamespace(load=lambda: bool)
    )
    batch = pa.record_batch({"n": pa.array([], pa.int64())})
    [kept] = apply(node, [batch], batch.schema)  # type: ignore[arg-type] (what it looks at)
    assert kept.num_rows == 0


def test_nothing_here_imports_pandas() -> None:
    program = """
import sys, tempfile
import smallpond

def row(given):
    return {"n": given["n"] + "!", "pandas": "pandas" in sys.modules}

with tempfile.TemporaryDirectory() as folder, smallpond.init(data_root=folder) as sp:
    items = [{"k": i % 3, "v": i / 2, "n": None if i == 5 else str(i)} for i in range(50)]
    df = sp.from_items(items).filter("n IS NOT NULL")
    assert len(df.group_by("k").agg("sum(v) as total").sort("k").take_all()) == 3
    assert df.repartition(4, hash_by=["k", "n"]).to_arrow().num_rows == 49
    assert df.repartition(3, by="k").to_arrow().num_rows == 49
    df.repartition(2, by_rows=True).write_parquet(folder + "/out")
    rows = df.map(row).take_all()
    assert len(rows) == 49 and not any(r["pandas"] for r in rows), rows
    assert "pandas" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
