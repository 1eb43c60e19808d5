"""Room for plans of many steps, which functions that call themselves walk through."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from smallpond.errors import PlanError

# Each step takes up to six calls, and DuckDB takes about a thousand steps at a time. With a limit
# of 20,000 functions that call themselves without end, through C, crash Python 3.11.
_CALLS = 6000

_lock = threading.Lock()
_users = 0
_usual = 0

_P = ParamSpec("_P")
_T = TypeVar("_T")


def deep(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Lets a function and what it calls go deeper than Python usually lets a program.

    The limit is the whole program's, so that it goes back when the last such function returns.

    Raises:
        PlanError: that was not enough.
    """

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        global _users, _usual  # noqa: PLW0603 (as the limit is)
        with _lock:
            if _users == 0:
                _usual = sys.getrecursionlimit()
                sys.setrecursionlimit(max(_usual, _CALLS))
            _users += 1
        try:
            return function(*args, **kwargs)
        except RecursionError as error:
            raise PlanError("too many steps at once; compute() some of them first") from error
        finally:
            with _lock:
                _users -= 1
                if _users == 0:
                    sys.setrecursionlimit(_usual)

    return called
