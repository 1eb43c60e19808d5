"""Names of columns as SQL compares them: capitals make no difference, beyond ASCII they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def folded(name: str) -> str:
    """What two spellings of one column have in common."""
    return name.encode(errors="surrogatepass").lower().decode(errors="surrogatepass")


def column_of(name: str, columns: Sequence[str]) -> str | None:
    """The column that a name stands for, in its own spelling; None if there is none."""
    spellings = {folded(column): column for column in reversed(columns)}
    return name if name in columns else spellings.get(folded(name))


def twice(names: Iterable[str]) -> str | None:
    """The first name that has been there before; None if all differ."""
    seen: set[str] = set()
    for name in names:
        if folded(name) in seen:
            return name
        seen.add(folded(name))
    return None
