"""The run report: one page that needs no network."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

from smallpond.report.recorder import Recorder


def html(recorder: Recorder) -> str:
    """The page, with all that was recorded in it."""
    # In a script element only "<" could end it; as an escape it means the same in JSON.
    data = json.dumps(recorder.to_json(), separators=(",", ":")).replace("<", "\\u003c")
    page = files("smallpond.report").joinpath("timeline.html").read_text("utf-8")
    return page.replace("__DATA__", data)


def write_html(recorder: Recorder, path: Path) -> None:
    """Writes the page; it appears whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(html(recorder), "utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
