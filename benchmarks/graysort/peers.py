"""Other ways to sort the same file, each in a process of its own: raw file to raw file.

The single-process ones hold all records in memory. Imports are not counted as their time.

    python -m benchmarks.graysort.peers NAME SOURCE TARGET [MEMORY_BYTES THREADS]
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.graysort.raw_file import opened, write_rows
from benchmarks.graysort.records import KEY_BYTES, RECORD_BYTES, Rows, key_words
from benchmarks.graysort.tasks import GraySortError, peak_memory_bytes

_BLOCK_RECORDS = 4_096


@dataclass(frozen=True, slots=True)
class Options:
    """What a peer may use: memory in bytes (where it takes a limit) and threads."""

    memory_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Another sort.

    Attributes:
        title: what it does, in a line.
        sort: from a file to another one.
        modules: imported before the clock starts.
        text: whether it sorts lines of text.
        memory_ratio: the memory that it needs, as a multiple of the data; 0 if it has a limit.
    """

    title: str
    sort: Callable[[Path, Path, Options], None]
    modules: tuple[str, ...] = ()
    text: bool = False
    memory_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a peer took: seconds of wall and processor time, and its most memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def run_peer(name: str, source: Path, target: Path, options: Options) -> Measured:
    """Runs a peer in a fresh process.

    Raises:
        GraySortError: it failed; the message has its last words.
    """
    command = [sys.executable, "-m", __name__, name, str(source), str(target)]
    command += [str(options.memory_bytes), str(options.threads)]
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path])}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment, start_new_session=True
    )
    try:
        output, errors = process.communicate()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # what it started as well
        process.wait()
        raise
    if process.returncode:
        last = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise GraySortError(f"peer {name}: {last}")
    return Measured(**json.loads(output))


def _read(source: Path) -> Rows:
    rows: Rows = np.fromfile(source, np.uint8).reshape(-1, RECORD_BYTES)
    return rows


def _write_in_order(rows: Rows, order: Any, target: Path) -> None:
    block = np.empty((_BLOCK_RECORDS, RECORD_BYTES), np.uint8)
    with opened(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
        for begin in range(0, len(rows), _BLOCK_RECORDS):
            chosen = order[begin : begin + _BLOCK_RECORDS]
            np.take(rows, chosen, axis=0, out=block[: len(chosen)], mode="clip")
            write_rows(descriptor, block[: len(chosen)], begin, target)


def _duckdb(source: Path, target: Path, options: Options) -> None:
    import duckdb  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    rows = _read(source)
    keys = np.ascontiguousarray(rows[:, :KEY_BYTES])
    table = pa.table({"key": _binary(keys), "record": _binary(rows)})
    connection = duckdb.connect(config={"threads": options.threads})
    connection.register("records", table)
    query = "SELECT record FROM records ORDER BY key"
    with target.open("wb", buffering=0) as file:
        for batch in connection.sql(query).to_arrow_reader(122_880):
            column = batch.column(0)
            begin = column.offset * RECORD_BYTES
            values = memoryview(column.buffers()[-1])
            file.write(values[begin : begin + len(column) * RECORD_BYTES])


def _duckdb_index(source: Path, target: Path, options: Options) -> None:
    import duckdb  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    rows = _read(source)
    high, low = key_words(rows)
    table = pa.table({"high": high, "low": low, "place": np.arange(len(rows), dtype=np.uint32)})
    connection = duckdb.connect(config={"threads": options.threads})
    connection.register("keys", table)
    result = connection.sql("SELECT place FROM keys ORDER BY high, low").to_arrow_table()
    _write_in_order(rows, result.column(0).to_numpy(), target)


def _polars(source: Path, target: Path, _: Options) -> None:
    import polars as pl  # noqa: PLC0415

    rows = _read(source)
    high, low = key_words(rows)
    keys = pl.DataFrame({"high": high, "low": low})
    order = keys.select(pl.arg_sort_by("high", "low")).to_series().to_numpy()
    _write_in_order(rows, order, target)


def _numpy(source: Path, target: Path, _: Options) -> None:
    rows = _read(source)
    high, low = key_words(rows)
    order = np.argsort(high)
    ranked = high[order]
    equal = ranked[1:] == ranked[:-1]
    if equal.any():
        tied = np.flatnonzero(np.r_[equal, False] | np.r_[False, equal])
        members = order[tied]
        order[tied] = members[np.lexsort((low[members], high[members]))]
    _write_in_order(rows, order, target)


def _gnu_sort(source: Path, target: Path, options: Options) -> None:
    command = ["sort", f"--buffer-size={options.memory_bytes}b", f"--parallel={options.threads}"]
    command += [f"--temporary-directory={target.parent}", f"--output={target}", str(source)]
    subprocess.run(command, check=True, env=os.environ | {"LC_ALL": "C"})


def _binary(rows: Rows) -> Any:
    import pyarrow as pa  # noqa: PLC0415

    count, width = rows.shape
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(rows)])


PEERS = {
    "duckdb": Peer(
        "DuckDB, ORDER BY over an Arrow table of whole records",
        _duckdb, ("duckdb", "pyarrow"), memory_ratio=4.2,
    ),
    "duckdb-index": Peer(
        "DuckDB, ORDER BY over keys; records gathered by numpy",
        _duckdb_index, ("duckdb", "pyarrow"), memory_ratio=2.2,
    ),
    "polars": Peer(
        "Polars, arg_sort over keys; records gathered by numpy",
        _polars, ("polars",), memory_ratio=2.2,
    ),
    "numpy": Peer("numpy, argsort over keys, one thread", _numpy, memory_ratio=2.0),
    "gnu-sort": Peer("GNU sort of as many lines, with the same memory limit", _gnu_sort, text=True),
}  # fmt: skip


def main(argv: Sequence[str]) -> None:
    name, source, target, memory_bytes, threads = argv
    peer = PEERS[name]
    for module in peer.modules:
        importlib.import_module(module)
    begin, cpu = time.perf_counter(), _cpu_s()
    peer.sort(Path(source), Path(target), Options(int(memory_bytes), int(threads)))
    wall_s, cpu_s = time.perf_counter() - begin, _cpu_s() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    peak = max(children, peak_memory_bytes())
    sys.stdout.write(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "peak_bytes": peak}))


def _cpu_s() -> float:
    own, children = (resource.getrusage(who) for who in _WHO)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


if __name__ == "__main__":
    main(sys.argv[1:])
