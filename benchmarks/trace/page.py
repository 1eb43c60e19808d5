"""The page of `trace html`: figures as text and a timeline in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from itertools import accumulate
from pathlib import Path
from string import Template

from benchmarks.trace.analysis import Analysis, Figures
from benchmarks.trace.gaps import Gap
from benchmarks.trace.model import NONE
from benchmarks.trace.wire import document, origin_us
from benchmarks.whole_file import whole_file

_FOLDER = Path(__file__).with_name("browser")
_SCRIPTS = ("data", "rows", "view", "tracks", "draw", "panels", "interact", "start")
_TITLE = "What overlapped with what"
_MOST_GAPS = 100


def save_page(path: Path, analyses: Sequence[Analysis], title: str = _TITLE) -> None:
    """Writes the page of `page`, whole or not at all."""
    with whole_file(path) as file:
        # Names come from a trace as they are: half a surrogate pair becomes a question mark.
        file.write(page(analyses, title).encode("utf-8", "replace"))


def page(analyses: Sequence[Analysis], title: str = _TITLE) -> str:
    """Returns an HTML document that shows the ranks above one another on one time axis.

    It loads nothing, and its content security policy lets a browser run only the script that is
    in it, so that names from a trace stay text whatever they contain.

    Args:
        analyses: one per rank, in the order in which they are shown; their traces must share a
            clock to be comparable, as merged ones do.
        title: heading of the page.

    Raises:
        ValueError: without a rank.
    """
    if not analyses:
        raise ValueError("page: analyses must hold at least one rank, got none (analyse a trace)")
    parts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    style = _read("page.css")
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    policy += f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    return Template(_read("page.html")).substitute(
        policy=policy,
        title=escape(title),
        style=style,
        script=script,
        header=_figures(analyses) + _notes(analyses),
        gaps=_gaps(analyses),
        # "<" could end the element that holds the data; inside JSON it can be written otherwise.
        data=json.dumps(document(analyses), separators=(",", ":")).replace("<", "\\u003c"),
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A source of a content security policy: this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def time_text(time_us: float) -> str:
    """Returns a time with four digits and a unit, as 1.234 ms."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("us", 1.0)):
        if abs(time_us) >= size:
            return f"{time_us / size:.4g} {unit}"
    return f"{time_us * 1e3:.4g} ns" if time_us else "0"


def _shares(figures: Figures) -> list[tuple[str, str, float]]:
    """(class, label, us) of the parts that make up the span."""
    return [
        ("alone", "compute alone", figures.compute_us - figures.hidden_us),
        ("hidden", "hidden", figures.hidden_us),
        ("exposed", "exposed", figures.exposed_us),
        ("copy", "copy alone", figures.copy_alone_us),
        ("idle", "idle", figures.idle_us),
    ]


