"""Comparing results, and timing calls: what tests and benchmarks of callers take from here."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from csrc import Checker

# Larger than the second-level cache of any GPU.
_FLUSH_BYTES = 256 * 2**20
_HOPPER = 9

Result = TypeVar("Result")


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return how unlike two tensors are: 1 - 2 Σ x·y / (Σ x² + Σ y²), in float64.

    0 for equal ones (also where both are all zero), about half the squared relative error for
    close ones, 1 for orthogonal ones, 2 for opposite ones.

    Example:
        >>> calc_diff(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
        1.0
    """
    x, y = x.double(), y.double()
    size = (x * x + y * y).sum().item()
    return 0.0 if size == 0 else 1 - 2 * (x * y).sum().item() / size


def count_bytes(*tensors: Any) -> int:
    """Count the bytes of the elements of tensors, also of those in tuples and lists; None is 0.

    Example:
        >>> count_bytes(torch.zeros(3), (torch.zeros(2, dtype=torch.bfloat16), None))
        16
    """
    total = 0
    for value in tensors:
        if isinstance(value, tuple | list):
            total += count_bytes(*value)
        elif value is not None:
            total += value.numel() * value.element_size()
    return total


def assert_bitwise_equal(x: torch.Tensor, y: torch.Tensor) -> None:
    """Raise AssertionError unless dtypes, shapes and all bits agree: NaNs too, and signs of zeros.

    Raises:
        AssertionError: names what differs, and the first element that does.
    """
    for what in ("dtype", "shape"):
        ours, theirs = getattr(x, what), getattr(y, what)
        if ours != theirs:
            raise AssertionError(f"{what}: {ours} is not {theirs}")
    if x.numel() == 0:
        return
    bits = [part.detach().contiguous().view(-1).view(torch.uint8).cpu() for part in (x, y)]
    unequal = (bits[0] != bits[1]).view(x.numel(), -1).any(1)
    if unequal.any():
        first = int(unequal.nonzero()[0])
        values = [part.detach().reshape(-1)[first].item() for part in (x, y)]
        count = int(unequal.sum())
        raise AssertionError(
            f"{count} of {x.numel()} elements differ, the first is number {first}:"
            f" {values[0]} is not {values[1]}"
        )


def get_arch_major() -> int:
    """Return the major compute capability of the current GPU; Hopper's 9 where there is none."""
    return torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else _HOPPER


def test_filter(
    condition: Callable[[], bool],
) -> Callable[[Callable[..., Result]], Callable[..., Result | None]]:
    """Decorate a function so that a call does nothing unless `condition()` holds."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result | None]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Result | None:
            return function(*args, **kwargs) if condition() else None

        return call

    return decorate


# pytest would take the name for that of a test.
vars(test_filter)["__test__"] = False


def ignore_env(
    name: str, condition: Callable[[], bool]
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Decorate a function so that it runs without an environment variable if `condition()`."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Result:
            hidden = os.environ.pop(name, None) if condition() else None
            try:
                return function(*args, **kwargs)
            finally:
                if hidden is not None:
                    os.environ[name] = hidden

        return call

    return decorate


def bench(
    fn: Callable[[], object],
    num_warmups: int = 5,
    num_tests: int = 10,
    high_precision: bool = False,
) -> float:
    """Return the mean time of a call in seconds: of the GPU by events, of the CPU by the clock.

    On a GPU its second-level cache is emptied before the first call, and the host waits for the
    last one.

    Args:
        fn: what to time.
        num_warmups: calls before.
        num_tests: calls timed, at least 1.
        high_precision: keep the GPU busy first, so that launches do not limit it.
    """
    Checker("bench").between("num_tests", num_tests, 1, 2**31 - 1, "time one call at least")
    if not torch.cuda.is_available():
        for _ in range(num_warmups):
            fn()
        begin = time.perf_counter()
        for _ in range(num_tests):
            fn()
        return (time.perf_counter() - begin) / num_tests
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(num_warmups):
        flush.zero_()
        fn()
    if high_precision:
        busy = torch.randn((8192, 8192), device="cuda")
        busy @ busy
    start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
    flush.zero_()
    start.record()
    for _ in range(num_tests):
        fn()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / num_tests / 1e3


def bench_kineto(
    fn: Callable[[], object],
    kernel_names: str | Sequence[str],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    with_multiple_kernels: bool = False,
) -> float | tuple[float, ...]:
    """Return the mean time in seconds of kernels that a call launches, by torch's profiler.

    Without a GPU the names are those of torch's operators, such as `aten::mm`.

    Args:
        fn: what to time.
        kernel_names: a part of the name of one kernel, or of several.
        num_tests: calls timed.
        suppress_kineto_output: accepted; nothing is printed anyway.
        trace_path: where to write the trace for chrome://tracing, if at all.
        flush_l2: empty the second-level cache of a GPU before each call.
        with_multiple_kernels: whether several kernels may have the name; their means are added.

    Returns:
        A number for a str, else a tuple with one number per name; 0 for a kernel that never ran.

    Raises:
        ValueError: a name fits several kernels, and with_multiple_kernels is False.
    """
    del suppress_kineto_output
    on_gpu = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device="cuda") if on_gpu else None
    fn()
    with profile(activities=[activity], acc_events=True) as profiler:
        for _ in range(num_tests):
            if flush_l2 and flush is not None:
                flush.zero_()
            fn()
        if on_gpu:
            torch.cuda.current_stream().synchronize()
    if trace_path is not None:
        profiler.export_chrome_trace(trace_path)
    names = (kernel_names,) if isinstance(kernel_names, str) else tuple(kernel_names)
    times = []
    for name in names:
        found = [event for event in profiler.key_averages() if name in event.key]
        if len(found) > 1 and not with_multiple_kernels:
            keys = " and ".join(event.key for event in found[:2])
            check = Checker("bench_kineto")
            check.invalid("kernel_names", "each fit one kernel", keys, "with_multiple_kernels adds")
        totals = (event.device_time_total if on_gpu else event.cpu_time_total for event in found)
        means = [total / event.count for total, event in zip(totals, found, strict=True)]
        times.append(sum(means) / 1e6)
    return times[0] if isinstance(kernel_names, str) else tuple(times)
