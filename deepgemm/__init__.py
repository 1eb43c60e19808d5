"""FP8 matrix products with fine-grained scales, dense and grouped, and BF16 ones."""

from deepgemm.bf16 import bf16_gemm_nt
from deepgemm.dense import fp8_gemm_nt
from deepgemm.dropin import install_as_deep_gemm
from deepgemm.grouped import m_grouped_fp8_gemm_nt_contiguous
from deepgemm.layout import (
    ceil_div,
    get_m_alignment_for_contiguous_layout,
    get_mk_alignment_for_contiguous_layout,
)
from deepgemm.quantization import per_block_cast_to_fp8, per_token_cast_to_fp8

__all__ = [
    "bf16_gemm_nt",
    "ceil_div",
    "fp8_gemm_nt",
    "get_m_alignment_for_contiguous_layout",
    "get_mk_alignment_for_contiguous_layout",
    "install_as_deep_gemm",
    "m_grouped_fp8_gemm_nt_contiguous",
    "per_block_cast_to_fp8",
    "per_token_cast_to_fp8",
]
