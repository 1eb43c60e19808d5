"""What the page of a report carries: runs as JSON in columns, laid out and ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from smallpond.events import State
from smallpond.report.layout import lanes, layered, most_at_once, natural_order
from smallpond.report.recorder import STATES, Run
from smallpond.report.stages import StageStatistics

MAX_DRAWN = 200_000
_KEY_LENGTH = 12  # of a task's key, which is a digest
_MAX_NAME_LENGTH = 4000


def run_document(
    run: Run, stages: Sequence[StageStatistics], max_drawn: int = MAX_DRAWN
) -> dict[str, Any]:
    """One run. Times are whole microseconds since it began.

    Args:
        run: what was recorded.
        stages: its statistics.
        max_drawn: how many attempts are carried at most; those that went well and were short are
            left out first.
    """
    a, ends_s = run.attempts, run.ends_s()
    rows = _drawn(run, ends_s, max_drawn)
    begin = [_microseconds(a.begin_s[row] - run.begin_s) for row in rows]
    end = [_microseconds(ends_s[row] - run.begin_s) for row in rows]
    names = list(run.workers)
    order = sorted(range(len(names)), key=lambda number: natural_order(names[number]))
    spans = [(a.worker[row], b, e) for row, b, e in zip(rows, begin, end, strict=True)]
    lane, widths = lanes(spans)
    first_lane, num_lanes = {}, 0
    for worker in order:
        first_lane[worker] = num_lanes
        num_lanes += widths.get(worker, 0)
    stage_number = {stage.stage_idx: number for number, stage in enumerate(stages)}
    columns: dict[str, list[Any]] = {
        "stage": [stage_number[a.stage_idx[row]] for row in rows],
        "lane": [first_lane[w] + its for (w, _, _), its in zip(spans, lane, strict=True)],
        "begin": begin,
        "end": end,
        "cpu": [_microseconds(a.cpu_s[row]) for row in rows],
    }
    for name in ("task", "partition", "worker", "number", "passes", "speculative", "state"):
        columns[name] = [getattr(a, name)[row] for row in rows]
    for name in ("rows_in", "rows_out", "bytes_in", "bytes_out", "spilled_bytes"):
        columns[name] = [getattr(a, name)[row] for row in rows]
    place = {row: number for number, row in enumerate(rows)}
    return {
        "run": run.run_idx,
        "begin": run.begin_s,
        "wall": _microseconds(run.last_s - run.begin_s),
        "over": run.is_over,
        "error": run.error,
        "most_at_once": most_at_once(spans),
        "num_left_out": sum(stage.num_attempts for stage in stages) - len(rows),
        "stages": [_stage_document(stage) for stage in stages],
        "graph": _graph(stages),
        "states": [state.value for state in STATES],
        "workers": names,
        "lanes": [[worker, widths[worker]] for worker in order if worker in widths],
        "partitions": list(run.partitions),
        "tasks": [key[:_KEY_LENGTH] for key in run.tasks],
        "attempts": columns,
        "errors": [[place[row], text] for row, text in run.errors.items() if row in place],
    }


def _drawn(run: Run, ends_s: Sequence[float], max_drawn: int) -> list[int]:
    """Rows of the attempts that are carried, in the order in which they began."""
    a = run.attempts
    known = {stage.stage_idx for stage in run.stages}
    reused, finished = STATES.index(State.REUSED), STATES.index(State.FINISHED)
    rows = [r for r in range(len(a)) if a.state[r] != reused and a.stage_idx[r] in known]
    if len(rows) > max_drawn:

        def telling(row: int) -> tuple[bool, float]:
            plain = a.state[row] == finished and a.number[row] == 0
            return plain, a.begin_s[row] - ends_s[row]

        rows = sorted(rows, key=telling)[:max_drawn]
    return sorted(rows, key=lambda row: (a.begin_s[row], row))


def _stage_document(stage: StageStatistics) -> dict[str, Any]:
    document = asdict(stage)
    document["name"] = stage.name[:_MAX_NAME_LENGTH]
    for name in ("cpu_s", "wall_s", "busy_s", "p50_s", "p95_s", "longest_s"):
        document[name.removesuffix("_s")] = _microseconds(document.pop(name))
    return document


def _graph(stages: Sequence[StageStatistics]) -> dict[str, Any]:
    """Columns, rows and the way of each edge; nodes are numbered as the stages are."""
    number = {stage.stage_idx: n for n, stage in enumerate(stages)}
    inputs = [
        [number[i] for i in stage.input_stages if number.get(i, len(stages)) < n]
        for n, stage in enumerate(stages)
    ]
    drawing = layered(inputs)
    return {
        "width": drawing.width,
        "height": _rounded(drawing.height),
        "places": [[column, _rounded(row)] for column, row in drawing.places],
        "edges": [
            [source, node, [[column, _rounded(row)] for column, row in way]]
            for (source, node), way in drawing.edges.items()
        ],
    }


def _rounded(row: float) -> float:
    return round(row, 3)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)
