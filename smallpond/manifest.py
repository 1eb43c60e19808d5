"""JSON manifests, which commit what a task has left: the first one of a task wins.

Each carries a checksum of itself.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from pathlib import Path
from typing import Any

from smallpond.errors import CorruptedDataError
from smallpond.places import local_path, remote_file, remove


def save_manifest(url: str, value: dict[str, Any]) -> dict[str, Any]:
    """Commits a task's result, unless another attempt has; the result that counts.

    The file appears whole or not at all. One that a power failure has damaged is replaced.
    """
    text = json.dumps(value, separators=(",", ":"))
    data = f'{{"value":{text},"crc32":{zlib.crc32(text.encode())}}}'.encode()
    path = local_path(url)
    if path is not None and _create_local(Path(path), data):
        return value
    try:
        there = load_manifest(url)
    except CorruptedDataError:
        remove(url)
        there = None
    if there is not None:
        return there
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
    path = local_path(url)
    try:
        if path is not None:
            data = Path(path).read_bytes()
        else:
            fs, remote_path = remote_file(url)
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


def _create_local(path: Path, data: bytes) -> bool:
    """Writes a file that is not there yet; whether it is surely this one that is there now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(data)
    try:
        # A link never replaces a file, unlike a rename.
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:
        # No hard links here: of two that write at once the last wins, with as good a result.
        if not path.exists():
            temporary.replace(path)
        return False
    else:
        return True
    finally:
        temporary.unlink(missing_ok=True)


def _create_remote(url: str, data: bytes) -> None:
    fs, path = remote_file(url)
    try:
        # Storage that cannot create exclusively ignores the mode: the last writer wins there.
        fs.pipe_file(path, data, mode="create")
    except OSError:
        # However it says that somebody was faster.
        if load_manifest(url) is None:
            raise
