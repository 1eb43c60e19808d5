"""What a pattern with wildcards matches: pure functions of names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from smallpond.errors import PlanError
from smallpond.storage.filesystems import is_hidden

_WILDCARD = re.compile(r"[*?\[]")

# Parts of a pattern, and how far into them a path has come: several places, because "**" may
# stand for any number of folders.
Parts = tuple[str, ...]
Places = frozenset[int]


def has_wildcard(path: str) -> bool:
    """Whether a path is a pattern, unless there is a file with just this name."""
    return _WILDCARD.search(path) is not None


def split(path: str) -> tuple[str, Parts]:
    """The folder that a pattern begins with, and the parts of the pattern below it.

    Raises:
        PlanError: ``**`` is a piece of a name.
    """
    names = path.split("/")
    literal = next(i for i, name in enumerate(names) if has_wildcard(name))
    parts = [name for name in names[literal:] if name]
    for part in parts:
        if "**" in part and part != "**":
            raise PlanError(f"{path}: ** must stand alone between slashes, got {part!r}")
    if parts[-1] == "**":
        parts.append("*")
    return "/".join(names[:literal]), tuple(parts)


def start(parts: Parts) -> Places:
    """Where a path stands before its first name."""
    return _closed(parts, {0})


def step(parts: Parts, places: Places, name: str) -> Places:
    """Where one more name of a path leads to; nowhere if it does not match."""
    after = set()
    hidden = is_hidden(name)
    for place in places - {len(parts)}:
        part = parts[place]
        if part == "**":
            if not hidden:
                after.add(place)
        elif fnmatchcase(name, part) and (not hidden or part[0] in "_."):
            after.add(place + 1)
    return _closed(parts, after)


def _closed(parts: Parts, places: set[int]) -> Places:
    """Together with the places behind each "**", which may stand for no folder at all."""
    reached = set(places)
    for place in range(len(parts)):
        if place in reached and parts[place] == "**":
            reached.add(place + 1)
    return frozenset(reached)


def fits(parts: Parts, names: Iterable[str]) -> bool:
    """Whether a whole path matches."""
    places = start(parts)
    for name in names:
        places = step(parts, places, name)
    return len(parts) in places
