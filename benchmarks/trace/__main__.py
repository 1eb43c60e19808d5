"""`python -m benchmarks trace`: what overlapped with what, in traces of torch.profiler and ours."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

from benchmarks.trace import analysis, table, tables_of_many
from benchmarks.trace.analysis import Analysis, analyse
from benchmarks.trace.compare import compare
from benchmarks.trace.document import analyses_document, differences_document, write_json
from benchmarks.trace.merge import align, distinct_titles, slowest
from benchmarks.trace.model import Trace
from benchmarks.trace.page import save_page
from benchmarks.trace.reader import read_traces
from benchmarks.trace.user_rules import read_rules

_MISTAKE, _INTERRUPTED = 2, 130
_PIPE_WIDTH = 100  # of tables in files and pipes, which have no width of their own

_GAPS_ON_PAGE = 100

_EXAMPLES = """examples:
  python -m benchmarks trace analyse trace.json.gz               one rank, or all of a file
  python -m benchmarks trace analyse rank*.json --json all.json  ranks side by side
  python -m benchmarks trace analyse step.json --phase '^PP:'    by steps of the schedule
  python -m benchmarks trace html simulated.json measured.json --out both.html
  python -m benchmarks trace diff before.json after.json

exit code: 0; 2 for what the user can repair, which the message names; 130 after Ctrl-C.
"""
_RULES_HELP = """\
rules (--rules FILE): a JSON list; the first that matches decides, before any built-in one.
  [{"match": "my_all_to_all", "kind": "communication", "operation": "all_to_all"},
   {"match": ".*", "stream": "stream 27", "kind": "waiting"},
   {"match": "put_tokens", "kind": "communication", "operation": "dispatch", "role": "send"}]
match and stream are regular expressions, found anywhere in the kernel's name and the stream's
label; kind is communication, waiting, compute or copy; role (send, receive) pairs the kernels of an
operation whose data travels on between them.
"""
_DIFF_HELP = """A and B may be of different units, a simulated and a measured step: then compare the
shares of the span. With --phase '^PP:' steps of a schedule lie side by side.
"""


_DEFINITIONS = str(analysis.__doc__).partition("\n\n")[2].replace("Definitions", "definitions", 1)
_MEASURE_HELP = f"{_RULES_HELP}\n{_DEFINITIONS}"
Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.command(arguments))
    except (ValueError, OSError) as mistake:
        print(f"benchmarks trace: {mistake}", file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        print("benchmarks trace: interrupted", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    def add(name: str, text: str, epilog: str, command: Command) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text, epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        added.set_defaults(command=command)
        added.add_argument("--rules", type=Path, metavar="F", help="JSON: what your kernels do")
        return added

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks trace",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    measure = add("analyse", "figures and tables of one or several ranks", _MEASURE_HELP, _analyse)
    measure.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a trace, .gz or not")
    html = add("html", "one page with a timeline of all ranks", _RULES_HELP, _html)
    html.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a trace, .gz or not")
    html.add_argument("--out", type=Path, required=True, metavar="F.html", help="the page")
    diff = add("diff", "two traces side by side", _DIFF_HELP, _diff)
    diff.add_argument("a", type=Path, metavar="A", help="a trace, .gz or not")
    diff.add_argument("b", type=Path, metavar="B", help="another one")
    for command in (measure, diff):
        command.add_argument(
            "--phase", metavar="REGEX", help="count work to the innermost phase that matches"
        )
        command.add_argument("--top", type=int, default=10, metavar="N", help="lines per table")
        command.add_argument("--json", type=Path, metavar="F", help="write all numbers as JSON")
    return parser


def _analyse(arguments: argparse.Namespace) -> int:
    _check_top(arguments.top)
    _check_output("--json", arguments.json)
    analyses = _analysed(arguments, _on_one_clock(arguments.files))
    if arguments.json:
        write_json(arguments.json, analyses_document(analyses))
    shown = [tables_of_many.across_ranks(analyses)] if len(analyses) > 1 else []
    _print([*shown, table.report(slowest(analyses), arguments.top)])
    return 0


def _html(arguments: argparse.Namespace) -> int:
    _check_output("--out", arguments.out)
    rules = read_rules(arguments.rules) if arguments.rules else ()
    traces = _on_one_clock(arguments.files)
    save_page(arguments.out, [analyse(trace, rules, num_gaps=_GAPS_ON_PAGE) for trace in traces])
    print(f"wrote {arguments.out}")
    return 0


def _diff(arguments: argparse.Namespace) -> int:
    _check_top(arguments.top)
    _check_output("--json", arguments.json)
    a, b = (_analysed(arguments, _read([path])[0]) for path in (arguments.a, arguments.b))
    rows = compare(a, b)
    if arguments.json:
        write_json(arguments.json, differences_document(rows))
    names = f"A = {arguments.a}, ranks: {len(a)}\nB = {arguments.b}, ranks: {len(b)}"
    _print([names, tables_of_many.side_by_side(rows, arguments.top)])
    return 0


def _read(files: Sequence[Path]) -> list[list[Trace]]:
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    same_names = len({path.name for path in files}) < len(files)
    read = []
    with bar:
        for path in files:
            task = bar.add_task(path.name)

            def advance(done: int, total: int, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            read.append((str(path) if same_names else path.name, read_traces(path, advance)))
    return distinct_titles(read)


def _on_one_clock(files: Sequence[Path]) -> list[Trace]:
    return [trace for ranks in align(_read(files)) for trace in ranks]


def _analysed(arguments: argparse.Namespace, traces: Sequence[Trace]) -> list[Analysis]:
    rules = read_rules(arguments.rules) if arguments.rules else ()
    pattern = _phase_pattern(arguments.phase, traces) if arguments.phase else None
    return [
        analyse(trace, rules, phase_pattern=pattern, num_gaps=arguments.top) for trace in traces
    ]


def _phase_pattern(text: str, traces: Sequence[Trace]) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        rule = "--phase must be a regular expression"
        raise ValueError(f"{rule}, got {text!r} ({error})") from None
    names = {trace.names[name]: None for trace in traces for name in trace.phases.name.tolist()}
    if not any(pattern.search(name) for name in names):
        known = ", ".join(list(names)[:8]) or "none"
        raise ValueError(f"--phase must match a phase, got {text!r} (there are: {known})")
    return pattern


def _check_top(top: int) -> None:
    if top < 1:
        raise ValueError(f"--top must be at least 1, got {top}")


def _check_output(option: str, path: Path | None) -> None:
    """Refuses before the work what could not be written after it."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ValueError(f"{option} must be a file in an existing folder, got {path}")


def _print(parts: Sequence[RenderableType]) -> None:
    """Prints in one go, so that a reader who leaves early (`| head`) ends nothing half-way."""
    # Names may hold what looks like markup: "[m, k]".
    screen = Console(markup=False, highlight=False, emoji=False)
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = _PIPE_WIDTH
    with screen.capture() as text:
        for part in parts:
            screen.print(part)
    try:
        sys.stdout.write(text.get())
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at exit, and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
