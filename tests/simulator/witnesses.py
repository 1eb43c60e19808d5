"""Kernels of an independent compiler, with inputs and the numbers that torch gives for them.

Triton compiles for sm_90 on a machine without a GPU. What runs its PTX must arrive at torch's
numbers, whoever wrote it: none of the project's own device code is involved.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
from torch import Tensor

from tests.simulator import witness_kernels as kernels
from tests.simulator.witness_compiler import Tiled, Witness, compile_witness


def _random(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers; those of float32 are exact in TF32."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.bfloat16().to(dtype)


def _poisoned(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.full(shape, float("nan"), dtype=torch.float32).to(dtype)


def _blocks(block_m: int, block_n: int, block_k: int) -> dict[str, int]:
    return {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k}


def _matmul(
    seed: int,
    dtype: torch.dtype,
    block: tuple[int, int, int],
    *,
    shape: tuple[int, int, int] = (200, 176, 272),
    k_major: bool = True,
    out: torch.dtype = torch.bfloat16,
    **options: int,
) -> Witness:
    m, n, k = shape
    a = _random((m, k), dtype, seed)
    stored = _random((n, k) if k_major else (k, n), dtype, seed + 1)
    b = stored.T if k_major else stored
    d = _poisoned((m, n), out)
    sizes = {"m": m, "n": n, "k": k, "b_stride_k": b.stride(0), "b_stride_n": b.stride(1)}
    return compile_witness(
        kernels.matmul,
        (triton.cdiv(m, block[0]), triton.cdiv(n, block[1])),
        {"a_ptr": a, "b_ptr": stored, "d_ptr": d, **sizes},
        _blocks(*block),
        [(d, a.double() @ b.double())],
        **options,
    )


def _scaled_matmul(seed: int) -> Witness:
    m, n, k = 128, 256, 192
    a, b = _random((m, k), torch.bfloat16, seed), _random((n, k), torch.bfloat16, seed + 1)
    scale = 2.0 ** torch.arange(k).remainder(5).bfloat16()  # powers of 2: a * scale is exact
    d = _poisoned((m, n), torch.float32)
    return compile_witness(
        kernels.scaled_matmul,
        (m // 64, n // 128),
        {"a_ptr": a, "b_ptr": b, "scale_ptr": scale, "d_ptr": d, "n": n, "k": k},
        _blocks(64, 128, 64),
        [(d, (a * scale).double() @ b.double().T)],
        num_warps=4,
        num_stages=3,
    )


def _descriptor_matmul(
    seed: int, dtype: torch.dtype, block_k: int, *, num_warps: int = 8, num_ctas: int = 1
) -> Witness:
    m, n, k = 200, 176, 272  # the last block of each dimension reaches out of bounds
    a, b = _random((m, k), dtype, seed), _random((n, k), dtype, seed + 1)
    d = _poisoned((m, n), torch.bfloat16)
    return compile_witness(
        kernels.descriptor_matmul,
        (triton.cdiv(m, 128), triton.cdiv(n, 128)),
        {
            "a_map": Tiled(a, (128, block_k)),
            "b_map": Tiled(b, (128, block_k)),
            "d_map": Tiled(d, (128, 128)),
            "k": k,
        },
        _blocks(128, 128, block_k),
        [(d, a.double() @ b.double().T)],
        num_warps=num_warps,
        num_stages=3,
        num_ctas=num_ctas,
    )


def _own_descriptor_matmul(seed: int) -> Witness:
    m, n, k = 200, 176, 272
    a, b = _random((m, k), torch.bfloat16, seed), _random((n, k), torch.bfloat16, seed + 1)
    d = _poisoned((m, n), torch.bfloat16)
    return compile_witness(
        kernels.own_descriptor_matmul,
        (triton.cdiv(m, 128), triton.cdiv(n, 128)),
        {"a_ptr": a, "b_ptr": b, "d_ptr": d, "m": m, "n": n, "k": k},
        _blocks(128, 128, 64),
        [(d, a.double() @ b.double().T)],
        num_warps=8,
        num_stages=3,
    )


def _persistent_matmul(seed: int) -> Witness:
    m, n, k = 200, 304, 144
    a, b = _random((m, k), torch.bfloat16, seed), _random((n, k), torch.bfloat16, seed + 1)
    d = _poisoned((m, n), torch.bfloat16)
    return compile_witness(
        kernels.persistent_matmul,
        (3,),  # for 12 tiles
        {"a_ptr": a, "b_ptr": b, "d_ptr": d, "m": m, "n": n, "k": k},
        _blocks(64, 128, 64),
        [(d, a.double() @ b.double().T)],
        num_warps=4,
        num_stages=3,
    )


def _attention(seed: int) -> Witness:
    heads, length, head_dim = 2, 192, 64
    shape = (heads, length, head_dim)
    q, k, v = (_random(shape, torch.bfloat16, seed + i) for i in range(3))
    output = _poisoned(shape, torch.bfloat16)
    scores = q.double() @ k.double().mT / head_dim**0.5
    later = torch.ones(length, length, dtype=torch.bool).triu(1)
    expected = scores.masked_fill(later, float("-inf")).softmax(-1) @ v.double()
    return compile_witness(
        kernels.attention,
        (length // 64, heads),
        {
            "q_ptr": q,
            "k_ptr": k,
            "v_ptr": v,
            "output_ptr": output,
            "length": length,
            "log2_scale": 1.4426950408889634 / head_dim**0.5,
        },
        {"HEAD_DIM": head_dim, "BLOCK_Q": 64, "BLOCK_KV": 64},
        [(output, expected)],
        num_warps=4,
        num_stages=2,
    )


def _elementwise(
    seed: int, x_dtype: torch.dtype, y_dtype: torch.dtype, out: torch.dtype
) -> Witness:
    length = 2500
    x, y = _random((length,), x_dtype, seed), _random((length,), y_dtype, seed + 1)
    d = _poisoned((length,), out)
    x64, y64 = x.double(), y.double()
    expected = (-x64.abs()).exp() * y64.sigmoid() + (x64 * x64 + 1).sqrt()
    arguments = {"x_ptr": x, "y_ptr": y, "d_ptr": d, "length": length}
    return compile_witness(kernels.elementwise, (3,), arguments, {"BLOCK": 1024}, [(d, expected)])


def _row_softmax(seed: int) -> Witness:
    rows, columns = 3, 777
    x = _random((rows, columns), torch.float32, seed)
    d = _poisoned((rows, columns), torch.bfloat16)
    arguments = {"x_ptr": x, "d_ptr": d, "columns": columns}
    expected = x.double().softmax(-1)
    return compile_witness(
        kernels.row_softmax, (rows,), arguments, {"BLOCK": 1024}, [(d, expected)]
    )


def _integers(low: int, high: int, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, dtype=torch.int32, generator=generator)


def _row_scan(seed: int) -> Witness:
    rows, columns = 3, 512
    x = _integers(-1000, 1000, (rows, columns), seed)
    d = torch.zeros_like(x)
    arg_max = torch.zeros(rows, dtype=torch.int32)
    largest = x == x.amax(-1, keepdim=True)
    first = largest.int().argmax(-1).int()  # of equal ones, the first
    return compile_witness(
        kernels.row_scan,
        (rows,),
        {"x_ptr": x, "d_ptr": d, "arg_max_ptr": arg_max},
        {"BLOCK": columns},
        [(d, x.cumsum(-1).int()), (arg_max, first)],
    )


def _count_values(seed: int) -> Witness:
    length, bins = 1000, 37
    x = _integers(0, bins, (length,), seed)
    counts, seen = torch.zeros(bins, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    expected = torch.tensor([0, length], dtype=torch.int32)  # the lock is open again
    return compile_witness(
        kernels.count_values,
        (4,),
        {"x_ptr": x, "counts_ptr": counts, "seen_ptr": seen, "length": length},
        {"BLOCK": 256},
        [(counts, x.bincount(minlength=bins).int()), (seen, expected)],
    )


def _extremes(seed: int) -> Witness:
    length = 1000
    x = _integers(-(2**30), 2**30, (length,), seed)
    found = torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32)
    arguments = {"x_ptr": x, "largest_smallest_ptr": found, "length": length}
    expected = torch.stack([x.max(), x.min()])
    return compile_witness(kernels.extremes, (4,), arguments, {"BLOCK": 256}, [(found, expected)])


def _transpose(seed: int) -> Witness:
    m, n = 100, 200
    x = _random((m, n), torch.bfloat16, seed)
    d = _poisoned((n, m), torch.bfloat16)
    arguments = {"x_ptr": x, "d_ptr": d, "m": m, "n": n}
    grid = (triton.cdiv(m, 64), triton.cdiv(n, 64))
    return compile_witness(kernels.transpose, grid, arguments, {"BLOCK": 64}, [(d, x.double().T)])


_BF16, _F16, _F32 = torch.bfloat16, torch.float16, torch.float32
_E4M3, _E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
_PIPELINED: dict[str, Any] = {"num_warps": 4, "num_stages": 3}
_WIDE: dict[str, Any] = {"num_warps": 8, "num_stages": 4}

# Each takes a seed for its inputs, and compiles.
WITNESSES: dict[str, Callable[[int], Witness]] = {
    "matmul_bf16": partial(_matmul, dtype=_BF16, block=(128, 128, 64), **_PIPELINED),
    "matmul_f16": partial(_matmul, dtype=_F16, block=(128, 128, 64), **_PIPELINED),
    "matmul_e4m3": partial(_matmul, dtype=_E4M3, block=(128, 128, 64), **_PIPELINED),
    "matmul_e5m2": partial(_matmul, dtype=_E5M2, block=(128, 128, 64), **_PIPELINED),
    "matmul_tf32": partial(_matmul, dtype=_F32, block=(128, 128, 64), out=_F32, **_PIPELINED),
    "matmul_bf16_mn_major": partial(
        _matmul, dtype=_BF16, block=(128, 128, 64), k_major=False, **_PIPELINED
    ),
    "matmul_bf16_256_wide": partial(
        _matmul, dtype=_BF16, block=(128, 256, 64), shape=(130, 300, 320), **_WIDE
    ),
    "matmul_e4m3_256_wide": partial(
        _matmul, dtype=_E4M3, block=(128, 256, 64), shape=(130, 300, 320), **_WIDE
    ),
    "matmul_bf16_one_stage": partial(
        _matmul, dtype=_BF16, block=(64, 64, 64), num_warps=4, num_stages=1
    ),
    "matmul_bf16_mma_sync": partial(
        _matmul, dtype=_BF16, block=(32, 32, 32), shape=(70, 40, 80), num_warps=4, num_stages=2
    ),
    "scaled_matmul_bf16": _scaled_matmul,
    "descriptor_matmul_bf16": partial(_descriptor_matmul, dtype=_BF16, block_k=64),
    "descriptor_matmul_f16": partial(_descriptor_matmul, dtype=_F16, block_k=64),
    "descriptor_matmul_e4m3": partial(_descriptor_matmul, dtype=_E4M3, block_k=128),
    "descriptor_matmul_bf16_64_byte_swizzle": partial(_descriptor_matmul, dtype=_BF16, block_k=32),
    "descriptor_matmul_bf16_32_byte_swizzle": partial(_descriptor_matmul, dtype=_BF16, block_k=16),
    "descriptor_matmul_bf16_cluster": partial(
        _descriptor_matmul, dtype=_BF16, block_k=64, num_warps=4, num_ctas=2
    ),
    "own_descriptor_matmul_bf16": _own_descriptor_matmul,
    "persistent_matmul_bf16": _persistent_matmul,
    "attention_bf16": _attention,
    "elementwise": partial(_elementwise, x_dtype=_BF16, y_dtype=_F16, out=_F32),
    "elementwise_fp8": partial(_elementwise, x_dtype=_E4M3, y_dtype=_E5M2, out=_E4M3),
    "row_softmax": _row_softmax,
    "row_scan": _row_scan,
    "count_values": _count_values,
    "extremes": _extremes,
    "transpose": _transpose,
}
