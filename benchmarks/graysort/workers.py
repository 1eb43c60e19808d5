"""Runs tasks with smallpond: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import smallpond
from benchmarks.graysort.tasks import GraySortError, Item, RunAll, TaskFunction
from smallpond.errors import SmallpondError
from smallpond.events import Event, State, TaskEvent


@contextmanager
def smallpond_workers(
    num_workers: int, data_root: Path, ray_address: str | None = None
) -> Iterator[RunAll]:
    """Yields a function that runs tasks in a session of its own, which ends with the context.

    Args:
        num_workers: processes on this machine; a Ray cluster has as many as it has processors.
        data_root: where the session keeps what its tasks return.
        ray_address: of a cluster, whose nodes all see ``data_root``.
    """
    with _translated():
        session = smallpond.init(
            data_root=str(data_root),
            cpus=num_workers,
            ray_address=ray_address,
            progress=False,
            # On one machine a second copy only takes time from the first.
            speculative_exec=ray_address is not None,
        )
    listening: list[Callable[[], None]] = []

    def listen(event: Event) -> None:
        if isinstance(event, TaskEvent) and event.state is State.FINISHED:
            listening[-1]()

    def run_all(
        function: TaskFunction, items: list[Item], advance: Callable[[], None]
    ) -> list[Item]:
        if not items:
            return []
        listening.append(advance)
        with _translated():
            frame = session.from_items(items).repartition(len(items), by_rows=True)
            return frame.map(function).take_all()

    with session:
        session.on_event(listen)
        yield run_all


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SmallpondError as error:
        raise GraySortError(str(error)) from error
