"""Where hand-off files and manifests lie: local paths are opened as such, others through fsspec."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any


def local_path(url: str) -> str | None:
    """The path on this machine, or None if the file is elsewhere."""
    if url.startswith("file://"):
        return url.removeprefix("file://")
    return None if "://" in url else url


def remote_file(url: str) -> tuple[Any, str]:
    """The file system of an address, as this process was told to reach it, and the path in it."""
    from fsspec.core import url_to_fs  # noqa: PLC0415 (its plugins take long to import)

    fs, path = url_to_fs(url)
    return fs, path


def create(url: str) -> Any:
    """A new file to write into, in folders that are made if need be."""
    path = local_path(url)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # A file of that name may still be mapped into the memory of someone who has its rows.
        Path(path).unlink(missing_ok=True)
        return Path(path).open("wb")
    fs, remote_path = remote_file(url)
    try:
        return fs.open(remote_path, "wb")
    except FileNotFoundError:
        fs.makedirs(remote_path.rsplit("/", 1)[0], exist_ok=True)
        return fs.open(remote_path, "wb")


def remove(url: str) -> None:
    """Removes a file, if it is there."""
    path = local_path(url)
    with suppress(FileNotFoundError):
        if path is not None:
            Path(path).unlink()
        else:
            fs, remote_path = remote_file(url)
            fs.rm_file(remote_path)
