"""One FP8 matrix product: into BF16, or added to an FP32 matrix.

The two-level accumulation in FP32 and the two kinds of scales are those of the DeepSeek-V3
technical report (arXiv 2412.19437), section 3.3.2.
"""

from __future__ import annotations

import torch

from csrc import Checker
from deepgemm import cpu, fp8_kernels
from deepgemm.layout import ceil_div
from deepgemm.operands import (
    PER_BLOCK,
    PER_TOKEN,
    Granularity,
    Pair,
    Recipe,
    check_addend,
    check_fp8,
    check_output,
    names_of,
    pair_of,
    rows_per_scale,
    start_from,
    transposed,
)
from deepgemm.ops import torch_op


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
    """Compute `d = a @ b.T`, or `d = c + a @ b.T`, of FP8 operands with block scales.

    `d[i, j] = Σ_kb scale_a[i, kb] · scale_b[j // rows, kb] · Σ_{k in kb} a[i, k] · b[j, k]` with
    blocks kb of 128 columns, accumulated in FP32 and rounded once. `rows` decides what d is:

    - 128, the default: d is bf16 and c None, as in the forward pass;
    - 1, asked for by a recipe: d is float32 and c must be given, as for gradients of weights.

    CUDA tensors are computed on the current stream, which nobody waits for; CPU tensors before the
    call returns. No gradient is recorded.

    Args:
        a: `(data, scale)`: data [m, k] float8_e4m3fn, last dim contiguous, row stride a multiple
            of 16; scale [m, ceil(k / 128)] float32, any strides, multiplies the data.
        b: `(data, scale)`: data [n, k] like a; scale [ceil(n / rows), ceil(k / 128)] float32, any
            strides.
        d: [m, n] bf16 or float32, overwritten; last dim contiguous, row stride a multiple of 16
            bytes.
        c: None, or [m, n] float32 with strides like d; may be d itself, which is then added to.
        recipe: None, (1, 128, 128) or (1, 1, 128): the scale blocks over (m, n, k).
        recipe_a: None or (1, 128), together with recipe_b instead of `recipe`.
        recipe_b: None, (128, 128) or (1, 128).
        compiled_dims: tuning hint, changes no value.
        disable_ue8m0_cast: accepted; scales are used as they are.

    Any size may be 0 (k = 0 makes d zero or c); n must be a multiple of 8 and k of 16, and neither
    needs whole blocks of 128.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above.
        NotImplementedError: another recipe, float32 without c, bf16 with c, or tensors on a device
            without a kernel.

    Example:
        >>> from deepgemm import per_block_cast_to_fp8, per_token_cast_to_fp8
        >>> d = torch.empty(2, 8, dtype=torch.bfloat16)
        >>> x, w = torch.ones(2, 128), torch.ones(8, 128)
        >>> fp8_gemm_nt(per_token_cast_to_fp8(x), per_block_cast_to_fp8(w), d)
        >>> d[0, 0].item()
        128.0
        >>> grad = torch.ones(2, 8)
        >>> a, b = per_token_cast_to_fp8(x), per_token_cast_to_fp8(w)
        >>> fp8_gemm_nt(a, b, grad, c=grad, recipe=(1, 1, 128))
        >>> grad[0, 0].item()
        129.0
    """
    del compiled_dims, disable_ue8m0_cast
    _dense("fp8_gemm_nt", a, b, d, c, recipe, recipe_a, recipe_b)


