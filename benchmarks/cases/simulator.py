"""How fast the simulator runs Hopper kernels: simulated instructions a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import SEED, Case, Measurement, Peer, worst_row_error
from benchmarks.roofline import Work
from benchmarks.timing import Timing

_MAX_RUNS = 50
_THREADS = 256
_FACTOR, _OFFSET = 0.75, 0.625
_PROCESS = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Gemm:
    """d [m, n] = a [m, k] times b [n, k] transposed, by the warp-specialised BF16 kernel."""

    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Loop:
    """So many CTAs of 256 threads, each with a loop of arithmetic."""

    ctas: int
    steps: int


@dataclass(frozen=True, slots=True)
class _Problem:
    """A call, what it leaves, the truth, and the same of torch."""

    call: Callable[[], None]
    result: torch.Tensor
    truth: torch.Tensor
    torch_call: Callable[[], torch.Tensor]


def _gemm(shape: Gemm) -> _Problem:
    generator = torch.Generator().manual_seed(SEED)
    a = torch.randn(shape.m, shape.k, generator=generator).bfloat16()
    b = torch.randn(shape.n, shape.k, generator=generator).bfloat16()
    d = torch.full((shape.m, shape.n), torch.nan, dtype=torch.bfloat16)
    multiply = import_module("deepgemm").bf16_gemm_nt
    return _Problem(lambda: multiply(a, b, d), d, a.double() @ b.double().T, lambda: a @ b.T)


def _loop(shape: Loop) -> _Problem:
    csrc = import_module("csrc")
    start = torch.rand(shape.ctas * _THREADS, generator=torch.Generator().manual_seed(SEED))
    values = torch.full_like(start, torch.nan)
    kernel = csrc.compile_kernel(Path(__file__).with_suffix(".cu"), "openweek::benchmarks::iterate")
    launcher = csrc.Launcher(
        kernel,
        csrc.Signature(
            csrc.Pointer("values", torch.float32),
            *(csrc.Number(name, "f32") for name in ("factor", "offset")),
            csrc.Number("num_steps", "i32"),
        ),
        op="iterate",
        block=(_THREADS, 1, 1),
    )

    def call() -> None:
        values.copy_(start)
        launcher(values, _FACTOR, _OFFSET, shape.steps, grid=(shape.ctas, 1, 1))

    return _Problem(call, values, _iterated(start, shape.steps).double(), lambda: start)


def _iterated(values: torch.Tensor, steps: int) -> torch.Tensor:
    """The loop, rounded as a fused multiply-add is: a product of floats is exact in doubles."""
    for _ in range(steps):
        values = (values.double() * _FACTOR + _OFFSET).float()
        values = torch.where(values > 1, values - 1, values)
    return values


def _torch_call(problem: _Problem) -> Callable[[], object]:
    return problem.torch_call


@contextmanager
def _peak_bytes(found: list[int]) -> Iterator[None]:
    """Appends the most memory that the process held meanwhile, where Linux tells it."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        yield
        return
    yield
    lines = (_PROCESS / "status").read_text().splitlines()
    found.extend(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorCase(Case[Any]):
    """Times launches of one kernel inside `csrc.simulate`; loading it is not counted."""

    problem: Callable[[Any], _Problem]

    def measure(
        self, shape: Any, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        del device
        problem = self.problem(shape)
        peaks: list[int] = []
        with import_module("csrc").simulate(seed=SEED) as simulation, _peak_bytes(peaks):
            problem.call()
            error = worst_row_error(problem.result.view(1, -1), problem.truth.view(1, -1))
            if not error <= self.tolerance:
                return Measurement(error)
            simulation.report.clear()
            ours = _samples(problem.call, budget_s)
        timings = {"ours": Timing(tuple(ours), "wall clock of a launch")}
        for name, peer in peers.items():
            timings[name] = Timing(tuple(_samples(peer.run(problem), budget_s)), "wall clock")
        rate = simulation.report["num_instructions"] / sum(ours)
        notes = [f"{rate:.3g} M warp instructions/s"]
        notes += [f"process at most {peak / 1e9:.2f} GB" for peak in peaks]
        return Measurement(error, timings, tuple(notes))


def _samples(call: Callable[[], object], budget_s: float) -> list[float]:
    """Microseconds of calls, for that long, at least three."""
    samples: list[float] = []
    deadline = time.monotonic() + budget_s
    while len(samples) < _MAX_RUNS and (len(samples) < 3 or time.monotonic() < deadline):
        start = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - start) / 1e3)
    return samples


def _gemm_work(shape: Gemm) -> Work:
    elements = shape.m * shape.k + shape.n * shape.k + shape.m * shape.n
    return Work(2 * shape.m * shape.n * shape.k, 2 * elements, "bf16")


def _loop_work(shape: Loop) -> Work:
    return Work(2 * shape.steps * shape.ctas * _THREADS, 8 * shape.ctas * _THREADS, "fp32")


_NEEDS = ("csrc.simulate", "csrc.compile_kernel")

CASES: tuple[Case[Any], ...] = (
    SimulatorCase(
        name="simulator",
        title="the warp-specialised BF16 GEMM, simulated",
        devices=("cpu",),
        needs=(*_NEEDS, "deepgemm.bf16_gemm_nt"),
        shapes={
            "tiny": (Gemm(128, 128, 64),),
            "real": (Gemm(128, 128, 64), Gemm(128, 2112, 7168), Gemm(4096, 2112, 7168)),
            "sweep": tuple(Gemm(2**power, 2112, 1024) for power in range(13)),
        },
        work=_gemm_work,
        tolerance=4e-3,
        peers={"torch-bf16": Peer(_torch_call, devices=("cpu",))},
        problem=_gemm,
    ),
    SimulatorCase(
        name="simulator_alu",
        title="a loop of arithmetic and branches, simulated",
        devices=("cpu",),
        needs=_NEEDS,
        shapes={
            "tiny": (Loop(2, 10),),
            "real": (Loop(16, 2_000), Loop(256, 2_000)),
            "sweep": tuple(Loop(2**power, 1_000) for power in range(9)),
        },
        work=_loop_work,
        tolerance=1e-6,
        problem=_loop,
    ),
)
