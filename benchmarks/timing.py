"""How a call is timed: interleaved with its peers, on cold inputs, after a timed warm-up.

A sample is the mean of a *burst*: as many back-to-back calls as fill about a millisecond, so that
the clock and the gap around a burst do not count. On CUDA a burst is one CUDA graph, replayed: the
launches inside leave no gaps, and the host's speed does not matter.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.environment import cache_bytes

Inputs = dict[str, Any]
Call = Callable[[Inputs], object]

_BURST_S = 1e-3
_MAX_CALLS = 1000
_MIN_ROUNDS = 5
_MAX_ROUNDS = 200
_PATIENCE = 10
# Beyond this many copies the calls are so small that launch cost, not memory, is what is measured.
_MAX_COPIES = 256
_CPU_MEMORY_CAP_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Timing:
    """Samples of one callable, in microseconds per call, and how they were taken."""

    samples_us: tuple[float, ...]
    method: str

    def percentile(self, percent: float) -> float:
        """Returns the given percentile, interpolated linearly between samples."""
        return float(np.percentile(self.samples_us, percent))


@dataclass(frozen=True, slots=True)
class _Burst:
    run: Callable[[], None]
    calls: int
    method: str


def time_interleaved(
    calls: Mapping[str, Call], rotation: Sequence[Inputs], device: torch.device, budget_s: float
) -> dict[str, Timing]:
    """Times several callables in alternation, so that drift of clocks and load hits all alike.

    Args:
        calls: What to time, by name. On CUDA a call may only enqueue work.
        rotation: Equal inputs in different memory (see `rotate`); each call gets the next one.
        device: Where the inputs lie.
        budget_s: About how long the rounds may take; warm-up adds a tenth of it per callable.

    Returns:
        One `Timing` per name, all with the same number of samples.
    """
    if device.type == "cuda":
        # Capture is not allowed on the default stream; everything runs on one other.
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            return _time_bursts(calls, rotation, device, budget_s)
    return _time_bursts(calls, rotation, device, budget_s)


def _time_bursts(
    calls: Mapping[str, Call], rotation: Sequence[Inputs], device: torch.device, budget_s: float
) -> dict[str, Timing]:
    on_cuda = device.type == "cuda"
    sync: Callable[[], None] = torch.cuda.synchronize if on_cuda else _nothing_to_wait_for
    # One cycle for all: were each callable to start at the first inputs, a peer would find in the
    # cache what ours has just read.
    upcoming = itertools.cycle(rotation)
    bursts = {}
    for name, call in calls.items():
        seconds = _warm_up(call, upcoming, sync, budget_s / 10)
        count = min(_MAX_CALLS, max(len(rotation) if on_cuda else 1, math.ceil(_BURST_S / seconds)))
        bursts[name] = (_cuda_burst if on_cuda else _host_burst)(call, upcoming, count)
    round_s = sum(_seconds(burst.run, sync) for burst in bursts.values())
    rounds = min(_MAX_ROUNDS, max(_MIN_ROUNDS, int(budget_s / round_s)))
    if on_cuda:
        samples = _cuda_rounds(bursts, rounds)
    else:
        samples = _host_rounds(bursts, rounds, give_up_s=_PATIENCE * budget_s)
    return {name: Timing(tuple(samples[name]), burst.method) for name, burst in bursts.items()}


def rotate(
    inputs: Inputs, touched_bytes: int, device: torch.device
) -> tuple[list[Inputs], str | None]:
    """Copies inputs until a round over all copies exceeds twice the last-level cache.

    Args:
        inputs: The first set; tensors inside tuples and dicts are copied too.
        touched_bytes: What one call reads and writes; decides how many copies are needed.
        device: Where the inputs lie; sets cache size and the cap on memory.

    Returns:
        The input sets, and a note when memory or the copy limit left them short of the goal.
    """
    cache = cache_bytes(device)
    wanted = math.ceil(2 * cache / max(1, touched_bytes))
    affordable = _memory_cap_bytes(device) // max(1, _tensor_bytes(inputs))
    copies = max(1, min(wanted, affordable, _MAX_COPIES))
    note = None
    if copies < wanted:
        size = f"{cache / 2**20:.0f} MiB"
        note = f"inputs may be warm: they rotate over less than twice the cache's {size}"
    return [inputs, *(_clone(inputs) for _ in range(copies - 1))], note


def _nothing_to_wait_for() -> None:
    """A CPU call has finished when it returns."""


def _seconds(run: Callable[[], object], sync: Callable[[], None]) -> float:
    start = time.perf_counter_ns()
    run()
    sync()
    return (time.perf_counter_ns() - start) / 1e9


def _warm_up(
    call: Call, upcoming: Iterator[Inputs], sync: Callable[[], None], warm_up_s: float
) -> float:
    """Calls until a batch lasts `warm_up_s`; returns the seconds per call in that batch.

    Batches double, and the device is waited for after each: without that, a launch-bound host
    could queue minutes of work within a warm-up of milliseconds.
    """
    _repeat(call, upcoming, 1)  # compiles, allocates, creates handles
    sync()
    batch = 1
    while True:
        elapsed = _seconds(functools.partial(_repeat, call, upcoming, batch), sync)
        if elapsed >= warm_up_s or batch >= _MAX_CALLS:
            return elapsed / batch
        batch *= 2


def _repeat(call: Call, upcoming: Iterator[Inputs], count: int) -> None:
    for _ in range(count):
        call(next(upcoming))


def _host_burst(call: Call, upcoming: Iterator[Inputs], count: int) -> _Burst:
    return _Burst(functools.partial(_repeat, call, upcoming, count), count, "host clock")


def _cuda_burst(call: Call, upcoming: Iterator[Inputs], count: int) -> _Burst:
    """Captures the calls; where they cannot be captured, enqueues them one by one."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            _repeat(call, upcoming, count)
    except RuntimeError as error:
        torch.cuda.synchronize()
        # Ending a broken capture raises as well; the first error says what broke it.
        reason = str(error.__context__ or error).partition("\n")[0]
        method = f"events, includes launch gaps (no CUDA graph: {reason})"
        return _Burst(functools.partial(_repeat, call, upcoming, count), count, method)
    return _Burst(graph.replay, count, "CUDA graph")


