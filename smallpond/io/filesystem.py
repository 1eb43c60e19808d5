"""Values in files, and removal of files, for programs written for the original."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any


def dump(obj: Any, path: str, buffering: int = 2 << 20, atomic_write: bool = False) -> int:
    """Pickles a value into a compressed file; returns the file's size.

    Args:
        obj: anything that cloudpickle takes, functions of scripts among it.
        path: of the file.
        buffering: bytes to collect before each write.
        atomic_write: nobody ever sees a part of the file.
    """
    import cloudpickle  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    target = f"{path}.{os.getpid()}.tmp" if atomic_write else path
    with (
        Path(target).open("wb", buffering=buffering) as file,
        pa.CompressedOutputStream(file, "zstd") as stream,
    ):
        stream.write(cloudpickle.dumps(obj))
    if atomic_write:
        Path(target).replace(path)
    return Path(path).stat().st_size


def load(path: str, buffering: int = 2 << 20) -> Any:
    """The value that `dump` was given; like any pickle, only from files that one trusts."""
    import cloudpickle  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415

    with (
        Path(path).open("rb", buffering=buffering) as file,
        pa.CompressedInputStream(file, "zstd") as stream,
    ):
        return cloudpickle.loads(stream.read())


def remove_path(path: str) -> None:
    """Removes a file, or a folder with all that is in it; nothing if there is nothing."""
    place = Path(path)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def find_mount_point(path: str) -> str:
    """The folder at which the file system of a path is mounted."""
    place = Path(path).resolve()
    while not place.is_mount():
        place = place.parent
    return str(place)
