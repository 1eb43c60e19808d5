"""Python functions as values: pickled once, loaded where they run, named in errors."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from types import CodeType
from typing import Any

from smallpond.errors import PlanError


@dataclass(frozen=True)
class FunctionRef:
    """A function that can travel.

    Attributes:
        name: as its user calls it.
        where: file and line of its definition, for messages.
        digest: changes when the function or what it refers to does; of what is imported from a
            module, when its own code does.
        payload: the function, pickled by value where it is not importable.
    """

    name: str
    where: str
    digest: str
    payload: bytes = field(compare=False, repr=False)

    @staticmethod
    def of(function: Callable[..., Any], operation: str) -> FunctionRef:
        """Pickles a function.

        Raises:
            PlanError: it cannot be pickled.
        """
        import cloudpickle  # noqa: PLC0415 (import smallpond stays light)

        if "__mp_main__" in sys.modules:  # a child's name for the program that is its main module
            cloudpickle.register_pickle_by_value(sys.modules["__mp_main__"])
        try:
            payload = cloudpickle.dumps(function)
        except Exception as error:
            raise PlanError(
                f"{operation}: Can't pickle task: {_name(function)} refers to something that "
                f"cannot be sent to a worker ({type(error).__name__}: {error}); create it inside "
                "the function, or pass plain values"
            ) from error
        code = _code_of(function)
        where = f"{code.co_filename}:{code.co_firstlineno}" if code else ""
        # What is importable is pickled as a name alone; its code belongs to its identity.
        digest = blake2b(payload, digest_size=16)
        digest.update(_fingerprint(code).encode())
        return FunctionRef(_name(function), where, digest.hexdigest(), payload)

    def load(self) -> Callable[..., Any]:
        """The function itself; one object per process, so that what it caches stays."""
        return _load(self.payload, self.where.rpartition(":")[0])


@dataclass(frozen=True)
class Udf:
    """Something that a query needs registered: a function, an extension, a module.

    Attributes:
        name: what the SQL calls it.
        function: of kind "python"; else None.
        parameters: SQL types; None where the function's own annotations say.
        returns: SQL type, or None likewise.
        arrow: whether the function takes Arrow arrays instead of values.
        path: of the file to load, for kinds "extension" and "module".
    """

    name: str
    function: FunctionRef | None = None
    parameters: tuple[str, ...] | None = None
    returns: str | None = None
    arrow: bool = False
    path: str = ""


@functools.lru_cache(maxsize=256)
def _load(payload: bytes, filename: str) -> Callable[..., Any]:
    import cloudpickle  # noqa: PLC0415

    loaded: Callable[..., Any] = cloudpickle.loads(payload)
    function = getattr(loaded, "__func__", loaded)  # of a method
    code = getattr(function, "__code__", None)
    if code is not None and filename and code.co_filename != filename:
        # The pickle does not say where the code was, and a traceback should.
        function.__code__ = _placed(code, filename)
    return loaded


def _code_of(function: Any) -> CodeType | None:
    """The code of a function, a method, a partial call, or an object that can be called."""
    function = inspect.unwrap(function)
    if isinstance(function, functools.partial):
        return _code_of(function.func)
    if not hasattr(function, "__code__"):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _fingerprint(value: Any) -> str:
    """What a code does, or a constant of it is; the same in every process."""
    if isinstance(value, CodeType):
        parts = (value.co_code, value.co_names, value.co_varnames, value.co_consts)
        return _fingerprint(parts)
    if isinstance(value, tuple):
        return f"({','.join(map(_fingerprint, value))})"
    if isinstance(value, frozenset):  # whose order is another in each process
        return f"{{{','.join(sorted(map(_fingerprint, value)))}}}"
    return repr(value)


def _placed(code: CodeType, filename: str) -> CodeType:
    inner = (_placed(c, filename) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.replace(co_filename=filename, co_consts=tuple(inner))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def user_frames(error: BaseException) -> str:
    """The traceback from the first frame that is not ours, at most a screen of it."""
    own = __file__.rsplit("/", 1)[0]
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(own)
    ]
    shown = traceback.format_list(frames[-8:])
    last = traceback.format_exception_only(error)
    return "".join([*shown, *last[-4:]]).rstrip()
