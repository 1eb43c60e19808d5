"""`python -m dualpipe`: which pipeline schedule suits these sizes and times, and how it looks."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Any

from dualpipe import report
from dualpipe.actions import Placement, ScheduleError, to_csv
from dualpipe.draw import to_svg, to_text
from dualpipe.schedules import SCHEDULES
from dualpipe.simulate import STAGE_FIELDS, Timeline, Times, compare
from dualpipe.trace import to_chrome_trace

EXAMPLES = """\
times.json holds the durations of half of a rank's share of the model, in any one unit, each a
number or a list with one entry for each of the 2N half stages:
  {"forward": 1.0, "input_grad": 1.6, "weight_grad": 0.8, "overlap_factor": 0.8, "communication": 0}
overlap_factor is the time of an overlapped forward and backward as a share of F + I + W,
communication one transfer between two ranks. Without --times a whole share has F = I = W = 1.

examples:
  python -m dualpipe --stages 8 --microbatches 20
  python -m dualpipe --stages 4 --microbatches 16 --schedule dualpipev --svg v.svg --csv v.csv
  python -m dualpipe --stages 16 --microbatches 64 --times times.json --trace trace.json
"""
DEFAULT_TIMES = Times(forward=0.5, input_grad=0.5, weight_grad=0.5)


class UsageError(Exception):
    """What the user has to change, in one sentence."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _check_sizes(options.schedule, options.stages, options.microbatches)
        half_stage = DEFAULT_TIMES
        if options.times:
            half_stage = read_times(options.times, 2 * options.stages)
        timelines = compare(options.stages, options.microbatches, half_stage)
        chosen = next(line for line in timelines if line.schedule.name == options.schedule)
        files = _files(options, chosen)
        for path, text in files.items():
            _write(path, text)
    except UsageError as error:
        print(f"python -m dualpipe: error: {error}", file=sys.stderr)
        return 2
    print(_report(options.stages, options.microbatches, half_stage, timelines, chosen))
    for path in files:
        print(f"Wrote {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dualpipe",
        description="Simulates pipeline schedules on N ranks and compares them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stages", type=int, required=True, metavar="N", help="pipeline ranks")
    add("--microbatches", type=int, required=True, metavar="M", help="micro-batches of a step")
    add("--schedule", choices=SCHEDULES, default="dualpipe", help="the one to show and to write")
    add("--times", type=Path, metavar="FILE", help="durations as JSON, see below")
    add("--svg", type=Path, metavar="FILE", help="write a picture")
    add("--trace", type=Path, metavar="FILE", help="write a Chrome trace (1 unit = 1 ms)")
    add("--csv", type=Path, metavar="FILE", help="write the order for torch's pipeline runtime")
    return parser


def _check_sizes(name: str, num_ranks: int, num_microbatches: int) -> None:
    errors = report.impossible(num_ranks, num_microbatches)
    if name not in errors:
        return
    rule = str(errors[name]).replace("num_ranks", "--stages")
    rule = rule.replace("num_microbatches", "--microbatches")
    others = [other for other in SCHEDULES if other not in errors]
    raise UsageError(rule + (f" ({', '.join(others)} can do it)" if others else ""))


def read_times(path: Path, num_half_stages: int) -> Times:
    """Reads the times of the half stages from a JSON file.

    Raises:
        UsageError: for anything that is wrong with the file.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read --times {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--times {path} must hold JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--times {path} must hold an object, got {type(content).__name__}")
    known = (*STAGE_FIELDS, "overlap_factor", "communication")
    unknown = sorted(content.keys() - set(known))
    if unknown:
        raise UsageError(f"--times {path} must only have {', '.join(known)}, got {unknown[0]!r}")
    missing = [name for name in STAGE_FIELDS if name not in content]
    if missing:
        raise UsageError(f"--times {path} must have {', '.join(STAGE_FIELDS)}, got no {missing[0]}")
    fields: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in content.items()
    }
    try:
        times = Times(**fields)
        times.check_stages(num_half_stages)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"--times {path}: {error}") from None
    return times


def _files(options: argparse.Namespace, chosen: Timeline) -> dict[Path, str]:
    """What to write, all of it made before the first file is touched."""
    files = {}
    if options.svg:
        files[options.svg] = to_svg(chosen)
    if options.trace:
        files[options.trace] = to_chrome_trace(chosen)
    if options.csv:
        try:
            files[options.csv] = to_csv(chosen.schedule)
        except ScheduleError as error:
            raise UsageError(str(error)) from None
    return files


def _write(path: Path, text: str) -> None:
    """All or nothing: a reader never sees half a file, and a failure leaves the old one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _report(
    num_ranks: int,
    num_microbatches: int,
    half_stage: Times,
    timelines: list[Timeline],
    chosen: Timeline,
) -> str:
    folded = chosen.schedule.placement is Placement.V_SHAPE
    stage = half_stage if folded else half_stage.merged()
    columns = shutil.get_terminal_size().columns
    missing = report.impossible(num_ranks, num_microbatches).values()
    prose = [
        *(f"Not possible here: {error}" for error in missing),
        report.best(timelines),
        report.break_even_text(num_ranks, num_microbatches, half_stage),
        report.published_bubble_text(chosen, stage),
    ]
    return "\n\n".join(
        [
            textwrap.fill(report.figures(chosen), columns),
            to_text(chosen, columns) + report.LEGEND,
            f"All schedules with {num_microbatches} micro-batches on these {num_ranks} devices:",
            report.comparison(timelines),
            *(textwrap.fill(sentence, columns) for sentence in prose if sentence),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
