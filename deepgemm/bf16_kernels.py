"""The BF16 Hopper kernels: how each is compiled, and the grid and tensor maps of a launch."""

from __future__ import annotations

import functools

import torch

from csrc import Launcher, Map, Number, Signature, Struct, TensorMap, compile_kernel, num_sms
from deepgemm.layout import ceil_div

# Of csrc/deepgemm/bf16_gemm_sm90.cuh.
_BLOCK_M, _BLOCK_N, _BLOCK_K = 128, 128, 64
_CLUSTER, _THREADS, _SMEM_BYTES = 2, 384, 164864
# The rows of A that a CTA loads at a time, of B (half a block: its cluster shares it), and of D
# that a warpgroup stores.
_BOX_A, _BOX_B, _BOX_D = (_BLOCK_M, _BLOCK_K), (_BLOCK_N // _CLUSTER, _BLOCK_K), (64, 64)


@functools.cache
def _bf16_gemm() -> Launcher:
    maps, sizes = map(Map, "abd"), (Number(name, "i32") for name in "mnk")
    return Launcher(
        compile_kernel("deepgemm/bf16_gemm.cu", "openweek::deepgemm::bf16_gemm_nt_sm90_kernel"),
        Signature(Struct("params", (*maps, *sizes))),
        op="bf16_gemm_nt",
        block=(_THREADS, 1, 1),
        cluster=(_CLUSTER, 1, 1),
        smem_bytes=_SMEM_BYTES,
    )


def bf16_gemm_nt(a: torch.Tensor, b: torch.Tensor, d: torch.Tensor) -> None:
    """Launch `d = a @ b.T` for a [m, k], b [n, k] and d [m, n], none of them empty."""
    (m, k), n = a.shape, len(b)
    clusters = ceil_div(m, _CLUSTER * _BLOCK_M) * ceil_div(n, _BLOCK_N)
    most = max(1, num_sms(a.device) // _CLUSTER)
    _bf16_gemm()(
        TensorMap.of(a, _BOX_A, swizzle_bytes=128),
        TensorMap.of(b, _BOX_B, swizzle_bytes=128),
        TensorMap.of(d, _BOX_D, swizzle_bytes=128),
        *(m, n, k),
        grid=(_CLUSTER * min(clusters, most), 1, 1),
    )
