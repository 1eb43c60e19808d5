"""Chrome traces from a file, in memory that does not grow with the text of their events."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.trace.columns import Columns, Events, Role
from benchmarks.trace.json_stream import JsonEndError, JsonStream
from benchmarks.trace.kineto import device_work, operator_work
from benchmarks.trace.model import Ints, Phases, Trace, TraceError, Work
from benchmarks.trace.spans import ranks, span_work, thread_labels

Progress = Callable[[int, int], None]

_GZIP_MAGIC = b"\x1f\x8b"


def read_traces(path: Path, progress: Progress = lambda _done, _total: None) -> list[Trace]:
    """Reads a Chrome trace: JSON, or JSON in gzip, as an object with `traceEvents` or an array.

    What is work depends on what the file has. Kernels, copies and memsets of torch.profiler, tied
    to phases by their launches; without them its CPU operators; without those every span.

    Times are those of the file. torch.profiler counts them from `baseTimeNanoseconds`, the
    begin of a period of 7 889 238 seconds that all ranks of a job share: left out, it leaves
    nanoseconds their place in a float64.

    Args:
        path: the file; gzip is told by its first bytes.
        progress: called with the bytes of the file that are read and the bytes in total.

    Returns:
        A Trace for each rank in the file.

    Raises:
        TraceError: if it cannot be read, or is no trace, or only a part of one.
    """
    header, events = _read(path, progress)
    if np.any(events.role == Role.WORK):
        work, phases, notes = device_work(events)
        labels, num_sms = _stream_labels(events), _num_sms(header, events)
    elif np.any(events.role == Role.OPERATOR):
        work, phases, notes = operator_work(events)
        labels, num_sms = thread_labels(events), 0
    else:
        labels = thread_labels(events)
        return [
            _trace(name or path.name, events, labels, *span_work(events, rows))
            for name, rows in ranks(events)
        ]
    distributed = header.get("distributedInfo")
    rank = distributed.get("rank") if isinstance(distributed, dict) else None
    title = f"rank {rank}" if isinstance(rank, int) else path.name
    return [_trace(title, events, labels, work, phases, num_sms, notes)]


def _read(path: Path, progress: Progress) -> tuple[dict[str, Any], Events]:
    """The members beside `traceEvents`, and the events in columns."""
    columns = Columns()
    header: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            read = _characters(file, path.stat().st_size, progress)
            _take_document(JsonStream(read), header, columns)
    except FileNotFoundError:
        raise TraceError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise TraceError(f"{path}: a trace file is needed, this is a folder") from None
    except (JsonEndError, EOFError):
        raise TraceError(f"{path}: the file ends early{_so_far(columns)}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path}: its gzip is corrupt ({error}){_so_far(columns)}") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise TraceError(f"{path}: no JSON trace: {error}{_so_far(columns)}") from None
    events = columns.events()
    if not len(events.begin_us):
        left_out = "".join(f"; {sentence}" for sentence in events.left_out)
        raise TraceError(f"{path}: no complete event (ph X) is in this trace{left_out}")
    return header, events


def _so_far(columns: Columns) -> str:
    count = columns.num_entries
    return f", after {count:,} event{'s' if count > 1 else ''}" if count else ""


def _characters(file: BufferedReader, total: int, progress: Progress) -> Callable[[int], str]:
    """A function that returns at most so many of the next characters of the file."""
    compressed = file.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
    plain = gzip.GzipFile(fileobj=file) if compressed else file
    # Profilers cut long names anywhere, inside a character too.
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")

    def read(num_chars: int) -> str:
        text = ""
        while not text:
            data = plain.read(num_chars)
            text = decoder.decode(data, final=not data)
            progress(file.tell(), total)
            if not data:
                break
        return text

    return read


def _take_document(stream: JsonStream, header: dict[str, Any], columns: Columns) -> None:
    """Takes the whole document: events into the columns, the other members into the header."""
    first = stream.peek()
    if not first:
        raise ValueError("the file is empty")
    if first == "[":
        for entry in stream.array():
            columns.add(entry)
    elif first == "{":
        found = False
        for key in stream.members():
            if key == "traceEvents" and stream.peek() == "[":
                found = True
                for entry in stream.array():
                    columns.add(entry)
            else:
                header[key] = stream.value()
        if not found:
            raise ValueError("it has no list named traceEvents")
    else:
        raise ValueError(f"it begins with {first!r}")
    if stream.peek():
        raise ValueError("it goes on after its end")


def _stream_labels(events: Events) -> list[str]:
    """The streams' numbers, with that of the GPU where there is work of several."""
    several = len({device for device, _ in events.streams}) > 1
    return [
        f"GPU {device} stream {stream}" if several else f"stream {stream}"
        for device, stream in events.streams
    ]


def _num_sms(header: dict[str, Any], events: Events) -> int:
    """SMs of the device that did most of the work, as `deviceProperties` say; else 0."""
    pieces = np.bincount(events.work_stream, minlength=len(events.streams))
    device = events.streams[int(np.argmax(pieces))][0]
    properties = header.get("deviceProperties")
    for entry in properties if isinstance(properties, list) else []:
        if isinstance(entry, dict) and entry.get("id") == device:
            num_sms = entry.get("numSms")
            return num_sms if isinstance(num_sms, int) and 0 < num_sms < 1 << 20 else 0
    return 0


def _trace(
    title: str,
    events: Events,
    streams: Sequence[str],
    work: Work,
    phases: Phases,
    num_sms: int = 0,
    notes: Sequence[str] = (),
) -> Trace:
    """Sorts the work, and leaves out the names and streams that nothing refers to."""
    order = np.argsort(work.begin_us, kind="stable")
    names = np.unique(np.concatenate([work.name, work.category, phases.name]))
    used_streams = np.unique(work.stream)
    return Trace(
        title=_printable(title),
        names=tuple(_printable(events.names[name]) for name in names),
        streams=tuple(_printable(streams[stream]) for stream in used_streams),
        work=Work(
            begin_us=work.begin_us[order],
            duration_us=work.duration_us[order],
            name=_renumbered(work.name[order], names),
            category=_renumbered(work.category[order], names),
            stream=_renumbered(work.stream[order], used_streams),
            phase=work.phase[order],
            num_blocks=work.num_blocks[order],
        ),
        phases=replace(phases, name=_renumbered(phases.name, names)),
        num_sms=num_sms,
        notes=(*notes, *events.left_out),
    )


def _renumbered(indices: Ints, used: Ints) -> Ints:
    return np.searchsorted(used, indices).astype(np.int64)


def _printable(name: str) -> str:
    """Without halves of surrogate pairs, which JSON can say and no file can hold."""
    return name.encode("utf-8", "replace").decode()
