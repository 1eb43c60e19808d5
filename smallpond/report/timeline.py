"""The page about what a session ran: one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from smallpond.errors import PlanError
from smallpond.report.recorder import Recorder, Run
from smallpond.report.stages import StageStatistics
from smallpond.report.units import count, duration, size
from smallpond.report.wire import run_document

_FOLDER = Path(__file__).with_name("browser")
_SCRIPTS = ("data", "view", "table", "graph", "draw", "panels", "start")
_MAX_NOTES = 20


def write_html(recorder: Recorder, path: str | os.PathLike[str]) -> None:
    """Writes the page of `page`, whole or not at all.

    Raises:
        PlanError: there is no such folder, or the path is one.
    """
    target = Path(path)
    if target.is_dir():
        raise PlanError(f"report: path must name a file, got the folder {target}")
    if not target.parent.is_dir():
        raise PlanError(f"report: there is no folder {target.parent} (make it first)")
    # Names may hold anything: half a surrogate pair becomes a question mark.
    content = page(recorder).encode("utf-8", "replace")
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def page(recorder: Recorder) -> str:
    """Returns an HTML document about the runs of a session.

    It loads nothing, and its content security policy lets a browser run only the script that is
    in it, so that queries and errors stay text whatever they contain.
    """
    runs = recorder.runs()
    statistics = [run.statistics() for run in runs]
    parts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}}})();\n'
    style = _read("page.css")
    policy = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
    policy += f"script-src '{_digest(script)}'; style-src '{_digest(style)}'"
    document = {"runs": [run_document(*told) for told in zip(runs, statistics, strict=True)]}
    # "<" could end the element that holds the data; inside JSON it can be written otherwise.
    data = json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(_read("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        totals=_totals(runs, [stage for stages in statistics for stage in stages]),
        notes=_notes(runs, recorder.num_forgotten),
        data=data,
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A source of a content security policy: this very text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _totals(runs: Sequence[Run], stages: Sequence[StageStatistics]) -> str:
    """Sums over all runs; those of which there is nothing to tell are left out."""
    spilled = sum(stage.spilled_bytes for stage in stages)
    retries = sum(stage.num_retries for stage in stages)
    speculative = sum(stage.num_speculative for stage in stages)
    reused = sum(stage.num_reused for stage in stages)
    cpu_s = sum(stage.cpu_s for stage in stages)
    figures = {
        "runs": f"{len(runs):,}",
        "in them": duration(sum(run.last_s - run.begin_s for run in runs)),
        "stages": f"{len(stages):,}",
        "tasks run": f"{sum(stage.num_finished for stage in stages):,}",
        "tasks reused": f"{reused:,}" if reused else "",
        "rows handed on": count(sum(stage.rows_out for stage in stages)),
        "bytes handed on": size(sum(stage.bytes_out for stage in stages)),
        "spilled": size(spilled) if spilled else "",
        "processor time": duration(cpu_s) if cpu_s else "",
        "attempts failed": f"{sum(stage.num_failed for stage in stages):,}",
        "retries": f"{retries:,}" if retries else "",
        "second copies": f"{speculative:,}" if speculative else "",
    }
    items = (
        f'<div data-figure="{label}"><dt>{label}</dt><dd>{text}</dd></div>'
        for label, text in figures.items()
        if text
    )
    return f'<dl class="totals">{"".join(items)}</dl>'


def _notes(runs: Sequence[Run], num_forgotten: int) -> str:
    notes = [f"run {run.run_idx} failed: {run.error}" for run in runs if run.error]
    if len(notes) > _MAX_NOTES:
        notes[_MAX_NOTES:] = [f"{len(notes) - _MAX_NOTES} more runs failed"]
    if num_forgotten:
        notes.append(f"{num_forgotten:,} earlier runs are not kept")
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""
