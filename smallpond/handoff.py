"""Hand-off of rows between tasks: Arrow IPC files, and the JSON manifests that commit them.

A task attempt writes one file, whatever the number of its output partitions: an ordinary Arrow
IPC file, uncompressed, so that it is read by mapping it into memory. A `Part` says where the rows
of one partition lie in it; every piece has a CRC32 and is verified each time it is read (6 GB/s).
Written files count only once a manifest names them, and the first manifest of a task wins: an
attempt that dies halfway, or finishes second, leaves a file that nobody reads.

Nothing is flushed to the device (fsync). A process that dies loses nothing that it has written; a
machine that loses power may, and then sizes and checksums say so and the task runs again, which is
cheaper than waiting for the disk after every one.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from smallpond.dictionaries import schema_without_dictionaries, without_dictionaries
from smallpond.errors import CorruptedDataError

# A message is never larger, and a checksum covers less than twice as much: a slice of a part reads
# and verifies little more than it needs.
PIECE_BYTES = 8 << 20
# So many are asked for at once where the storage is remote.
_READ_AHEAD = 8
_MAGIC_BYTES = 8  # "ARROW1" and padding, before the schema


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive record batch messages of one partition in a file."""

    offset: int
    length: int
    rows: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one partition in one file, or a slice of them.

    Attributes:
        url: a local path, or an address that fsspec knows.
        segments: those that hold the rows.
        rows: from ``begin`` up to ``end``.
        num_bytes: what these rows take in the file; of a slice, an estimate.
        lossless: whether DuckDB wrote them with types of its own (HUGEINT, UUID, ...), so that a
            user gets to see them through DuckDB only.
        begin, end: rows within the segments; ``end`` is None for all that follow.
        header: the beginning of the file, with the schema.
        file_bytes: size of the whole file.
    """

    url: str
    segments: tuple[Segment, ...]
    rows: int
    num_bytes: int
    lossless: bool
    begin: int = 0
    end: int | None = None
    header: Segment = Segment(0, 0, 0, 0)
    file_bytes: int = 0


def part_to_dict(part: Part) -> dict[str, Any]:
    """What goes into a manifest."""
    return {
        **asdict(part),
        "segments": [_segment_to_list(segment) for segment in part.segments],
        "header": _segment_to_list(part.header),
    }


def part_from_dict(value: dict[str, Any]) -> Part:
    """The part that `part_to_dict` was given."""
    return Part(
        **{
            **value,
            "segments": tuple(Segment(*segment) for segment in value["segments"]),
            "header": Segment(*value["header"]),
        }
    )


def _segment_to_list(segment: Segment) -> list[int]:
    return [segment.offset, segment.length, segment.rows, segment.crc32]


# ---- writing


class _Sink:
    """A file for pyarrow to write into, which knows the place and the checksum of what it gets."""

    closed = False

    def __init__(self, file: Any) -> None:
        self._file = file
        self._begin = 0
        self._crc32 = 0
        self._offset = 0

    def write(self, data: Any) -> int:
        self._crc32 = zlib.crc32(data, self._crc32)
        self._file.write(data)
        self._offset += len(data)
        return len(data)

    def tell(self) -> int:
        return self._offset

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Closing the file does it."""

    def close(self) -> None:
        """The owner of the file closes it."""

    def cut(self, rows: int) -> Segment:
        """All that was written since the last cut."""
        segment = Segment(self._begin, self._offset - self._begin, rows, self._crc32)
        self._begin, self._crc32 = self._offset, 0
        return segment