def _figures(analyses: Sequence[Analysis]) -> str:
    columns = {
        "span": "",
        "compute": "alone",
        "communication": "",
        "of it waiting": "",
        "hidden": "hidden",
        "exposed": "exposed",
        "copy alone": "copy",
        "idle": "idle",
        "overlap speed-up": "",
    }
    if not any(analysis.figures.copy_alone_us for analysis in analyses):
        del columns["copy alone"]
    heads = "".join(f"<th>{_swatch(style)}{label}</th>" for label, style in columns.items())
    rows = "".join(_figure_row(analysis, list(columns)) for analysis in analyses)
    return (
        f'<table class="figures"><thead><tr><th class="left">rank</th><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _swatch(style: str) -> str:
    return f'<i class="swatch {style}"></i>' if style else ""


def _figure_row(analysis: Analysis, columns: Sequence[str]) -> str:
    figures = analysis.figures
    times = {
        "compute": figures.compute_us,
        "communication": figures.communication_us,
        "of it waiting": figures.waiting_us,
        "hidden": figures.hidden_us,
        "exposed": figures.exposed_us,
        "copy alone": figures.copy_alone_us,
        "idle": figures.idle_us,
    }
    cells = {"span": time_text(figures.span_us), "overlap speed-up": _speedup(figures)}
    for label, time_us in times.items():
        share = time_us / figures.span_us if figures.span_us else 0.0
        cells[label] = f"{time_text(time_us)} <small>{share:.1%}</small>"
    title = escape(analysis.trace.title)
    values = "".join(f'<td data-figure="{label}">{cells[label]}</td>' for label in columns)
    return f'<tr><th scope="row">{title}</th><td class="bar">{_bar(figures)}</td>{values}</tr>'


def _speedup(figures: Figures) -> str:
    return f"{figures.overlap_speedup:.3f}×"


def _bar(figures: Figures) -> str:
    """The span as one stacked bar; a thousand units wide."""
    parts = _shares(figures)
    scale = 1000 / figures.span_us if figures.span_us else 0.0
    lefts = [0.0, *accumulate(time_us for _, _, time_us in parts)]
    said = ", ".join(f"{label} {time_us * scale / 10:.1f} %" for _, label, time_us in parts)
    drawn = "".join(
        f'<rect class="{style}" x="{left * scale:.2f}" width="{time_us * scale:.2f}" height="10"/>'
        for (style, _, time_us), left in zip(parts, lefts, strict=False)
    )
    return (
        f'<svg role="img" aria-label="{said}" viewBox="0 0 1000 10" preserveAspectRatio="none">'
        f"<title>{said}</title>{drawn}</svg>"
    )


def _notes(analyses: Sequence[Analysis]) -> str:
    """A note that all ranks share is shown once."""
    ranks: dict[str, list[str]] = {}
    for analysis in analyses:
        for note in analysis.notes:
            ranks.setdefault(note, []).append(analysis.trace.title)
    lines = [
        note if len(titles) == len(analyses) else f"{', '.join(titles)}: {note}"
        for note, titles in ranks.items()
    ]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _gaps(analyses: Sequence[Analysis]) -> str:
    """The longest gaps of all ranks, each a button that shows it."""
    gaps = [(rank, gap) for rank, analysis in enumerate(analyses) for gap in analysis.gaps]
    gaps = sorted(gaps, key=lambda pair: -pair[1].duration_us)[:_MOST_GAPS]
    if not gaps:
        return '<p class="quiet">No gap: compute ran all the time, or never.</p>'
    zero_us = origin_us(analyses)
    rows = "".join(_gap_row(rank, analyses[rank], gap, zero_us) for rank, gap in gaps)
    labels = ("gap", "exposed of it", "at", "rank", "communicating", "who waited", "in phase")
    heads = "".join(f'<th class="{_side(label)}">{label}</th>' for label in labels)
    return (
        "<table><caption>Longest times without compute</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _side(label: str) -> str:
    return "" if label in {"gap", "exposed of it", "at"} else "left"


def _gap_row(rank: int, analysis: Analysis, gap: Gap, zero_us: float) -> str:
    trace = analysis.trace
    begin_us, end_us = gap.begin_us, gap.end_us
    place = [rank, *(round((time - zero_us) * 1e3) for time in (begin_us, end_us))]
    phase = NONE if gap.waiter == NONE else int(analysis.phase[gap.waiter])
    names = (
        "" if gap.communicator == NONE else trace.names[trace.work.name[gap.communicator]],
        "" if gap.waiter == NONE else trace.names[trace.work.name[gap.waiter]],
        "" if phase == NONE else trace.names[trace.phases.name[phase]],
    )
    cells = f'<td class="left">{escape(trace.title)}</td>' + "".join(
        f'<td class="left" title="{escape(name)}">{escape(name)}</td>' for name in names
    )
    return (
        f'<tr><td><button type="button" data-gap="{place}">{time_text(gap.duration_us)}</button>'
        f"</td><td>{time_text(gap.exposed_us)}</td><td>{time_text(begin_us - zero_us)}</td>"
        f"{cells}</tr>"
    )
