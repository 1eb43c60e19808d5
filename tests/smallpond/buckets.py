"""What is asked of every object store, whichever it is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from fsspec.core import url_to_fs

import smallpond
from smallpond.errors import MissingInputError, OutputExistsError, TaskError
from smallpond.storage import DirectoryWriter, resolve


def rows(count: int) -> pa.Table:
    """Rows in three groups."""
    return pa.table({"k": [i % 3 for i in range(count)], "v": list(range(count))})


def stage(options: dict[str, Any], writer: DirectoryWriter, texts: list[str]) -> list[str]:
    """Puts a file for each text where a writer wants unfinished ones."""
    files = {f"{writer.staging}/{text}.txt": text.encode() for text in texts}
    fs, _ = url_to_fs(writer.staging, **options)
    fs.pipe(files)
    return list(files)


def texts_of(options: dict[str, Any], prefix: str) -> list[str]:
    """What a reader sees."""
    fs, _ = url_to_fs(prefix, **options)
    try:
        found = resolve(prefix, recursive=True, storage_options=options)
    except MissingInputError:
        return []
    return sorted(fs.cat_file(info.url).decode() for info in found)


def check_that_a_late_failure_is_told(session: smallpond.Session, prefix: str) -> None:
    """The last of four partitions fails, when others may have been written."""

    def fail(row: dict[str, Any]) -> dict[str, Any]:
        if row["v"] == 900:
            raise ValueError("no nine hundred")
        return row

    df = session.from_arrow(rows(1000)).repartition(4, by_rows=True).map(fail)
    with pytest.raises(TaskError, match="no nine hundred"):
        df.write_parquet(prefix)


def check_that_one_writer_is_first(options: dict[str, Any], prefix: str) -> None:
    """Of four writers at once one wins with mode "error"; with "overwrite" the last one does."""
    barrier = threading.Barrier(4)

    def write(number: int, mode: str) -> int:
        with DirectoryWriter(prefix, mode, storage_options=options) as writer:
            files = stage(options, writer, [f"{number}-{i}" for i in range(5)])
            barrier.wait()
            try:
                writer.commit(files)
            except OutputExistsError:
                return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(write, range(4), ["error"] * 4)) == 1
        [first] = {text[0] for text in texts_of(options, prefix)}
        assert texts_of(options, prefix) == [f"{first}-{i}" for i in range(5)]
        assert sum(pool.map(write, range(4), ["overwrite"] * 4)) == 4
        [last] = {text[0] for text in texts_of(options, prefix)}
        assert texts_of(options, prefix) == [f"{last}-{i}" for i in range(5)]


def check_that_a_new_version_is_seen(options: dict[str, Any], prefix: str) -> None:
    """What another process does, of which this one's driver is not told."""
    other, _ = url_to_fs(prefix, skip_instance_cache=True, **options)
    other.pipe_file(f"{prefix}/a.csv", b"1")
    [before] = resolve(prefix, storage_options=options)
    other.pipe({f"{prefix}/a.csv": b"2", f"{prefix}/b.csv": b"3"})
    after, _ = resolve(prefix, storage_options=options)
    assert (before.url, before.size_bytes) == (after.url, after.size_bytes)
    assert before.version != after.version
