"""The data stage: text files become shuffled, packed sequences of bytes.

The vocabulary is the 256 byte values. Byte 0 occurs in no text and marks where a document begins.
"""

import contextlib
import functools
import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import smallpond
from benchmarks.end_to_end.run_folder import RunError, RunFolder
from smallpond.errors import SmallpondError
from smallpond.events import Event, State, TaskEvent

VOCABULARY = 256
DOCUMENT_START = b"\0"
# Many times what a run of the default length trains on; more would only take longer to prepare.
_MAX_TEXT_BYTES = 8_000_000
_MIN_TEXT_BYTES = 100_000
_VALIDATION_SHARE = 0.1
# A larger file is cut, or one file could be most of the text and stand on one side of the split.
_MAX_DOCUMENT_SHARE = 0.02
# Not the library, but what tests it, and what pip put beside it.
_LEFT_OUT_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages"})

# Reading is shared out to so many tasks at most; each costs some milliseconds.
_READING_TASKS = 16

Bytes = npt.NDArray[np.uint8]
_TEXTS = pa.schema(
    [
        ("place", pa.int64()),
        ("text", pa.binary()),
        ("digest", pa.binary()),
        ("problem", pa.string()),
    ]
)
_DOCUMENTS = pa.schema([("text", pa.binary())])


@dataclass(slots=True)
class TextFigures:
    """What became of the files.

    Attributes:
        num_files: files that are in the packed text.
        num_bytes: their bytes.
        num_not_text: left out: not UTF-8, or with a zero byte.
        num_duplicates: left out: the same text as another file.
        num_unreadable: left out: the system refused to read them.
        truncated: whether files were left out because there was text enough.
    """

    num_files: int = 0
    num_bytes: int = 0
    num_not_text: int = 0
    num_duplicates: int = 0
    num_unreadable: int = 0
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PackedText:
    """Sequences of seq_len + 1 bytes: a target follows each input byte.

    Attributes:
        train: [num_sequences, seq_len + 1] uint8, in shuffled order.
        validation: the same, from other documents.
        figures: what became of the files.
    """

    train: Bytes
    validation: Bytes
    figures: TextFigures


def default_input() -> Path:
    """The folder of the Python standard library's own sources."""
    return Path(sysconfig.get_paths()["stdlib"])


def prepare(
    folder: Path | None,
    seq_len: int,
    seed: int,
    on_file: Callable[[int, int], None] = lambda _done, _total: None,
) -> PackedText:
    """Reads, cleans, deduplicates, splits, shuffles and packs the text files of a folder.

    Args:
        folder: where the files are, at any depth; None for the standard library's sources.
        seq_len: inputs per sequence, in bytes.
        seed: of the order of files and of sequences.
        on_file: called as ``on_file(files_done, files_total)``.

    Raises:
        RunError: the folder is not there, cannot be read, or holds too little text.
    """
    paths = list(_text_files(folder))
    random = np.random.default_rng(seed)
    random.shuffle(paths)
    candidates = _enough(paths)
    with _session() as sp:
        sp.on_event(_progress(on_file, len(candidates)))
        documents, figures = _documents(sp, candidates, seed)
    figures.truncated |= len(candidates) < len(paths)
    on_file(len(candidates), len(candidates))
    if figures.num_bytes < _MIN_TEXT_BYTES:
        raise RunError(
            f"--input: {folder} holds {figures.num_bytes / 1e3:.0f} kB of text in "
            f"{figures.num_files} files ({figures.num_not_text} not text, "
            f"{figures.num_duplicates} duplicates, {figures.num_unreadable} unreadable), at least "
            f"{_MIN_TEXT_BYTES / 1e3:.0f} kB are needed (name a folder with more text)"
        )
    validation_bytes, num_validation = 0, 0
    while validation_bytes < _VALIDATION_SHARE * figures.num_bytes:
        validation_bytes += len(documents[num_validation])
        num_validation += 1
    return PackedText(
        train=random.permutation(_pack(documents[num_validation:], seq_len)),
        validation=random.permutation(_pack(documents[:num_validation], seq_len)),
        figures=figures,
    )


def save(packed: PackedText, folder: RunFolder) -> None:
    """Writes the sequences as Parquet data sets ``text/train`` and ``text/validation``."""
    folder.check_space(packed.train.nbytes + packed.validation.nbytes)
    with _session() as sp:
        for name, sequences in (("train", packed.train), ("validation", packed.validation)):
            rows = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(sequences.shape[1]), len(sequences), [None, pa.py_buffer(sequences)]
            )
            table = pa.table({"sequence": rows})
            sp.from_arrow(table).write_parquet(f"{folder.path}/text/{name}", mode="overwrite")


def load(folder: RunFolder) -> dict[str, Bytes]:
    """Reads what ``save`` wrote: [num_sequences, seq_len + 1] uint8 of each data set.

    Raises:
        RunError: they are not there, or damaged.
    """
    with _session() as sp:
        return {name: _sequences(sp, folder, f"text/{name}") for name in ("train", "validation")}


def _sequences(sp: smallpond.Session, folder: RunFolder, name: str) -> Bytes:
    path = folder.existing(name, made_by="data")
    try:
        table = sp.read_parquet(str(path)).to_arrow()
        return _as_bytes(table.column("sequence").to_pylist())
    except (SmallpondError, ValueError, KeyError) as error:
        raise folder.damaged(path, "data") from error


def _as_bytes(rows: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1).copy()


