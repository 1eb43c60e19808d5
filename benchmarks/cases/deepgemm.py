"""FP8 matrix products with 1x128 and 128x128 scales, at the shapes of DeepSeek-V3's layers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 (the name everybody reads)

from benchmarks.case import Peer, TensorCase
from benchmarks.roofline import Work
from benchmarks.timing import Inputs

_BLOCK = 128
# (n, k) of the projections and expert layers of DeepSeek-V3.
_LAYERS = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048))


@dataclass(frozen=True, slots=True)
class Gemm:
    """d [m, n] = a [m, k] times b [n, k] transposed."""

    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class Grouped:
    """One such product per group, m rows each; rows are padded up to the group alignment."""

    groups: int
    m: int
    n: int
    k: int


def _work(groups: int, m: int, n: int, k: int) -> Work:
    blocks = -(-k // _BLOCK)
    a_bytes = m * (k + 4 * blocks)
    b_bytes = n * k + 4 * -(-n // _BLOCK) * blocks
    return Work(2 * groups * m * n * k, groups * (a_bytes + b_bytes + 2 * m * n), "fp8")


def _dequantised(rows: torch.Tensor, scales: torch.Tensor, block_rows: int) -> torch.Tensor:
    """Spreads scales over their blocks: [.., n, k] e4m3 and its scales to float32."""
    spread = scales.repeat_interleave(_BLOCK, -1)[..., : rows.shape[-1]]
    return rows.float() * spread.repeat_interleave(block_rows, -2)[..., : rows.shape[-2], :]


def _operands(a: torch.Tensor, b: torch.Tensor) -> Inputs:
    """Quantises a [m, k] and b [n, k] or [groups, n, k]; adds what the peers start from."""
    gemm = import_module("deepgemm")
    a_fp8, a_scale = gemm.per_token_cast_to_fp8(a)
    casts = [gemm.per_block_cast_to_fp8(weight) for weight in b.view(-1, *b.shape[-2:])]
    b_fp8 = torch.stack([cast[0] for cast in casts]).view(b.shape)
    b_scale = torch.stack([cast[1] for cast in casts]).view(*b.shape[:-2], *casts[0][1].shape)
    a_fp32, b_fp32 = _dequantised(a_fp8, a_scale, 1), _dequantised(b_fp8, b_scale, _BLOCK)
    return {
        "a": (a_fp8, a_scale),
        "b": (b_fp8, b_scale),
        "d": a.new_full((a.shape[0], b.shape[-2]), torch.nan, dtype=torch.bfloat16),
        "fp32": (a_fp32, b_fp32),
        "bf16": (a_fp32.bfloat16(), b_fp32.bfloat16()),
    }


def _dense_inputs(shape: Gemm, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    a = torch.randn(shape.m, shape.k, generator=generator, device=device)
    inputs = _operands(a, torch.randn(shape.n, shape.k, generator=generator, device=device))
    # cuBLASLt reads the scales of a column by column.
    inputs["a_scale_by_column"] = inputs["a"][1].t().contiguous().t()
    return inputs


def _grouped_inputs(shape: Grouped, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    alignment = import_module("deepgemm").get_m_alignment_for_contiguous_layout()
    rows = -(-shape.m // alignment) * alignment
    a = torch.randn(shape.groups, rows, shape.k, generator=generator, device=device)
    a[:, shape.m :] = 0
    b = torch.randn(shape.groups, shape.n, shape.k, generator=generator, device=device)
    layout = torch.arange(shape.groups, dtype=torch.int32, device=device)
    layout = layout[:, None].repeat(1, rows)
    layout[:, shape.m :] = -1
    return {**_operands(a.view(-1, shape.k), b), "layout": layout.view(-1)}


def _dense(inputs: Inputs) -> torch.Tensor:
    import_module("deepgemm").fp8_gemm_nt(inputs["a"], inputs["b"], inputs["d"])
    result: torch.Tensor = inputs["d"]
    return result


def _grouped(inputs: Inputs) -> torch.Tensor:
    import_module("deepgemm").m_grouped_fp8_gemm_nt_contiguous(
        inputs["a"], inputs["b"], inputs["d"], inputs["layout"]
    )
    result: torch.Tensor = inputs["d"]
    return result


def _torch_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiplies [m, k] by one [n, k], or its equal parts by a [groups, n, k]."""
    if b.dim() == 2:
        return a @ b.t()
    return torch.bmm(a.view(len(b), -1, a.shape[1]), b.transpose(1, 2)).view(len(a), -1)


