"""One FP8 matrix product."""

import torch

from csrc import Checker
from deepgemm import cpu
from deepgemm.operands import (
    PER_BLOCK,
    PER_TOKEN,
    Granularity,
    Pair,
    Recipe,
    check_operand,
    check_output,
    check_recipe,
)


def fp8_gemm_nt(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
) -> None:
    """Compute `d = a @ b.T` of FP8 operands with 1 × 128 and 128 × 128 scales.

    `d[i, j] = Σ_kb scale_a[i, kb] · scale_b[j // 128, kb] · Σ_{k in kb} a[i, k] · b[j, k]`,
    accumulated in FP32 and rounded to BF16 once (DeepSeek-V3 technical report, arXiv 2412.19437,
    section 3.3.2). CPU tensors are computed before the call returns. No gradient is recorded.

    Args:
        a: `(data, scale)`: data [m, k] float8_e4m3fn, last dim contiguous, row stride a multiple
            of 16; scale [m, ceil(k / 128)] float32, any strides, multiplies the data.
        b: `(data, scale)`: data [n, k] like a; scale [ceil(n / 128), ceil(k / 128)] float32, any
            strides.
        d: [m, n] bf16, overwritten; last dim contiguous, row stride a multiple of 8.
        c: must be None.
        recipe: None or (1, 128, 128), the scale blocks over (m, n, k).
        recipe_a: None or (1, 128), together with recipe_b = (128, 128) instead of `recipe`.
        recipe_b: see recipe_a.
        compiled_dims: tuning hint, changes no value.
        disable_ue8m0_cast: accepted; scales are used as they are.

    m may be 0; n must be a multiple of 8 and k of 16, and neither needs whole blocks of 128.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above.
        NotImplementedError: `c` or another recipe, or tensors on a device without a kernel.

    Example:
        >>> from deepgemm import per_block_cast_to_fp8, per_token_cast_to_fp8
        >>> d = torch.empty(2, 8, dtype=torch.bfloat16)
        >>> x, w = torch.ones(2, 128), torch.ones(8, 128)
        >>> fp8_gemm_nt(per_token_cast_to_fp8(x), per_block_cast_to_fp8(w), d)
        >>> d[0, 0].item()
        128.0
    """
    del compiled_dims, disable_ue8m0_cast
    check = Checker("fp8_gemm_nt")
    check_recipe(check, recipe, recipe_a, recipe_b)
    if c is not None:
        check.not_built("c", "be None", type(c).__name__, "accumulating into FP32 is not built yet")
    a_data, a_scale = check_operand(check, "a", a, ("m", "k"), PER_TOKEN)
    b_data, b_scale = check_operand(check, "b", b, ("n", "k"), PER_BLOCK)
    check_output(check, d)
    check.backend()
    cpu.fp8_gemm_nt(a_data, a_scale, b_data, b_scale, d)
