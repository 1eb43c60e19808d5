"""A simulated schedule as a Chrome trace, for chrome://tracing, Perfetto and trace analysers.

The format is the JSON object form of the Trace Event Format: one process per rank, complete
events (`ph` X) for the steps, named like the ranges that the runtime leaves in torch.profiler
traces, and a counter (`ph` C) of the activations that the rank holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dualpipe.actions import Overlap, actions_of, phase_name
from dualpipe.simulate import Span, Timeline

Event = dict[str, Any]


def to_chrome_trace(timeline: Timeline, *, unit_us: float = 1000.0) -> str:
    """The JSON text of a trace.

    Args:
        timeline: from `simulate`.
        unit_us: microseconds that one unit of its times stands for; by default a millisecond.

    Raises:
        ValueError: if `unit_us` is not positive.
    """
    if not unit_us > 0:
        raise ValueError(f"to_chrome_trace: unit_us must be positive, got {unit_us}")
    events = [
        event
        for rank in range(timeline.schedule.num_ranks)
        for event in _rank_events(timeline, rank, unit_us)
    ]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}) + "\n"


def _rank_events(timeline: Timeline, rank: int, unit_us: float) -> Iterator[Event]:
    where = {"pid": rank, "tid": 0}
    name, order = {"name": f"rank {rank}"}, {"sort_index": rank}
    yield {"ph": "M", "name": "process_name", **where, "args": name}
    yield {"ph": "M", "name": "process_sort_index", **where, "args": order}
    for span in timeline.spans[rank]:
        yield {"ph": "X", **_named(span), **where} | {
            "ts": span.start * unit_us,
            "dur": (span.end - span.start) * unit_us,
        }
    for time, held in timeline.memory(rank):
        counter = {"ph": "C", "name": "stage activations", **where}
        yield counter | {"ts": time * unit_us, "args": {"held": held}}


def _named(span: Span) -> Event:
    """Name, category and details of a step, by which a viewer searches and colours."""
    actions = actions_of(span.step)
    category = "overlap" if isinstance(span.step, Overlap) else actions[0].kind.name.lower()
    return {
        "name": phase_name(span.step),
        "cat": category,
        "args": {
            "stages": [action.stage for action in actions],
            "microbatches": [action.microbatch for action in actions],
        },
    }
