"""Matrix products at the shapes of DeepSeek-V3's layers: FP8 with block scales, and BF16."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from benchmarks.case import Case, TensorCase
from benchmarks.gemm_peers import BLOCK, FP8_PEERS, TORCH_PEERS, dequantised, exact
from benchmarks.roofline import Work
from benchmarks.timing import Inputs

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
    """One such product per group, m rows each."""

    groups: int
    m: int
    n: int
    k: int


def _fp8_work(shape: Gemm | Grouped) -> Work:
    groups, blocks = getattr(shape, "groups", 1), -(-shape.k // BLOCK)
    a_bytes = shape.m * (shape.k + 4 * blocks)
    b_bytes = shape.n * shape.k + 4 * -(-shape.n // BLOCK) * blocks
    flops = 2 * groups * shape.m * shape.n * shape.k
    return Work(flops, groups * (a_bytes + b_bytes + 2 * shape.m * shape.n), "fp8")


def _gradient_work(shape: Gemm) -> Work:
    operands = (shape.m + shape.n) * (shape.k + 4 * -(-shape.k // BLOCK))
    flops = 2 * shape.m * shape.n * shape.k
    return Work(flops, operands + 8 * shape.m * shape.n, "fp8")


def _bf16_work(shape: Gemm) -> Work:
    elements = shape.m * shape.k + shape.n * shape.k + shape.m * shape.n
    return Work(2 * shape.m * shape.n * shape.k, 2 * elements, "bf16")


def _random(device: torch.device, seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    return [torch.randn(shape, generator=generator, device=device) for shape in shapes]


def _operands(a: torch.Tensor, b: torch.Tensor) -> Inputs:
    """Quantises a [m, k] and b [n, k] or [groups, n, k]; adds what the peers start from."""
    gemm = import_module("deepgemm")
    a_fp8, a_scale = gemm.per_token_cast_to_fp8(a)
    casts = [gemm.per_block_cast_to_fp8(weight) for weight in b.view(-1, *b.shape[-2:])]
    b_fp8 = torch.stack([cast[0] for cast in casts]).view(b.shape)
    b_scale = torch.stack([cast[1] for cast in casts]).view(*b.shape[:-2], *casts[0][1].shape)
    a_fp32, b_fp32 = dequantised(a_fp8, a_scale, 1), dequantised(b_fp8, b_scale, BLOCK)
    return {
        "a": (a_fp8, a_scale),
        "b": (b_fp8, b_scale),
        "a_scale_by_column": a_scale.t().contiguous().t(),
        "d": a.new_full((a.shape[0], b.shape[-2]), torch.nan, dtype=torch.bfloat16),
        "fp32": (a_fp32, b_fp32),
        "bf16": (a_fp32.bfloat16(), b_fp32.bfloat16()),
    }


def _dense_inputs(shape: Gemm, device: torch.device, seed: int) -> Inputs:
    return _operands(*_random(device, seed, (shape.m, shape.k), (shape.n, shape.k)))


def _contiguous_inputs(shape: Grouped, device: torch.device, seed: int) -> Inputs:
    """The rows of a group are padded up to the alignment."""
    alignment = import_module("deepgemm").get_m_alignment_for_contiguous_layout()
    rows = -(-shape.m // alignment) * alignment
    a, b = _random(device, seed, (shape.groups, rows, shape.k), (shape.groups, shape.n, shape.k))
    a[:, shape.m :] = 0
    layout = torch.arange(shape.groups, dtype=torch.int32, device=device)
    layout = layout[:, None].repeat(1, rows)
    layout[:, shape.m :] = -1
    return {**_operands(a.view(-1, shape.k), b), "layout": layout.view(-1)}


def _masked_inputs(shape: Grouped, device: torch.device, seed: int) -> Inputs:
    """Each group has room for twice the rows that it has."""
    a, b = _random(device, seed, (shape.groups, shape.m, shape.k), (shape.groups, shape.n, shape.k))
    inputs = _operands(a.view(-1, shape.k), b)
    (data, scale), room = inputs["a"], 2 * shape.m
    padded = torch.zeros(shape.groups, room, shape.k, dtype=torch.uint8, device=device)
    padded[:, : shape.m] = data.view(torch.uint8).view(a.shape)
    padded_scale = torch.zeros(shape.groups, room, scale.shape[1], device=device)
    padded_scale[:, : shape.m] = scale.view(shape.groups, shape.m, -1)
    return {
        **inputs,
        "padded_a": (padded.view(data.dtype), padded_scale),
        "d": a.new_full((shape.groups, room, shape.n), torch.nan, dtype=torch.bfloat16),
        "masked_m": torch.full((shape.groups,), shape.m, dtype=torch.int32, device=device),
    }


def _gradient_inputs(shape: Gemm, device: torch.device, seed: int) -> Inputs:
    a, b, c = _random(device, seed, (shape.m, shape.k), (shape.n, shape.k), (shape.m, shape.n))
    gemm = import_module("deepgemm")
    pairs = [gemm.per_token_cast_to_fp8(operand) for operand in (a, b)]
    whole = tuple(dequantised(data, scale, 1) for data, scale in pairs)
    bf16 = tuple(operand.bfloat16() for operand in whole)
    return {"a": pairs[0], "b": pairs[1], "c": c, "fp32": whole, "bf16": bf16}


def _bf16_inputs(shape: Gemm, device: torch.device, seed: int) -> Inputs:
    made = _random(device, seed, (shape.m, shape.k), (shape.n, shape.k))
    a, b = (operand.bfloat16() for operand in made)
    d = a.new_full((shape.m, shape.n), torch.nan)
    return {"a": a, "b": b, "d": d, "fp32": (a.float(), b.float()), "bf16": (a, b)}


def _dense(inputs: Inputs) -> Any:
    import_module("deepgemm").fp8_gemm_nt(inputs["a"], inputs["b"], inputs["d"])
    return inputs["d"]


def _contiguous(inputs: Inputs) -> Any:
    import_module("deepgemm").m_grouped_fp8_gemm_nt_contiguous(
        inputs["a"], inputs["b"], inputs["d"], inputs["layout"]
    )
    return inputs["d"]


def _masked(inputs: Inputs) -> Any:
    d, m = inputs["d"], inputs["d"].shape[1] // 2
    import_module("deepgemm").m_grouped_fp8_gemm_nt_masked(
        inputs["padded_a"], inputs["b"], d, inputs["masked_m"], m
    )
    return d[:, :m].flatten(0, 1)


def _gradient(inputs: Inputs) -> Any:
    """Adds to zeros: what is there is cleared by the same pass, in the peers as well."""
    d = torch.zeros_like(inputs["c"])
    import_module("deepgemm").fp8_gemm_nt(inputs["a"], inputs["b"], d, c=d, recipe=(1, 1, BLOCK))
    return d


def _bf16(inputs: Inputs) -> Any:
    import_module("deepgemm").bf16_gemm_nt(inputs["a"], inputs["b"], inputs["d"])
    return inputs["d"]


_CASTS = ("deepgemm.per_token_cast_to_fp8", "deepgemm.per_block_cast_to_fp8")
_EXPERTS = ((4096, 7168), (7168, 2048))  # (n, k)
_TOLERANCE = 6e-3  # bf16 rounds by 2e-3; the bf16 peer's operands add as much again

CASES: tuple[Case[Any], ...] = (
    TensorCase(
        name="deepgemm",
        title="fp8_gemm_nt: [m, k] x [n, k] to bf16, block scales",
        needs=("deepgemm.fp8_gemm_nt", *_CASTS),
        shapes={
            "tiny": (Gemm(1, 64, 128), Gemm(5, 192, 256)),
            "real": tuple(Gemm(m, n, k) for m in (64, 128, 4096) for n, k in _LAYERS),
            "sweep": tuple(Gemm(2**power, 4096, 7168) for power in range(14)),
        },
        work=_fp8_work,
        inputs=_dense_inputs,
        ours=_dense,
        oracle=exact,
        tolerance=_TOLERANCE,
        peers={**TORCH_PEERS, **FP8_PEERS},
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
                *(Grouped(4, 8192, n, k) for n, k in _EXPERTS),
                *(Grouped(8, 4096, n, k) for n, k in _EXPERTS),
            ),
            "sweep": tuple(Grouped(8, 2**power, 4096, 2048) for power in range(5, 13)),
        },
        work=_fp8_work,
        inputs=_contiguous_inputs,
        ours=_contiguous,
        oracle=exact,
        tolerance=_TOLERANCE,
        peers=TORCH_PEERS,
    ),
    TensorCase(
        name="deepgemm_masked",
        title="m_grouped_fp8_gemm_nt_masked: one product per expert, rows counted on the device",
        needs=("deepgemm.m_grouped_fp8_gemm_nt_masked", *_CASTS),
        shapes={
            "tiny": (Grouped(1, 16, 64, 128), Grouped(3, 70, 128, 256)),
            "real": tuple(
                Grouped(groups, m, n, k)
                for groups, m in ((1, 1024), (2, 512), (4, 256), (32, 20))
                for n, k in _EXPERTS
            ),
            "sweep": tuple(Grouped(8, 2**power, 4096, 2048) for power in range(3, 11)),
        },
        work=_fp8_work,
        inputs=_masked_inputs,
        ours=_masked,
        oracle=exact,
        tolerance=_TOLERANCE,
        peers=TORCH_PEERS,
    ),
    TensorCase(
        name="deepgemm_wgrad",
        title="fp8_gemm_nt with c: FP32 gradients of weights, scales of 1 x 128 on both sides",
        needs=("deepgemm.fp8_gemm_nt", *_CASTS),
        shapes={
            "tiny": (Gemm(64, 72, 128), Gemm(136, 128, 256)),
            "real": tuple(Gemm(k, n, tokens) for tokens in (4096, 8192) for n, k in _LAYERS),
            "sweep": tuple(Gemm(7168, 4096, 2**power) for power in range(7, 15)),
        },
        work=_gradient_work,
        inputs=_gradient_inputs,
        ours=_gradient,
        oracle=exact,
        tolerance=_TOLERANCE,
        peers=TORCH_PEERS,
    ),
    TensorCase(
        name="deepgemm_bf16",
        title="bf16_gemm_nt: [m, k] x [n, k] to bf16",
        needs=("deepgemm.bf16_gemm_nt",),
        shapes={
            "tiny": (Gemm(1, 64, 128), Gemm(5, 192, 256)),
            "real": tuple(Gemm(m, n, k) for m in (64, 128, 4096) for n, k in _LAYERS),
            "sweep": tuple(Gemm(2**power, 4096, 7168) for power in range(14)),
        },
        work=_bf16_work,
        inputs=_bf16_inputs,
        ours=_bf16,
        oracle=exact,
        tolerance=_TOLERANCE,
        peers={"torch-bf16": TORCH_PEERS["torch-bf16"]},
    ),
)
