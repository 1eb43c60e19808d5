"""The original's way to run a plan that is ready."""

from __future__ import annotations

from typing import Any, Literal

from smallpond.errors import PlanError
from smallpond.execution.plan import ExecutionPlan

# These tune a scheduler of other machinery. Here a retry comes when it is due, a worker is no
# longer used once it is lost, one that dies twice at a task is taken to lack memory, and what jobs
# leave behind is a folder that can be removed.
_WITHOUT_EFFECT = {
    *("prioritize_retry", "stop_executor_on_failure", "nonzero_exitcode_as_oom"),
    *("remove_output_root", "sched_state_observers"),
}


class Scheduler:
    """Runs one plan.

    A task fails by accident if its worker dies, it cannot read or write, or it injects a fault; it
    is run again then. What the user's function raises is final the first time.

    Args:
        exec_plan: the plan.
        max_retry_count: how often a task is run again after accidents.
        max_fail_count: how many of them it may have; the smaller of the two counts.
        speculative_exec: "disable" for no second copies of stragglers; "aggressive" is as "enable".
        options: the original's further keywords, which tune machinery that is not here.
    """

    def __init__(
        self,
        exec_plan: ExecutionPlan,
        max_retry_count: int = 5,
        max_fail_count: int = 3,
        *,
        speculative_exec: Literal["disable", "enable", "aggressive"] = "enable",
        **options: Any,
    ) -> None:
        unknown = sorted(set(options) - _WITHOUT_EFFECT)
        if unknown:
            raise PlanError(f"Scheduler: unknown keyword {unknown[0]!r}")
        for name, count in (
            ("max_retry_count", max_retry_count),
            ("max_fail_count", max_fail_count),
        ):
            if count < 0:
                raise PlanError(f"Scheduler: {name} must not be negative, got {count}")
        if speculative_exec not in ("disable", "enable", "aggressive"):
            raise PlanError(
                "Scheduler: speculative_exec must be 'disable', 'enable' or 'aggressive', got "
                f"{speculative_exec!r}"
            )
        self.exec_plan = exec_plan
        exec_plan.schedule(
            max_failures=min(max_retry_count, max_fail_count) + 1,
            speculate=speculative_exec != "disable",
        )

    @property
    def success(self) -> bool:
        """Whether it has finished."""
        return self.exec_plan.successful

    def run(self) -> bool:
        """Runs it; a failure is an exception."""
        return self.exec_plan.run()