def _host_rounds(
    bursts: Mapping[str, _Burst], rounds: int, give_up_s: float
) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in bursts}
    start = time.monotonic()
    for _ in range(rounds):
        for name, burst in bursts.items():
            seconds = _seconds(burst.run, _nothing_to_wait_for)
            samples[name].append(seconds / burst.calls * 1e6)
        # On a busy machine threads that wait for one another can slow a call a hundredfold.
        if time.monotonic() - start > give_up_s:
            break
    return samples


def _cuda_rounds(bursts: Mapping[str, _Burst], rounds: int) -> dict[str, list[float]]:
    """Queues all rounds before the first wait: the GPU then works from a backlog, without gaps."""
    marks = []
    for _ in range(rounds):
        for name, burst in bursts.items():
            start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            start.record()
            burst.run()
            end.record()
            marks.append((name, start, end))
    torch.cuda.synchronize()
    samples: dict[str, list[float]] = {name: [] for name in bursts}
    for name, start, end in marks:
        samples[name].append(start.elapsed_time(end) * 1e3 / bursts[name].calls)
    return samples


def _memory_cap_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free // 4
    return _CPU_MEMORY_CAP_BYTES


def _tensor_bytes(value: object) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(_tensor_bytes, value.values()))
    return sum(map(_tensor_bytes, value)) if isinstance(value, tuple) else 0


def _clone(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()  # keeps the strides of a dense tensor, transposed ones too
    if isinstance(value, dict):
        return {key: _clone(item) for key, item in value.items()}
    return tuple(map(_clone, value)) if isinstance(value, tuple) else value
