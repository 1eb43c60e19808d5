"""The data stage: text files become shuffled, packed sequences of bytes.

The vocabulary is the 256 byte values. Byte 0 occurs in no text and marks where a document begins.
"""

import hashlib
import os
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.end_to_end.run_folder import RunError

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

Bytes = npt.NDArray[np.uint8]


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
    texts, figures = _read(paths, on_file)
    if figures.num_bytes < _MIN_TEXT_BYTES:
        raise RunError(
            f"--input: {folder} holds {figures.num_bytes / 1e3:.0f} kB of text in "
            f"{figures.num_files} files ({figures.num_not_text} not text, "
            f"{figures.num_duplicates} duplicates, {figures.num_unreadable} unreadable), at least "
            f"{_MIN_TEXT_BYTES / 1e3:.0f} kB are needed (name a folder with more text)"
        )
    documents = list(_cut(texts, int(figures.num_bytes * _MAX_DOCUMENT_SHARE)))
    random.shuffle(documents)
    validation_bytes, num_validation = 0, 0
    while validation_bytes < _VALIDATION_SHARE * figures.num_bytes:
        validation_bytes += len(documents[num_validation])
        num_validation += 1
    return PackedText(
        train=random.permutation(_pack(documents[num_validation:], seq_len)),
        validation=random.permutation(_pack(documents[:num_validation], seq_len)),
        figures=figures,
    )


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


def _read(
    paths: list[Path], on_file: Callable[[int, int], None]
) -> tuple[list[bytes], TextFigures]:
    """Cleans and deduplicates, up to as many bytes as are wanted."""
    texts: list[bytes] = []
    figures = TextFigures()
    seen: set[bytes] = set()
    for done, path in enumerate(paths):
        if figures.num_bytes >= _MAX_TEXT_BYTES:
            figures.truncated = True
            break
        on_file(done, len(paths))
        try:
            with path.open("rb") as file:
                raw = file.read(_MAX_TEXT_BYTES)
        except OSError:
            figures.num_unreadable += 1
            continue
        text = _clean(raw)
        if text is None:
            figures.num_not_text += 1
            continue
        digest = hashlib.sha256(text).digest()
        if digest in seen:
            figures.num_duplicates += 1
        elif text:
            seen.add(digest)
            texts.append(text)
            figures.num_files += 1
            figures.num_bytes += len(text)
    on_file(len(paths), len(paths))
    return texts, figures


def _clean(raw: bytes) -> bytes | None:
    """Unix line ends and no trailing blanks; None if it is not text."""
    if len(raw) == _MAX_TEXT_BYTES:  # it goes on, and the last character may be cut
        raw = raw[: raw.rfind(b"\n") + 1]
    if DOCUMENT_START in raw:
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    lines = (line.rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return "\n".join(lines).strip("\n").encode()


def _cut(texts: list[bytes], max_bytes: int) -> Iterator[bytes]:
    """Cuts long texts, at line ends where there are any."""
    for text in texts:
        begin = 0
        while len(text) - begin > max_bytes:
            line_end = text.rfind(b"\n", begin, begin + max_bytes) + 1
            end = line_end if line_end > begin else begin + max_bytes
            yield text[begin:end]
            begin = end
        yield text[begin:]


def _pack(documents: list[bytes], seq_len: int) -> Bytes:
    """All documents end to end, cut into sequences whose last byte begins the next sequence."""
    joined = DOCUMENT_START + DOCUMENT_START.join(documents)
    stream = np.frombuffer(joined, np.uint8)
    num_sequences = (len(stream) - 1) // seq_len
    begins = np.arange(num_sequences)[:, None] * seq_len
    packed: Bytes = stream[begins + np.arange(seq_len + 1)]
    return packed
