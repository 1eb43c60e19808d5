"""The end-to-end run: a small DeepSeek-style language model, from text files to served text.

It reads text, trains a model with latent attention and routed experts over eight processes, shows
how evenly its experts are used, serves it from a paged cache, and draws one training step. On two
CPU cores it takes under three minutes.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.end_to_end.config import ModelConfig, TrainConfig
from benchmarks.end_to_end.run_folder import RunError, RunFolder
from benchmarks.end_to_end.stages import STAGES, Row, Run

_DEFAULT_STEPS = 110
# Text 8 MB, weights 12 MB, pages 2 MB, and as much again while a file is being replaced.
_RUN_BYTES = 50_000_000
_DISAGREES, _MISTAKE, _INTERRUPTED = 1, 2, 130

_EXAMPLES = """examples:
  python -m benchmarks end_to_end                          everything, on Python's own sources
  python -m benchmarks end_to_end --input ~/notes          on your own text files
  python -m benchmarks end_to_end --steps 400              a better model, in four times the time
  python -m benchmarks end_to_end --stages serve,trace     with the files of an earlier run

exit code: 0; 1 if served logits differ from the training forward's; 2 for what the user can repair,
which the message names; 130 after Ctrl-C.
"""


def main(argv: Sequence[str]) -> int:
    """Runs the stages that were asked for; returns the exit code."""
    arguments = _parser().parse_args(argv)
    console = Console()
    try:
        stages = _stages(arguments.stages)
        config = _train_config(arguments.steps, arguments.seed)
        folder = RunFolder(arguments.out)
        folder.check_space(_RUN_BYTES)  # now, not after minutes of training
        run = Run(console, folder, arguments.input, ModelConfig(), config)
        rows = {}
        for stage in stages:
            console.rule(f"[bold]{stage}", align="left")
            begin = time.monotonic()
            rows[stage] = STAGES[stage](run), time.monotonic() - begin
            console.print()
        console.print(_table(rows, arguments.out))
    except RunError as error:
        print(f"end_to_end: {error}", file=sys.stderr)
        for trace in getattr(error.__cause__, "__notes__", ()):  # of a rank that raised
            print(trace, file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        print("end_to_end: interrupted; stages that had ended keep their files", file=sys.stderr)
        return _INTERRUPTED
    return 0 if all(row.ok for row, _ in rows.values()) else _DISAGREES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks end_to_end",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--input", type=Path, metavar="DIR", help="text files; default: Python's standard library"
    )
    parser.add_argument(
        "--stages", metavar="LIST", default=",".join(STAGES), help="default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs/end_to_end"),
        help="where stages leave their files and find those of earlier runs; default: %(default)s",
    )
    parser.add_argument(
        "--steps", type=int, default=_DEFAULT_STEPS, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed, the same run; default: 0"
    )
    return parser


def _stages(wanted: str) -> list[str]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise RunError(
            f"--stages: stages must be some of {','.join(STAGES)}, got {wanted!r} "
            "(separate several with commas)"
        )
    return [name for name in STAGES if name in names]


def _train_config(steps: int, seed: int) -> TrainConfig:
    if steps < 1:
        raise RunError(
            f"--steps: steps must be at least 1, got {steps} (leave it out for a good run)"
        )
    if not 0 <= seed < 2**32:
        raise RunError(
            f"--seed: seed must be within 0 and 2^32 - 1, got {seed} (take a smaller one)"
        )
    return TrainConfig(steps=steps, seed=seed)


def _table(rows: dict[str, tuple[Row, float]], out: Path) -> Table:
    table = Table(title=f"What ran where; files are in {out}", title_justify="left")
    for heading in ("stage", "packages", "backend", "figures"):
        table.add_column(heading)
    table.add_column("time", justify="right", no_wrap=True)
    for stage, (row, seconds) in rows.items():
        table.add_row(stage, row.packages, row.backend, row.figures, f"{seconds:.0f} s")
    total = sum(seconds for _, seconds in rows.values())
    table.add_section()
    table.add_row("", "", "", "", f"{total:.0f} s")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
