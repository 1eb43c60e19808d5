"""Running a plan of nodes as a job."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from smallpond.errors import PlanError
from smallpond.execution.plan import ExecutionPlan
from smallpond.execution.scheduler import Scheduler
from smallpond.execution.task import JobId, RuntimeContext
from smallpond.logical.tree import LogicalPlan

_log = logging.getLogger("smallpond")

# Accepted for programs written for the original, whose launcher, scheduler, allocator and log files
# they tune. There is no launcher here; a job stops at the first task that fails for good, and takes
# up by its name what it has done; DuckDB keeps to its share of the memory by itself. Messages go to
# the logger "smallpond" of Python's logging, for which the program chooses levels and files.
WITHOUT_EFFECT = {
    *("job_name", "job_priority", "num_executors_per_task", "resource_group", "sidecars"),
    *("user_tags", "prioritize_retry", "stop_executor_on_failure", "fail_fast_on_failure"),
    *("nonzero_exitcode_as_oom", "enable_profiling", "enable_diagnostic_metrics"),
    *("enable_sched_state_dump", "remove_output_root", "memory_allocator", "memory_purge_delay"),
    *("bind_numa_node", "enforce_memory_limit", "share_log_analytics", "console_log_level"),
    *("file_log_level", "disable_log_rotation", "sched_state_observers"),
    *("secs_executor_probe_interval", "max_num_missed_probes"),
}


class JobManager:
    """Runs plans.

    Args:
        data_root: the folder for jobs; ``~/.smallpond/data`` by default.
        options: the original's keywords for its launcher, without effect.
    """

    def __init__(self, data_root: str | None = None, **options: Any) -> None:
        unknown = sorted(set(options) - {"python_venv", "task_image", "platform"})
        if unknown:
            raise PlanError(f"JobManager: unknown keyword {unknown[0]!r}")
        self.data_root = data_root

    def run(
        self,
        plan: LogicalPlan,
        job_id: str | None = None,
        job_time: float | datetime | None = None,
        *,
        num_executors: int = 1,
        env_variables: Sequence[str] | None = None,
        max_retry_count: int = 5,
        max_fail_count: int = 3,
        speculative_exec: Literal["disable", "enable", "aggressive"] = "enable",
        skip_task_with_empty_input: bool = False,
        random_seed: int | None = None,
        fault_inject_prob: float = 0.0,
        remove_empty_parquet: bool = False,
        manifest_only_final_results: bool = True,
        output_path: str | None = None,
        executor: str = "embedded",
        ray_address: str | None = None,
        **options: Any,
    ) -> ExecutionPlan:
        """Runs a plan, and waits for it.

        Args:
            plan: the nodes.
            job_id: names the job; one that failed halfway is taken up by the same id and time.
            job_time: when it began.
            num_executors: how many Ray workers to start, if more than one.
            env_variables: "NAME=value" each, for functions on this machine.
            max_retry_count: how often a task is run again after accidents; see `Scheduler`.
            max_fail_count: how many accidents it may have.
            speculative_exec: whether stragglers get second copies.
            skip_task_with_empty_input: must be false; see `RuntimeContext`.
            random_seed: decides what is random.
            fault_inject_prob: how often tasks fail on purpose, for tests.
            remove_empty_parquet: leave files without rows out of results.
            manifest_only_final_results: list the files of the final result, instead of putting
                them into a folder of their own.
            output_path: the folder for the final result.
            executor: "embedded", on this machine, or "ray".
            ray_address: of a Ray cluster.
            options: the original's further keywords, which tune machinery that is not here.

        Raises:
            TaskError: a task failed for good.
        """
        unknown = sorted(set(options) - WITHOUT_EFFECT)
        if unknown:
            raise PlanError(f"JobManager.run: unknown keyword {unknown[0]!r}")
        if isinstance(job_time, int | float):
            job_time = datetime.fromtimestamp(job_time, UTC).replace(tzinfo=None)
        ctx = RuntimeContext(
            job_id or JobId.new(),
            job_time,
            self.data_root,
            num_executors=num_executors,
            env_overrides=_environment(env_variables or (), executor),
            skip_task_with_empty_input=skip_task_with_empty_input,
            random_seed=random_seed,
            fault_inject_prob=fault_inject_prob,
            remove_empty_parquet=remove_empty_parquet,
            output_path=output_path,
        )
        config = ctx.config(executor=executor, ray_address=ray_address)
        exec_plan = ExecutionPlan(
            ctx, plan, manifest_only=manifest_only_final_results, config=config
        )
        scheduler = Scheduler(
            exec_plan, max_retry_count, max_fail_count, speculative_exec=speculative_exec
        )
        _log.info("job %s: %d tasks", ctx.job_id, len(exec_plan.tasks))
        scheduler.run()
        _log.info("job %s has finished: %s\n%s", ctx.job_id, exec_plan.final_output_path, exec_plan)
        return exec_plan


def _environment(lines: Sequence[str], executor: str) -> dict[str, str]:
    if lines and executor == "ray":
        raise PlanError(
            "JobManager.run: env_variables do not reach Ray's workers (set them where these start)"
        )
    wrong = [line for line in lines if "=" not in line]
    if wrong:
        raise PlanError(f"JobManager.run: env_variables: NAME=value expected, got {wrong[0]!r}")
    return dict(line.split("=", 1) for line in lines)
