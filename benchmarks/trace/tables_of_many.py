"""Several ranks, or two traces, as text: a line for each, side by side."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from benchmarks.trace.analysis import Analysis
from benchmarks.trace.cells import Unit, and_more, cut, titled_grid, unit_for
from benchmarks.trace.compare import Difference
from benchmarks.trace.merge import across, slowest

_NOT_ACROSS = {"payload_us", "copy_us", "copy_alone_us"}  # for a hundred columns


def across_ranks(analyses: Sequence[Analysis]) -> Group:
    """Renders the figures of several ranks: one line each, and smallest, mean and largest below."""
    figures = [figure for figure in across(analyses) if figure.name not in _NOT_ACROSS]
    unit = unit_for(max(one.figures.span_us for one in analyses))
    headings = [
        figure.name.removesuffix("_us").replace("communication", "comm.") for figure in figures
    ]
    grid = titled_grid(f"{len(analyses)} ranks, {unit.name}", ["rank"], [*headings, "speed-up"])
    for number, one in enumerate(analyses):
        cells = [unit(figure.values[number]) for figure in figures]
        grid.add_row(cut(one.trace.title, 24), *cells, f"{one.figures.overlap_speedup:.2f}x")
    grid.add_section()
    speedups = [one.figures.overlap_speedup for one in analyses]
    for name, of in (("min", min), ("mean", statistics.fmean), ("max", max)):
        cells = [unit(of(figure.values)) for figure in figures]
        grid.add_row(name, *cells, f"{of(speedups):.2f}x", style="dim")
    together = f"all together, first begin to last end: {unit(_together_us(analyses))} {unit.name}"
    return Group(
        grid, Text(together), Text(f"the slowest in detail: {slowest(analyses).trace.title}\n")
    )


def side_by_side(rows: Sequence[Difference], top: int) -> Group:
    """Renders differences: all figures, and `top` lines of each other section."""
    unit = unit_for(max((time for row in rows for time in (row.a_us, row.b_us) if time), default=0))
    parts: list[RenderableType] = []
    titles = {
        "figure": f"figures, mean of the ranks, {unit.name}",
        "phase": f"phases: when their work ran, sum over the ranks, {unit.name}",
        "operation": f"operations: communication, sum over the ranks, {unit.name}",
    }
    for section, title in titles.items():
        chosen = [row for row in rows if row.section == section and _in_both(row)]
        if not chosen:
            continue
        headings = ["A", "B", "B - A", "B / A", "A % of span", "B % of span"]
        grid = titled_grid(title, ["name"], headings)
        shown = chosen if section == "figure" else chosen[:top]
        for row in shown:
            grid.add_row(*_difference_cells(row, unit))
        parts += [grid, *and_more(len(chosen) - len(shown))]
    for letter, only in (
        ("A", [row for row in rows if row.b_us is None]),
        ("B", [row for row in rows if row.a_us is None]),
    ):
        if only:
            times = [f"{row.name} {unit(abs(row.difference_us))}" for row in only[:top]]
            parts.append(Text(f"\nin {letter} only, {unit.name}: {', '.join(times)}"))
            parts += and_more(len(only) - top)
    return Group(*parts)


def _together_us(analyses: Sequence[Analysis]) -> float:
    works = [one.trace.work for one in analyses if len(one.trace.work)]
    if not works:
        return 0.0
    return float(max(work.end_us.max() for work in works) - min(work.begin_us[0] for work in works))


def _in_both(row: Difference) -> bool:
    return row.a_us is not None and row.b_us is not None


def _difference_cells(row: Difference, unit: Unit) -> list[RenderableType]:
    times = (unit(row.a_us or 0.0), unit(row.b_us or 0.0))
    sign = "+" if row.difference_us > 0 else ""
    ratio = f"{row.ratio:.2f}x" if row.ratio is not None else "-"
    shares = (f"{row.a_share:.1%}", f"{row.b_share:.1%}")
    return [cut(row.name, 32), *times, sign + unit(row.difference_us), ratio, *shares]
