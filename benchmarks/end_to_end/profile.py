"""What each rank did when: recorded as spans, drawn as text, written as a Chrome trace."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dualpipe.actions import Action, Kind, Step, phase_name

# The letter of each kind of work in the drawing, and its colour.
STYLES = {
    "F": ("forward", "blue"),
    "B": ("backward", "yellow"),
    "I": ("input gradient", "magenta"),
    "W": ("weight gradient", "green"),
    "S": ("gradient sync", "cyan"),
    "O": ("optimizer", "red"),
    "·": ("waiting", "dim"),
}
_LETTERS = {
    Kind.FORWARD: "F",
    Kind.BACKWARD: "B",
    Kind.INPUT_GRAD: "I",
    Kind.WEIGHT_GRAD: "W",
}


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of work on one rank.

    Attributes:
        name: what was done.
        begin_us: from an arbitrary origin that all processes of the machine share.
        duration_us: how long it took.
        letter: its kind, one of STYLES; empty for what is a part of another span.
    """

    name: str
    begin_us: float
    duration_us: float
    letter: str = ""

    @property
    def end_us(self) -> float:
        """When it was over."""
        return self.begin_us + self.duration_us


class _Recorder:
    spans: list[Span] | None = None


def start_recording() -> None:
    """Begins to keep the spans of this process."""
    _Recorder.spans = []


def stop_recording() -> list[Span]:
    """Returns the spans since ``start_recording``, and keeps no more."""
    spans, _Recorder.spans = _Recorder.spans, None
    return spans or []


@contextmanager
def span(name: str, letter: str = "") -> Iterator[None]:
    """Keeps how long the body took, if this process is recording."""
    begin = time.perf_counter()
    yield
    _keep(name, letter, time.perf_counter() - begin)


class StepSpans(list[tuple[Step, float]]):
    """What DualPipe records of a step: (what, milliseconds), added when it ends; also as spans."""

    def append(self, item: tuple[Step, float]) -> None:
        """Adds it, also as a span of this process; a pair that may overlap counts as backward."""
        super().append(item)
        step, milliseconds = item
        letter = _LETTERS[step.kind] if isinstance(step, Action) else "B"
        _keep(phase_name(step), letter, milliseconds / 1e3)


def _keep(name: str, letter: str, seconds: float) -> None:
    if _Recorder.spans is not None:
        begin_us = (time.perf_counter() - seconds) * 1e6
        _Recorder.spans.append(Span(name, begin_us, seconds * 1e6, letter))


def draw(ranks: Sequence[Sequence[Span]], width: int) -> list[str]:
    """One string of ``width`` letters per rank: what it did at each moment, "·" for nothing."""
    begin_us = min(span.begin_us for spans in ranks for span in spans)
    end_us = max(span.end_us for spans in ranks for span in spans)
    moments = [begin_us + (cell + 0.5) * (end_us - begin_us) / width for cell in range(width)]
    return ["".join(_letter_at(spans, moment) for moment in moments) for spans in ranks]


def _letter_at(spans: Sequence[Span], moment_us: float) -> str:
    whole = (span for span in spans if span.letter)
    return next((s.letter for s in whole if s.begin_us <= moment_us < s.end_us), "·")


def chrome_trace(ranks: Sequence[Sequence[Span]], names: Sequence[str]) -> dict[str, Any]:
    """The document that chrome://tracing and ui.perfetto.dev open: one track per rank."""
    origin_us = min(span.begin_us for spans in ranks for span in spans)
    events: list[dict[str, Any]] = []
    for number, (name, spans) in enumerate(zip(names, ranks, strict=True)):
        track = {"pid": 0, "tid": number}
        events.append({"ph": "M", "name": "thread_name", "args": {"name": name}, **track})
        for span in spans:
            times = {"ts": span.begin_us - origin_us, "dur": span.duration_us}
            events.append({"ph": "X", "name": span.name, **times, **track})
    return {"traceEvents": events, "displayTimeUnit": "ms"}
