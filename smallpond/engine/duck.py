"""DuckDB instances: made once, limited anew for each task, used by one task at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from smallpond.errors import UserCodeError
from smallpond.functions import Udf, user_frames

_WATCH_S = 0.1


class Instance:
    """One in-memory DuckDB with limits of its own; 15 ms to make, microseconds to use again."""

    def __init__(self, temp_dir: str, time_zone: str) -> None:
        import duckdb  # noqa: PLC0415 (import smallpond needs no DuckDB)

        self.temp_dir = temp_dir
        self._con = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": temp_dir,
                "arrow_large_buffer_size": True,
                "autoinstall_known_extensions": False,
            },
        )
        self._con.execute(f"SET TimeZone = '{time_zone}'")
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.interrupted = False
        self.spoiled = False  # by statements that may have changed more than a query can see
        self._limits: tuple[int, int] | None = None
        self._lossless: bool | None = None
        self._loaded: set[str] = set()

    def limit(self, cpus: int, memory_bytes: int) -> None:
        """Sets what queries may use from now on."""
        if self._limits != (cpus, memory_bytes):
            self._con.execute(f"SET threads = {cpus}")
            self._con.execute(f"SET memory_limit = '{memory_bytes}B'")
            self._limits = (cpus, memory_bytes)

    def lossless(self, on: bool) -> None:
        """Whether results opened from now on keep DuckDB's own types (HUGEINT, UUID, ...)."""
        if self._lossless is not on:
            self._con.execute(f"SET arrow_lossless_conversion = {on}")
            self._lossless = on

    def cursor(self) -> Any:
        """A connection to this instance; queries on several of them may be open at once."""
        cursor = self._con.cursor()
        # Progress is counted only for a bar, which need not be shown.
        cursor.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        with self._lock:
            self._cursors.add(cursor)
        return cursor

    def interrupt(self) -> None:
        """Ends running queries with an error; may be called from any thread.

        What runs between queries sees `interrupted`, until the next task.
        """
        self.interrupted = True
        self._of_each(lambda cursor: cursor.interrupt())

    def progress(self) -> float:
        """How much of the running query is done, 0 to 1, or -1 if unknown."""
        return max(self._of_each(lambda cursor: cursor.query_progress()), default=-1.0) / 100

    def _of_each(self, ask: Callable[[Any], Any]) -> list[Any]:
        import duckdb  # noqa: PLC0415

        with self._lock:
            cursors = list(self._cursors)
        answers = []
        for cursor in cursors:
            with contextlib.suppress(duckdb.ConnectionException):  # it was closed meanwhile
                answers.append(ask(cursor))
        return answers

    def spilled_bytes(self) -> int:
        """What lies in temporary files at this moment."""
        with contextlib.suppress(OSError):
            return sum(entry.stat().st_size for entry in os.scandir(self.temp_dir))
        return 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Callable[[], int]]:
        """Watches the temporary files; gives a function that tells the most there were of them."""
        watch = _watcher.add(self.spilled_bytes)
        try:
            yield lambda: watch.most
        finally:
            _watcher.remove(watch)

    @contextlib.contextmanager
    def functions(self, udfs: tuple[Udf, ...]) -> Iterator[None]:
        """Registers what a query needs, for as long as the context lasts."""
        added = []
        try:
            for udf in dict.fromkeys(udfs):
                if udf.function is not None:
                    register(self._con, udf)
                    added.append(udf.name)
                elif udf.path not in self._loaded:
                    register(self._con, udf)
                    self._loaded.add(udf.path)
            yield
        finally:
            for name in added:
                self._con.remove_function(name)

    def close(self) -> None:
        """Frees memory and temporary files."""
        self._con.close()


def register(con: Any, udf: Udf) -> None:
    """Makes a function, an extension or a module known to a connection."""
    from duckdb.func import PythonUDFType  # noqa: PLC0415

    if udf.function is None:
        _load(con, udf)
        return
    con.create_function(
        udf.name,
        _telling(udf),
        list(udf.parameters) if udf.parameters is not None else None,
        udf.returns,
        type=PythonUDFType.ARROW if udf.arrow else PythonUDFType.NATIVE,
    )


def _telling(udf: Udf) -> Callable[..., Any]:
    """The function; what it raises says where, of which DuckDB passes on the text alone."""
    assert udf.function is not None  # noqa: S101 (the caller has looked)
    function = udf.function.load()
    if udf.parameters is not None:
        function = _bare(function)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Exception as error:
            raise UserCodeError(f"{udf.name} raised\n{user_frames(error)}") from error

    return call


def _bare(function: Any) -> Any:
    """The function without annotations: the types are known, and names in them may not be."""
    if not isinstance(function, FunctionType) or not function.__annotations__:
        return function
    bare = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__,
        function.__closure__,
    )  # fmt: skip
    bare.__kwdefaults__ = function.__kwdefaults__
    return bare


def _load(con: Any, udf: Udf) -> None:
    if udf.path.endswith(".duckdb_extension"):
        con.load_extension(udf.path)
        return
    from importlib.util import module_from_spec, spec_from_file_location  # noqa: PLC0415

    spec = spec_from_file_location(udf.name, udf.path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{udf.path} is not a Python module")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.register(con)


@dataclass(eq=False)
class _Watch:
    size: Callable[[], int]
    most: int = 0


class _Watcher:
    """Looks at sizes now and then: one thread for all of them, as long as there are any."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._alive = False
        self._lock = threading.Lock()

    def add(self, size: Callable[[], int]) -> _Watch:
        """Begins to watch a size."""
        watch = _Watch(size)
        with self._lock:
            self._watches.add(watch)
            start, self._alive = not self._alive, True
        if start:
            threading.Thread(target=self._look, name="smallpond spill", daemon=True).start()
        return watch

    def remove(self, watch: _Watch) -> None:
        """Ends it."""
        with self._lock:
            self._watches.discard(watch)

    def _look(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            with self._lock:
                watches = list(self._watches)
                if not watches:
                    self._alive = False
                    return
            for watch in watches:
                watch.most = max(watch.most, watch.size())


_watcher = _Watcher()


class Instances:
    """Idle instances, kept for the next task."""

    def __init__(self, temp_root: str, time_zone: str) -> None:
        self._temp_root = temp_root
        self._time_zone = time_zone
        self._idle: list[Instance] = []
        self._busy: set[Instance] = set()
        self._count = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self, cpus: int, memory_bytes: int) -> Iterator[Instance]:
        """An instance for one task; a task that failed leaves none behind."""
        with self._lock:
            instance = self._idle.pop() if self._idle else None
            if instance is None:
                self._count += 1
                number = self._count
        if instance is None:
            temp_dir = Path(self._temp_root) / f"duckdb-{os.getpid()}-{number}"
            temp_dir.mkdir(parents=True, exist_ok=True)
            instance = Instance(str(temp_dir), self._time_zone)
        with self._lock:
            self._busy.add(instance)
        instance.interrupted = False
        try:
            instance.limit(cpus, memory_bytes)
            yield instance
        except BaseException:
            with self._lock:
                self._busy.discard(instance)
            instance.close()
            raise
        with self._lock:
            self._busy.discard(instance)
            if not instance.spoiled:
                self._idle.append(instance)
        if instance.spoiled:
            instance.close()

    def close(self) -> None:
        """Closes the idle ones."""
        with self._lock:
            idle, self._idle = self._idle, []
        for instance in idle:
            instance.close()