@contextlib.contextmanager
def _session() -> Iterator[smallpond.Session]:
    """A session whose files are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="openweek-") as root,
        smallpond.init(data_root=root, progress=False) as sp,
    ):
        yield sp


def _progress(on_file: Callable[[int, int], None], total: int) -> Callable[[Event], None]:
    """Counts the files of finished tasks."""
    done = 0

    def listen(event: Event) -> None:
        nonlocal done
        if isinstance(event, TaskEvent) and event.state is State.FINISHED and done < total:
            done = min(total, done + event.metrics.rows_out)
            on_file(done, total)

    return listen


def _documents(
    sp: smallpond.Session, paths: list[Path], seed: int
) -> tuple[list[bytes], TextFigures]:
    """The texts that are wanted, cut and in random order; and what became of the files."""
    files = sp.from_items([{"place": place, "path": str(path)} for place, path in enumerate(paths)])
    tasks = min(len(paths), _READING_TASKS)
    texts = (
        files.repartition(tasks, by_rows=True)
        .map(functools.partial(read_text, _MAX_TEXT_BYTES), schema=_TEXTS)
        .cache()
    )
    firsts = (
        texts.filter("problem IS NULL AND octet_length(text) > 0")
        .window(partition_by="digest", order_by="place", copy="row_number()")
        .filter("copy = 1")
        .window(order_by="place", up_to="sum(octet_length(text))")
    )
    wanted = firsts.filter(f"up_to - octet_length(text) < {_MAX_TEXT_BYTES}").cache()
    [counts] = wanted.agg(
        num_files="count(*)",
        num_bytes="coalesce(sum(octet_length(text)), 0)",
        last="coalesce(max(place), -1)",
    ).take_all()
    more = firsts.count() > counts["num_files"]
    seen = texts.filter(f"place <= {counts['last']}") if more else texts
    [left_out] = seen.agg(
        num_not_text="count(*) FILTER (problem = 'not text')",
        num_unreadable="count(*) FILTER (problem = 'unreadable')",
        num_texts="count(*) FILTER (octet_length(text) > 0)",
    ).take_all()
    figures = TextFigures(
        num_files=counts["num_files"],
        num_bytes=int(counts["num_bytes"]),
        num_not_text=left_out["num_not_text"],
        num_duplicates=left_out["num_texts"] - counts["num_files"],
        num_unreadable=left_out["num_unreadable"],
        truncated=more,
    )
    max_bytes = int(figures.num_bytes * _MAX_DOCUMENT_SHARE)
    documents = (
        wanted.sort("place")
        .flat_map(functools.partial(cut_text, max_bytes), schema=_DOCUMENTS)
        .random_shuffle(seed)
    )
    return [row["text"] for row in documents.take_all()], figures


def _enough(paths: list[Path]) -> list[Path]:
    """The first files that hold several times the bytes wanted: some will be left out."""
    total = 0
    for count, path in enumerate(paths):
        if total >= 4 * _MAX_TEXT_BYTES:
            return paths[:count]
        with contextlib.suppress(OSError):
            total += min(path.stat().st_size, _MAX_TEXT_BYTES)
    return paths


def _text_files(folder: Path | None) -> Iterator[Path]:
    """Regular files below the folder, in an order that depends on names alone."""
    root = folder or default_input()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise RunError(f"--input: {root} {what} (name a folder with text files)")
    if not os.access(root, os.R_OK | os.X_OK):
        raise RunError(f"--input: {root} is not readable (change its permissions)")
    found = False
    for parent, folders, names in os.walk(root):
        left_out = _LEFT_OUT_FOLDERS if folder is None else frozenset()
        folders[:] = sorted(n for n in folders if n not in left_out and not n.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            # A pipe or a socket would block for ever.
            if path.is_file() and (folder is not None or path.suffix == ".py"):
                found = True
                yield path
    if not found:
        raise RunError(f"--input: {root} holds no files (name a folder with text files)")


def read_text(max_bytes: int, row: dict[str, Any]) -> dict[str, Any]:
    """Reads and cleans one file; a row of `_TEXTS`."""
    result: dict[str, Any] = {"place": row["place"]}
    try:
        with Path(row["path"]).open("rb") as file:
            raw = file.read(max_bytes)
    except OSError:
        return {**result, "problem": "unreadable"}
    text = _clean(raw, max_bytes)
    if text is None:
        return {**result, "problem": "not text"}
    return {**result, "text": text, "digest": hashlib.sha256(text).digest()}


def _clean(raw: bytes, max_bytes: int) -> bytes | None:
    """Unix line ends and no trailing blanks; None if it is not text."""
    if len(raw) == max_bytes:  # it goes on, and the last character may be cut
        raw = raw[: raw.rfind(b"\n") + 1]
    if DOCUMENT_START in raw:
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return "\n".join(lines).strip("\n").encode()


def cut_text(max_bytes: int, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Cuts a long text, at line ends where there are any; rows of `_DOCUMENTS`."""
    text: bytes = row["text"]
    pieces = []
    begin = 0
    while len(text) - begin > max_bytes:
        line_end = text.rfind(b"\n", begin, begin + max_bytes) + 1
        end = line_end if line_end > begin else begin + max_bytes
        pieces.append(text[begin:end])
        begin = end
    pieces.append(text[begin:])
    return [{"text": piece} for piece in pieces]


def _pack(documents: list[bytes], seq_len: int) -> Bytes:
    """All documents end to end, cut into sequences whose last byte begins the next sequence."""
    joined = DOCUMENT_START + DOCUMENT_START.join(documents)
    stream = np.frombuffer(joined, np.uint8)
    num_sequences = (len(stream) - 1) // seq_len
    begins = np.arange(num_sequences)[:, None] * seq_len
    packed: Bytes = stream[begins + np.arange(seq_len + 1)]
    return packed
