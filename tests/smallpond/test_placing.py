"""What tasks get of what workers have: never something for which they would wait for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpond.errors import PlanError
from smallpond.executors import Worker
from smallpond.placing import Free, all_of_one, clamped
from smallpond.plan import Files, Format
from smallpond.task import Resources, Task, ToParts

WORKERS = st.lists(
    st.tuples(st.integers(1, 8), st.integers(1, 8), st.sampled_from([0.0, 1.0, 2.0])),
    min_size=1,
    max_size=4,
).map(lambda sizes: [Worker(f"w{i}", c, m, g) for i, (c, m, g) in enumerate(sizes)])
WANTS = st.builds(
    Resources,
    cpus=st.integers(1, 10),
    memory_bytes=st.none() | st.integers(1, 10),
    gpus=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)


def task(wants: Resources) -> Task:
    """A task that asks for this."""
    return Task(Files((), Format.PARQUET), ToParts(), 0, "sort", resources=wants)


def has(worker: Worker, wants: Resources) -> bool:
    """Whether an idle worker has what is wanted."""
    return (
        worker.cpus >= wants.cpus
        and worker.memory_bytes >= (wants.memory_bytes or 0)
        and worker.gpus >= wants.gpus
    )


@given(WORKERS, WANTS)
def test_what_a_task_is_to_get_some_worker_has(workers: list[Worker], wants: Resources) -> None:
    warnings: list[str] = []
    if all(worker.gpus < wants.gpus for worker in workers):
        with pytest.raises(PlanError, match=r"sort: gpu_limit=.* is more than any worker has"):
            clamped(task(wants), workers, warnings.append)
        return
    gets = clamped(task(wants), workers, warnings.append)
    worker = Free(workers, []).take(gets)
    assert worker is not None
    assert has(worker, gets)
    if any(has(worker, wants) for worker in workers):
        assert (gets, warnings) == (wants, [])
        return
    assert len(warnings) == 1
    assert gets.gpus == wants.gpus
    assert gets.cpus <= wants.cpus
    assert (gets.memory_bytes or 0) <= (wants.memory_bytes or 0)
    # No worker with the GPUs could give more memory, or as much of it and more processors.
    most = max(
        (min(w.memory_bytes, wants.memory_bytes or 0), min(w.cpus, wants.cpus))
        for w in workers
        if w.gpus >= wants.gpus
    )
    assert (gets.memory_bytes or 0, gets.cpus) == most


def test_memory_counts_before_processors() -> None:
    workers = [Worker("fast", 8, 10, 0), Worker("big", 4, 100, 0)]
    said: list[str] = []
    gets = clamped(task(Resources(8, 100)), workers, said.append)
    assert gets == Resources(4, 100)
    assert said == [
        "sort asks for 8 CPUs and 100 bytes, more than any worker has; it gets 4 CPUs and 100 bytes"
    ]


@given(WORKERS, WANTS)
def test_all_of_a_worker_is_what_one_worker_has(workers: list[Worker], wants: Resources) -> None:
    able = [worker for worker in workers if worker.gpus >= wants.gpus]
    if not able:
        with pytest.raises(PlanError, match="gpu_limit"):
            all_of_one(task(wants), workers)
        return
    gets = all_of_one(task(wants), workers)
    assert gets.memory_bytes == max(worker.memory_bytes for worker in able)
    assert (gets.cpus, gets.memory_bytes) in {(w.cpus, w.memory_bytes) for w in able}
    assert Free(workers, []).take(gets) is not None


def test_what_running_tasks_use_is_not_free() -> None:
    workers = [Worker("a", 6, 100, 1), Worker("b", 2, 50, 0)]
    free = Free(workers, [("a", Resources(3, 80)), ("gone", Resources(9, 900))])
    assert free.take(Resources(1, 30)) == workers[1], "a has 20 bytes left"
    assert free.take(Resources(1, None, 1.0)) == workers[0]
    assert free.take(Resources(1, None, 1.0)) is None, "its GPU is in use"
    assert free.take(Resources(3, None)) is None
    assert not free.none_left
    assert free.take(Resources(2, 20)) == workers[0]
    assert free.take(Resources(1, 20)) == workers[1]
    assert free.none_left
    assert free.take(Resources(1, None)) is None


def test_the_worker_with_the_most_processors_left_is_taken() -> None:
    workers = [Worker("a", 4, 100, 0), Worker("b", 3, 100, 0)]
    free = Free(workers, [])
    taken = [worker.name for worker in (free.take(Resources(1)) for _ in range(5)) if worker]
    assert taken == ["a", "a", "b", "a", "b"]
