"""A prefix in an object store, or a folder that can only be written file by file.

An object store has no rename: finished objects are copied, by the store, from a staging prefix to
their final names, and taken back if that fails. Writing to final names at once would spare the
copy, but show readers a part of a data set. File systems that can rename move the files instead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from smallpond.errors import OutputError, OutputExistsError
from smallpond.storage.filesystems import address_of, filesystem_of, is_remote
from smallpond.storage.folder import exists_already
from smallpond.storage.listing import remote_files
from smallpond.storage.patterns import Choice, Places, Selection

_UNFINISHED = "_unfinished-"
_LOCK = "_committing"
# Another writer's commit is waited for so long.
_PATIENCE_S = 60.0
# So often a lock is made or removed, unless another writer has it.
_TRIES = 3
# There a folder that is not there is the same as an empty one, but a bucket must be there.
_BUCKETS = {"s3", "gs", "abfs"}


class Prefix:
    """A place whose files come one by one."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

        self._url = url.rstrip("/")
        self._filesystem, self._path = filesystem_of(self._url, options)
        protocols = self._filesystem.protocol
        self._has_buckets = not _BUCKETS.isdisjoint({protocols, *protocols})
        # Drivers of file systems that have a rename say so by a move of their own; that of a
        # bucket's driver copies and removes one object after the other.
        moves = type(self._filesystem).mv is not AbstractFileSystem.mv
        self._renames = moves and not self._has_buckets
        self._missing = [] if self._has_buckets else self._missing_folders()

    def _missing_folders(self) -> list[str]:
        path = PurePosixPath(self._path)
        folders = [str(folder) for folder in (path, *path.parents) if folder.name]
        return [folder for folder in folders if not self._filesystem.exists(folder)]

    def check(self) -> None:
        """Finds out early, before tasks run, what would be found out late.

        Raises:
            OutputError: there is no such bucket. Some stores would make one for a misspelt name.
        """
        bucket = self._path.split("/", 1)[0]
        if self._has_buckets and not self._filesystem.exists(bucket):
            raise OutputError(
                f"{self._url} cannot be written: there is no bucket {bucket}, or it may not be"
                " seen with these storage_options"
            )

    def begin(self, name: str) -> None:
        """Nothing: what is written brings its folders with it."""

    def data(self) -> list[str]:
        """What a reader would see."""
        return self._files(Selection(("**",), ("",)))

    def _files(self, choice: Choice) -> list[str]:
        self._filesystem.invalidate_cache()
        found = remote_files(self._filesystem, self._path, choice)
        return [str(details["name"]) for details in found]

    def staging(self, name: str) -> str:
        """The prefix for unfinished files of a writer."""
        return f"{self._url}/{_UNFINISHED}{name}"

    def publish(self, files: Sequence[tuple[str, str]], mode: str, name: str) -> list[str]:
        """Brings staged files to their names in the folder: all, or none."""
        if not self._has_buckets:
            self._filesystem.makedirs(self._path, exist_ok=True)
        with self._one_at_a_time(name):
            old = self._files(_Finished())
            if mode == "error" and self.data():
                raise exists_already(self._url)
            # New names, so that old and new objects are never mistaken for one another.
            suffix = f"-{name[:8]}" if mode == "overwrite" and old else ""
            finals = [f"{self._path}/{_suffixed(final, suffix)}" for _, final in files]
            for taken in set(finals) & set(old):
                raise OutputExistsError(f"{self._address(taken)} exists already")
            sources = [self._filesystem._strip_protocol(file) for file, _ in files]  # noqa: SLF001
            self._bring(sources, finals)
            if mode == "overwrite" and old:
                self._drop(old, finals)
        return [self._address(final) for final in finals]

    def _address(self, name: str) -> str:
        return address_of(name, self._url, self._path) if is_remote(self._url) else name

    def _bring(self, sources: list[str], finals: list[str]) -> None:
        try:
            if self._renames:
                for source, final in zip(sources, finals, strict=True):
                    self._filesystem.makedirs(final.rpartition("/")[0], exist_ok=True)
                    self._filesystem.mv(source, final)
            elif sources:
                # In another thread, and waited for even if the user interrupts: what a driver has
                # begun it finishes, and nothing may arrive after the removal.
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(self._filesystem.copy, sources, finals).result()
        except BaseException:
            self._remove(finals)
            raise

    def _drop(self, old: list[str], finals: list[str]) -> None:
        """Removes what was there; if nothing of it can be removed, what is new goes instead."""
        left = old
        listed = False
        problem: Exception | None = None
        for _ in range(_TRIES):
            problem = self._remove(left)
            if problem is None and not self._filesystem.async_impl:
                return
            try:
                # Drivers that remove many at once may keep to themselves what they could not.
                there = set(self._files(_Finished()))
                listed = True
            except Exception as error:  # noqa: BLE001 (it is raised below)
                problem = error
                continue
            left = [name for name in left if name in there]
            if not left:
                return
        if listed and left == old:
            self._remove(finals)
            raise self._refused(f"cannot be overwritten: {problem or left[0]}", problem)
        message = f"holds all new files and up to {len(left)} old ones, {left[0]} for one"
        raise self._refused(f"{message}, that cannot be removed: {problem}", problem)

    def _refused(self, message: str, problem: Exception | None) -> OutputError:
        refusal = OutputError(f"{self._url} {message}")
        refusal.errno = getattr(problem, "errno", None)
        refusal.__cause__ = problem
        return refusal

    def _remove(self, names: Sequence[str]) -> Exception | None:
        """Removes files and the folders that this empties; returns what went wrong, if anything."""
        problem = None
        # Many at once where the driver can; it would take the others for patterns.
        plain = [n for n in names if self._filesystem.async_impl and not set(n) & set("*?[")]
        single = [n for n in names if n not in set(plain)]
        if plain:
            try:
                self._filesystem.rm(plain)
            except Exception as error:  # noqa: BLE001 (the caller looks at what is left)
                problem = error
        for name in single:
            try:
                self._filesystem.rm_file(name)
            except FileNotFoundError:
                pass
            except Exception as error:  # noqa: BLE001
                problem = error
        if not self._has_buckets:
            inner = {parent for n in names for parent in PurePosixPath(n).parents}
            root = PurePosixPath(self._path)
            self._remove_empty([str(p) for p in inner if p != root and p.is_relative_to(root)])
        return problem

    def _remove_empty(self, folders: Sequence[str]) -> None:
        for folder in sorted(folders, key=len, reverse=True):
            with contextlib.suppress(Exception):  # it is in use
                self._filesystem.rmdir(folder)

    def clear(self, name: str) -> None:
        """Removes what a writer has left unfinished, and folders that came with it for nothing."""
        staging = self._filesystem._strip_protocol(self.staging(name))  # noqa: SLF001
        # A driver's own errors may be anything, and must not hide why there is something to remove.
        with contextlib.suppress(Exception):
            self._filesystem.invalidate_cache()
            if self._has_buckets:
                self._remove(self._filesystem.find(staging))
            elif self._filesystem.exists(staging):
                self._filesystem.rm(staging, recursive=True)
        self._remove_empty(self._missing)

    # ---- one writer at a time

    @contextlib.contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[None]:
        """Keeps other writers from committing to the folder meanwhile."""
        lock = f"{self._path}/{_LOCK}"
        deadline = time.monotonic() + _PATIENCE_S
        while not self._claimed(lock, name):
            if time.monotonic() > deadline:
                raise OutputExistsError(
                    f"{self._url}: another writer is still finishing there (if it has died, remove"
                    f" {self._address(lock)})"
                )
            time.sleep(0.05)
        try:
            yield
        finally:
            for _ in range(_TRIES):
                if self._remove([lock]) is None:
                    break

    def _claimed(self, lock: str, name: str) -> bool:
        """Whether the lock is ours now; a driver that cannot create exclusively goes without."""
        problem: Exception | None = None
        for _ in range(_TRIES):
            try:
                self._create(lock, name)
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):
                return True
            except Exception as error:  # noqa: BLE001 (several drivers have no word of their own for this)
                problem = error
                with contextlib.suppress(FileNotFoundError):
                    # Ours after all, if the store's answer was lost and the driver asked again.
                    return bool(self._filesystem.cat_file(lock) == name.encode())
                # It was there, and is gone; or there is another problem, which will stay.
            else:
                return True
        raise self._refused(f"cannot be written: {problem}", problem)

    def _create(self, lock: str, name: str) -> None:
        if self._renames:
            with self._filesystem.open(lock, "xb") as file:
                file.write(name.encode())
        else:
            self._filesystem.pipe_file(lock, name.encode(), mode="create")


class _Finished:
    """All files but those that writers are at work on; these come and go."""

    parts = ("**",)
    start = Places({0})

    def enter(self, places: Places, name: str) -> Places:
        return Places() if name.startswith(_UNFINISHED) else places

    def takes(self, places: Places, name: str) -> bool:  # noqa: ARG002
        return name != _LOCK

    def matches(self, names: Sequence[str]) -> bool:
        return not names[0].startswith(_UNFINISHED) and names[-1] != _LOCK


def _suffixed(name: str, suffix: str) -> str:
    """``part-00000-1a2b3c4d.csv.gz``."""
    path = PurePosixPath(name)
    stem, dot, ending = path.name.partition(".")
    return str(path.with_name(f"{stem}{suffix}{dot}{ending}"))
