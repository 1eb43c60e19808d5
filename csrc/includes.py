"""Which files a C++ or CUDA source is made of, read from its text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.MULTILINE)


def read_with_includes(
    sources: Iterable[Path],
    include_dirs: Sequence[Path],
    read: Callable[[Path], str | None] | None = None,
) -> dict[Path, str]:
    """Returns the text of the sources and of all they include, directly and through headers.

    Conditions are not evaluated, so this may be more than one compilation reads, never less. A
    header that is found neither beside its includer (for quotes) nor in `include_dirs` belongs to
    the compiler or to the system and is left out: the compiler's version stands for it.

    Args:
        sources: The files to start from.
        include_dirs: Where headers are looked for, in this order.
        read: Returns a file's text, None where there is no such file; reads the disk if not given.

    Raises:
        FileNotFoundError: A source is missing.
    """
    read = read or _read_file
    texts: dict[Path, str] = {}
    pending = list(sources)
    for source in pending:
        if (text := read(source)) is None:
            raise FileNotFoundError(f"compile: source must be a file, got {source} (correct it)")
        texts[source] = text
    while pending:
        includer = pending.pop()
        for quote, target in _INCLUDE.findall(texts[includer]):
            folders = [includer.parent, *include_dirs] if quote == '"' else include_dirs
            for folder in folders:
                # Without `.` and `..` one file has one name.
                candidate = Path(os.path.normpath(folder / target))
                if candidate in texts:
                    break
                if (text := read(candidate)) is not None:
                    texts[candidate] = text
                    pending.append(candidate)
                    break
    return texts


def _read_file(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
