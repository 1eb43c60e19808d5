"""`python -m benchmarks`: benchmark cases, the end-to-end run, GraySort, traces, a GPU's report."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import environment, gpu_report
from benchmarks.case import SEED, SHAPE_SETS, Case
from benchmarks.cases import load_cases
from benchmarks.harness import Row, why_not
from benchmarks.plot import save_plot
from benchmarks.report import console, document, run_and_show, write_json
from benchmarks.roofline import peaks_of

_MISTAKE, _INTERRUPTED = 2, 130

_EXAMPLES = """examples:
  python -m benchmarks list
  python -m benchmarks run all
  python -m benchmarks run deepgemm --peer torch-fp32 --json gemm.json --plot gemm.png
  python -m benchmarks end_to_end --help
  python -m benchmarks graysort --bytes 1G --data-root DIR --peers
  python -m benchmarks trace analyse step.json.gz
  python -m benchmarks gpu_report
"""
_LIST_EXAMPLES = """example:
  python -m benchmarks list            every case, what it times, its peers, whether it runs here
"""
_RUN_EXAMPLES = """examples:
  python -m benchmarks run ceilings                       what this device can do at best
  python -m benchmarks run deepgemm flashmla              two cases, real model shapes
  python -m benchmarks run all --json all.json            everything; tables and the same as JSON
  python -m benchmarks run flashmla --shapes sweep --plot sweep.png

exit code: 0; 1 if a result was wrong or a shape failed; 2 for a mistake in the command; 130 after
Ctrl-C, which prints what is finished and writes no file.
"""
_GPU_EXAMPLES = """examples:
  python -m benchmarks gpu_report                         writes benchmarks/results/<device>_...json
  python -m benchmarks gpu_report --out report.json --budget-s 300
"""


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    if argv[:1] in (["end_to_end"], ["graysort"], ["trace"]):
        run: Any = importlib.import_module(f"benchmarks.{argv[0]}.__main__").main
        return int(run(list(argv[1:])))
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except ValueError as mistake:
        print(f"benchmarks: {mistake}", file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    def add(name: str, text: str, examples: str, command: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        added.set_defaults(command=command)
        return added

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add("list", "show the cases", _LIST_EXAMPLES, _list)
    run = add("run", "check and time cases beside their peers", _RUN_EXAMPLES, _run)
    run.add_argument("cases", nargs="+", metavar="CASE", help="names from `list`, or `all`")
    run.add_argument("--peer", metavar="P", help="compare with this peer only")
    run.add_argument("--shapes", choices=SHAPE_SETS, default="real", help="default: real")
    run.add_argument("--json", type=Path, metavar="F", help="write the rows as JSON")
    run.add_argument("--plot", type=Path, metavar="F.png", help="draw ratios and %% of roofline")
    run.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    commands.add_parser("end_to_end", add_help=False, help="train and serve a small model")
    commands.add_parser("graysort", add_help=False, help="sort generated records, any size")
    commands.add_parser("trace", add_help=False, help="what overlapped with what in a trace")
    gpu = add("gpu_report", "tests and all cases on one GPU", _GPU_EXAMPLES, _gpu_report)
    gpu.add_argument("--out", type=Path, metavar="F", help="default: a file in benchmarks/results")
    gpu.add_argument("--budget-s", type=float, default=540, metavar="S", help="default: 540")
    return parser


def _list(_: argparse.Namespace) -> int:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for case in load_cases().values():
        print(f"{case.name:<18}{case.title}")
        print(f"{'':<18}{len(case.shapes['real'])} real shapes, on {' and '.join(case.devices)}")
        for name, peer in case.peers.items():
            here = "" if device.type in peer.devices else f" (only on {' and '.join(peer.devices)})"
            print(f"{'':<18}peer {name}{here}")
        missing = why_not(case, device)
        print(f"{'':<18}{f'not available: {missing}' if missing else 'runs here'}\n")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    device = _device(arguments.device)
    cases = _selected(arguments.cases, arguments.peer)
    _check_outputs(arguments.json, arguments.plot)
    out = console()
    with out.status("finding the ceilings of this device"):
        peaks = peaks_of(device)
    rates = ", ".join(f"{kind} {value:.3g} TFLOP/s" for kind, value in peaks.tflops.items())
    described = environment.describe(device)
    out.print(f"{described['device']}: {rates}, memory {peaks.gbytes_per_s:.3g} GB/s", end=" ")
    out.print(f"({peaks.source})\n")
    rows: list[Row] = []
    start = time.monotonic()
    run_and_show(cases, rows, out, arguments.shapes, device, peaks, only_peer=arguments.peer)
    out.print(f"[dim]{len(rows)} rows in {time.monotonic() - start:.0f} s[/]")
    if arguments.json:
        write_json(arguments.json, document(rows, described, peaks, SEED, shapes=arguments.shapes))
    if arguments.plot:
        save_plot(arguments.plot, rows, described)
    return int(any(row.status in {"wrong", "failed"} for row in rows))


def _gpu_report(arguments: argparse.Namespace) -> int:
    if not torch.cuda.is_available():
        raise ValueError("gpu_report: this machine must have a CUDA GPU, torch finds none")
    _check_outputs(arguments.out)
    return gpu_report.run(list(load_cases().values()), arguments.out, arguments.budget_s)


def _device(wanted: str | None) -> torch.device:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("run: device must be cpu on this machine, got cuda (torch finds no GPU)")
    return torch.device(wanted or ("cuda" if available else "cpu"))


def _check_outputs(*paths: Path | None) -> None:
    """Refuses before the work what could not be written after it."""
    for path in paths:
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise ValueError(f"output must be a file in an existing folder, got {path}")


def _selected(names: Sequence[str], peer: str | None) -> list[Case[Any]]:
    known = load_cases()
    for name in names:
        if name != "all" and name not in known:
            raise ValueError(f"run: case must be one of {', '.join(known)} or all, got {name!r}")
    cases = [case for case in known.values() if "all" in names or case.name in names]
    peers = sorted({name for case in cases for name in case.peers})
    if peer is not None and peer not in peers:
        listed = f"one of {', '.join(peers)}" if peers else "left out, these cases have none"
        raise ValueError(f"run: peer must be {listed}, got {peer!r}")
    return cases


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
