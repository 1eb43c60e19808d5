"""What a run leaves behind: the table on the terminal, the JSON of the same rows, the picture."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from benchmarks.case import Case
from benchmarks.harness import Row, geomeans, run_case, shapes_for
from benchmarks.roofline import Peaks
from benchmarks.whole_file import whole_file

_STATUS_STYLES = {"wrong": "bold red", "failed": "bold red"}


def console(*, stderr: bool = False) -> Console:
    """Returns a console that leaves tables whole in files and pipes, which have no width."""
    plain = Console(stderr=stderr, highlight=False)
    return plain if plain.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def run_and_show(
    cases: Sequence[Case[Any]],
    rows: list[Row],
    screen: Console,
    shape_set: str,
    device: torch.device,
    peaks: Peaks,
    *,
    only_peer: str | None = None,
    deadline: float = math.inf,
) -> None:
    """Runs cases, appends to `rows` as they come, and prints each case's table when it ends.

    When it is interrupted, the table of what is finished is still printed.
    """
    total = sum(len(shapes_for(case, shape_set, device)) for case in cases)
    bar = Progress(console=screen, transient=True, disable=not screen.is_terminal)
    with bar:
        task = bar.add_task("", total=total)
        for case in cases:
            bar.update(task, description=case.name)
            first = len(rows)
            try:
                for row in run_case(
                    case, shape_set, device, peaks, only_peer=only_peer, deadline=deadline
                ):
                    rows.append(row)
                    bar.advance(task)
            finally:
                screen.print(
                    table(
                        case.name,
                        rows[first:],
                        len(case.shapes[shape_set]) - len(shapes_for(case, shape_set, device)),
                    )
                )


def table(case: str, rows: Sequence[Row], num_left_out: int = 0) -> Group:
    """Renders one case: a line per timed shape, the geomean, and below them what was not timed."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.ratios))
    grid = Table(title=f"[bold]{case}[/]", title_justify="left", header_style="dim", box=None)
    grid.add_column("shape", no_wrap=True)
    for heading in ("p20 us", "p50 us", "p80 us", "TFLOP/s", "GB/s", "% roofline"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for peer in peers:
        grid.add_column(f"x {peer}", justify="right", no_wrap=True)
    timed = [row for row in rows if row.status == "ok"]
    for row in timed:
        grid.add_row(*_cells(row, peers))
    if len(timed) > 1 and peers:
        means = geomeans(timed)
        grid.add_section()
        grid.add_row("[dim]geomean[/]", *[""] * 6, *(_ratio(means.get(peer)) for peer in peers))
    remarks = _remarks(rows)
    if num_left_out:
        remarks.append(Text(f"  {num_left_out} shapes are too large for a CPU", style="dim"))
    return Group(*([grid] if timed else [Text(case, style="bold")]), *remarks, Text())


def document(
    rows: Sequence[Row], environment: Mapping[str, object], peaks: Peaks, seed: int, **extra: object
) -> dict[str, object]:
    """Returns the JSON document of a run; its rows are the table's rows."""
    cases = dict.fromkeys(row.case for row in rows)
    means = {case: geomeans([row for row in rows if row.case == case]) for case in cases}
    return {
        "environment": dict(environment),
        "peaks": dataclasses.asdict(peaks),
        "seed": seed,
        **extra,
        "geomeans": {case: mean for case, mean in means.items() if mean},
        "rows": [_finite(dataclasses.asdict(row)) for row in rows],
    }


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes a JSON file whole or not at all: a reader never sees half of it."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    with whole_file(path) as file:
        file.write(text.encode())


def _cells(row: Row, peers: Sequence[str]) -> list[str]:
    times = (row.p20_us, row.p50_us, row.p80_us)
    share = "" if row.roofline is None else f"{row.roofline:.0%}"
    return [
        row.shape,
        *("" if us is None else _significant(us) for us in times),
        _significant(row.tflops) if row.tflops else "-",
        _significant(row.gbytes_per_s) if row.gbytes_per_s else "-",
        share,
        *(_ratio(row.ratios.get(peer)) for peer in peers),
    ]


def _remarks(rows: Sequence[Row]) -> list[Text]:
    remarks = [
        Text(f"  {row.shape}: {row.status}: {row.reason}", style=_STATUS_STYLES.get(row.status, ""))
        for row in rows
        if row.status != "ok"
    ]
    notes: dict[str, list[str]] = {}
    for row in rows:
        for note in (*row.notes, *([row.method] if "events" in row.method else [])):
            notes.setdefault(note, []).append(row.shape)
    for note, shapes in notes.items():
        where = shapes[0] if len(shapes) == 1 else f"{len(shapes)} shapes"
        remarks.append(Text(f"  {where}: {note}", style="dim"))
    return remarks


def _significant(value: float) -> str:
    """Three digits, never in exponential form."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{min(digits, 4)}f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return "-"
    style = "green" if value >= 1 else "yellow"
    return f"[{style}]{value:.2f}[/]"


def _finite(value: Any) -> Any:
    """JSON has no infinity: the error of a result full of NaN becomes the string "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
