"""Analyses as text for a terminal of a hundred columns: a bar, and tables below it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.trace.analysis import Analysis, Figures
from benchmarks.trace.breakdown import NameRow, PhaseRow
from benchmarks.trace.cells import Unit, and_more, cut, share, titled_grid, unit_for
from benchmarks.trace.gaps import Gap
from benchmarks.trace.model import NONE
from benchmarks.trace.rules import function_name

_BAR_CELLS = 96


def report(analysis: Analysis, top: int) -> Group:
    """Renders one rank: the bar of shares, the figures, and `top` lines of every table."""
    unit = unit_for(analysis.figures.span_us)
    parts: list[RenderableType] = [_headline(analysis, unit), *_bar(analysis.figures)]
    parts += [Text(f"! {note}", style="yellow") for note in analysis.notes]
    parts.append(_figures(analysis, unit))
    parts.append(_streams(analysis, unit))
    parts += _phases(analysis.phases, top)
    parts += _operations(analysis, unit)
    parts += _gaps(analysis, top)
    parts += _unclassified(analysis.unclassified, top)
    return Group(*parts)


def _headline(analysis: Analysis, unit: Unit) -> Text:
    trace = analysis.trace
    sms = f", {trace.num_sms} SMs" if trace.num_sms else ""
    pieces = f"{len(trace.work)} pieces of work"
    figures = analysis.figures
    return Text.assemble(
        (trace.title, "bold"), f": {unit(figures.span_us)} {unit.name}, {pieces}{sms}, ",
        (f"overlap speed-up {figures.overlap_speedup:.2f}x", "bold"),
    )  # fmt: skip


def _bar(figures: Figures) -> list[Text]:
    """Draws how the span divides, in cells that add up to its width."""
    parts = (
        ("compute alone", "█", "blue", figures.compute_us - figures.hidden_us),
        ("hidden", "▓", "green", figures.hidden_us),
        ("exposed", "▒", "red", figures.exposed_us),
        ("copy alone", "=", "yellow", figures.copy_alone_us),
        ("idle", "·", "dim", figures.idle_us),
    )
    bar, legend, reached = Text(), Text(), 0.0
    for name, letter, style, part in parts:
        begin = round(reached * _BAR_CELLS)
        reached += part / figures.span_us if figures.span_us else 0.0
        bar.append(letter * (round(reached * _BAR_CELLS) - begin), style)
        if part > 0:
            legend.append(f"{letter} {name} {share(part, figures.span_us)}   ", style)
    return [bar, legend]


def _figures(analysis: Analysis, unit: Unit) -> Table:
    figures = analysis.figures
    hidden_part = f"{figures.hidden_share:.1%} of communication" if figures.communication_us else ""
    split = f"payload {unit(figures.payload_us)}, waiting {unit(figures.waiting_us)}"
    rows = (
        ("compute", figures.compute_us, _sms(analysis.compute_sms)),
        ("communication", figures.communication_us, split + _sms(analysis.communication_sms, ", ")),
        ("hidden", figures.hidden_us, hidden_part),
        ("exposed", figures.exposed_us, ""),
        ("copies", figures.copy_us, f"alone {unit(figures.copy_alone_us)}"),
        ("idle", figures.idle_us, ""),
    )
    grid = titled_grid(f"figures, {unit.name}", ["figure"], ["time", "of span"])
    grid.add_column("")
    for name, time, remark in rows:
        grid.add_row(name, unit(time), share(time, figures.span_us), remark)
    return grid


def _sms(num_sms: int, before: str = "") -> str:
    return f"{before}{num_sms} SMs" if num_sms else ""


def _streams(analysis: Analysis, unit: Unit) -> Table:
    kinds = ["compute", "payload", "waiting", "copy"]
    grid = titled_grid(
        f"streams, {unit.name}", ["stream"], ["work", "busy", "of span", *kinds, "SMs"]
    )
    for row in analysis.streams:
        times = (row.compute_us, row.payload_us, row.waiting_us, row.copy_us)
        grid.add_row(
            cut(row.label, 24), str(row.count), unit(row.busy_us),
            share(row.busy_us, analysis.figures.span_us), *map(unit, times),
            str(row.num_sms or "-"),
        )  # fmt: skip
    return grid


def _phases(rows: Sequence[PhaseRow], top: int) -> list[RenderableType]:
    if all(not row.name for row in rows):
        return []
    shown = sorted(rows, key=lambda row: -row.busy_us)[:top]
    unit = unit_for(shown[0].busy_us)
    kinds = ["compute", "comm.", "waiting", "hidden", "exposed"]
    grid = titled_grid(
        f"the phases with most work, in the order in which it ran, {unit.name}",
        ["phase"],
        ["count", "CPU", *kinds],
    )
    for row in rows:
        if row in shown:
            times = (row.cpu_us, row.compute_us, row.communication_us, row.waiting_us)
            grid.add_row(
                cut(row.name or "(none)", 28), str(row.count or "-"), *map(unit, times),
                unit(row.hidden_us), unit(row.exposed_us),
            )  # fmt: skip
    return [grid, *and_more(len(rows) - len(shown))]


def _operations(analysis: Analysis, unit: Unit) -> list[RenderableType]:
    if not analysis.operation_rows:
        return []
    headings = ["kernels", "comm.", "waiting", "hidden", "exposed", "hidden part"]
    grid = titled_grid(f"communication, by operation, {unit.name}", ["operation"], headings)
    for row in analysis.operation_rows:
        times = (row.communication_us, row.waiting_us, row.hidden_us, row.exposed_us)
        part = share(row.hidden_us, row.communication_us)
        grid.add_row(cut(row.operation, 24), str(row.count), *map(unit, times), part)
    if not analysis.window_rows:
        return [grid]
    unit = unit_for(max(window.p90_us for window in analysis.window_rows))
    headings = ["count", "open", "hidden", "receive", "exposed", "p50", "p90"]
    title = f"windows from send to receive, in which data travels without a kernel, {unit.name}"
    windows = titled_grid(title, ["operation"], headings)
    for window in analysis.window_rows:
        times = (window.window_us, window.hidden_us, window.receive_us, window.exposed_us)
        lengths = (window.p50_us, window.p90_us)
        windows.add_row(
            cut(window.operation, 24), str(window.count), *map(unit, times), *map(unit, lengths)
        )
    return [grid, windows]


def _gaps(analysis: Analysis, top: int) -> list[RenderableType]:
    if not analysis.gaps:
        return []
    unit = unit_for(analysis.gaps[0].duration_us)
    grid = titled_grid(
        f"longest gaps without compute, {unit.name}", [], ["at", "length", "exposed", "idle"]
    )
    for heading in ("communicating", "waiting for its end"):
        grid.add_column(heading)
    begin = float(analysis.trace.work.begin_us[0])
    for gap in analysis.gaps[:top]:
        times = (gap.begin_us - begin, gap.duration_us, gap.exposed_us, _idle(gap))
        who = (_who(analysis, gap.communicator), _who(analysis, gap.waiter))
        grid.add_row(*map(unit, times), *who)
    return [grid]


def _idle(gap: Gap) -> float:
    return max(gap.duration_us - gap.exposed_us, 0.0)


def _who(analysis: Analysis, index: int) -> Text:
    if index == NONE:
        return Text("(nothing)", style="dim")
    trace, phase = analysis.trace, analysis.phase[index]
    name = trace.names[trace.work.name[index]]
    around = trace.names[trace.phases.name[phase]] if phase != NONE else name
    if "::" in name or "<" in name:  # of a function, its last name alone
        name = function_name(name).rpartition("::")[2].removeprefix("void ")
    return cut(name if around == name else f"{around}: {name}", 30)


def _unclassified(rows: Sequence[NameRow], top: int) -> list[RenderableType]:
    if not rows:
        return []
    unit = unit_for(rows[0].total_us)
    title = f"names that no rule knows, counted as compute (see --rules), {unit.name}"
    grid = titled_grid(title, ["name"], ["count", "summed time"])
    for row in rows[:top]:
        grid.add_row(cut(row.name, 70), str(row.count), unit(row.total_us))
    return [grid, *and_more(len(rows) - top)]
