"""Which worker a task gets: what it asks for, against what workers have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from smallpond.errors import PlanError
from smallpond.executors import Worker
from smallpond.task import Resources, Task


def clamped(task: Task, workers: Sequence[Worker], warn: Callable[[str], None]) -> Resources:
    """What a task asks for, or what the largest worker has; then there is a warning.

    Raises:
        PlanError: no worker has the GPUs.
    """
    wants, memory = task.resources, task.resources.memory_bytes or 0
    able = _with_gpus(task, workers)
    if any(w.cpus >= wants.cpus and w.memory_bytes >= memory for w in able):
        return wants
    # With too few processors it takes longer; with too little memory it may fail.
    largest = max(able, key=lambda w: (min(w.memory_bytes, memory), w.cpus, w.memory_bytes))
    gets = Resources(
        min(wants.cpus, largest.cpus), min(memory, largest.memory_bytes) or None, wants.gpus
    )
    warn(f"{task.name} asks for {_said(wants)}, more than any worker has; it gets {_said(gets)}")
    return gets


def _said(resources: Resources) -> str:
    cpus = "1 CPU" if resources.cpus == 1 else f"{resources.cpus} CPUs"
    return f"{cpus} and {resources.memory_bytes} bytes" if resources.memory_bytes else cpus


def all_of_one(task: Task, workers: Sequence[Worker]) -> Resources:
    """All that the worker with the most memory has."""
    largest = max(_with_gpus(task, workers), key=lambda worker: worker.memory_bytes)
    return Resources(largest.cpus, largest.memory_bytes, task.resources.gpus)


def _with_gpus(task: Task, workers: Sequence[Worker]) -> list[Worker]:
    wanted = task.resources.gpus
    able = [worker for worker in workers if worker.gpus >= wanted]
    if not able:
        most = max(worker.gpus for worker in workers)
        raise PlanError(
            f"{task.name}: gpu_limit={wanted:g} is more than any worker has ({most:g}); "
            "start workers with GPUs, or ask for fewer"
        )
    return able


class Free:
    """What the workers have left.

    Args:
        workers: all there are.
        used: by tasks that run, with the names of their workers.
    """

    def __init__(self, workers: Sequence[Worker], used: Iterable[tuple[str, Resources]]) -> None:
        self._left = {
            worker.name: [worker.cpus, worker.memory_bytes, worker.gpus] for worker in workers
        }
        self._workers = {worker.name: worker for worker in workers}
        for name, resources in used:
            if name in self._left:
                self._use(name, resources)

    @property
    def none_left(self) -> bool:
        """Whether no worker has a processor left."""
        return all(cpus < 1 for cpus, _, _ in self._left.values())

    def take(self, wants: Resources) -> Worker | None:
        """The worker with the most processors left that has what is wanted; it is used then."""
        memory = wants.memory_bytes or 0
        fitting = [
            name
            for name, (cpus, bytes_left, gpus) in self._left.items()
            if cpus >= wants.cpus and bytes_left >= memory and gpus >= wants.gpus
        ]
        if not fitting:
            return None
        name = max(fitting, key=lambda name: self._left[name][0])
        self._use(name, wants)
        return self._workers[name]

    def _use(self, name: str, wants: Resources) -> None:
        left = self._left[name]
        left[0] -= wants.cpus
        left[1] -= wants.memory_bytes or 0
        left[2] -= wants.gpus
