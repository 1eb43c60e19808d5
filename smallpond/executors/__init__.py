"""Where tasks run. One interface, so that the scheduler knows no difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smallpond.task import Attempt, Result


@dataclass(frozen=True, slots=True)
class Worker:
    """What one worker offers.

    Attributes:
        name: for people.
    """

    name: str
    cpus: int
    memory_bytes: int
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        error: None if it finished.
        lost: whether the worker died under it.
        worker: where it ran.
    """

    attempt_id: str
    result: Result | None = None
    error: BaseException | None = None
    lost: bool = False
    worker: str = ""


class Executor(Protocol):
    """Runs attempts, each in the background, and reports how they ended."""

    shared_memory: bool  # whether tasks may hand tables to the driver in memory

    def workers(self) -> list[Worker]:
        """The workers there are now."""
        ...

    def submit(self, attempt: Attempt) -> None:
        """Starts an attempt; returns at once."""
        ...

    def cancel(self, attempt_id: str) -> None:
        """Stops an attempt; its outcome may still come, and is then ignored."""
        ...

    def quiet(self, timeout_s: float) -> None:
        """Waits until nothing runs any more, but not longer than so."""
        ...

    def wait(self, timeout_s: float) -> list[Outcome]:
        """Outcomes since the last call; waits for one, but not longer than so."""
        ...

    def progress(self) -> dict[str, float]:
        """How far running attempts are, 0 to 1, where it is known."""
        ...

    def warm(self) -> None:
        """Gets ready for Python functions, in the background."""
        ...

    def close(self) -> None:
        """Stops everything."""
        ...
