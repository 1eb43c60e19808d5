"""What FP8 matrix products are compared with: torch, cuBLASLt, a Triton kernel, deep_gemm.

All take the dict of a case: `a` and `b` as (e4m3 data, scales), `d` the result, `fp32` and `bf16`
the operands dequantised beforehand.
"""

from __future__ import annotations

import functools
import math
from importlib import import_module
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 (the name everybody reads)

from benchmarks.case import Peer
from benchmarks.timing import Inputs

BLOCK = 128


def dequantised(rows: torch.Tensor, scales: torch.Tensor, block_rows: int) -> torch.Tensor:
    """Spreads scales over their blocks: [.., n, k] e4m3 and its scales to float32."""
    spread = scales.repeat_interleave(BLOCK, -1)[..., : rows.shape[-1]]
    return rows.float() * spread.repeat_interleave(block_rows, -2)[..., : rows.shape[-2], :]


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiplies [m, k] by one [n, k], or its equal parts by a [groups, n, k]."""
    if b.dim() == 2:
        return a @ b.t()
    return torch.bmm(a.view(len(b), -1, a.shape[-1]), b.transpose(1, 2)).view(*a.shape[:-1], -1)


def _torch_fp32(inputs: Inputs) -> torch.Tensor:
    return matmul(*inputs["fp32"])


def _torch_bf16(inputs: Inputs) -> torch.Tensor:
    return matmul(*inputs["bf16"])


def exact(inputs: Inputs) -> torch.Tensor:
    """The result in float64."""
    a, b = inputs["fp32"]
    return matmul(a.double(), b.double())


def _scaled_mm(inputs: Inputs) -> Any:
    """Calls cuBLASLt with the same block scales: same inputs, same function."""
    (a, _), (b, b_scale) = inputs["a"], inputs["b"]
    by_row, by_block = F.ScalingType.BlockWise1x128, F.ScalingType.BlockWise128x128
    # cuBLASLt reads the scales of a column by column.
    a_scale = inputs["a_scale_by_column"]
    return F.scaled_mm(a, b.t(), a_scale, by_row, b_scale.t(), by_block)  # bf16 out


@functools.cache
def _deep_gemm_nt() -> Any:
    """The function of whichever release is installed."""
    deep_gemm = import_module("deep_gemm")
    if deep_gemm.__name__ == "deepgemm":
        raise ImportError("deep_gemm is this project's own stand-in")
    newest, first = "fp8_gemm_nt", "gemm_fp8_fp8_bf16_nt"
    return getattr(deep_gemm, newest if hasattr(deep_gemm, newest) else first)


def _deep_gemm(inputs: Inputs) -> torch.Tensor:
    (a, _), d = inputs["a"], inputs["d"]
    _deep_gemm_nt()((a, inputs["a_scale_by_column"]), inputs["b"], d)
    result: torch.Tensor = d
    return result


@functools.cache
def _triton_kernel() -> Any:
    return import_module("benchmarks.triton_block_scaled").block_scaled_gemm


def _triton(inputs: Inputs) -> torch.Tensor:
    (a, a_scale), (b, b_scale), d = inputs["a"], inputs["b"], inputs["d"]
    (m, k), n = a.shape, len(b)
    block_m = 16 if m <= 16 else 64 if m <= 64 else 128
    grid = (math.ceil(m / block_m) * math.ceil(n / BLOCK),)
    _triton_kernel()[grid](
        *(a, a_scale, b, b_scale, d, m, n, k),
        *(a.stride(0), a_scale.stride(0), a_scale.stride(1), b.stride(0)),
        *(b_scale.stride(0), b_scale.stride(1), d.stride(0)),
        BLOCK_M=block_m,
        num_warps=8 if block_m == 128 else 4,
        num_stages=4,
    )
    result: torch.Tensor = d
    return result


# Both work on matrices that were dequantised beforehand: they read 4 and 2 bytes per element where
# ours reads 1, and do not pay for the conversion.
TORCH_PEERS = {"torch-fp32": Peer(_torch_fp32), "torch-bf16": Peer(_torch_bf16)}
# These do the same work on the same bytes.
FP8_PEERS = {
    "torch-scaled-mm": Peer(_scaled_mm, devices=("cuda",)),
    "triton": Peer(_triton, devices=("cuda",)),
    "deep_gemm": Peer(_deep_gemm, devices=("cuda",)),
}
