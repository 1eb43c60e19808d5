"""Rows to work on, what a session says of its tasks, and waiting for what is to happen."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pyarrow as pa

import smallpond
from smallpond.events import Event, State, TaskEvent

_NUMBERS = [None, float("nan"), -0.0, 0.0, 1.0, 2.0, 2.5, float("inf"), 1e300]


def drawn_table(seed: int) -> pa.Table:
    """Few values, each often: keys that meet, NULL and NaN among them."""
    numbers = random.Random(seed)
    count = 400
    return pa.table(
        {
            "n": list(range(count)),
            "k": pa.array([numbers.choice([None, *range(5)]) for _ in range(count)], pa.int64()),
            "v": pa.array([numbers.choice(_NUMBERS) for _ in range(count)], pa.float64()),
            "s": pa.array(
                [numbers.choice([None, "", "a", "é", "text"]) for _ in range(count)], pa.string()
            ),
        }
    )


class Told:
    """What a session says of its tasks."""

    def __init__(self, session: smallpond.Session) -> None:
        self.events: list[TaskEvent] = []
        session.on_event(self)

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEvent):
            self.events.append(event)

    def count(self, state: State) -> int:
        return sum(event.state is state for event in self.events)

    def workers(self) -> set[str]:
        return {event.worker for event in self.events if event.state is State.FINISHED}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
