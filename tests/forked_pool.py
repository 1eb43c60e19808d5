"""The process from which the tests' ranks are forked.

It is itself forked once all test modules are imported and before any test has run: a rank cannot
run a backward pass or CUDA if a test has used CUDA in the process it is forked from.
"""

import itertools
import os
import signal
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from benchmarks.ranks import die_with_parent, from_bytes, run_ranks, start_forked, to_bytes

# How much longer than a run's own timeout the pool waits for its answer.
_GRACE_S = 15.0


class ForkedPool:
    """Runs functions of test modules on ranks; the ``ranks`` fixture hands out the one instance."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._connection, theirs = connection.Pipe()
        with theirs:
            self._process = start_forked(
                _serve, os.getpid(), theirs, self._connection, daemon=False
            )

    def run(
        self, fn: Callable[..., Any], world_size: int, *args: Any, timeout_s: float = 60
    ) -> list[Any]:
        """Calls ``fn(rank, *args)`` on forked ranks, as ``benchmarks.ranks.run_ranks`` does.

        ``fn`` is a function at the top level of a module, because it travels by name.
        """
        number = next(self._numbers)
        self._connection.send_bytes(to_bytes((number, fn, world_size, args, timeout_s)))
        answered = -1
        while answered != number:  # an answer to a run that a test gave up on may come first
            if not self._connection.poll(timeout_s + _GRACE_S):
                raise TimeoutError(f"ranks: no answer within {timeout_s + _GRACE_S:g} s")
            answered, error, results = from_bytes(self._connection.recv_bytes())
        if error is not None:
            raise error
        return list(results)

    def close(self) -> None:
        """Ends the process and, with it, every rank it may still have."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()


def _serve(
    parent_pid: int, requests: connection.Connection, their_end: connection.Connection
) -> None:
    die_with_parent(parent_pid)
    their_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by pytest, which calls close
    while True:
        number, fn, world_size, args, timeout_s = from_bytes(requests.recv_bytes())
        error, results = None, None
        try:
            results = run_ranks(fn, world_size, *args, timeout_s=timeout_s)
        except Exception as raised:  # noqa: BLE001 - it is raised again in the test
            error = raised
        requests.send_bytes(to_bytes((number, error, results)))
