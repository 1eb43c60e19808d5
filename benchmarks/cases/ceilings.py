"""What torch itself reaches on this device: how far the two ceilings of the roofline are real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.case import TensorCase
from benchmarks.roofline import Arithmetic, Work
from benchmarks.timing import Inputs

_BYTES = {"fp8": 1, "bf16": 2, "fp32": 4}
_DTYPES: dict[Arithmetic, torch.dtype] = {
    "fp8": torch.float8_e4m3fn,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}


@dataclass(frozen=True, slots=True)
class Matmul:
    """A square matrix product, n x n x n."""

    matmul: Arithmetic
    n: int


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy inside the device's memory."""

    copy_mib: int


def _work(shape: Matmul | Copy) -> Work:
    if isinstance(shape, Copy):
        return Work(0, 2 * shape.copy_mib * 2**20, "fp32")
    n, size = shape.n, _BYTES[shape.matmul]
    # An fp8 product is written as bf16.
    return Work(2 * n**3, (2 * size + max(2, size)) * n**2, shape.matmul)


def _inputs(shape: Matmul | Copy, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    if isinstance(shape, Copy):
        size = (shape.copy_mib, 2**18)  # rows of 1 MiB
        source = torch.randn(size, generator=generator, device=device)
        return {"source": source, "target": torch.full_like(source, torch.nan)}
    a, b = (torch.randn(shape.n, shape.n, generator=generator, device=device) for _ in "ab")
    one = torch.ones((), device=device)
    dtype = _DTYPES[shape.matmul]
    return {"a": a.to(dtype), "b_transposed": b.to(dtype), "one": one}


def _run(inputs: Inputs) -> Any:
    if "source" in inputs:
        return inputs["target"].copy_(inputs["source"])
    a, b = inputs["a"], inputs["b_transposed"].t()
    if a.dtype == torch.float8_e4m3fn:
        one = inputs["one"]
        return torch._scaled_mm(a, b, one, one, out_dtype=torch.bfloat16, use_fast_accum=True)  # noqa: SLF001
    return a @ b


def _oracle(inputs: Inputs) -> Any:
    if "source" in inputs:
        return inputs["source"].double()
    return inputs["a"].double() @ inputs["b_transposed"].t().double()


_SHAPES: dict[str, Sequence[Matmul | Copy]] = {
    "tiny": (Matmul("fp32", 33), Matmul("bf16", 64), Matmul("fp8", 64), Copy(1)),
    "real": (
        *(Matmul(dtype, 1536) for dtype in _DTYPES if dtype != "fp8"),
        *(Matmul(dtype, 8192) for dtype in _DTYPES),
        Copy(256),
        Copy(4096),
    ),
    "sweep": (
        *(Matmul("bf16", 2**power) for power in range(8, 14)),
        *(Copy(2**power) for power in range(0, 12, 2)),
    ),
}

CASES = (
    TensorCase(
        name="ceilings",
        title="torch's own matrix product and device copy, against the ceilings used for all cases",
        shapes=_SHAPES,
        work=_work,
        inputs=_inputs,
        ours=_run,
        oracle=_oracle,
        tolerance=1e-2,
    ),
)
