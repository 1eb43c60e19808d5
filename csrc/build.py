"""`python -m csrc build`: compiles every registered kernel into the cache before its first use."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from csrc.compiled import CompileError
from csrc.compiler import Kernel, compile_kernel
from csrc.kernels import Instantiation

_NAMESPACE = re.compile(r"openweek::\w+::")
_HEADER = ("kernel", "registers", "static smem", "stack", "spill stores", "spill loads")

Outcome = Kernel | CompileError | ValueError | FileNotFoundError


def compile_all(
    instantiations: Sequence[Instantiation],
    compile_one: Callable[[str, str], Kernel] = compile_kernel,
) -> Iterator[tuple[Instantiation, Outcome]]:
    """Yields each kernel as it is done, or what is wrong with its source.

    Compilers run outside Python's lock, so there is one thread per core.
    """
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pending: dict[Future[Kernel], Instantiation] = {
            threads.submit(compile_one, instantiation.source, instantiation.expression): (
                instantiation
            )
            for instantiation in instantiations
        }
        try:
            for done in as_completed(pending):
                yield pending[done], _outcome(done)
        finally:
            threads.shutdown(cancel_futures=True)


def table_of(outcomes: Sequence[tuple[Instantiation, Outcome]]) -> str:
    """A row per kernel that was compiled: what it takes of a multiprocessor, in bytes."""
    rows = [_HEADER] + [
        (
            _NAMESPACE.sub("", instantiation.expression),
            *map(
                str,
                (
                    *(kernel.report.registers, kernel.report.shared_bytes),
                    *(kernel.report.stack_bytes, kernel.report.spill_store_bytes),
                    kernel.report.spill_load_bytes,
                ),
            ),
        )
        for instantiation, kernel in outcomes
        if isinstance(kernel, Kernel)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
        for first, *rest in rows
    )


def remarks_of(outcomes: Sequence[tuple[Instantiation, Outcome]]) -> list[str]:
    """The compiler's warnings and errors, each with its kernel."""
    remarks = []
    for instantiation, outcome in outcomes:
        texts = outcome.report.warnings if isinstance(outcome, Kernel) else (str(outcome),)
        remarks += [f"{instantiation.expression}: {text}" for text in texts]
    return remarks


def _outcome(done: Future[Kernel]) -> Outcome:
    try:
        return done.result()
    except (CompileError, ValueError, FileNotFoundError) as error:
        return error
