"""Which files below a folder are meant: pure functions of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from smallpond.errors import PlanError
from smallpond.storage.filesystems import is_hidden

_WILDCARD = re.compile(r"[*?\[]")

# How far into the parts of a pattern a folder has come: several places, because "**" may stand for
# any number of folders.
Places = frozenset[int]


class Choice(Protocol):
    """Some of the files below a folder, chosen while folders are gone through, or all at once."""

    @property
    def parts(self) -> tuple[str, ...]:
        """With "**" if folders of any depth are gone through."""

    @property
    def start(self) -> Places:
        """Where the folder itself stands."""

    def enter(self, places: Places, name: str) -> Places:
        """Where a folder in a folder stands; nowhere if nothing below it is meant."""

    def takes(self, places: Places, name: str) -> bool:
        """Whether a file in a folder is meant."""

    def matches(self, names: Sequence[str]) -> bool:
        """Whether a file is meant, by the parts of its path."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is taken from below a folder.

    A folder that the whole pattern matches gives its files of the suffixes; a file that the whole
    pattern matches is taken whatever its suffix. Wildcards never stand for the beginning of a
    hidden name.

    Attributes:
        parts: the parts of a pattern. ``()`` is the folder itself, and ``("**",)`` the folder and
            all below it.
        suffixes: of the files to take from a folder.
    """

    parts: tuple[str, ...]
    suffixes: tuple[str, ...]

    @property
    def start(self) -> Places:
        return self._closed({0})

    def enter(self, places: Places, name: str) -> Places:
        return self._closed(self._step(places, name))

    def takes(self, places: Places, name: str) -> bool:
        end = len(self.parts)
        if end in self._step(places, name):
            return True
        return end in places and not is_hidden(name) and name.lower().endswith(self.suffixes)

    def matches(self, names: Sequence[str]) -> bool:
        places = self.start
        for name in names[:-1]:
            places = self.enter(places, name)
        return bool(names) and self.takes(places, names[-1])

    def _step(self, places: Places, name: str) -> set[int]:
        after = set()
        hidden = is_hidden(name)
        for place in places - {len(self.parts)}:
            part = self.parts[place]
            if part == "**":
                if not hidden:
                    after.add(place)
            elif fnmatchcase(name, part) and (not hidden or part[0] in "_."):
                after.add(place + 1)
        return after

    def _closed(self, places: set[int]) -> Places:
        """Together with the places behind each "**", which may stand for no folder at all."""
        reached = set(places)
        for place, part in enumerate(self.parts):
            if place in reached and part == "**":
                reached.add(place + 1)
        return frozenset(reached)


def has_wildcard(path: str) -> bool:
    """Whether a path is a pattern, unless there is a file with just this name."""
    return _WILDCARD.search(path) is not None


def split(pattern: str) -> tuple[str, tuple[str, ...]]:
    """The folder that a pattern begins with, and the parts of the pattern below it.

    Raises:
        PlanError: ``**`` is a piece of a name.
    """
    names = pattern.split("/")
    literal = next(i for i, name in enumerate(names) if has_wildcard(name))
    parts = [name for name in names[literal:] if name]
    for part in parts:
        if "**" in part and part != "**":
            raise PlanError(f"{pattern}: ** must stand alone between slashes, got {part!r}")
    if parts[-1] == "**":
        parts.append("*")
    return "/".join(names[:literal]), tuple(parts)
