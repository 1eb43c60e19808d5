"""Command lines for programs that run a plan of nodes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from smallpond.execution.manager import WITHOUT_EFFECT, JobManager
from smallpond.execution.plan import ExecutionPlan
from smallpond.logical.tree import LogicalPlan

_EXAMPLES = """examples:
  run on this machine:
    python sort.py --input_paths 'data/*.parquet' --npartitions 10
  keep jobs and their results under a folder, and name the job so that it can be taken up again:
    python sort.py --data_root /data/jobs --job_id nightly --job_time 2026-01-31T02:00:00 ...
  run on a Ray cluster, with a data root that all of its machines see:
    python sort.py ray --ray_address auto --data_root /shared/jobs ...
"""
_MODES = ("local", "scheduler", "ray", "executor")


class Driver:
    """Parses the program's own arguments and those of the job, and runs a plan.

    Example:
        >>> driver = Driver()
        >>> _ = driver.add_argument("--npartitions", type=int, default=10)
        >>> driver.parse_arguments(["ray", "--npartitions", "4"])
        >>> driver.mode, driver.get_arguments()
        ('ray', {'npartitions': 4})
    """

    def __init__(self) -> None:
        self._parser = argparse.ArgumentParser(
            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EXAMPLES
        )
        self._own = {action.dest for action in _job_arguments(self._parser)}
        self._given: argparse.Namespace | None = None

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """A further argument, as ``argparse`` takes it."""
        return self._parser.add_argument(*args, **kwargs)

    def parse_arguments(self, args: Sequence[str] | None = None) -> None:
        """Reads the command line, or these arguments.

        Raises:
            SystemExit: they make no sense; argparse has said why.
        """
        self._given = self._parser.parse_args(args)
        if self.mode == "executor":
            self._parser.error(
                "mode 'executor': there are no executors to start by hand; without a mode the plan "
                "runs on this machine, with 'ray' on a Ray cluster"
            )

    @property
    def _arguments(self) -> dict[str, Any]:
        if self._given is None:
            self.parse_arguments()
        return dict(vars(self._given)) if self._given is not None else {}

    def get_arguments(self, to_dict: bool = True) -> Any:
        """The program's own arguments, as a dict or a namespace."""
        return _as(
            {name: value for name, value in self._arguments.items() if name not in self._own},
            to_dict,
        )

    get_user_arguments = get_arguments

    def get_driver_arguments(self, to_dict: bool = True) -> Any:
        """The job's arguments, as a dict or a namespace."""
        return _as(
            {name: value for name, value in self._arguments.items() if name in self._own}, to_dict
        )

    @property
    def mode(self) -> str:
        """Where to run: "local" or "scheduler", which are the same, or "ray"."""
        mode: str = self._arguments["mode"]
        return mode

    @property
    def job_id(self) -> str | None:
        """The job's name, if it was given one."""
        name: str | None = self._arguments["job_id"]
        return name

    @property
    def data_root(self) -> str | None:
        """The folder for jobs, if one was given."""
        root: str | None = self._arguments["data_root"]
        return root

    @property
    def num_executors(self) -> int:
        """How many workers are wanted."""
        number: int = self._arguments["num_executors"]
        return number

    def run(
        self, plan: LogicalPlan, stop_process_on_done: bool = True, tags: Sequence[str] = ()
    ) -> ExecutionPlan:
        """Runs a plan, and waits for it.

        Args:
            plan: the nodes.
            stop_process_on_done: end the program afterwards, as the original does.
            tags: accepted, without effect.

        Raises:
            SystemExit: with status 0, if the program is to end.
            TaskError: a task failed for good.
        """
        del tags
        options = self.get_driver_arguments()
        mode, root = options.pop("mode"), options.pop("data_root")
        executor = "ray" if mode == "ray" else "embedded"
        exec_plan = JobManager(data_root=root).run(plan, executor=executor, **options)
        if stop_process_on_done:
            raise SystemExit(0)
        return exec_plan


def _as(values: dict[str, Any], to_dict: bool) -> Any:
    return values if to_dict else argparse.Namespace(**values)


def _job_arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    job = parser.add_argument_group("job")
    add = job.add_argument
    made = [
        add("mode", nargs="?", choices=_MODES, default="local", help="where to run"),
        add("-j", "--job_id", help="names the job; one that failed is taken up by the same name"),
        add("--job_time", type=_time, help="when the job began, in ISO form"),
        add("-D", "--data_root", help="the folder for jobs (default: ~/.smallpond/data)"),
        add("-n", "--num_executors", type=int, default=1, help="Ray workers to start, if over 1"),
        add("--ray_address", help="of a Ray cluster"),
        add("-o", "--output_path", help="the folder for the final result"),
        add("--env_variables", nargs="*", default=[], metavar="NAME=value",
            help="environment of functions on this machine"),
        add("--max_retry_count", type=int, default=5,
            help="how often a task is run again after accidents (default: 5)"),
        add("--max_fail_count", type=int, default=3,
            help="how many accidents a task may have (default: 3)"),
        add("--speculative_exec", choices=["disable", "enable", "aggressive"], default="enable",
            help="second copies of tasks that take far longer than others (default: enable)"),
        add("--skip_task_with_empty_input", action="store_true", help=argparse.SUPPRESS),
        add("--random_seed", type=int, help="decides what is random"),
        add("-F", "--fault_inject_prob", type=float, default=0.0,
            help="how often tasks fail on purpose"),
        add("--remove_empty_parquet", action="store_true",
            help="leave files without rows out of results"),
        add("--manifest_only_final_results", type=json.loads, default=True, metavar="true|false",
            help="list the files of the final result instead of collecting them (default: true)"),
    ]  # fmt: skip
    ignored = parser.add_argument_group("accepted for the original's sake, without effect")
    return made + [
        ignored.add_argument(f"--{name}", nargs="?", help=argparse.SUPPRESS)
        for name in sorted(WITHOUT_EFFECT - {"sched_state_observers"})
    ]


def _time(text: str) -> Any:
    from datetime import datetime  # noqa: PLC0415

    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"an ISO time expected, got {text!r}") from error
