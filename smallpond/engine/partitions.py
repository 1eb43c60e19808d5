"""Python functions over whole partitions: inputs as tables, readers, frames or data sets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from smallpond.engine.listing import SLICES, listing_of
from smallpond.engine.rows import call_once, regrouped
from smallpond.errors import SmallpondError, TaskError, UserCodeError
from smallpond.functions import user_frames
from smallpond.plan import OWN_FILES, Files, FileSlice, Format, Function, Memory, Plan, Shape
from smallpond.storage import filesystem_of, is_remote

if TYPE_CHECKING:
    from smallpond.engine.run import Run
    from smallpond.logical.base_dataset import DataSet


def whole_partitions(node: Function, running: Run) -> Iterator[pa.Table]:
    """What a function makes of one partition of each input."""
    return _SHAPES[node.shape](node, running)


def _called(node: Function, running: Run, inputs: Any, output: str = "") -> Any:
    """Calls the function, with the context first if it wants one."""
    before = () if node.context is None else (_context(node, running, output),)
    behind = (output,) if node.shape is Shape.SCRIPT else ()
    return call_once(node, *before, inputs, *behind)


def _context(node: Function, running: Run, output: str = "") -> Any:
    from smallpond.execution.task import runtime_context  # noqa: PLC0415

    return runtime_context(running.attempt, node.context, output or _folder(running))


def _folder(running: Run) -> str:
    """For the files of this attempt, which nobody sees unless it succeeds."""
    return f"{running.attempt.settings.output_root}/{OWN_FILES}/{running.attempt.id}"


# ---- tables and frames


def _tables(node: Function, running: Run) -> Iterator[pa.Table]:
    inputs = [running.table(source)[0] for source in node.sources]
    yield _as_table(node, _called(node, running, inputs))


def _frames(node: Function, running: Run) -> Iterator[pa.Table]:
    inputs = [running.table(source)[0].to_pandas() for source in node.sources]
    yield _as_table(node, _called(node, running, inputs))


def _as_table(node: Function, value: Any) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        value = pa.table(value)
    elif not isinstance(value, pa.Table) and hasattr(value, "to_dict"):
        value = pa.Table.from_pandas(value, preserve_index=False)
    if not isinstance(value, pa.Table):
        raise TaskError(
            f"{node.label}: {node.function.name} must return a pyarrow.Table or a pandas "
            f"DataFrame, got {type(value).__name__}"
        )
    return value if node.schema is None else value.cast(node.schema)


# ---- streams and batches


def _readers(node: Function, running: Run) -> list[pa.RecordBatchReader]:
    return [_reader(source, running, node.batch_rows) for source in node.sources]


def _reader(source: Plan, running: Run, batch_rows: int) -> pa.RecordBatchReader:
    stream = running.stream(source, lossless=False)
    batches = (
        batch
        for table in regrouped(stream.batches, batch_rows, stream.schema)
        for batch in table.combine_chunks().to_batches()
    )
    return pa.RecordBatchReader.from_batches(stream.schema, batches)


def _streams(node: Function, running: Run) -> Iterator[pa.Table]:
    made = _called(node, running, _readers(node, running))
    for item in _guarded(node, made):
        yield _as_table(node, getattr(item, "output_table", item))


def _guarded(node: Function, made: Iterable[Any]) -> Iterator[Any]:
    """A generator's items; what it raises is the user's mistake, unless it is ours."""
    try:
        yield from made
    except SmallpondError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"{node.label}: {node.function.name} raised\n{user_frames(error)}"
        ) from error


def _batches(node: Function, running: Run) -> Iterator[pa.Table]:
    """One call for each batch of the longest input; what has ended already gives no rows."""
    readers = _readers(node, running)
    context = None if node.context is None else _context(node, running)
    before = () if context is None else (context,)
    seen = False
    while True:
        batches = [next(iter(reader), None) for reader in readers]
        if all(batch is None for batch in batches) and seen:
            return
        seen = True
        tables = [
            reader.schema.empty_table() if batch is None else pa.table(batch)
            for reader, batch in zip(readers, batches, strict=True)
        ]
        inputs = [t.to_pandas() for t in tables] if node.shape is Shape.FRAME_BATCH else tables
        yield _as_table(node, call_once(node, *before, inputs))
        if not readers:
            return


# ---- data sets


def _script(node: Function, running: Run) -> Iterator[pa.Table]:
    aside = f"{running.attempt.settings.temp_root}/{running.attempt.id}"
    running.on_exit(lambda: shutil.rmtree(aside, ignore_errors=True))
    goal = _folder(running)
    folder = f"{aside}/output" if is_remote(goal) else goal
    Path(folder).mkdir(parents=True, exist_ok=True)
    inputs = [_dataset(s, running, f"{aside}/{i}") for i, s in enumerate(node.sources)]
    if _called(node, running, inputs, folder) is not True:
        raise TaskError(
            f"{node.label}: {node.function.name} did not return True, which says that it failed"
        )
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    files = [f"{goal}/{path.relative_to(folder).as_posix()}" for path in paths]
    if is_remote(goal):
        for path, file in zip(paths, files, strict=True):
            filesystem, target = filesystem_of(file, dict(running.attempt.settings.storage))
            filesystem.put_file(str(path), target)
    yield listing_of(files)


def _datasets(node: Function, running: Run) -> Iterator[pa.Table]:
    """Which files, or ranges of their rows, make which partition."""
    folder = _folder(running)
    [source] = node.sources
    made = _called(node, running, _dataset(source, running, f"{folder}/input"))
    count = node.context.npartitions
    datasets = list(made)
    if len(datasets) != count:
        raise TaskError(
            f"{node.label}: {node.function.name} must return {count} data sets, one for each "
            f"partition, got {len(datasets)}"
        )
    rows: list[dict[str, Any]] = []
    for i, dataset in enumerate(datasets):
        files = _files_of(dataset, f"{folder}/{i}")
        rows += [
            {"file": f.url, "begin": f.begin, "end": f.end, "partition": i} for f in files.files
        ]
    # A partition without files still has columns: those of any file, of which nothing is taken.
    if rows:
        empty = set(range(count)) - {row["partition"] for row in rows}
        rows += [{**rows[0], "begin": 0, "end": 0, "partition": i} for i in sorted(empty)]
    yield pa.Table.from_pylist(rows, schema=pa.schema([*SLICES, ("partition", pa.int64())]))


def _dataset(source: Plan, running: Run, folder: str) -> DataSet:
    """An input as a data set; rows that lie in no files of their own are written into some."""
    from smallpond.logical.dataset import ArrowTableDataSet, FileSet  # noqa: PLC0415
    from smallpond.logical.parquet_dataset import parquet_of  # noqa: PLC0415

    if isinstance(source, Memory):
        return ArrowTableDataSet(source.table)
    if isinstance(source, Files) and source.format is Format.PARQUET:
        if not all(file.url.endswith((".parquet", ".pq")) for file in source.files):
            return FileSet([]).of_slices([file for file in source.files if file.end != 0])
        dataset = parquet_of(source.files)
        dataset.columns = None if source.columns is None else list(source.columns)
        dataset.generated_columns = list(source.generated)
        dataset.union_by_name = ("union_by_name", "true") in source.options
        return dataset
    stream = running.stream(source, lossless=False)
    filesystem, place = filesystem_of(folder, dict(running.attempt.settings.storage))
    filesystem.makedirs(place, exist_ok=True)
    with (
        filesystem.open(f"{place}/data.parquet", "wb") as file,
        pq.ParquetWriter(file, stream.schema) as writer,
    ):
        for batch in stream.batches:
            writer.write_batch(batch)
    return parquet_of([FileSlice(f"{folder}/data.parquet", 0)])


def _files_of(dataset: DataSet, folder: str) -> Files:
    """A data set as files that can be read as they are; written, if it is not."""
    from smallpond.logical.dataset import FileSet, ParquetDataSet  # noqa: PLC0415

    plain = isinstance(dataset, FileSet | ParquetDataSet) and dataset.columns is None
    if plain and not dataset.generated_columns and not dataset.union_by_name:
        return dataset.files()
    return ParquetDataSet.create_from(dataset.to_arrow_table(), folder).files()


_SHAPES: dict[Shape, Callable[[Function, Run], Iterator[pa.Table]]] = {
    Shape.TABLES: _tables,
    Shape.FRAMES: _frames,
    Shape.STREAMS: _streams,
    Shape.TABLE_BATCH: _batches,
    Shape.FRAME_BATCH: _batches,
    Shape.SCRIPT: _script,
    Shape.DATASETS: _datasets,
}
