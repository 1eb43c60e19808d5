"""What a launch costs the host: the time until the call returns, not that of the kernel."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Case, Measurement, Peer, worst_row_error
from benchmarks.roofline import Work
from benchmarks.timing import Timing

_THREADS = 128
_VALUE = 3.0
# Far fewer than the stream queues, so that no call waits for the GPU.
_CALLS = 100
_MAX_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is passed: one tensor and a number, or what a GEMM takes at most."""

    maps: int
    tensors: int
    numbers: int


_SMALL, _LARGE = Parameters(0, 1, 1), Parameters(3, 6, 4)


def _launch(y: torch.Tensor, shape: Parameters) -> Callable[[], None]:
    """A call that fills `y` with the value by a kernel of ours."""
    compiler, launcher, parameters, tensor_map = (
        import_module(f"csrc.{name}")
        for name in ("compiler", "launcher", "parameters", "tensor_map")
    )
    pointer, number = parameters.Pointer, parameters.Number
    if shape == _SMALL:
        name, arguments = "launch_small", [y, _VALUE]
        members = [pointer("y", y.dtype), number("value", "f32")]
    else:
        name = "launch_large"
        tensors = [torch.zeros(64, 64, device=y.device) for _ in range(5)]
        maps = [tensor_map.TensorMap.of(tensor, (64, 32)) for tensor in tensors[:3]]
        arguments = [*maps, y, *tensors, _VALUE, 64, 64, 64]
        fields = [
            *(parameters.Map(f"map{i}") for i in range(3)),
            *(pointer(f"tensor{i}", y.dtype) for i in range(6)),
            number("value", "f32"),
            *(number(name, "i32") for name in "mnk"),
        ]
        members = [parameters.Struct("params", tuple(fields))]
    ready = launcher.Launcher(
        compiler.compile_kernel(Path(__file__).with_suffix(".cu"), f"openweek::benchmarks::{name}"),
        parameters.Signature(*members),
        op=name,
        block=(_THREADS, 1, 1),
    )
    return functools.partial(ready, *arguments, grid=(1, 1, 1))


def _fill(y: torch.Tensor, shape: Parameters) -> Callable[[], object]:
    """The same by a kernel of torch's."""
    del shape
    return functools.partial(y.fill_, _VALUE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchCase(Case[Parameters]):
    """Times calls by the host's clock; a peer's `run` makes its call as `_launch` does."""

    def measure(
        self, shape: Parameters, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        makers = {"ours": _launch, **{name: peer.run for name, peer in peers.items()}}
        y = torch.empty(_THREADS, device=device)
        truth = torch.full((_THREADS,), _VALUE, dtype=torch.float64, device=device)
        calls, errors = {}, {}
        for name, make in makers.items():
            calls[name] = make(y, shape)
            y.fill_(torch.nan)
            calls[name]()
            errors[name] = worst_row_error(y, truth)
        wrong = [name for name, error in errors.items() if not error <= self.tolerance]
        if wrong:
            return Measurement(max(errors.values()), notes=(f"wrong: {', '.join(wrong)}",))
        return Measurement(errors["ours"], _time(calls, budget_s))


def _time(calls: Mapping[str, Callable[[], object]], budget_s: float) -> dict[str, Timing]:
    samples: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.monotonic() + budget_s
    for done in range(_MAX_ROUNDS):
        for name, call in calls.items():
            torch.cuda.synchronize()
            start = time.perf_counter_ns()
            for _ in range(_CALLS):
                call()
            samples[name].append((time.perf_counter_ns() - start) / 1e3 / _CALLS)
        if done >= 4 and time.monotonic() > deadline:
            break
    method = f"host clock, {_CALLS} calls a sample"
    return {name: Timing(tuple(values), method) for name, values in samples.items()}


CASES: tuple[Case[Any], ...] = (
    LaunchCase(
        name="launch",
        title="host time of launching a kernel that does nothing",
        devices=("cuda",),
        needs=("csrc.launcher.Launcher",),
        shapes={"tiny": (_SMALL, _LARGE), "real": (_SMALL, _LARGE), "sweep": (_SMALL, _LARGE)},
        work=lambda shape: Work(0, 128 * shape.maps + 8 * shape.tensors + 4 * _THREADS, "fp32"),
        tolerance=0.0,
        peers={"torch fill_": Peer(_fill, devices=("cuda",))},
    ),
)