def _torch_fp32(inputs: Inputs) -> torch.Tensor:
    return _torch_matmul(*inputs["fp32"])


def _torch_bf16(inputs: Inputs) -> torch.Tensor:
    return _torch_matmul(*inputs["bf16"])


def _oracle(inputs: Inputs) -> torch.Tensor:
    a, b = inputs["fp32"]
    return _torch_matmul(a.double(), b.double())


def _torch_scaled_mm(inputs: Inputs) -> Any:
    """Calls cuBLASLt with the same block scales: same inputs, same function."""
    (a, _), (b, b_scale) = inputs["a"], inputs["b"]
    by_row, by_block = F.ScalingType.BlockWise1x128, F.ScalingType.BlockWise128x128
    a_scale = inputs["a_scale_by_column"]
    return F.scaled_mm(a, b.t(), a_scale, by_row, b_scale.t(), by_block)  # bf16 out


# Both work on matrices that were dequantised beforehand: they read 4 and 2 bytes per element where
# ours reads 1, and do not pay for the conversion.
_PEERS = {"torch-fp32": Peer(_torch_fp32), "torch-bf16": Peer(_torch_bf16)}
_CASTS = ("deepgemm.per_token_cast_to_fp8", "deepgemm.per_block_cast_to_fp8")

CASES = (
    TensorCase(
        name="deepgemm",
        title="fp8_gemm_nt: [m, k] x [n, k] to bf16, block scales",
        needs=("deepgemm.fp8_gemm_nt", *_CASTS),
        shapes={
            "tiny": (Gemm(1, 64, 128), Gemm(5, 192, 256)),
            "real": tuple(Gemm(m, n, k) for m in (64, 128, 4096) for n, k in _LAYERS),
            "sweep": tuple(Gemm(2**power, 4096, 7168) for power in range(14)),
        },
        work=lambda shape: _work(1, shape.m, shape.n, shape.k),
        inputs=_dense_inputs,
        ours=_dense,
        oracle=_oracle,
        tolerance=6e-3,  # bf16 rounds by 2e-3; the bf16 peer's operands add as much again
        peers={**_PEERS, "torch-scaled-mm": Peer(_torch_scaled_mm, devices=("cuda",))},
    ),
    TensorCase(
        name="deepgemm_grouped",
        title="m_grouped_fp8_gemm_nt_contiguous: one product per expert",
        needs=("deepgemm.m_grouped_fp8_gemm_nt_contiguous", *_CASTS),
        shapes={
            "tiny": (Grouped(1, 128, 64, 128), Grouped(3, 100, 128, 256)),
            "real": (
                Grouped(2, 128, 4096, 7168),
                Grouped(4, 128, 7168, 2048),
                Grouped(4, 8192, 4096, 7168),
                Grouped(4, 8192, 7168, 2048),
                Grouped(8, 4096, 4096, 7168),
                Grouped(8, 4096, 7168, 2048),
            ),
            "sweep": tuple(Grouped(8, 2**power, 4096, 2048) for power in range(5, 13)),
        },
        work=lambda shape: _work(shape.groups, shape.m, shape.n, shape.k),
        inputs=_grouped_inputs,
        ours=_grouped,
        oracle=_oracle,
        tolerance=6e-3,
        peers=_PEERS,
    ),
)
