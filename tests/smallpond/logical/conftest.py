"""A small data set in several files, a way to run nodes, and what DuckDB makes of the same rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smallpond.execution.manager import JobManager
from smallpond.execution.plan import ExecutionPlan
from smallpond.executors.embedded import Embedded
from smallpond.job import Job
from smallpond.logical.base_node import Node
from smallpond.logical.node import Context, LogicalPlan

Run = Callable[..., ExecutionPlan]


@pytest.fixture(scope="session")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four Parquet files of unequal length, in several row groups each."""
    folder = tmp_path_factory.mktemp("urls")
    numbers = random.Random(7)
    row = 0
    for i, count in enumerate((100, 250, 1, 149)):
        ids = list(range(row, row + count))
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "host": [f"host{numbers.randrange(23)}.org" for _ in ids],
                "size": pa.array([numbers.randrange(1000) if n % 11 else None for n in ids]),
            }
        )
        pq.write_table(table, folder / f"urls-{i}.parquet", row_group_size=64)
        row += count
    return folder


@pytest.fixture(scope="session")
def table(urls: Path) -> pa.Table:
    """All rows of `urls`, in the order of the files."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(urls.glob("*.parquet")))


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One for all tests, so that they need not all wait for new processes."""
    made = Embedded(2, 4 << 30, str(tmp_path_factory.mktemp("temp")), "UTC")
    close, made.close = made.close, lambda: None  # type: ignore[method-assign]
    yield made
    close()


@pytest.fixture
def run(tmp_path: Path, executor: Embedded, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(node)`` runs a plan with this node at its root, and returns the plan."""
    monkeypatch.setattr(Job, "_make_executor", lambda _: executor)

    def run_plan(root: Node, **options: Any) -> ExecutionPlan:
        plan = LogicalPlan(root.context, root)
        began = datetime(2026, 1, 2)  # noqa: DTZ001 (of no place)
        return JobManager(str(tmp_path / "jobs")).run(plan, "job", began, **options)

    return run_plan


@pytest.fixture
def ctx() -> Context:
    """Of the nodes of one test."""
    return Context()
