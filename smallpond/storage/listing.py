"""The files below a folder, of which none is silently left out.

The `walk` of fsspec, and with it `glob` and a `find` with a depth, passes over folders that cannot
be listed, be it that the user may not or that the store is busy. Rows would be missing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from smallpond.storage.patterns import Choice, Places

_LISTED_AT_ONCE = 16


def local_files(root: str, choice: Choice) -> Iterator[tuple[str, os.stat_result]]:
    """Files of this machine, with links followed.

    A folder that is reached in several ways counts once, under its own name or, if only links lead
    there, under that of the first link that is least deep. Pipes and sockets are left out; a link
    to nothing is an error.
    """
    folders: list[tuple[str, Places]] = [(root, choice.start)]
    links: list[tuple[str, Places]] = []
    been = set()
    given = set()
    while folders or links:
        if not folders:
            links.sort(key=lambda link: (link[0].count("/"), link[0]), reverse=True)
        folder, places = (folders or links).pop()
        status = os.stat(folder)  # noqa: PTH116 (paths here are texts)
        identity = (status.st_dev, status.st_ino)
        if (identity, places) in been:
            continue
        been.add((identity, places))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    after = choice.enter(places, entry.name)
                    if after:
                        (links if entry.is_symlink() else folders).append((entry.path, after))
                elif choice.takes(places, entry.name) and (identity, entry.name) not in given:
                    given.add((identity, entry.name))
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        yield entry.path, status


def remote_files(filesystem: Any, root: str, choice: Choice) -> Iterator[Mapping[str, Any]]:
    """What fsspec says of the files that are chosen; of none if the folder is not there.

    A store that has no folders lists all names at once, unless only some levels are needed.
    """
    if _lists_at_once(filesystem) and "**" in choice.parts:
        try:
            found = filesystem.find(root, detail=True)
        except FileNotFoundError:
            return
        for name, details in found.items():
            inner = [part for part in name[len(root.rstrip("/")) :].split("/") if part]
            if _is_file(details) and choice.matches(inner):
                yield details
        return
    level = [(root, choice.start)]
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        spread = pool.map if filesystem.async_impl else map
        while level:
            deeper = []
            listings = spread(lambda at: _listed(filesystem, at[0], root), level)
            for (folder, places), listing in zip(level, listings, strict=True):
                for details in listing:
                    path = str(details["name"]).rstrip("/")
                    name = path.rpartition("/")[2]
                    if path == folder.rstrip("/"):
                        continue  # what stores keep of a folder that somebody made
                    if details["type"] == "directory":
                        deeper.append((path, choice.enter(places, name)))
                    elif _is_file(details) and choice.takes(places, name):
                        yield details
            level = [(path, places) for path, places in deeper if places]


def _listed(filesystem: Any, folder: str, root: str) -> list[Mapping[str, Any]]:
    try:
        return list(filesystem.ls(folder, detail=True))
    except FileNotFoundError:
        if folder == root:
            return []
        raise


def _lists_at_once(filesystem: Any) -> bool:
    """Whether a driver finds all files below a folder in a way of its own."""
    from fsspec.asyn import AsyncFileSystem  # noqa: PLC0415
    from fsspec.spec import AbstractFileSystem  # noqa: PLC0415

    driver = type(filesystem)
    if filesystem.async_impl:
        return driver._find is not AsyncFileSystem._find  # noqa: SLF001
    return driver.find is not AbstractFileSystem.find


def _is_file(details: Mapping[str, Any]) -> bool:
    """Stores keep an object for a folder that somebody made; it is no file."""
    return details["type"] != "directory" and not str(details["name"]).endswith("/")
