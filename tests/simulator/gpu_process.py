"""A process that has the GPU: a kernel that never ends, or is where it must not be, ends with it.

After an illegal access every later CUDA call of the same process fails, and nothing interrupts a
kernel that waits for ever. What nobody has run on silicon yet may do both.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class GpuProcess:
    """Calls functions in one process after the other: a call that fails takes it along."""

    def __init__(self) -> None:
        self._executor: ProcessPoolExecutor | None = None

    def call(
        self,
        timeout_s: float,
        fn: Callable[_Parameters, _Result],
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result:
        """Returns fn(*args, **kwargs), or raises what it raises.

        Args:
            timeout_s: After so many seconds the process is killed and TimeoutError raised.
            fn: A function at the top level of a module, because it travels by name.
            *args: Of the function; neither they nor the result may hold torch tensors.
            **kwargs: Likewise.
        """
        if self._executor is None:
            context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA
            self._executor = ProcessPoolExecutor(1, mp_context=context)
        try:
            return self._executor.submit(fn, *args, **kwargs).result(timeout_s)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Kills the process, if there is one."""
        if self._executor is None:
            return
        for process in self._executor._processes.values():
            process.kill()
        self._executor.shutdown()
        self._executor = None
