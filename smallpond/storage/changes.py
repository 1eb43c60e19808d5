"""Whether files are still those that a plan was made for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from smallpond.errors import ChangedInputError
from smallpond.storage.filesystems import filesystem_of, is_remote
from smallpond.storage.finding import FileInfo, local_file, remote_file

# So many files of a folder are asked for one by one, more of them by a listing of the folder.
_FEW = 8
_ASKED_AT_ONCE = 16


def check_unchanged(files: Sequence[FileInfo], storage_options: Mapping[str, Any]) -> None:
    """Finds out whether files are still as they were when they were looked for.

    Args:
        files: those of no known version are passed over.
        storage_options: of the file systems behind addresses.

    Raises:
        ChangedInputError: one has changed, or is gone.
    """
    folders: dict[str, list[FileInfo]] = {}
    for file in files:
        if is_remote(file.url) and file.version:
            folders.setdefault(file.url.rpartition("/")[0], []).append(file)
        elif file.version and file != _local_now(file.url):
            raise _changed(file)
    if folders:
        filesystem, _ = filesystem_of(next(iter(folders)), storage_options)
        filesystem.invalidate_cache()
        for folder, inner in folders.items():
            _check_folder(filesystem, folder, inner)


def _local_now(path: str) -> FileInfo | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return local_file(path, os.stat(path))  # noqa: PTH116 (paths here are texts)
    return None


def _check_folder(filesystem: Any, folder: str, files: Sequence[FileInfo]) -> None:
    """Looks at some files of a folder.

    A driver may say a time in one way of a file, and in another way in a list of files. So what
    looks changed is looked at in the other way as well.
    """
    many = len(files) > _FEW
    told = _listed(filesystem, folder) if many else _asked(filesystem, files)
    differ = [file for file in files if not _alike(file, told)]
    if differ:
        told = _asked(filesystem, differ) if many else _listed(filesystem, folder)
        for file in differ:
            if not _alike(file, told):
                raise _changed(file)


def _asked(filesystem: Any, files: Sequence[FileInfo]) -> dict[str, FileInfo]:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (not for local files)

    def ask(file: FileInfo) -> FileInfo | None:
        with suppress(FileNotFoundError):
            return remote_file(file.url, filesystem.info(file.url))
        return None

    with ThreadPoolExecutor(_ASKED_AT_ONCE if filesystem.async_impl else 1) as pool:
        return {_name(file.url): file for file in pool.map(ask, files) if file}


def _listed(filesystem: Any, folder: str) -> dict[str, FileInfo]:
    filesystem.invalidate_cache()
    with suppress(FileNotFoundError):
        names = [(str(d["name"]), d) for d in filesystem.ls(folder, detail=True)]
        return {_name(name): remote_file(name, details) for name, details in names}
    return {}


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def _alike(file: FileInfo, told: Mapping[str, FileInfo]) -> bool:
    """Whether a file is what is told now; of stamps of different kinds nothing can be said."""
    now = told.get(_name(file.url))
    if now is None or file.size_bytes != now.size_bytes:
        return False
    kinds = {info.version.partition(" ")[0] for info in (file, now)}
    return file.version == now.version or len(kinds) > 1


def _changed(file: FileInfo) -> ChangedInputError:
    return ChangedInputError(
        f"{file.url} is not the file any more that was to be read: it has been replaced, changed "
        "or removed since the DataFrame was made (make it again, with the session's read_ method)"
    )
