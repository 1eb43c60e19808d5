"""What a result holds, in a few numbers that do not depend on the order of its rows.

Rows are hashed column by column, by name, and the hashes added up; floats stay out of the hash, and
are summed: once as they are, once each times a number that its row's hash decides, so that a value
in the wrong row shows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_BATCH_ROWS = 65_536
# Odd, so that powers never become zero; the mixing constants are those of splitmix64.
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_NULL, _NAN = 0x6E756C6C, 0x6E616E

_Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Digest:
    """Of a result.

    Attributes:
        columns: names, sorted; of floats in `sums` alone.
        rows: how many.
        exact: sum of the rows' hashes, modulo 2**64.
        sums: by float column, the sum, the sum of values times numbers in [0, 1) that the hash of
            the row decides, and the sum of absolute values.
        ordered: the result is in the order that was asked for, file after file.
    """

    columns: tuple[str, ...]
    rows: int
    exact: int
    sums: dict[str, tuple[float, float, float]]
    ordered: bool = True

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> Digest:
        """Returns the digest that `dataclasses.asdict` and JSON have made lists of."""
        sums = {name: (one, two, three) for name, (one, two, three) in fields["sums"].items()}
        return cls(**fields | {"columns": tuple(fields["columns"]), "sums": sums})


def difference(actual: Digest, expected: Digest) -> float:
    """The largest relative difference of a sum; infinity where anything else is not the same."""
    if (actual.columns, actual.rows, actual.exact, actual.ordered, actual.sums.keys()) != (
        *(expected.columns, expected.rows, expected.exact, expected.ordered),
        expected.sums.keys(),
    ):
        return math.inf
    worst = 0.0
    for name, (plain, weighted, scale) in expected.sums.items():
        for ours, true in zip(actual.sums[name], (plain, weighted, scale), strict=True):
            worst = max(worst, abs(ours - true) / (scale or 1.0))
    return worst


def digest_of_table(table: pa.Table) -> Digest:
    """Returns the digest of a table in memory."""
    return _digest([_pieces(table)], None)


def digest_of_files(folder: Path, order: str | None = None) -> Digest:
    """Returns the digest of the Parquet files below a folder.

    Args:
        folder: of the files.
        order: column that must not decrease within a file, the files being ranges of it that do
            not overlap.
    """
    files = sorted(folder.rglob("*.parquet"))
    return _digest((pq.ParquetFile(file).iter_batches(_BATCH_ROWS) for file in files), order)


def rows_of_files(folder: Path) -> int:
    """Returns how many rows the Parquet files below a folder say they have."""
    return sum(pq.read_metadata(file).num_rows for file in folder.rglob("*.parquet"))


def _pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return iter(table.to_batches(max_chunksize=_BATCH_ROWS))


def _digest(sources: Iterable[Iterator[pa.RecordBatch]], order: str | None) -> Digest:
    columns: set[str] = set()
    rows, exact = 0, 0
    sums: dict[str, list[float]] = {}
    ranges: list[tuple[int, int]] = []
    ordered = True
    for source in sources:
        bounds: list[int] = []
        for batch in source:
            columns.update(batch.schema.names)
            if not batch.num_rows:
                continue
            rows += batch.num_rows
            hashes = _hash_and_sum(batch, sums)
            exact = (exact + int(hashes.sum())) % 2**64
            if order is not None:
                keys = batch[order].to_numpy(zero_copy_only=False)
                ordered &= bool((keys[:-1] <= keys[1:]).all())
                ordered &= not bounds or bounds[-1] <= int(keys[0])
                bounds += [int(keys[0]), int(keys[-1])]
        if bounds:
            ranges.append((bounds[0], bounds[-1]))
    ranges.sort()
    ordered &= all(left[1] <= right[0] for left, right in itertools.pairwise(ranges))
    names = tuple(sorted(columns))
    found = {name: (one, two, three) for name, (one, two, three) in sums.items()}
    return Digest(names, rows, exact, found, ordered)


def _hash_and_sum(batch: pa.RecordBatch, sums: dict[str, list[float]]) -> _Hashes:
    """Returns a hash of each row, and adds its floats to the sums."""
    hashes = np.zeros(batch.num_rows, np.uint64)
    floats = {}
    for name in sorted(batch.schema.names):
        column = batch[name]
        if pa.types.is_floating(column.type):
            values = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False)
            odd = np.where(column.is_null(), _NULL, np.where(np.isnan(values), _NAN, 0))
            floats[name] = np.nan_to_num(values, nan=0.0)
            words = odd.astype(np.uint64)
        else:
            words = _words(column)
        hashes = _mixed(hashes * _BASE + words + np.uint64(len(name)))
    weights = (hashes >> np.uint64(11)).astype(np.float64) / 2**53
    for name, values in floats.items():
        so_far = sums.setdefault(name, [0.0, 0.0, 0.0])
        for index, part in enumerate((values, values * weights, np.abs(values))):
            so_far[index] += float(part.sum())
    return hashes


def _words(column: pa.Array) -> _Hashes:
    """64 bits for each value: integers of all widths alike, texts of all layouts alike."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_integer(column.type) or pa.types.is_decimal(column.type):
        whole = pc.fill_null(column.cast(pa.int64()), 0)
        words = whole.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint64)
    else:
        words = _text_words(pc.fill_null(column.cast(pa.large_string()), ""))
    return np.where(nulls, np.uint64(_NULL), words)


def _text_words(column: pa.Array) -> _Hashes:
    """The bytes as digits of a number modulo 2**64, all texts at once."""
    _, offset_buffer, byte_buffer = column.buffers()
    begin = column.offset
    offsets = np.frombuffer(offset_buffer, np.int64)[begin : begin + len(column) + 1]
    raw = np.frombuffer(byte_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    lengths = np.diff(offsets)
    places = np.arange(len(raw)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, _BASE))
    digits = (raw.astype(np.uint64) + np.uint64(1)) * powers[places]
    totals = np.concatenate([np.zeros(1, np.uint64), np.cumsum(digits)])
    ends = offsets - offsets[0]
    return np.asarray(totals[ends[1:]] - totals[ends[:-1]], np.uint64)


def _mixed(words: _Hashes) -> _Hashes:
    words = (words ^ (words >> np.uint64(30))) * _MIX[0]
    words = (words ^ (words >> np.uint64(27))) * _MIX[1]
    return words ^ (words >> np.uint64(31))
