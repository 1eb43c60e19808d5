"""The right results, computed with numpy from the input files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.dataframes.digest import Digest, digest_of_files, digest_of_table
from benchmarks.dataframes.job import MEASURES, NAMES, RECORDS

_Array = npt.NDArray[Any]


def truth_of(workload: str, folder: Path, num_tasks: int) -> Digest:
    """Returns the digest of the right result.

    Args:
        workload: one of those of `Job`, but "every", "start" and "exit".
        folder: of the input files, as `data.make` leaves them.
        num_tasks: of the workload "tasks".
    """
    if workload == "sort":
        # Whatever order the rows are in, the digest is the same, and this one says "ordered".
        return digest_of_files(folder / RECORDS)
    if workload == "tasks":
        return digest_of_table(pa.table({"item": np.arange(1, num_tasks + 1)}))
    measures = pq.read_table(folder / MEASURES)
    ids, keys, values = (measures[name].to_numpy() for name in ("id", "k", "v"))
    if workload == "group_by":
        table = _aggregated(ids, keys, values)
    elif workload == "medians":
        table = _medians(keys, values)
    elif workload == "join":
        table = _joined(ids, keys, values, pq.read_table(folder / NAMES))
    else:
        table = pa.table({"id": ids, "x": 2 * values + keys})
    return digest_of_table(table)


def _aggregated(ids: _Array, keys: _Array, values: _Array) -> pa.Table:
    order = np.argsort(keys, kind="stable")
    begins, counts = _groups(keys[order])
    return pa.table(
        {
            "k": keys[order][begins],
            "total": np.add.reduceat(values[order], begins),
            "num": counts,
            "first": np.minimum.reduceat(ids[order], begins),
            "largest": np.maximum.reduceat(values[order], begins),
        }
    )


def _medians(keys: _Array, values: _Array) -> pa.Table:
    order = np.lexsort((values, keys))
    begins, counts = _groups(keys[order])
    ranked = values[order]
    lower, upper = ranked[begins + (counts - 1) // 2], ranked[begins + counts // 2]
    return pa.table({"k": keys[order][begins], "middle": (lower + upper) / 2})


def _joined(ids: _Array, keys: _Array, values: _Array, names: pa.Table) -> pa.Table:
    named = names["k"].to_numpy()
    place = np.full(1 + max(keys.max(initial=0), named.max(initial=0)), -1)
    place[named] = np.arange(len(named))
    matched = place[keys] >= 0
    right = names.select(["name", "weight"]).take(place[keys][matched])
    return pa.table(
        {
            "id": ids[matched],
            "k": keys[matched],
            "v": values[matched],
            "name": right["name"],
            "weight": right["weight"],
        }
    )


def _groups(ranked: _Array) -> tuple[_Array, _Array]:
    """Where each group of equal keys begins, and how many there are of each."""
    begins = np.flatnonzero(np.diff(ranked, prepend=ranked[:1] - 1))
    return begins, np.diff(begins, append=len(ranked))
