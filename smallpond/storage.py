"""Files wherever fsspec reaches: found to be read, and written as whole folders or not at all.

A folder on a local disk appears by one rename. An object store has no rename: its objects are
copied from a staging prefix to their final names when all of them are there, and taken back if that
fails. Names that begin with ``_`` or ``.`` are nobody's data.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from smallpond.errors import MissingInputError, OutputExistsError, PlanError

MODES = ("error", "overwrite", "append")
_MAGIC = re.compile(r"[*?\[]")
_registering = threading.Lock()


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


# ---- file systems


def is_remote(url: str) -> bool:
    """Whether an address names a file system other than this machine's."""
    return "://" in url and not url.startswith("file://")


def local_path(path: str) -> Path:
    """A local path made absolute, with ``~`` and ``file://`` resolved."""
    return Path(path.removeprefix("file://")).expanduser().absolute()


def filesystem_of(url: str, storage_options: Mapping[str, Any]) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        PlanError: fsspec does not know the protocol, or lacks its driver.
    """
    if not is_remote(url):
        return _filesystem("file", ()), str(local_path(url))
    protocol = url.partition("://")[0]
    filesystem = _filesystem(protocol, tuple(sorted(storage_options.items(), key=lambda i: i[0])))
    return filesystem, str(filesystem._strip_protocol(url))  # noqa: SLF001 (fsspec's own way)


def _filesystem(protocol: str, options: tuple[tuple[str, Any], ...]) -> Any:
    """One object for equal options, which fsspec sees to."""
    import fsspec  # noqa: PLC0415

    try:
        return fsspec.filesystem(protocol, **dict(options))
    except ImportError as error:
        raise PlanError(f"{protocol}:// needs another package: {error}") from error
    except ValueError as error:
        raise PlanError(f"{protocol}:// is no storage that fsspec knows ({error})") from error


def configure(url: str, storage_options: Mapping[str, Any]) -> None:
    """Has this process reach an address with these options, whoever opens it."""
    if is_remote(url) and storage_options:
        import fsspec.config  # noqa: PLC0415

        fsspec.config.conf.setdefault(url.partition("://")[0], {}).update(storage_options)


def remove_folder(url: str, storage_options: Mapping[str, Any]) -> None:
    """Removes a folder and all below it, if it is there."""
    filesystem, path = filesystem_of(url, storage_options)
    with contextlib.suppress(OSError):
        filesystem.invalidate_cache()
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)


def register_with_duckdb(con: Any, urls: Iterable[str], storage_options: Mapping[str, Any]) -> None:
    """Lets a DuckDB instance read and write these addresses through fsspec."""
    for protocol in {url.partition("://")[0] for url in urls if is_remote(url)}:
        filesystem = _filesystem(protocol, tuple(sorted(storage_options.items())))
        with _registering:
            if not con.filesystem_is_registered(protocol):
                con.register_filesystem(filesystem)


# ---- finding


def resolve(
    paths: str | Sequence[str],
    *,
    recursive: bool = False,
    suffixes: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
) -> list[FileInfo]:
    """The files that paths and patterns name, sorted within each.

    Args:
        paths: files, folders, and patterns with ``*``, ``**``, ``?`` and ``[...]``.
        recursive: look into the folders of folders.
        suffixes: of the files to take from a folder; a file or pattern takes any.
        storage_options: of the file systems behind addresses.

    Raises:
        MissingInputError: one of them names nothing.
    """
    items = [paths] if isinstance(paths, str) else list(paths)
    if not items:
        raise PlanError("at least one path expected, got none")
    found: list[FileInfo] = []
    for item in items:
        if not isinstance(item, str) or not item:
            raise PlanError(f"a path must be a text, got {item!r}")
        found += _resolve_one(item, recursive, tuple(suffixes), storage_options or {})
    return found


def _resolve_one(
    item: str, recursive: bool, suffixes: tuple[str, ...], options: Mapping[str, Any]
) -> list[FileInfo]:
    filesystem, path = filesystem_of(item, options)
    try:
        # What a store listed a while ago may have changed.
        filesystem.invalidate_cache()
        details = _details(filesystem, path)
        if details is not None:
            files = _files_of(filesystem, details, recursive, suffixes)
        else:
            matches = filesystem.glob(path, detail=True) if _MAGIC.search(path) else {}
            files = [
                info
                for _, match in sorted(matches.items())
                for info in _files_of(filesystem, match, recursive, suffixes)
            ]
        problem = "" if files else _nothing(item, filesystem, details, recursive, suffixes)
    except PermissionError as error:
        raise PlanError(f"{item} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise MissingInputError(f"no file or folder {item}: {error}") from error
    if problem:
        raise MissingInputError(problem)
    return [_info(item, details) for details in files]


def _details(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        details: dict[str, Any] = filesystem.info(path)
    except FileNotFoundError:
        return None
    return details


def _files_of(
    filesystem: Any, details: Mapping[str, Any], recursive: bool, suffixes: tuple[str, ...]
) -> list[Mapping[str, Any]]:
    """The file itself, or the files in the folder, in order of their names."""
    if details["type"] != "directory":
        return [details]
    path = str(details["name"]).rstrip("/")
    depth = None if recursive else 1
    below = filesystem.find(path, maxdepth=depth, detail=True)
    kept = []
    for name, info in sorted(below.items()):
        inner = PurePosixPath(name).relative_to(PurePosixPath(path)).parts
        hidden = any(part.startswith(("_", ".")) for part in inner)
        if not hidden and name.lower().endswith(suffixes or ("",)):
            kept.append(info)
    return kept


def _nothing(
    item: str,
    filesystem: Any,
    details: Mapping[str, Any] | None,
    recursive: bool,
    suffixes: tuple[str, ...],
) -> str:
    """Why nothing was found."""
    if details is None:
        kind = "the pattern {} matches no file" if _MAGIC.search(item) else "no file or folder {}"
        return kind.format(item)
    message = f"the folder {item} holds no file of {', '.join(suffixes)}"
    if not recursive and _files_of(filesystem, details, True, suffixes):
        return f"{message}, but its folders do (pass recursive=True)"
    return message


def _info(item: str, details: Mapping[str, Any]) -> FileInfo:
    url = str(details["name"])
    if is_remote(item):
        url = f"{item.partition('://')[0]}://{url.removeprefix('/')}"
    stamps = ("ETag", "etag", "mtime", "LastModified", "created")
    changed = next((details[name] for name in stamps if details.get(name)), "")
    return FileInfo(url, int(details.get("size") or 0), str(changed))


# ---- writing


class DirectoryWriter:
    """Writes the files of one folder; used as a context manager.

    Tasks write anywhere below `staging`; `commit` makes the files visible, in the order given.
    Leaving the context without a commit removes everything.

    Attributes:
        staging: the folder or prefix for unfinished files.
    """

    def __init__(
        self, url: str, mode: str, *, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Looks at the folder; writes nothing yet.

        Raises:
            PlanError: the mode is none of `MODES`.
            OutputExistsError: the folder holds data, and the mode is "error".
        """
        if mode not in MODES:
            raise PlanError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        self._mode = mode
        self._id = uuid.uuid4().hex
        options = storage_options or {}
        self._store = _Objects(url, options) if is_remote(url) else _Folder(url)
        if mode == "error" and self._store.data():
            raise _exists(url)
        self._url = url
        self.staging = self._store.staging(self._id)

    def __enter__(self) -> Self:
        return self

    def commit(self, files: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
        """Makes files visible; returns their final addresses.

        Args:
            files: below `staging`.
            names: paths in the folder; by default "part-00000" and so on.

        Raises:
            OutputExistsError: another writer was faster, and the mode is "error".
            OSError: the storage refuses; nothing is left behind.
        """
        stem = f"part-{self._id[:8]}-" if self._mode == "append" else "part-"
        if names is None:
            names = [_final_name(file, self.staging, stem, i) for i, file in enumerate(files)]
        return self._store.publish(list(zip(files, names, strict=True)), self._mode, self._id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._store.clear(self._id)


def _exists(url: str) -> OutputExistsError:
    return OutputExistsError(
        f"{url} holds data already (pass mode='overwrite' or mode='append', or another path)"
    )


def _final_name(file: str, staging: str, stem: str, index: int) -> str:
    """``part-00007.parquet``, below the folders ``column=value`` that the file is in."""
    inner = PurePosixPath(file).relative_to(PurePosixPath(staging))
    folders = [part for part in inner.parent.parts if "=" in part]
    return "/".join([*folders, f"{stem}{index:05d}{inner.suffix}"])


class _Folder:
    """A folder on a local disk."""

    def __init__(self, url: str) -> None:
        path = local_path(url)
        # Through a link, the folder that it names is replaced, not the link.
        self._path = path.resolve() if path.is_symlink() else path
        # Those that come with it, and go with it if nothing comes of it.
        self._missing = [p for p in self._path.parents if not p.exists()]
        if self._path.exists() and not self._path.is_dir():
            raise OutputExistsError(f"{path} is a file, not a folder (choose another path)")

    def data(self) -> list[Path]:
        """What a reader would see."""
        if not self._path.is_dir():
            return []
        return [p for p in self._path.iterdir() if not p.name.startswith(("_", "."))]

    def staging(self, name: str) -> str:
        return str(self._path.parent / f".{self._path.name}.{name}")

    def publish(self, files: Sequence[tuple[str, str]], mode: str, name: str) -> list[str]:
        staged = Path(self.staging(name))
        ready = staged / "ready"
        ready.mkdir(parents=True)
        for file, final in files:
            target = ready / final
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(file).rename(target)
        if mode == "append" and self._path.is_dir():
            self._add(ready, [final for _, final in files])
        elif mode == "overwrite" and self._path.is_dir():
            self._replace(ready, name)
        else:
            try:
                ready.rename(self._path)  # over an empty folder, too
            except OSError as error:
                if self.data():
                    raise _exists(str(self._path)) from error
                raise
        return [str(self._path / final) for _, final in files]

    def _add(self, ready: Path, names: Sequence[str]) -> None:
        moved: list[Path] = []
        try:
            for name in names:
                target = self._path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (ready / name).rename(target)
                moved.append(target)
        except BaseException:
            for target in moved:
                target.unlink(missing_ok=True)
            raise

    def _replace(self, ready: Path, name: str) -> None:
        old = self._path.parent / f".{self._path.name}.{name}.old"
        self._path.rename(old)
        try:
            ready.rename(self._path)
        except BaseException:
            old.rename(self._path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def clear(self, name: str) -> None:
        shutil.rmtree(self.staging(name), ignore_errors=True)
        for folder in self._missing:
            with contextlib.suppress(OSError):  # it is in use
                folder.rmdir()


class _Objects:
    """A prefix in an object store, or a folder of any other remote file system."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._options = options
        self._filesystem, self._path = filesystem_of(url.rstrip("/"), options)
        self._protocol = url.partition("://")[0]

    def data(self) -> list[str]:
        """What a reader would see."""
        self._filesystem.invalidate_cache()
        try:
            found = self._filesystem.find(self._path)
        except FileNotFoundError:
            return []
        root = PurePosixPath(self._path)
        inner = ((name, PurePosixPath(name).relative_to(root).parts) for name in found)
        return [
            name for name, parts in inner if not any(part.startswith(("_", ".")) for part in parts)
        ]

    def staging(self, name: str) -> str:
        return f"{self._protocol}://{self._path.lstrip('/')}/_unfinished-{name}"

    def publish(self, files: Sequence[tuple[str, str]], mode: str, name: str) -> list[str]:
        old = self.data()
        if mode == "error" and old:
            raise _exists(f"{self._protocol}://{self._path}")
        # New names, so that old and new objects are never mistaken for one another.
        suffix = f"-{name[:8]}" if mode == "overwrite" and old else ""
        finals = [f"{self._path}/{_suffixed(final, suffix)}" for _, final in files]
        done: list[str] = []
        try:
            for (file, _), final in zip(files, finals, strict=True):
                source = self._filesystem._strip_protocol(file)  # noqa: SLF001
                done.append(final)
                self._filesystem.copy(source, final)
        except BaseException:
            self._remove(done)
            raise
        if mode == "overwrite":
            self._remove(old)
        return [f"{self._protocol}://{final.lstrip('/')}" for final in finals]

    def clear(self, name: str) -> None:
        remove_folder(self.staging(name), self._options)

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            with contextlib.suppress(OSError):
                self._filesystem.rm_file(name)


def _suffixed(name: str, suffix: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(f"{path.stem}{suffix}{path.suffix}"))
