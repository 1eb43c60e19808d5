"""`python -m csrc`: the CUDA toolchain of this machine, and the kernels that it compiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from csrc import doctor
from csrc.build import Outcome, compile_all, remarks_of, table_of
from csrc.cache import CacheError
from csrc.compiled import NoCompilerError
from csrc.compiler import Kernel, find_compiler
from csrc.kernels import KERNELS, Instantiation

_FAILED, _INTERRUPTED = 1, 130

_EXAMPLES = """examples:
  python -m csrc doctor     compilers, driver, GPUs and cache; what is missing and what brings it
  python -m csrc build      compiles every kernel into the cache; registers, spills, shared memory

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
    commands.add_parser("build", help="compile every kernel").set_defaults(run=_build)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run())
    except (NoCompilerError, CacheError) as problem:
        print(problem, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _doctor() -> int:
    findings = doctor.examine()
    print(doctor.rendered(findings))
    return 0 if doctor.healthy(findings) else _FAILED


def _build() -> int:
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
    return 0 if num_compiled == len(KERNELS) else _FAILED


def _show_progress(num_done: int) -> None:
    """One line that rewrites itself, and is gone at the end; nothing where it would be kept."""
    if sys.stderr.isatty():
        text = "" if num_done == len(KERNELS) else f"{num_done} of {len(KERNELS)} kernels"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
