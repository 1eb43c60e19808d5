"""What callers of `deep_gemm` find by name and this package does not compute.

Every name is here, so that `from deep_gemm import ...` works and a program that never calls it
runs. A call raises NotImplementedError, which says what is missing and what to use instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn


def _missing(name: str, what: str, instead: str) -> Callable[..., NoReturn]:
    def stub(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise NotImplementedError(f"{name}: {what} is not built ({instead})")

    stub.__name__ = stub.__qualname__ = name
    stub.__doc__ = f"Raise NotImplementedError: {what} is not built ({instead})."
    return stub


_INDEXER = "the indexer of sparse attention"
_IN_TORCH = "compute it with torch, in blocks of the cache"
einsum = _missing("einsum", "a kernel for batched BF16 sums", "torch.einsum computes them")
fp8_einsum = _missing("fp8_einsum", "a kernel for batched FP8 sums", "call fp8_gemm_nt per batch")
fp8_mqa_logits = _missing("fp8_mqa_logits", _INDEXER, _IN_TORCH)
fp8_fp4_mqa_logits = _missing("fp8_fp4_mqa_logits", _INDEXER, _IN_TORCH)
fp8_paged_mqa_logits = _missing("fp8_paged_mqa_logits", _INDEXER, _IN_TORCH)
fp8_fp4_paged_mqa_logits = _missing("fp8_fp4_paged_mqa_logits", _INDEXER, _IN_TORCH)
get_paged_mqa_logits_metadata = _missing("get_paged_mqa_logits_metadata", _INDEXER, _IN_TORCH)
fp8_gemm_nt_skip_head_mid = _missing(
    "fp8_gemm_nt_skip_head_mid",
    "an output with gaps between heads",
    "call fp8_gemm_nt, and copy its columns into place",
)
tf32_hc_prenorm_gemm = _missing(
    "tf32_hc_prenorm_gemm", "a TF32 kernel for hyperconnections", "torch.matmul computes them"
)

_CUBLASLT = "a way through to cuBLASLt"
_MATMUL = "torch.matmul calls it"
cublaslt_gemm_nt = _missing("cublaslt_gemm_nt", _CUBLASLT, _MATMUL)
cublaslt_gemm_nn = _missing("cublaslt_gemm_nn", _CUBLASLT, _MATMUL)
cublaslt_gemm_tn = _missing("cublaslt_gemm_tn", _CUBLASLT, _MATMUL)
cublaslt_gemm_tt = _missing("cublaslt_gemm_tt", _CUBLASLT, _MATMUL)

_FP4 = "a cast to FP4, which Hopper cannot multiply"
_FP8 = "cast to FP8"
per_token_cast_to_fp4 = _missing("per_token_cast_to_fp4", _FP4, _FP8)
per_channel_cast_to_fp4 = _missing("per_channel_cast_to_fp4", _FP4, _FP8)
per_block_cast_to_fp4 = _missing("per_block_cast_to_fp4", _FP4, _FP8)

_MEGA = "one kernel for dispatch, experts and combine, which needs Blackwell"
_APART = "call an all-to-all and m_grouped_fp8_gemm_nt_contiguous"
SymmBuffer = _missing("SymmBuffer", _MEGA, _APART)
get_symm_buffer_for_mega_moe = _missing("get_symm_buffer_for_mega_moe", _MEGA, _APART)
transform_weights_for_mega_moe = _missing("transform_weights_for_mega_moe", _MEGA, _APART)
fp8_fp4_mega_moe = _missing("fp8_fp4_mega_moe", _MEGA, _APART)
bf16_mega_moe = _missing("bf16_mega_moe", _MEGA, _APART)
