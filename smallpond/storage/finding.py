"""The files that paths and patterns name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smallpond.errors import MissingInputError, PlanError, SmallpondError
from smallpond.storage.filesystems import (
    address_of,
    filesystem_of,
    is_remote,
    local_path,
    strictly,
)
from smallpond.storage.patterns import Parts, Places, fits, has_wildcard, split, start, step

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


def resolve(
    paths: str | Sequence[str],
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
    items = [paths] if isinstance(paths, str) else list(paths)
    if not items:
        raise PlanError("at least one path expected, got none")
    wanted = _Wanted(("**", "*") if recursive else ("*",), tuple(suffixes) or ("",))
    found: list[FileInfo] = []
    for item in items:
        if not isinstance(item, str) or not item:
            raise PlanError(f"a path must be a text, got {item!r}")
        found += _resolve_one(item, wanted, storage_options or {})
    return found


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is taken from a folder."""

    parts: Parts
    suffixes: tuple[str, ...]

    def takes(self, name: str) -> bool:
        return name.lower().endswith(self.suffixes)

    def deeper(self) -> _Wanted:
        return _Wanted(("**", "*"), self.suffixes)


def _resolve_one(item: str, wanted: _Wanted, options: Mapping[str, Any]) -> list[FileInfo]:
    try:
        place: _Local | _Remote = _Remote(item, options) if is_remote(item) else _Local(item)
        kind = place.kind()
        # By address, because a pattern may find a file and the folder that it is in.
        found = {file.url: file for file in _look(place, kind, wanted)}
        deeper = kind == "folder" and not found and any(place.below(wanted.deeper()))
    except SmallpondError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingInputError(f"no file or folder {item}: {error}") from error
    except Exception as error:
        remedy = " (storage_options= takes keys and endpoints)" if is_remote(item) else ""
        raise PlanError(f"{item} cannot be read: {error}{remedy}") from error
    if not found:
        raise MissingInputError(_nothing(item, kind, wanted, deeper=deeper))
    return sorted(found.values(), key=lambda file: file.url)


def _look(place: _Local | _Remote, kind: _Kind, wanted: _Wanted) -> Iterator[FileInfo]:
    if kind == "file":
        yield place.itself()
    elif kind == "folder":
        yield from place.below(wanted)
    elif has_wildcard(place.path):
        yield from place.matches(wanted)


def _nothing(item: str, kind: _Kind, wanted: _Wanted, *, deeper: bool) -> str:
    """Why nothing was found."""
    if kind == "folder":
        message = f"the folder {item} holds no file of {', '.join(wanted.suffixes)}"
        return f"{message}, but its folders do (pass recursive=True)" if deeper else message
    if has_wildcard(item):
        return f"the pattern {item} matches no file"
    return f"no file or folder {item}"


# ---- this machine


class _Local:
    """A path or pattern on this machine."""

    def __init__(self, item: str) -> None:
        self.path = str(local_path(item))

    def kind(self) -> _Kind:
        """What there is at the path itself."""
        try:
            mode = os.stat(self.path).st_mode  # noqa: PTH116 (one idea with the rest)
        except (FileNotFoundError, NotADirectoryError):
            return "nothing"
        return "folder" if stat.S_ISDIR(mode) else "file"

    def itself(self) -> FileInfo:
        return _info(self.path, os.stat(self.path))  # noqa: PTH116

    def below(self, wanted: _Wanted, folder: str = "") -> Iterator[FileInfo]:
        for entry in _walk(folder or self.path, wanted.parts):
            if wanted.takes(entry.name) and not entry.is_dir():
                yield from _regular(entry)

    def matches(self, wanted: _Wanted) -> Iterator[FileInfo]:
        root, parts = split(self.path)
        if not os.path.isdir(root or "/"):  # noqa: PTH112
            return
        for entry in _walk(root or "/", parts):
            if entry.is_dir():
                yield from self.below(wanted, entry.path)
            else:
                yield from _regular(entry)


def _walk(root: str, parts: Parts) -> Iterator[os.DirEntry[str]]:
    """The entries below a folder that fit a pattern.

    Looks only where the pattern can lead, and through links after all else, so that what is
    reached through a link and without one keeps its own name.
    """
    folders: list[tuple[str, Places]] = [(root, start(parts))]
    links: list[tuple[str, Places]] = []
    seen = set()
    while folders or links:
        folder, places = (folders or links).pop()
        status = os.stat(folder)  # noqa: PTH116
        key = (status.st_dev, status.st_ino, places)
        if key in seen:
            continue
        seen.add(key)
        with os.scandir(folder) as entries:
            for entry in entries:
                after = step(parts, places, entry.name)
                if len(parts) in after:
                    yield entry
                if after - {len(parts)} and entry.is_dir():
                    (links if entry.is_symlink() else folders).append((entry.path, after))


def _regular(entry: os.DirEntry[str]) -> Iterator[FileInfo]:
    """What an entry names, unless it is a pipe or a socket; a link to nothing is an error."""
    status = entry.stat()
    if stat.S_ISREG(status.st_mode):
        yield _info(entry.path, status)


def _info(path: str, status: os.stat_result) -> FileInfo:
    return FileInfo(path, status.st_size, str(status.st_mtime_ns))


# ---- elsewhere


class _Remote:
    """A path or pattern in a file system of fsspec's."""

    def __init__(self, item: str, options: Mapping[str, Any]) -> None:
        self._item = item
        self._filesystem, self.path = filesystem_of(item, options)
        self._details: Mapping[str, Any] = {}

    def kind(self) -> _Kind:
        """What there is at the path itself."""
        # What a store listed a while ago may have changed.
        self._filesystem.invalidate_cache()
        try:
            self._details = self._filesystem.info(self.path)
        except FileNotFoundError:
            return "nothing"
        return "folder" if self._details["type"] == "directory" else "file"

    def itself(self) -> FileInfo:
        return self._info(self._details)

    def below(self, wanted: _Wanted, folder: str = "") -> Iterator[FileInfo]:
        root = folder or self.path
        if wanted.parts == ("*",):
            listed = self._filesystem.ls(root, detail=True)
        else:
            strict = strictly(self._filesystem)
            listed = self._filesystem.find(root, detail=True, **strict).values()
        for details in listed:
            name = str(details["name"])
            if _is_file(details) and wanted.takes(name) and fits(wanted.parts, _names(name, root)):
                yield self._info(details)

    def matches(self, wanted: _Wanted) -> Iterator[FileInfo]:
        root, parts = split(self.path)
        pattern = "/".join((root, *parts)) if root or self.path.startswith("/") else "/".join(parts)
        found = self._filesystem.glob(pattern, detail=True, **strictly(self._filesystem))
        for name, details in found.items():
            if not fits(parts, _names(name, root)):
                continue
            if details["type"] == "directory":
                yield from self.below(wanted, name)
            elif _is_file(details):
                yield self._info(details)

    def _info(self, details: Mapping[str, Any]) -> FileInfo:
        url = address_of(str(details["name"]), self._item, self.path)
        changed = next((details[name] for name in _STAMPS if details.get(name)), "")
        return FileInfo(url, int(details.get("size") or 0), str(changed))


def _is_file(details: Mapping[str, Any]) -> bool:
    """Stores keep an object for a folder that somebody made; it is no file."""
    return details["type"] != "directory" and not str(details["name"]).endswith("/")


def _names(name: str, root: str) -> list[str]:
    """The parts of a path below a folder."""
    return [part for part in name[len(root.rstrip("/")) :].split("/") if part]