class PartWriter:
    """One hand-off file with the rows of one or many partitions.

    Columns of dictionary type are written as plain values. Metadata of schema and fields stay.
    Not for several threads at once.
    """

    def __init__(
        self, url: str, schema: pa.Schema, num_partitions: int = 1, *, lossless: bool
    ) -> None:
        self.schema = schema_without_dictionaries(schema)
        self._url = url
        self._lossless = lossless
        self._segments: list[list[Segment]] = [[] for _ in range(num_partitions)]
        self._open: tuple[int, int] | None = None  # partition and rows since the last cut
        self._open_at = 0
        self._file = _create(url)
        self._sink = _Sink(self._file)
        self._writer = pa.ipc.new_file(pa.PythonFile(self._sink, mode="w"), self.schema)
        # The schema is written with the first batch; an empty one gives it bytes of its own.
        empty = [pa.nulls(0, field.type) for field in self.schema]
        try:
            self._writer.write_batch(pa.RecordBatch.from_arrays(empty, schema=self.schema))
        except BaseException:
            self.abort()
            raise
        self._header = self._sink.cut(0)
        self._open_at = self._sink.tell()

    def append(self, partition_idx: int, data: pa.RecordBatch | pa.Table) -> None:
        """Adds rows to a partition, behind those it has."""
        batches = data.to_batches() if isinstance(data, pa.Table) else [data]
        for batch in batches:
            self._check(batch)
            for piece in _pieces(without_dictionaries(batch, self.schema)):
                self._write(partition_idx, piece)

    def _check(self, batch: pa.RecordBatch) -> None:
        if batch.schema.equals(self.schema):
            return
        if not schema_without_dictionaries(batch.schema).equals(self.schema):
            msg = (
                f"PartWriter.append: the rows have other columns than the file {self._url}:\n"
                f"{batch.schema.to_string()}\ninstead of\n{self.schema.to_string()}"
            )
            raise TypeError(msg)

    def _write(self, partition_idx: int, batch: pa.RecordBatch) -> None:
        if self._open is not None and self._open[0] != partition_idx:
            self._cut()
        self._writer.write_batch(batch)
        rows = self._open[1] if self._open is not None else 0
        self._open = (partition_idx, rows + batch.num_rows)
        if self._sink.tell() - self._open_at >= PIECE_BYTES:
            self._cut()

    def _cut(self) -> None:
        if self._open is not None:
            partition_idx, rows = self._open
            self._segments[partition_idx].append(self._sink.cut(rows))
            self._open = None
        self._open_at = self._sink.tell()

    def close(self) -> list[Part]:
        """Finishes the file; a part for each partition, also for those without rows."""
        self._cut()
        self._writer.close()
        self._file.close()
        self._writer = None
        return [
            Part(
                url=self._url,
                segments=tuple(segments),
                rows=sum(segment.rows for segment in segments),
                num_bytes=sum(segment.length for segment in segments),
                lossless=self._lossless,
                header=self._header,
                file_bytes=self._sink.tell(),
            )
            for segments in self._segments
        ]

    def abort(self) -> None:
        """Removes the file; does nothing if it is closed."""
        if self._writer is None:
            return
        self._writer = None
        # Object stores can drop what is not complete; others have a file to remove.
        if hasattr(self._file, "discard"):
            with suppress(Exception):
                self._file.discard()
        with suppress(Exception):
            self._file.close()
        _remove(self._url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._writer is not None:
            self.close()


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """A batch in pieces of about PIECE_BYTES at most."""
    rows = batch.num_rows
    num_pieces = min(rows, -(-batch.nbytes // PIECE_BYTES)) if batch.num_columns else 1
    step = -(-rows // max(1, num_pieces))
    for begin in range(0, rows, max(1, step)):
        yield batch.slice(begin, step)


# ---- reading


def part_schema(part: Part) -> pa.Schema:
    """The schema of a part's rows.

    Raises:
        CorruptedDataError: the file is not what was written.
    """
    return _schema(part, _opened(part))


def read_part(part: Part, *, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part; memory-mapped, without a copy, where the file is local.

    Raises:
        CorruptedDataError: the file is not what was written.
    """
    fetch = _opened(part)
    schema = _schema(part, fetch)
    table = pa.Table.from_batches(_batches(part, schema, fetch), schema)
    return table if columns is None else table.select(list(columns))


def iter_part(part: Part, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of a part in batches of so many rows, the last one smaller.

    Raises:
        CorruptedDataError: the file is not what was written.
    """
    fetch = _opened(part)
    schema = _schema(part, fetch)
    return _rebatched(_batches(part, schema, fetch), batch_rows)


Fetch = Callable[[Sequence[Segment]], list[pa.Buffer]]


def _opened(part: Part) -> Fetch:
    """What reads and verifies segments of a part's file."""
    path = _local_path(part.url)
    read = _remote_reader(part.url) if path is None else _mapped(part, path)

    def fetch(segments: Sequence[Segment]) -> list[pa.Buffer]:
        buffers = read(segments)
        for segment, buffer in zip(segments, buffers, strict=True):
            _verify(part.url, segment, buffer)
        return buffers

    return fetch


def _mapped(part: Part, path: str) -> Fetch:
    try:
        with pa.memory_map(path) as file:
            whole = file.read_buffer()
    except FileNotFoundError:
        raise CorruptedDataError(f"{part.url}: the file is missing") from None
    if len(whole) != part.file_bytes:
        raise CorruptedDataError(
            f"{part.url}: the file has {len(whole)} bytes, {part.file_bytes} were written"
        )
    return lambda segments: [whole.slice(s.offset, s.length) for s in segments]


def _remote_reader(url: str) -> Fetch:
    fs, path = _remote(url)

    def read(segments: Sequence[Segment]) -> list[pa.Buffer]:
        found = fs.cat_ranges(
            [path] * len(segments),
            [segment.offset for segment in segments],
            [segment.offset + segment.length for segment in segments],
            on_error="return",
        )
        for data in found:
            if isinstance(data, FileNotFoundError):
                raise CorruptedDataError(f"{url}: the file is missing") from None
            if isinstance(data, Exception):
                raise data
        return [pa.py_buffer(data) for data in found]

    return read


def _verify(url: str, segment: Segment, buffer: pa.Buffer) -> None:
    where = f"{url}: bytes {segment.offset} to {segment.offset + segment.length}"
    if len(buffer) != segment.length:
        raise CorruptedDataError(f"{where}: the file ends after {len(buffer)} of them")
    actual = zlib.crc32(buffer)
    if actual != segment.crc32:
        raise CorruptedDataError(f"{where}: CRC32 {actual:08x}, {segment.crc32:08x} was written")


def _schema(part: Part, fetch: Fetch) -> pa.Schema:
    [header] = fetch([part.header])
    return pa.ipc.read_schema(header.slice(_MAGIC_BYTES))


def _batches(part: Part, schema: pa.Schema, fetch: Fetch) -> Iterator[pa.RecordBatch]:
    skip, left = part.begin, part.rows
    for i in range(0, len(part.segments), _READ_AHEAD):
        for buffer in fetch(part.segments[i : i + _READ_AHEAD]):
            reader = pa.BufferReader(buffer)
            while left and reader.tell() < len(buffer):
                batch = pa.ipc.read_record_batch(pa.ipc.read_message(reader), schema)
                taken = batch.slice(skip, left)
                skip = max(0, skip - batch.num_rows)
                left -= taken.num_rows
                if taken.num_rows:
                    yield taken


def _rebatched(batches: Iterator[pa.RecordBatch], batch_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly that size; copies only where pieces must be joined."""
    held: list[pa.RecordBatch] = []
    held_rows = 0
    for batch in batches:
        begin = 0
        while begin < batch.num_rows:
            piece = batch.slice(begin, batch_rows - held_rows)
            begin += piece.num_rows
            held.append(piece)
            held_rows += piece.num_rows
            if held_rows == batch_rows:
                yield from _joined(held)
                held, held_rows = [], 0
    if held:
        yield from _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if len(batches) == 1:
        yield batches[0]
    else:
        # More than one only where 32-bit offsets of strings would overflow.
        yield from pa.Table.from_batches(batches).combine_chunks().to_batches()


# ---- slices


def slice_part(part: Part, begin: int, end: int) -> Part:
    """Some rows of a part, without touching the file."""
    begin, end = max(0, begin), min(end, part.rows)
    rows = max(0, end - begin)
    first = part.begin + begin
    kept: list[Segment] = []
    kept_from = position = 0
    for segment in part.segments:
        if position < first + rows and position + segment.rows > first:
            kept_from = kept_from if kept else position
            kept.append(segment)
        position += segment.rows
    if not rows:
        kept, kept_from, first = [], 0, 0
    return replace(
        part,
        segments=tuple(kept),
        rows=rows,
        num_bytes=part.num_bytes * rows // part.rows if part.rows else 0,
        begin=first - kept_from,
        end=first - kept_from + rows,
    )


def split_parts_by_rows(parts: Sequence[Part], n: int) -> list[list[Part]]:
    """The same rows in the same order, in ``n`` runs whose sizes differ by one row at most.

    A run without rows keeps an empty slice, so that its columns are known.
    """
    total = sum(part.rows for part in parts)
    runs: list[list[Part]] = []
    part_idx = used = 0
    for run_idx in range(n):
        wanted = total * (run_idx + 1) // n - total * run_idx // n
        run: list[Part] = []
        while wanted:
            part = parts[part_idx]
            taken = min(wanted, part.rows - used)
            if taken:
                whole = taken == part.rows
                run.append(part if whole else slice_part(part, used, used + taken))
            used += taken
            wanted -= taken
            if used == part.rows:
                part_idx, used = part_idx + 1, 0
        runs.append(run or _no_rows(parts))
    return runs


def split_parts_by_count(parts: Sequence[Part], n: int) -> list[list[Part]]:
    """The parts, in the same order, in ``n`` runs whose lengths differ by one at most.

    A run without parts gets an empty slice, so that its columns are known.
    """
    cuts = [len(parts) * i // n for i in range(n + 1)]
    return [list(parts[a:b]) or _no_rows(parts) for a, b in pairwise(cuts)]


def _no_rows(parts: Sequence[Part]) -> list[Part]:
    return [slice_part(parts[0], 0, 0)] if parts else []


# ---- manifests


def save_manifest(url: str, value: dict[str, Any]) -> dict[str, Any]:
    """Commits a task's result, unless another attempt has; the result that counts.

    The file appears whole or not at all. One that a power failure has damaged is replaced.
    """
    try:
        there = load_manifest(url)
    except CorruptedDataError:
        _remove(url)
        there = None
    if there is not None:
        return there
    text = json.dumps(value, separators=(",", ":"))
    data = f'{{"value":{text},"crc32":{zlib.crc32(text.encode())}}}'.encode()
    path = _local_path(url)
    if path is None:
        _create_remote(url, data)
    else:
        _create_local(Path(path), data)
    winner = load_manifest(url)
    if winner is None:
        raise CorruptedDataError(f"{url}: the manifest vanished as it was written")
    return winner


def load_manifest(url: str) -> dict[str, Any] | None:
    """What was committed, or None if nothing was.

    Raises:
        CorruptedDataError: the file is damaged.
    """
    path = _local_path(url)
    try:
        if path is not None:
            data = Path(path).read_bytes()
        else:
            fs, remote_path = _remote(url)
            data = fs.cat_file(remote_path)
    except FileNotFoundError:
        return None
    try:
        document = json.loads(data)
        value: dict[str, Any] = document["value"]
        text = json.dumps(value, separators=(",", ":"))
        intact = zlib.crc32(text.encode()) == document["crc32"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptedDataError(f"{url}: not a manifest: {error}") from None
    if not intact:
        raise CorruptedDataError(f"{url}: the manifest does not have the checksum it was given")
    return value


def _create_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    try:
        # A link never replaces a file, unlike a rename.
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:
        # No hard links here: the last writer wins instead, with an equally good result.
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _create_remote(url: str, data: bytes) -> None:
    fs, path = _remote(url)
    try:
        # Storage that cannot create exclusively ignores the mode: the last writer wins there.
        fs.pipe_file(path, data, mode="create")
    except OSError:
        # However it says that somebody was faster.
        if load_manifest(url) is None:
            raise


# ---- places


def _local_path(url: str) -> str | None:
    if url.startswith("file://"):
        return url.removeprefix("file://")
    return None if "://" in url else url


def _remote(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 (its plugins take long to import)

    fs, path = url_to_fs(url)
    return fs, path


def _create(url: str) -> Any:
    path = _local_path(url)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # A file of that name may still be mapped into the memory of someone who has its rows.
        Path(path).unlink(missing_ok=True)
        return Path(path).open("wb")
    fs, remote_path = _remote(url)
    try:
        return fs.open(remote_path, "wb")
    except FileNotFoundError:
        fs.makedirs(remote_path.rsplit("/", 1)[0], exist_ok=True)
        return fs.open(remote_path, "wb")


def _remove(url: str) -> None:
    path = _local_path(url)
    with suppress(FileNotFoundError):
        if path is not None:
            Path(path).unlink()
        else:
            fs, remote_path = _remote(url)
            fs.rm_file(remote_path)
