"""The original's way to run a plan that is ready."""

from __future__ import annotations

from typing import Any

from smallpond.execution.plan import ExecutionPlan


class Scheduler:
    """Runs one plan.

    Args:
        exec_plan: the plan.
        options: the original's keywords, which tune its own scheduler and have no effect.
    """

    def __init__(self, exec_plan: ExecutionPlan, **options: Any) -> None:  # noqa: ARG002
        self.exec_plan = exec_plan

    @property
    def success(self) -> bool:
        """Whether it has finished."""
        return self.exec_plan.successful

    def run(self) -> bool:
        """Runs it; a failure is an exception."""
        return self.exec_plan.run()
