"""`python -m eplb`: plans replicas for recorded loads, and shows what that changes."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

from eplb import report
from eplb.draw import save_plot
from eplb.files import read_loads, read_plan, write_plan
from eplb.loads import LoadWindow
from eplb.plan import Floats, Plan
from eplb.rebalance import POLICIES, rebalance
from eplb.replay import Statistic, replay, sweep
from eplb.topology import Topology

_MISTAKE, _INTERRUPTED = 2, 130
# What `--statistic` can make of iterations.
STATISTICS: dict[str, Statistic] = {
    "mean": LoadWindow.mean,
    "ema": lambda seen: seen.ema(half_life=max(1.0, len(seen) / 4)),
    "p90": lambda seen: seen.percentile(90),
    "windows": lambda seen: seen.windows(min(4, len(seen))),
}
_EPILOG = """\
The loads are tokens per expert: [layers][experts], or [iterations][layers][experts], as nested
lists in a .json file or as an array in a .npy file. With --replay a plan is made every so often
from the iterations before it, for each of the given windows and intervals.

examples:
  python -m eplb loads.npy --gpus 32
  python -m eplb loads.npy --gpus 32 --nodes 4 --groups 8 --replicas 288 --plot plan.png
  python -m eplb loads.json --gpus 32 --out plan.json
  python -m eplb later.json --gpus 32 --previous plan.json --max-moves 8 --out next.json
  python -m eplb loads.json --gpus 32 --previous plan.json --failed 3,5
  python -m eplb loads.npy --gpus 32 --replay --replicas 256,288 --windows 10,100 --intervals 50

