"""`python -m csrc`: the CUDA toolchain of this machine, and the kernels that it compiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from csrc import doctor, host, simulator
from csrc.build import Outcome, compile_all, remarks_of, table_of
from csrc.cache import CacheError
from csrc.compiled import NoCompilerError
from csrc.compiler import Kernel, find_compiler
from csrc.kernels import KERNELS, Instantiation

_FAILED, _INTERRUPTED = 1, 130

CPP_PARTS: dict[str, Callable[[], object]] = {
    "launcher": host.driver,
    "simulator": simulator.core,
}

_EXAMPLES = """examples:
  python -m csrc doctor        compilers, driver, GPUs and cache; what is missing and what brings it
  python -m csrc build         every kernel into the cache; its registers, spills, shared memory
  python -m csrc build --all   the C++ parts too, so that nothing is compiled at first use

exit code: 0; 1 if something is missing or does not compile; 2 for a mistake in the command.
"""


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m csrc",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("doctor", help="what this machine has").set_defaults(run=_doctor)
    build = commands.add_parser("build", help="compile every kernel")
    build.add_argument("--all", action="store_true", help="compile the C++ parts too")
    build.set_defaults(run=_build)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (NoCompilerError, CacheError) as problem:
        print(problem, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _doctor(_: argparse.Namespace) -> int:
    findings = doctor.examine()
    print(doctor.rendered(findings))
    return 0 if doctor.healthy(findings) else _FAILED


def _build(arguments: argparse.Namespace) -> int:
    print(find_compiler().version)
    outcomes: list[tuple[Instantiation, Outcome]] = []
    _show_progress(0)
    for outcome in compile_all(KERNELS):
        outcomes.append(outcome)
        _show_progress(len(outcomes))
    order = {kernel: index for index, kernel in enumerate(KERNELS)}
    outcomes.sort(key=lambda outcome: order[outcome[0]])
    print(table_of(outcomes))
    for remark in remarks_of(outcomes):
        print(remark)
    num_compiled = sum(isinstance(outcome, Kernel) for _, outcome in outcomes)
    print(f"{num_compiled} of {len(KERNELS)} kernels compiled")
    sound = num_compiled == len(KERNELS)
    if arguments.all:
        built = [_build_cpp(name, part) for name, part in CPP_PARTS.items()]
        sound = sound and all(built)
    return 0 if sound else _FAILED


def _build_cpp(name: str, part: Callable[[], object]) -> bool:
    try:
        part()
    except RuntimeError as problem:  # no compiler, or it refused
        print(f"{name} (C++): {problem}", file=sys.stderr)
        return False
    print(f"{name} (C++): ready")
    return True


def _show_progress(num_done: int) -> None:
    """One line that rewrites itself, and is gone at the end; nothing where it would be kept."""
    if sys.stderr.isatty():
        text = "" if num_done == len(KERNELS) else f"{num_done} of {len(KERNELS)} kernels"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
