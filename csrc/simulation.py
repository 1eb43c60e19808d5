"""Where kernels on CPU tensors run: in simulated Hopper GPUs, once somebody has asked for that.

    with csrc.simulate(seed=7) as simulation:
        deepgemm.bf16_gemm_nt(a, b, d)
    simulation.report["num_instructions"]

The environment variable OPENWEEK_SIMULATE=1 asks for it for the whole process.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

from csrc import simulator
from csrc.compiler import Kernel
from csrc.entry import Extent
from csrc.simulator import MemoryRange

# Few enough to be resident at once on a laptop, and even for clusters of two, four and eight.
_NUM_SMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One launch, complete and checked, as a simulation gets it.

    Attributes:
        kernel: What to run.
        grid: CTAs per dim.
        block: Threads per dim.
        cluster: CTAs of a cluster per dim; divides the grid.
        smem_bytes: Dynamic shared memory of a CTA.
        parameters: The parameter buffer; tensor maps are in the simulator's encoding.
        memory: What the launch may touch.
    """

    kernel: Kernel
    grid: Extent
    block: Extent
    cluster: Extent
    smem_bytes: int
    parameters: bytes
    memory: tuple[MemoryRange, ...]


@dataclass(slots=True, kw_only=True)
class Simulation:
    """Simulated GPUs, and what they have done.

    Attributes:
        seed: Decides the order of all that a kernel leaves open; each launch has a seed of its own
            that follows from it.
        num_sms: SMs of a GPU, which kernels ask for when they choose a grid.
        reduced_fp8: Whether tensor cores sum FP8 products with 14 bits.
        report: Sums over all launches: num_launches, num_instructions (of warps), num_wgmmas ...
    """

    seed: int = 0
    num_sms: int = _NUM_SMS
    reduced_fp8: bool = False
    report: Counter[str] = field(default_factory=Counter)

    def launch(self, launch: Launch) -> None:
        """Runs a kernel to its end.

        Raises:
            RuntimeError: The kernel did what no kernel may do, or waits for ever.
            NotImplementedError: It has an instruction that the simulator does not know.
        """
        kernel = _loaded(launch.kernel.ptx, launch.kernel.name)
        seed = self.seed + self.report["num_launches"]
        with simulator.Machine(
            sms=self.num_sms, seed=seed, reduced_fp8=self.reduced_fp8
        ) as machine:
            machine.launch(
                kernel,
                launch.grid,
                launch.block,
                args=kernel.split(launch.parameters),
                cluster=launch.cluster,
                smem_bytes=launch.smem_bytes,
                memory=launch.memory,
                registers=launch.kernel.report.registers,
            )
            self.report.update(machine.run(), num_launches=1)


_ACTIVE: ContextVar[Simulation | None] = ContextVar("openweek_simulation", default=None)


@contextlib.contextmanager
def simulate(
    *, seed: int = 0, num_sms: int = _NUM_SMS, reduced_fp8: bool = False
) -> Iterator[Simulation]:
    """Inside, functions of the kernel packages run their Hopper kernels on CPU tensors.

    A call returns when its kernel has ended. A function whose kernel is not built raises
    NotImplementedError: nothing is computed in another way.

    Args:
        seed: Of all that a kernel leaves open. The same seed gives the same run.
        num_sms: SMs of the simulated GPU.
        reduced_fp8: Sums FP8 products of the tensor cores with 14 significant bits, as
            measurements of Hopper suggest, instead of in float32.

    Example:
        >>> import csrc, deepgemm, torch
        >>> a, b = torch.ones(4, 64).bfloat16(), torch.ones(8, 64).bfloat16()
        >>> d = torch.empty(4, 8, dtype=torch.bfloat16)
        >>> with csrc.simulate(seed=1):  # doctest: +SKIP
        ...     deepgemm.bf16_gemm_nt(a, b, d)
    """
    simulation = Simulation(seed=seed, num_sms=num_sms, reduced_fp8=reduced_fp8)
    token = _ACTIVE.set(simulation)
    try:
        yield simulation
    finally:
        _ACTIVE.reset(token)


def active() -> Simulation | None:
    """The simulation that runs kernels on CPU tensors here and now, if one does."""
    return _ACTIVE.get() or _of_process(os.environ.get("OPENWEEK_SIMULATE", ""))


def simulating() -> bool:
    """Whether kernels on CPU tensors run in a simulation here and now."""
    return active() is not None


@functools.cache
def _of_process(asked: str) -> Simulation | None:
    return Simulation() if asked not in ("", "0") else None


# Steps of one model launch the same kernels again.
@functools.lru_cache(maxsize=256)
def _loaded(ptx: str, name: str) -> simulator.Kernel:
    return simulator.load(ptx)[name]
