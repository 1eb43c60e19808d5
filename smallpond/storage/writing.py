"""Data sets written as whole folders or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from smallpond.errors import OutputError, PlanError, SmallpondError
from smallpond.interrupts import held_back
from smallpond.storage.filesystems import is_remote, local_path
from smallpond.storage.folder import Folder, can_be_replaced, exists_already
from smallpond.storage.prefix import Prefix

MODES = ("error", "overwrite", "append")
# What can only be read, though drivers may be able to change it file by file, each time for all.
_READ_ONLY = {"hf", "http", "https"}
# The ending that says a file's format, with that of its compression.
_ENDING = re.compile(r"(\.[A-Za-z]\w*)?\.(gz|zst|bz2|lz4)$|\.\w+$")


class DirectoryWriter:
    """Writes the files of one folder; used as a context manager.

    Tasks write anywhere below `staging`; `commit` makes the files visible, in the order given.
    Leaving the context without a commit removes everything. A plan may read the folder that it
    overwrites: what was there goes when all that is new has been written.

    Of several writers to one folder one commits at a time, and with mode "error" only the first.

    A process that is killed leaves its staging folder, which no reader of ours looks into. Where
    the folder itself is renamed into place, that is on local disks, the next writer removes it
    once its lock says that its process has ended. Elsewhere nothing can tell a dead writer from
    a slow one: there ``_unfinished-*`` is to be removed by hand, as is ``_committing``.

    Attributes:
        staging: the folder or prefix for unfinished files.
    """

    def __init__(
        self, url: str, mode: str, *, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """Looks at the folder; writes nothing yet.

        Raises:
            PlanError: the mode is none of `MODES`, the place can only be read, or the folder is
                not to be overwritten.
            OutputExistsError: the folder holds data, and the mode is "error".
            OutputError: nothing can be written there.
        """
        if mode not in MODES:
            raise PlanError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        protocol = url.partition("://")[0]
        if is_remote(url) and protocol in _READ_ONLY:
            raise PlanError(
                f"{url} cannot be written: {protocol}:// is only read (write to a folder, and "
                "upload that with the tools of the place)"
            )
        self._url = url
        self._mode = mode
        self._id = uuid.uuid4().hex
        with _refusals(url):
            self._place = _place(url, mode, storage_options or {})
            self._place.check()
            if mode == "error" and self._place.data():
                raise exists_already(url)
        self.staging = self._place.staging(self._id)

    def __enter__(self) -> Self:
        with _refusals(self._url):
            try:
                self._place.begin(self._id)
            except BaseException:
                self._place.clear(self._id)
                raise
        return self

    def commit(self, files: Sequence[str], names: Sequence[str] | None = None) -> list[str]:
        """Makes files visible; returns their final addresses.

        Args:
            files: below `staging`.
            names: paths in the folder; by default "part-00000" and so on.

        Raises:
            OutputExistsError: another writer was faster, and the mode is "error".
            OutputError: the storage refuses; the folder is as it was, or the message says what
                is left.
        """
        if names is None:
            stem = f"part-{self._id[:8]}-" if self._mode == "append" else "part-"
            names = _final_names(files, self.staging, stem)
        if len(set(names)) != len(files):
            raise PlanError(f"{self._url}: each of {len(files)} files needs a name of its own")
        with _refusals(self._url):
            return self._place.publish(list(zip(files, names, strict=True)), self._mode, self._id)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with held_back():
            self._place.clear(self._id)


def _place(url: str, mode: str, options: Mapping[str, Any]) -> Folder | Prefix:
    if is_remote(url):
        return Prefix(url, options)
    path = local_path(url)
    # Through a link, the folder that it names is replaced, not the link.
    path = path.resolve() if path.is_symlink() else path
    if mode == "overwrite" and path.is_dir() and any(path.iterdir()):
        _guard(path)
    if can_be_replaced(path):
        return Folder(path)
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return Prefix(str(path), {})


def _guard(path: Path) -> None:
    """Nobody means to replace his home by a data set, or the folder that he stands in."""
    # Who has no home is left with "~" itself, a folder that is not there.
    for name, place in (("working", "."), ("home", os.path.expanduser("~"))):  # noqa: PTH111
        if Path(place).resolve().is_relative_to(path.resolve()):
            raise PlanError(f"{path} is or holds your {name} folder, which is not overwritten")


@contextlib.contextmanager
def _refusals(url: str) -> Iterator[None]:
    """What a driver or the system says, with the address and as one of our own errors."""
    try:
        yield
    except SmallpondError:
        raise
    except Exception as error:
        refusal = OutputError(f"{url} cannot be written: {error}")
        refusal.errno = getattr(error, "errno", None)
        raise refusal from error


def _final_names(files: Sequence[str], staging: str, stem: str) -> list[str]:
    """``part-00007.parquet`` and so on, below the folders ``column=value`` that files are in.

    The numbers are wide enough for the names' order to be that of the files.
    """
    width = max(5, len(str(len(files) - 1)))
    root = PurePosixPath(staging)
    names = []
    for i, file in enumerate(files):
        inner = PurePosixPath(file).relative_to(root)
        folders = [part for part in inner.parent.parts if "=" in part]
        ending = _ENDING.search(inner.name)
        names.append("/".join([*folders, f"{stem}{i:0{width}}{ending[0] if ending else ''}"]))
    return names
