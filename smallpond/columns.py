"""Arrow arrays of Python's values, without what Arrow itself does first: import pandas, 0.2 s."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, NoneType
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A column for each name in any row, in the order in which they first appear."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: array_of([row.get(name) for row in rows]) for name in names})


def array_of(values: Sequence[Any]) -> pa.Array:
    """What ``pa.array(values)`` gives.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError, OverflowError: as from there.
    """
    kinds = set(map(type, values))
    valid = None
    if NoneType in kinds and len(kinds) == 2:
        kinds.discard(NoneType)
        valid = np.array([value is not None for value in values], np.bool_)
    make = _MAKERS.get(kinds.pop()) if len(kinds) == 1 else None
    if make is None:
        return pa.array(values)
    return make(values, valid)


def int64_array(values: NDArray[np.integer[Any]] | Sequence[int]) -> pa.Array:
    """Places or numbers as an array, without a copy if they are 64 bits wide."""
    held = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(held), [None, pa.py_buffer(held)])


def _ints(values: Sequence[Any], valid: NDArray[np.bool_] | None) -> pa.Array:
    data = np.array(_filled(values, valid, 0), np.int64)
    return _made(pa.int64(), len(values), valid, data)


def _floats(values: Sequence[Any], valid: NDArray[np.bool_] | None) -> pa.Array:
    data = np.array(_filled(values, valid, 0.0), np.float64)
    return _made(pa.float64(), len(values), valid, data)


def _bools(values: Sequence[Any], valid: NDArray[np.bool_] | None) -> pa.Array:
    data = np.packbits(np.array(_filled(values, valid, False), np.bool_), bitorder="little")
    return _made(pa.bool_(), len(values), valid, data)


def _texts(values: Sequence[Any], valid: NDArray[np.bool_] | None) -> pa.Array:
    try:
        encoded = [value.encode() for value in _filled(values, valid, "")]
    except UnicodeEncodeError:
        return pa.array(values)  # which says what is wrong
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(list(map(len, encoded)), out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.array(values)
    data = np.frombuffer(b"".join(encoded), np.uint8)
    return _made(pa.string(), len(values), valid, offsets.astype(np.int32), data)


_Maker = Callable[[Sequence[Any], NDArray[np.bool_] | None], pa.Array]
_MAKERS: Mapping[type, _Maker] = MappingProxyType(
    {int: _ints, float: _floats, bool: _bools, str: _texts}
)


def _filled(values: Sequence[Any], valid: NDArray[np.bool_] | None, zero: Any) -> Sequence[Any]:
    if valid is None:
        return values
    return [zero if value is None else value for value in values]


def _made(
    kind: pa.DataType, rows: int, valid: NDArray[np.bool_] | None, *data: NDArray[Any]
) -> pa.Array:
    """An array of its buffers, the first of which says which rows are not NULL."""
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, rows, [bits, *map(pa.py_buffer, data)])
