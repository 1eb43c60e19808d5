"""One folder of things that are slow to make, such as compiled kernels, kept by content.

An entry is a folder of files that is named by a key of everything that decides its bytes. It is
written under another name and then renamed, so nobody sees half of it, and one maker at a time
holds the key's lock, so that eight ranks on a cold cache compile once. The lock is flock's, which
the operating system takes back when a process dies, and what a killed maker left behind is thrown
away by the next one. Every entry carries checksums: one that is damaged is made again.

The folder is $OPENWEEK_CACHE, else openweek in $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_CHECKSUMS = "checksums.json"
# What says that the folder cannot be written, or not now; a maker's other errors are its own.
_UNWRITABLE = {
    *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOLCK, errno.ENOSPC),
    *(errno.EPERM, errno.EROFS),
}


class CacheError(RuntimeError):
    """The cache folder cannot be written."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much the cache holds."""

    num_entries: int
    num_bytes: int


def folder() -> Path:
    """Returns the cache folder, which need not exist yet; the environment is read on every call."""
    if own := os.environ.get("OPENWEEK_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "openweek"


def key_of(parts: Iterable[str | bytes]) -> str:
    """Returns 32 hex digits that differ when any part differs, also in where one part ends."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def get(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Returns the folder of an entry, which `make` fills if the cache does not have it.

    Args:
        kind: The sort of entry, a folder name such as "kernels".
        key: From `key_of`; equal keys must mean equal files.
        make: Writes the entry's files into the empty folder that it is given. Its exceptions pass
            through, and then nothing is kept.

    Returns:
        A folder with the files that `make` wrote, to be read only.

    Raises:
        CacheError: The entry is missing and the cache folder cannot be written.
    """
    entry = folder() / kind / key
    if _is_whole(entry):
        return entry
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from error
    try:
        with _locked(entry):
            if not _is_whole(entry):
                _make(entry, make)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise _unwritable(error) from error
    return entry


def usage() -> Usage:
    """Returns the number of entries of all kinds and the bytes of their files."""
    manifests = list(folder().glob(f"*/*/{_CHECKSUMS}"))
    sizes = [path.stat().st_size for manifest in manifests for path in manifest.parent.iterdir()]
    return Usage(len(manifests), sum(sizes))


def _unwritable(error: OSError) -> CacheError:
    return CacheError(
        f"cache: folder must be writable, got {folder()}: {error.strerror}"
        " (free space there, or name another folder in OPENWEEK_CACHE)"
    )


def _is_whole(entry: Path) -> bool:
    """Whether the entry is there and every file is as it was made."""
    try:
        return bool(json.loads((entry / _CHECKSUMS).read_text()) == _checksums(entry))
    except (OSError, ValueError):
        return False


def _checksums(entry: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(entry.iterdir())
        if path.name != _CHECKSUMS
    }


@contextlib.contextmanager
def _locked(entry: Path) -> Iterator[None]:
    # The lock file stays: were it removed, a waiter would hold a lock that nobody else can see.
    with (entry.parent / f"{entry.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(entry: Path, make: Callable[[Path], None]) -> None:
    """Fills and publishes the entry; the caller holds its lock."""
    for leftover in entry.parent.glob(f"{entry.name}.tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{entry.name}.tmp", dir=entry.parent))
    try:
        make(draft)
        (draft / _CHECKSUMS).write_text(json.dumps(_checksums(draft)))
        draft.chmod(0o755)  # mkdtemp's 0o700 would keep a shared folder from the other users
        if entry.exists():  # damaged; a reader of this instant sees none and waits for the lock
            shutil.rmtree(entry)
        draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
