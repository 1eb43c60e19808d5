"""What the tables of a report are made of: times in one unit, shares, names that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Unit:
    """Writes times in one unit, that of a table, which its title names."""

    name: str
    us: float
    digits: int

    def __call__(self, time_us: float) -> str:
        return f"{time_us / self.us:.{self.digits}f}" if time_us else "0"


def unit_for(span_us: float) -> Unit:
    """Returns the unit in which a time as long as this has at least two digits."""
    units = (Unit("s", 1e6, 2), Unit("ms", 1e3, 2))
    return next((unit for unit in units if span_us >= 10 * unit.us), Unit("us", 1.0, 1))


def share(part: float, whole: float) -> str:
    """Returns a percentage, "-" of nothing."""
    return f"{part / whole:.1%}" if whole else "-"


def cut(name: str, width: int) -> Text:
    """Returns at most so many columns of a name, as it is: no markup."""
    text = Text(name)
    text.truncate(width, overflow="ellipsis")
    return text


def titled_grid(title: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Returns an empty table: columns of names to the left, of numbers to the right."""
    grid = Table(
        title=Text(f"\n{title}", style="bold"), title_justify="left", header_style="dim", box=None
    )
    for heading in names:
        grid.add_column(heading, no_wrap=True, overflow="ellipsis")
    for heading in numbers:
        grid.add_column(heading, justify="right", no_wrap=True)
    return grid


def and_more(count: int) -> list[Text]:
    """Returns the line that says how many rows were left out, if any were."""
    return [Text(f" ... and {count} more (--top)", style="dim")] if count > 0 else []