exit code: 0; 2 for a mistake in the command or in a file; 130 after Ctrl-C.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        text = _run(options)
    except OSError as failure:
        print(f"python -m eplb: error: {failure.filename}: {failure.strerror}", file=sys.stderr)
        return _MISTAKE
    except ValueError as mistake:
        print(f"python -m eplb: error: {mistake}", file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        print("python -m eplb: interrupted", file=sys.stderr)
        return _INTERRUPTED
    print(text)
    return 0


def _run(options: argparse.Namespace) -> str:
    _check_outputs(options)
    try:
        return _replay(options) if options.replay else _plan(options)
    finally:
        _show("")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eplb",
        description="Plans which experts get replicas and on which GPUs all of them lie.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("loads", type=Path, metavar="LOADS", help="recorded loads, .json or .npy")
    add("--gpus", type=int, required=True, metavar="N", help="GPUs of all nodes together")
    add("--replicas", type=_numbers, metavar="R", help="slots per layer; default: a spare per GPU")
    add("--nodes", type=int, default=1, metavar="N", help="nodes of equal size; default: 1")
    add("--groups", type=int, default=1, metavar="N", help="groups of experts; default: 1")
    add("--statistic", choices=STATISTICS, default="mean", help="of iterations; default: mean")
    add("--policy", choices=POLICIES, default="auto", help="default: auto")
    add("--failed", type=_numbers, default=[], metavar="3,5", help="GPUs that have failed")
    add("--budget-ms", type=float, default=50, metavar="MS", help="per layer; default: 50")
    add("--previous", type=Path, metavar="F", help="the plan in force, to change as little of")
    add("--max-moves", type=int, metavar="N", help="replicas that may move, per layer")
    add("--min-gain", type=float, metavar="X", help="leave layers that gain less, such as 0.01")
    add("--out", type=Path, metavar="F.json", help="write the plan")
    add("--plot", type=Path, metavar="F.png", help="draw the worst layer before and after")
    again = parser.add_argument_group("replay")
    again.add_argument("--replay", action="store_true", help="compare windows and intervals")
    for name, what in (("windows", "to look back on"), ("intervals", "from plan to plan")):
        again.add_argument(
            f"--{name}", type=_numbers, default=[100], metavar="10,100",
            help=f"iterations {what}; default: 100",
        )  # fmt: skip
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be numbers such as 3,5, got {text!r}") from None


def _check_outputs(options: argparse.Namespace) -> None:
    """Refuses before the work what would be refused after it."""
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib (pip install matplotlib)")
    for path in (options.out, options.plot):
        if path and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ValueError(f"output must be a file in an existing folder, got {path}")
    if options.replay and (options.out or options.plot or options.previous):
        raise ValueError("--replay makes many plans: leave out --out, --plot and --previous")
    if not options.replay and options.replicas and len(options.replicas) > 1:
        raise ValueError("--replicas must be one number, several are for --replay")


def _topologies(options: argparse.Namespace, num_experts: int) -> list[Topology]:
    if options.gpus < 1:
        raise ValueError(f"--gpus must be at least 1, got {options.gpus}")
    a_spare_each = (-(-num_experts // options.gpus) + 1) * options.gpus
    return [
        Topology.regular(options.gpus, replicas, options.nodes, options.groups).without(
            options.failed
        )
        for replicas in options.replicas or [a_spare_each]
    ]


def _read_loads(path: Path) -> Floats:
    loads = read_loads(path)
    if not loads.shape[1]:
        raise ValueError(f"{path} must have a layer, got none")
    return loads


def _plan(options: argparse.Namespace) -> str:
    iterations = _read_loads(options.loads)
    num_layers, num_experts = iterations.shape[1:]
    (topology,) = _topologies(options, num_experts)
    previous = read_plan(options.previous) if options.previous else None
    seen = LoadWindow(num_layers, num_experts, window=len(iterations))
    for counts in iterations:
        seen.add(counts)
    _show(f"planning {num_layers} layers, at most {options.budget_ms:g} ms each")
    plan = rebalance(
        STATISTICS[options.statistic](seen),
        topology,
        policy=options.policy,
        previous=previous,
        max_moves=options.max_moves,
        min_gain=options.min_gain,
        time_budget_ms=options.budget_ms,
    )
    if options.out:
        write_plan(options.out, plan)
    if options.plot:
        save_plot(options.plot, plan)
    comparison = report.compare(plan)
    layer = comparison.worst_layer
    parts = [
        report.headline(plan),
        report.layer_table(comparison),
        f"GPUs of layer {layer}, the worst one:\n"
        + report.bars(comparison, layer, shutil.get_terminal_size().columns, ascii_only=_ascii()),
    ]
    written = [f"Wrote {path}" for path in (options.out, options.plot) if path]
    return "\n\n".join([*parts, *(["\n".join(written)] if written else [])])


def _replay(options: argparse.Namespace) -> str:
    loads = _read_loads(options.loads)
    if len(loads) <= min(options.intervals):
        raise ValueError(
            f"--replay needs more iterations than --intervals, got {len(loads)} in {options.loads} "
            f"for an interval of {min(options.intervals)} (record more, or plan more often)"
        )
    topologies = _topologies(options, loads.shape[2])
    limits = {"max_moves": options.max_moves, "min_gain": options.min_gain}

    def planner(loads: Floats, topology: Topology, previous: Plan | None) -> Plan:
        return rebalance(
            loads,
            topology,
            policy=options.policy,
            previous=previous,
            time_budget_ms=options.budget_ms,
            **(limits if previous else {}),
        )

    unplanned = replay(loads, topologies[0], planner, window=1, interval=len(loads))
    replays = sweep(
        loads,
        topologies,
        planner,
        windows=options.windows,
        intervals=options.intervals,
        statistic=STATISTICS[options.statistic],
        progress=_show_progress,
    )
    headline = (
        f"{len(loads)} iterations of {loads.shape[1]} layers with {loads.shape[2]} experts on "
        f"{options.gpus} GPUs; plans for the {options.statistic} of the window"
    )
    return f"{headline}\n\n{report.replay_table(unplanned, replays)}"


def _show_progress(done: int, total: int) -> None:
    filled = 30 * done // total
    _show(f"[{'#' * filled}{'.' * (30 - filled)}] {done:,} of {total:,} iterations")


def _show(line: str) -> None:
    """Replaces the last such line of the terminal; where there is none, says nothing."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _ascii() -> bool:
    """Whether the output cannot show block characters."""
    return not (sys.stdout.encoding or "").lower().startswith("utf")


if __name__ == "__main__":
    sys.exit(main())