def fp8_gemm_nn(
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
    """Compute `d = a @ b`: `fp8_gemm_nt` with data and scale of b transposed.

    Hopper multiplies FP8 along contiguous columns only: b [k, n] must have stride 1 along k.
    """
    del compiled_dims, disable_ue8m0_cast
    _dense("fp8_gemm_nn", a, transposed(b), d, c, recipe, recipe_a, recipe_b)


def fp8_gemm_tn(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
) -> None:
    """Compute `d = a.T @ b`: `fp8_gemm_nt` with both operands transposed, scales too.

    a [k, m] and b [k, n] must have stride 1 along k.
    """
    del compiled_dims, disable_ue8m0_cast
    _dense("fp8_gemm_tn", transposed(a), transposed(b), d, c, recipe, recipe_a, recipe_b)


def fp8_gemm_tt(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
) -> None:
    """Compute `d = a.T @ b.T`: `fp8_gemm_nt` with data and scale of a transposed.

    a [k, m] must have stride 1 along k.
    """
    del compiled_dims, disable_ue8m0_cast
    _dense("fp8_gemm_tt", transposed(a), b, d, c, recipe, recipe_a, recipe_b)


def gemm_fp8_fp8_bf16_nt(lhs: Pair, rhs: Pair, out: torch.Tensor) -> None:
    """Compute `out = lhs @ rhs.T`: the first release's name of `fp8_gemm_nt`."""
    _dense("gemm_fp8_fp8_bf16_nt", lhs, rhs, out, None, None, None, None)


def wgrad_gemm_fp8_fp8_fp32_nt(lhs: Pair, rhs: Pair, out: torch.Tensor) -> None:
    """Add `lhs @ rhs.T` to `out`, the gradient of a weight.

    Args:
        lhs: like a of `fp8_gemm_nt`; its scale may also come as [ceil(k / 128), m]. Where both
            shapes are the same it is [m, ceil(k / 128)].
        rhs: data [n, k], scale [n, ceil(k / 128)] or [ceil(k / 128), n].
        out: [m, n] float32; last dim contiguous, row stride a multiple of 4. It is added to.

    Raises:
        TypeError, ValueError, NotImplementedError: as `fp8_gemm_nt`.
    """
    op = "wgrad_gemm_fp8_fp8_fp32_nt"
    a, scale_a = _by_rows(pair_of(op, "a", lhs))
    b, scale_b = _by_rows(pair_of(op, "b", rhs))
    _fp8_accumulate(op, a, scale_a, b, scale_b, out, out)


def _by_rows(pair: Pair) -> Pair:
    # A scale may have a row per block of columns.
    data, scale = pair
    if all(isinstance(part, torch.Tensor) and part.dim() == 2 for part in pair):
        by_rows = (data.shape[0], ceil_div(data.shape[1], 128))
        return data, scale if scale.shape == by_rows else scale.T
    return pair


def _dense(
    op: str,
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    c: torch.Tensor | None,
    recipe: Recipe | None,
    recipe_a: Granularity | None,
    recipe_b: Granularity | None,
) -> None:
    (a_data, a_scale), (b_data, b_scale) = pair_of(op, "a", a), pair_of(op, "b", b)
    if rows_per_scale(op, recipe, recipe_a, recipe_b) == 1:
        if c is None:
            rule = "be given where the scales of b are (1, 128)"
            Checker(op).not_built("c", rule, None, "pass d as c too, filled with zeros")
        _fp8_accumulate(op, a_data, a_scale, b_data, b_scale, d, c)
    else:
        if c is not None:
            rule = "be None where the scales of b are (128, 128)"
            Checker(op).not_built("c", rule, type(c).__name__, "recipe=(1, 1, 128) accumulates")
        _fp8_gemm(op, a_data, a_scale, b_data, b_scale, d)


@torch_op("fp8_gemm(str op, Tensor a, Tensor scale_a, Tensor b, Tensor scale_b, Tensor(a!) d)")
def _fp8_gemm(
    op: str,
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
) -> None:
    check, names = Checker(op), names_of(op)
    check_fp8(check, names.a, (a, scale_a), ("m", "k"), PER_TOKEN)
    check_fp8(check, names.b, (b, scale_b), ("n", "k"), PER_BLOCK)
    check_output(check, d, ("m", "n"), torch.bfloat16)
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0:
        d.zero_()
    elif backend == "cpu":
        cpu.gemm_nt(a, scale_a, b, scale_b, d)
    else:
        fp8_kernels.gemm_nt(a, scale_a, b, scale_b, d)


@torch_op(
    "fp8_accumulate(str op, Tensor a, Tensor scale_a, Tensor b, Tensor scale_b, Tensor(a!) d,"
    " Tensor c)"
)
def _fp8_accumulate(
    op: str,
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor,
) -> None:
    check, names = Checker(op), names_of(op)
    check_fp8(check, names.a, (a, scale_a), ("m", "k"), PER_TOKEN)
    check_fp8(check, names.b, (b, scale_b), ("n", "k"), PER_TOKEN)
    check_output(check, d, ("m", "n"), torch.float32)
    check_addend(check, c, d, ("m", "n"))
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0:
        start_from(c, d)
    elif backend == "cpu":
        cpu.accumulate_nt(a, scale_a, b, scale_b, c, d)
    else:
        fp8_kernels.accumulate_nt(a, scale_a, b, scale_b, c, d)
