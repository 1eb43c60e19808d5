"""The JSON form of analyses and differences: the numbers of the tables, unrounded and uncut."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.trace.analysis import Analysis
from benchmarks.trace.compare import Difference
from benchmarks.trace.gaps import Gap
from benchmarks.trace.merge import across
from benchmarks.trace.model import NONE
from benchmarks.whole_file import whole_file


def analyses_document(analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Returns one object per rank, and every figure across the ranks."""
    return {
        "ranks": [_rank(one) for one in analyses],
        "across_ranks": {
            figure.name: {
                "min": min(figure.values),
                "mean": figure.mean,
                "max": max(figure.values),
            }
            for figure in across(analyses)
        },
    }


def differences_document(rows: Sequence[Difference]) -> dict[str, Any]:
    """Returns the rows of a comparison."""
    return {
        "differences": [
            dataclasses.asdict(row) | {"difference_us": row.difference_us, "ratio": row.ratio}
            for row in rows
        ]
    }


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a document whole or not at all."""
    with whole_file(path) as file:
        file.write((json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def _rank(one: Analysis) -> dict[str, Any]:
    figures = one.figures
    return {
        "title": one.trace.title,
        "num_sms": one.trace.num_sms,
        "figures": dataclasses.asdict(figures)
        | {"overlap_speedup": figures.overlap_speedup, "hidden_share": figures.hidden_share},
        "compute_sms": one.compute_sms,
        "communication_sms": one.communication_sms,
        "streams": [dataclasses.asdict(row) for row in one.streams],
        "phases": [dataclasses.asdict(row) for row in one.phases],
        "operations": [dataclasses.asdict(row) for row in one.operation_rows],
        "windows": [dataclasses.asdict(row) for row in one.window_rows],
        "gaps": [_gap(one, gap) for gap in one.gaps],
        "unclassified": [dataclasses.asdict(row) for row in one.unclassified],
        "notes": list(one.notes),
    }


def _gap(one: Analysis, gap: Gap) -> dict[str, Any]:
    return {
        "begin_us": gap.begin_us,
        "end_us": gap.end_us,
        "exposed_us": gap.exposed_us,
        "communicator": _work(one, gap.communicator),
        "waiter": _work(one, gap.waiter),
    }


def _work(one: Analysis, index: int) -> dict[str, Any] | None:
    if index == NONE:
        return None
    trace, phase = one.trace, one.phase[index]
    return {
        "name": trace.names[trace.work.name[index]],
        "stream": trace.streams[trace.work.stream[index]],
        "phase": trace.names[trace.phases.name[phase]] if phase != NONE else None,
    }
