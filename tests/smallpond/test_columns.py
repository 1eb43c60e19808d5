"""Arrays from Python's values: the same as Arrow's own, without importing pandas."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpond.columns import array_of, int64_array, table_of

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
    assert table_of({"b": [1], "a": ["x"]}).to_pydict() == {"b": [1], "a": ["x"]}
    assert table_of({}).num_columns == 0


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
