"""GraySort: sorts generated records of the public format, raw file to raw file, and validates.

The input does not have to fit into memory: sampled keys divide it into ranges, a first pass writes
sorted runs that are cut at these ranges, a second one gathers and sorts each range.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console

from benchmarks.graysort.peers import PEERS, Options
from benchmarks.graysort.plan import make_plan
from benchmarks.graysort.report import document, report
from benchmarks.graysort.rounds import Task, run, work_folder
from benchmarks.graysort.sizes import check_space, parse_bytes, parse_records
from benchmarks.graysort.tasks import CorruptedDataError, GraySortError, RunAll
from benchmarks.graysort.workers import smallpond_workers
from benchmarks.whole_file import whole_file

_WRONG, _MISTAKE, _INTERRUPTED = 1, 2, 130
_PEER_ROUNDS = 5

_EXAMPLES = """examples:
  python -m benchmarks graysort --bytes 1G --data-root /tmp
  python -m benchmarks graysort --bytes 10G --data-root DIR --memory-limit 2G --skewed
  python -m benchmarks graysort --bytes 2G --data-root DIR --memory-limit 500M --peers gnu-sort
  python -m benchmarks graysort --bytes 1G --data-root DIR --peers --json sorted.json

exit code: 0; 1 if an output was not sorted or lost a record, or a file changed on the disk; 2 for
what the user can repair, which the message names; 130 after Ctrl-C or SIGTERM, with no
files left.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # Who ends a run that way does not want to keep its files either.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments)
    except (GraySortError, OSError) as mistake:
        print(f"graysort: {mistake}", file=sys.stderr)
        return _MISTAKE
    except CorruptedDataError as corrupted:
        print(f"graysort: {corrupted}", file=sys.stderr)
        return _WRONG
    except KeyboardInterrupt:
        print("graysort: interrupted; its files are removed", file=sys.stderr)
        return _INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks graysort",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bytes", required=True, metavar="SIZE", help="data to sort: 100 bytes a record, as 10G"
    )
    parser.add_argument(
        "--data-root", required=True, type=Path, metavar="DIR", help="where files go; 3 x SIZE"
    )
    parser.add_argument(
        "--memory-limit",
        default="1G",
        metavar="SIZE",
        help="of all workers together; default: %(default)s",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes; default: one per processor"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on this cluster; DIR is seen by all its nodes, and limits are those of each",
    )
    parser.add_argument("--skewed", action="store_true", help="half of the records share few keys")
    parser.add_argument(
        "--peers",
        nargs="?",
        const=",".join(PEERS),
        metavar="LIST",
        help=f"sort the same data with these, too; default: {','.join(PEERS)}",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"interleaved repetitions; default: 1, with --peers {_PEER_ROUNDS}",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write all numbers as JSON")
    parser.add_argument("--keep", action="store_true", help="leave input and output in DIR")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    task = _task(arguments)
    json_path: Path | None = arguments.json
    if json_path and (json_path.is_dir() or not json_path.absolute().parent.is_dir()):
        raise GraySortError(f"--json: output must be a file in an existing folder, got {json_path}")
    screen = Console(highlight=False)
    with work_folder(arguments.data_root, keep=arguments.keep) as folder:
        copies = ["input", "runs", "output"]
        copies += ["lines of text"] if task.peers else []
        copies += ["output to keep"] if task.peers and arguments.keep else []
        check_space(folder, task.num_bytes, len(copies), ", ".join(copies))
        outcome = run(task, folder, screen)
        # A table is left whole in files and pipes, which have no width.
        wide = screen if screen.is_terminal else Console(highlight=False, width=160)
        wide.print(report(task, outcome))
        if arguments.keep:
            wide.print(f"files are in {folder}")
        if json_path:
            with whole_file(json_path) as file:
                file.write(json.dumps(document(task, outcome), indent=2).encode() + b"\n")
    return _WRONG if outcome.wrong else 0


def _task(arguments: argparse.Namespace) -> Task:
    num_records = parse_records("--bytes", arguments.bytes)
    memory_bytes = parse_bytes("--memory-limit", arguments.memory_limit)
    num_workers = _usable_cpus() if arguments.workers is None else arguments.workers
    peers, num_rounds = _peers(arguments.peers), arguments.rounds
    if num_rounds is None:
        num_rounds = _PEER_ROUNDS if peers else 1
    for option, value in (("--workers", num_workers), ("--rounds", num_rounds)):
        if value < 1:
            raise GraySortError(f"{option}: number must be at least 1, got {value}")

    def workers(folder: Path) -> AbstractContextManager[RunAll]:
        return smallpond_workers(num_workers, folder / "tasks", arguments.ray)

    return Task(
        plan=make_plan(num_records, memory_bytes, num_workers),
        options=Options(memory_bytes, num_workers),
        skewed=arguments.skewed,
        workers=workers,
        peers=peers,
        num_rounds=num_rounds,
    )


def _peers(wanted: str | None) -> tuple[str, ...]:
    if wanted is None:
        return ()
    names = [name.strip() for name in wanted.split(",")]
    if unknown := [name for name in names if name not in PEERS]:
        raise GraySortError(
            f"--peers: peers must be some of {','.join(PEERS)}, got {unknown[0]!r} "
            "(separate several with commas)"
        )
    return tuple(dict.fromkeys(names))


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
