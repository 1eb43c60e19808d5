"""A folder on a local disk, which appears by one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from smallpond.errors import OutputExistsError
from smallpond.storage.filesystems import is_hidden
from smallpond.storage.stale import claim, left_beside, remove_dead


def exists_already(url: str) -> OutputExistsError:
    """What a writer is told who must not touch what is there."""
    return OutputExistsError(
        f"{url} holds data already (pass mode='overwrite' or mode='append', or another path)"
    )


def can_be_replaced(path: Path) -> bool:
    """Whether a folder, if it is there, can give way to another one.

    The root of a mounted disk cannot, nor can one in a folder that the user may not change; and
    the working folder would be one without a name.
    """
    if not path.is_dir():
        return True
    return not (path.is_mount() or path.samefile(".") or not os.access(path.parent, os.W_OK))


class Folder:
    """A folder that is written beside its place, in a hidden one, and then renamed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Those that come with it, and go with it if nothing comes of it.
        self._missing = [p for p in path.parents if not p.exists()]
        self._claim: int | None = None

    def check(self) -> None:
        """Finds out early, before tasks run, what would be found out late.

        What writers have left that were killed on this machine is removed.

        Raises:
            OutputExistsError: a file is in the way.
            OSError: the user may not write there.
        """
        for there in (self._path, *self._path.parents):
            if not there.exists():
                continue
            if not there.is_dir():
                raise OutputExistsError(f"{there} is a file, not a folder (choose another path)")
            if there != self._path:
                if not os.access(there, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
                break
        left = left_beside(self._path)
        if left:
            with _one_at_a_time(self._path.parent):
                for staging in left:
                    remove_dead(self._path, staging)

    def begin(self, name: str) -> None:
        """Makes the folder for unfinished files."""
        self._claim = claim(Path(self.staging(name)))

    def data(self) -> list[Path]:
        """What a reader would see."""
        return [path for path in self._entries() if not is_hidden(path.name)]

    def _entries(self) -> list[Path]:
        return list(self._path.iterdir()) if self._path.is_dir() else []

    def staging(self, name: str) -> str:
        """The folder for unfinished files of a writer."""
        return str(self._path.parent / f".{self._path.name}.{name}")

    def publish(self, files: Sequence[tuple[str, str]], mode: str, name: str) -> list[str]:
        """Moves staged files to their names in the folder: all, or none."""
        ready = Path(self.staging(name)) / "ready"
        ready.mkdir(parents=True)
        for file, final in files:
            target = ready / final
            target.parent.mkdir(parents=True, exist_ok=True)
            Path(file).rename(target)
        with _one_at_a_time(self._path.parent):
            if mode == "error" and self.data():
                raise exists_already(str(self._path))
            if mode == "overwrite" and self._path.is_dir():
                self._replace(ready, name)
            elif self._entries():
                self._add(ready, [final for _, final in files])
            else:
                ready.rename(self._path)  # over an empty folder, too
        return [str(self._path / final) for _, final in files]

    def _add(self, ready: Path, names: Sequence[str]) -> None:
        """Moves files into a folder that is there, and out of it again if one cannot be moved."""
        targets = [self._path / name for name in names]
        for taken in filter(Path.exists, targets):
            raise OutputExistsError(f"{taken} exists already")
        parents = {parent for target in targets for parent in target.parents}
        made = sorted((p for p in parents if not p.exists()), key=lambda p: -len(p.parts))
        moved: list[Path] = []
        try:
            for name, target in zip(names, targets, strict=True):
                target.parent.mkdir(parents=True, exist_ok=True)
                (ready / name).rename(target)
                moved.append(target)
        except BaseException:
            for target in moved:
                target.unlink(missing_ok=True)
            _remove_empty(made)
            raise

    def _replace(self, ready: Path, name: str) -> None:
        """Puts the new folder in the place of the old one, which comes back if that fails."""
        old = self._path.parent / f".{self._path.name}.{name}.old"
        shutil.copymode(self._path, ready)
        self._path.rename(old)
        try:
            ready.rename(self._path)
        except BaseException:
            old.rename(self._path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def clear(self, name: str) -> None:
        """Removes what a writer has left unfinished, and folders that came with it for nothing."""
        shutil.rmtree(self.staging(name), ignore_errors=True)
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None
        _remove_empty(self._missing)


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # it is in use
            folder.rmdir()


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keeps other writers of this machine from committing below a folder meanwhile.

    Those of other machines meet the rename, which never replaces a folder that holds something.
    """
    import fcntl  # noqa: PLC0415 (not on every system)

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no such locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
