"""What a job is told about how to run its tasks."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from smallpond.errors import InjectedFault, PlanError, SmallpondError
from smallpond.execution.driver import Driver
from smallpond.execution.manager import JobManager
from smallpond.execution.scheduler import Scheduler
from smallpond.execution.task import JobId, RuntimeContext
from smallpond.executors.embedded import Embedded
from smallpond.job import Job
from smallpond.logical.dataset import ArrowTableDataSet
from smallpond.logical.node import (
    ArrowComputeNode,
    Context,
    DataSetPartitionNode,
    DataSourceNode,
    LogicalPlan,
    Node,
    SqlEngineNode,
)
from smallpond.logical.planner import Planner
from smallpond.scheduler import _Run
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import rows


def parts(ctx: Context, n: int) -> Node:
    table = pa.table({"n": list(range(n))})
    source = DataSourceNode(ctx, ArrowTableDataSet(table))
    return DataSetPartitionNode(ctx, (source,), n, partition_by_rows=True)


def _unlucky(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    """Has as many accidents as the number of its partition says."""
    [number] = tables[0]["n"].to_pylist()
    if runtime_ctx.task.retry_count < number:
        raise InjectedFault("an accident")
    return tables[0]


@pytest.mark.parametrize(
    ("options", "accidents"),
    [
        ({}, 3),
        ({"max_retry_count": 1, "max_fail_count": 9}, 1),
        ({"max_fail_count": 2}, 2),
        ({"max_retry_count": 0, "max_fail_count": 9}, 0),
    ],
)
def test_accidents(run: Run, ctx: Context, options: dict[str, Any], accidents: int) -> None:
    lucky = ArrowComputeNode(ctx, (parts(ctx, accidents + 1),), process_func=_unlucky)
    assert rows(run(lucky, **options).final_output) == [(i,) for i in range(accidents + 1)]
    unlucky = ArrowComputeNode(ctx, (parts(ctx, accidents + 2),), process_func=_unlucky)
    with pytest.raises(SmallpondError, match=rf"failed {accidents + 1} times"):
        run(unlucky, **options)


def test_a_scheduler_made_by_hand(
    tmp_path: Path, ctx: Context, executor: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Job, "_make_executor", lambda _: executor)
    node = ArrowComputeNode(ctx, (parts(ctx, 2),), process_func=_unlucky)
    job = RuntimeContext(JobId.new(), datetime(2026, 1, 2), str(tmp_path))  # noqa: DTZ001
    plan = Planner(job).create_exec_plan(LogicalPlan(ctx, node))
    scheduler = Scheduler(plan, max_retry_count=0)
    with pytest.raises(SmallpondError, match="failed 1 times"):
        scheduler.run()
    assert not scheduler.success
    plan = Planner(job).create_exec_plan(LogicalPlan(ctx, node))
    scheduler = Scheduler(plan, max_retry_count=1, prioritize_retry=True, remove_output_root=True)
    assert scheduler.run()
    assert scheduler.success


@pytest.mark.parametrize(
    ("value", "copies"), [("enable", True), ("aggressive", True), ("disable", False)]
)
def test_stragglers(
    run: Run, ctx: Context, monkeypatch: pytest.MonkeyPatch, value: str, copies: bool
) -> None:
    seen: list[bool] = []
    real = _Run.loop

    def loop(self: Any) -> Any:
        seen.append(self._scheduler.speculate)
        return real(self)

    monkeypatch.setattr(_Run, "loop", loop)
    run(SqlEngineNode(ctx, (), "SELECT 1"), speculative_exec=value)
    assert seen == [copies]


def _surroundings(runtime_ctx: RuntimeContext, tables: list[pa.Table]) -> pa.Table:
    return pa.table({"value": [os.environ.get("SMALLPOND_TEST_PLACE")]})


def test_environment(tmp_path: Path, ctx: Context) -> None:
    node = ArrowComputeNode(ctx, (parts(ctx, 2),), process_func=_surroundings)
    plan = JobManager(str(tmp_path)).run(
        LogicalPlan(ctx, node), env_variables=["SMALLPOND_TEST_PLACE=a=b", "X="]
    )
    assert rows(plan.final_output) == [("a=b",)] * 2
    assert "SMALLPOND_TEST_PLACE" not in os.environ


def test_arguments_of_a_program() -> None:
    driver = Driver()
    driver.parse_arguments(
        ["--max_retry_count", "7", "--max_fail_count", "8", "--speculative_exec", "disable",
         "--env_variables", "A=1", "B=2", "--console_log_level", "DEBUG"]
    )  # fmt: skip
    job = driver.get_driver_arguments()
    assert (job["max_retry_count"], job["max_fail_count"]) == (7, 8)
    assert (job["speculative_exec"], job["env_variables"]) == ("disable", ["A=1", "B=2"])


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retry_count": -1}, "max_retry_count must not be negative, got -1"),
        ({"speculative_exec": "always"}, "must be 'disable', 'enable' or 'aggressive', got 'alw"),
        ({"env_variables": ["A"]}, "env_variables: NAME=value expected, got 'A'"),
        ({"env_variables": ["A=1"], "executor": "ray"}, "env_variables do not reach Ray's workers"),
        ({"skip_task_with_empty_input": True}, "not supported: tasks without input rows run"),
    ],
)
def test_mistakes(run: Run, ctx: Context, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        run(SqlEngineNode(ctx, (), "SELECT 1"), **options)


def test_unknown_keywords(ctx: Context, tmp_path: Path) -> None:
    job = RuntimeContext(JobId.new(), datetime(2026, 1, 2), str(tmp_path))  # noqa: DTZ001
    plan = LogicalPlan(ctx, SqlEngineNode(ctx, (), "SELECT 1"))
    with pytest.raises(PlanError, match="Scheduler: unknown keyword 'retries'"):
        Scheduler(Planner(job).create_exec_plan(plan), retries=3)
