"""The two ceilings of a device, arithmetic and memory, and what a call could take at best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from benchmarks.environment import cache_bytes, device_name

Arithmetic = Literal["fp8", "bf16", "fp32"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a call must do at least: each input read once, each output written once."""

    flops: float
    bytes: float
    arithmetic: Arithmetic


@dataclass(frozen=True, slots=True)
class Peaks:
    """Ceilings of one device: dense TFLOP/s by operand type (no sparsity), GB/s of its memory."""

    tflops: Mapping[Arithmetic, float]
    gbytes_per_s: float
    source: Literal["datasheet", "measured"]

    def floor_us(self, work: Work) -> float:
        """Returns the roofline: microseconds that the slower of the two units needs at least."""
        arithmetic_us = work.flops / (self.tflops[work.arithmetic] * 1e6)
        memory_us = work.bytes / (self.gbytes_per_s * 1e3)
        return max(arithmetic_us, memory_us)


_HOPPER_SXM: dict[Arithmetic, float] = {"fp8": 1979, "bf16": 989, "fp32": 67}

# Keyed on the exact name that the driver reports: two cards of one family differ by a factor of 1.4
# here, and a guess would make every percentage wrong. NVIDIA's datasheets, dense rates.
DEVICE_PEAKS: dict[str, Peaks] = {
    "NVIDIA H200": Peaks(_HOPPER_SXM, 4800, "datasheet"),
    "NVIDIA H100 80GB HBM3": Peaks(_HOPPER_SXM, 3350, "datasheet"),
    "NVIDIA H800": Peaks(_HOPPER_SXM, 3350, "datasheet"),
    "NVIDIA H100 PCIe": Peaks({"fp8": 1513, "bf16": 756, "fp32": 51}, 2000, "datasheet"),
}


def peaks_of(device: torch.device) -> Peaks:
    """Returns the ceilings of a device: from the table for a GPU, measured now for a CPU.

    Raises:
        ValueError: The GPU is not in the table.
    """
    return measure_cpu_peaks() if device.type == "cpu" else peaks_of_gpu(device_name(device))


def peaks_of_gpu(name: str) -> Peaks:
    """Returns the table's ceilings for an exact device name; ValueError if it has none."""
    if name not in DEVICE_PEAKS:
        known = ", ".join(DEVICE_PEAKS)
        raise ValueError(
            f"roofline: device must be one of {known}, got {name!r} (add its dense TFLOP/s and "
            "memory GB/s to DEVICE_PEAKS in benchmarks/roofline.py)"
        )
    return DEVICE_PEAKS[name]


def measure_cpu_peaks() -> Peaks:
    """Measures what torch reaches on this CPU: the best of a few runs, so it is a ceiling.

    Every e4m3 number is a bfloat16 number and every bfloat16 number a float32 number, so a wider
    unit may do a narrower type's work: its rate counts where it is the faster one.
    """
    fp32 = _matmul_tflops(torch.float32)
    bf16 = max(_matmul_tflops(torch.bfloat16), fp32)
    copy = _copy_gbytes_per_s(2 * cache_bytes(torch.device("cpu")))
    return Peaks({"fp8": bf16, "bf16": bf16, "fp32": fp32}, copy, "measured")


def geomean(ratios: Iterable[float]) -> float | None:
    """Returns the geometric mean, the right one for ratios; None of nothing."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def _matmul_tflops(dtype: torch.dtype, n: int = 1536) -> float:
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    out = torch.empty_like(a)
    return 2 * n**3 / _best_seconds(lambda: torch.mm(a, b, out=out)) / 1e12


def _copy_gbytes_per_s(wanted_bytes: int) -> float:
    source = torch.zeros(min(wanted_bytes, 2**30), dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source).fill_(0)
    return 2 * source.nbytes / _best_seconds(lambda: target.copy_(source)) / 1e9


def _best_seconds(run: Callable[[], object], search_s: float = 0.7) -> float:
    best, end = math.inf, time.perf_counter() + search_s
    while (start := time.perf_counter()) < end:
        run()
        best = min(best, time.perf_counter() - start)
    return best
