"""The files that paths and patterns name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from smallpond.errors import MissingInputError, PlanError, SmallpondError
from smallpond.storage.filesystems import address_of, filesystem_of, is_remote, local_path
from smallpond.storage.listing import local_files, remote_files
from smallpond.storage.patterns import Selection, has_wildcard, split

# What drivers call that which changes when a file does.
_STAMPS = (
    "ETag",
    "etag",
    "blob_id",
    "mtime",
    "LastModified",
    "last_modified",
    "updated",
    "created",
)

_Kind = Literal["file", "folder", "nothing"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was when it was looked for.

    Attributes:
        url: an absolute path, or an address with its protocol.
        version: changes when the file does.
    """

    url: str
    size_bytes: int
    version: str


AnyPath: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = AnyPath | Sequence[AnyPath]


def path_of(value: AnyPath) -> str:
    """A path or an address as a text.

    Raises:
        PlanError: it is none.
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise PlanError(f"a path must be a text, got {value!r}")
    return os.fspath(value)


def resolve(
    paths: Paths,
    *,
    recursive: bool = False,
    suffixes: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> list[FileInfo]:
    """The files that paths and patterns name, sorted within each.

    Wildcards never stand for the beginning of a hidden name. A folder that is reached in several
    ways, through links or by a pattern, counts once.

    Args:
        paths: files, folders, and patterns with ``*``, ``**``, ``?`` and ``[...]``.
        recursive: look into the folders of folders.
        suffixes: of the files to take from a folder; a file or pattern takes any.
        storage_options: of the file systems behind addresses.

    Raises:
        MissingInputError: one of them names nothing.
        PlanError: it cannot be read.
    """
    items: list[AnyPath] = (
        list(paths)
        if isinstance(paths, Iterable) and not isinstance(paths, str | bytes | os.PathLike)
        else [paths]
    )
    if not items:
        raise PlanError("at least one path expected, got none")
    found: list[FileInfo] = []
    for item in items:
        found += _resolve_one(
            path_of(item), recursive, tuple(suffixes) or ("",), storage_options or {}
        )
    return found


def _resolve_one(
    item: str, recursive: bool, suffixes: tuple[str, ...], options: Mapping[str, Any]
) -> list[FileInfo]:
    try:
        place: _Place = _Remote(item, options) if is_remote(item) else _Local(item)
        kind = place.kind()
        everything = Selection(("**",), suffixes)
        if kind == "file":
            return [place.itself()]
        if kind == "folder":
            chosen = everything if recursive else Selection((), suffixes)
            found = list(place.files(place.path, chosen))
        elif has_wildcard(place.path):
            root, parts = split(place.path)
            found = list(place.files(root, Selection(parts, suffixes)))
        else:
            found = []
        deeper = kind == "folder" and not found and any(place.files(place.path, everything))
    except SmallpondError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInputError(f"no file or folder {item}: {error}") from error
    except Exception as error:
        remedy = " (storage_options= takes keys and endpoints)" if is_remote(item) else ""
        raise PlanError(f"{item} cannot be read: {error}{remedy}") from error
    if not found:
        raise MissingInputError(_nothing(item, kind, suffixes, deeper=deeper))
    return sorted(found, key=lambda file: file.url)


def _nothing(item: str, kind: _Kind, suffixes: tuple[str, ...], *, deeper: bool) -> str:
    """Why nothing was found."""
    if kind == "folder":
        message = f"the folder {item} holds no file of {', '.join(suffixes)}"
        return f"{message}, but its folders do (pass recursive=True)" if deeper else message
    if has_wildcard(item):
        return f"the pattern {item} matches no file"
    return f"no file or folder {item}"


class _Place(Protocol):
    """Where a path or pattern leads to."""

    path: str

    def kind(self) -> _Kind:
        """What there is at the path itself."""

    def itself(self) -> FileInfo:
        """The file at the path."""

    def files(self, root: str, selection: Selection) -> Iterator[FileInfo]:
        """Files below a folder."""


class _Local:
    """This machine."""

    def __init__(self, item: str) -> None:
        self.path = str(local_path(item))

    def kind(self) -> _Kind:
        try:
            mode = os.stat(self.path).st_mode  # noqa: PTH116 (paths here are texts)
        except (FileNotFoundError, NotADirectoryError):
            return "nothing"
        return "folder" if stat.S_ISDIR(mode) else "file"

    def itself(self) -> FileInfo:
        return local_file(self.path, os.stat(self.path))  # noqa: PTH116

    def files(self, root: str, selection: Selection) -> Iterator[FileInfo]:
        if os.path.isdir(root or "/"):  # noqa: PTH112
            for path, status in local_files(root or "/", selection):
                yield local_file(path, status)


class _Remote:
    """A file system of fsspec's."""

    def __init__(self, item: str, options: Mapping[str, Any]) -> None:
        self._item = item
        self._filesystem, self.path = filesystem_of(item, options)
        self._details: Mapping[str, Any] = {}

    def kind(self) -> _Kind:
        # What a store listed a while ago may have changed.
        self._filesystem.invalidate_cache()
        try:
            self._details = self._filesystem.info(self.path)
        except FileNotFoundError:
            return "nothing"
        return "folder" if self._details["type"] == "directory" else "file"

    def itself(self) -> FileInfo:
        return self._info(self._details)

    def files(self, root: str, selection: Selection) -> Iterator[FileInfo]:
        for details in remote_files(self._filesystem, root, selection):
            yield self._info(details)

    def _info(self, details: Mapping[str, Any]) -> FileInfo:
        url = address_of(str(details["name"]), self._item, self.path)
        return remote_file(url, details)


def local_file(path: str, status: os.stat_result) -> FileInfo:
    """A file of this machine."""
    return FileInfo(path, status.st_size, str(status.st_mtime_ns))


def remote_file(url: str, details: Mapping[str, Any]) -> FileInfo:
    """A file of which a driver says something."""
    # With the stamp's name, for a driver need not always give the same stamps.
    stamps = (f"{name} {details[name]}" for name in _STAMPS if details.get(name))
    return FileInfo(url, int(details.get("size") or 0), next(stamps, ""))
