"""FP8 matrix products of many groups of rows, each with its own weights: mixture of experts."""

from __future__ import annotations

import torch

from csrc import Checker
from deepgemm import cpu, fp8_kernels
from deepgemm.operands import (
    PER_BLOCK,
    PER_TOKEN,
    Granularity,
    Pair,
    Recipe,
    check_fp8,
    check_output,
    given_once,
    names_of,
    pair_of,
    rows_per_scale,
    transposed,
)
from deepgemm.ops import torch_op
from deepgemm.row_groups import check_grouping, check_rows


def m_grouped_fp8_gemm_nt_contiguous(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Compute `d[i] = a[i] @ b[group of row i].T`, the rows of all groups in one tensor.

    Each product is that of `fp8_gemm_nt`. Rows of `a` that are padding may hold anything, NaN too.
    CUDA tensors are computed on the current stream, which nobody waits for; CPU tensors before the
    call returns. No gradient is recorded.

    Args:
        a: `(data, scale)`: data [m, k] float8_e4m3fn, last dim contiguous, row stride a multiple
            of 16; scale [m, ceil(k / 128)] float32, any strides.
        b: `(data, scale)`: data [num_groups, n, k] like a; scale
            [num_groups, ceil(n / 128), ceil(k / 128)] float32, any strides.
        d: [m, n] bf16, overwritten, padding rows with 0; last dim contiguous, row stride a
            multiple of 8.
        grouped_layout: int32 contiguous. [m]: the group of each row, or -1 for padding; a block of
            `get_m_alignment_for_contiguous_layout()` rows is of one group, whose padding comes
            last. With use_psum_layout [num_groups]: the row behind each group; a group begins at
            the end of the one before, rounded up to that alignment, and may be empty.
        recipe: None or (1, 128, 128), the scale blocks over (m, n, k).
        recipe_a: None or (1, 128), together with recipe_b = (128, 128) instead of `recipe`.
        recipe_b: see recipe_a.
        compiled_dims: tuning hint, changes no value.
        disable_ue8m0_cast: accepted; scales are used as they are.
        use_psum_layout: what grouped_layout holds.
        ensure_zero_padding: accepted; padding rows come out 0 either way.
        expected_m_for_psum_layout: tuning hint, rows per group; changes no value.
        m_indices: the older name of `grouped_layout`.

    m may be 0; n must be a multiple of 8 and k of 16, and neither needs whole blocks of 128.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above, or (CPU tensors only,
            a GPU would have to wait for the answer) a value of grouped_layout does.
        NotImplementedError: another recipe, or tensors on a device without a kernel.
    """
    del compiled_dims, disable_ue8m0_cast, ensure_zero_padding
    op = "m_grouped_fp8_gemm_nt_contiguous"
    rows_per_scale(op, recipe, recipe_a, recipe_b, built=(128,))
    layout = given_once(op, ("grouped_layout", grouped_layout), ("m_indices", m_indices))
    grouping = "prefix_sum" if use_psum_layout else "row_map"
    _of_pairs(op, a, b, d, layout, grouping, expected_m_for_psum_layout)


def m_grouped_fp8_gemm_nn_contiguous(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Compute the same with data and scale of b transposed.

    Hopper multiplies FP8 along contiguous columns only: b [num_groups, k, n] must have stride 1
    along k.
    """
    del compiled_dims, disable_ue8m0_cast, ensure_zero_padding
    op = "m_grouped_fp8_gemm_nn_contiguous"
    rows_per_scale(op, recipe, recipe_a, recipe_b, built=(128,))
    layout = given_once(op, ("grouped_layout", grouped_layout), ("m_indices", m_indices))
    grouping = "prefix_sum" if use_psum_layout else "row_map"
    _of_pairs(op, a, transposed(b), d, layout, grouping, None)


def m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
    lhs: Pair, rhs: Pair, out: torch.Tensor, m_indices: torch.Tensor
) -> None:
    """Compute the same: the first release's name of `m_grouped_fp8_gemm_nt_contiguous`."""
    op = "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous"
    _of_pairs(op, lhs, rhs, out, m_indices, "row_map", None)


def m_grouped_fp8_gemm_nt_masked(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    recipe: Recipe | None = None,
    recipe_a: Granularity | None = None,
    recipe_b: Granularity | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
) -> None:
    """Compute `d[g, :masked_m[g]] = a[g, :masked_m[g]] @ b[g].T` for every group.

    For decoding, where a captured CUDA graph must not depend on how many rows a group has: only
    the device reads `masked_m`. Each product is that of `fp8_gemm_nt`, and so is who waits for it.

    Args:
        a: `(data, scale)`: data [num_groups, m, k] float8_e4m3fn, last dim contiguous, other
            strides multiples of 16; scale [num_groups, m, ceil(k / 128)] float32, any strides.
        b: `(data, scale)`: data [num_groups, n, k] like a; scale
            [num_groups, ceil(n / 128), ceil(k / 128)] float32, any strides.
        d: [num_groups, m, n] bf16; last dim contiguous, other strides multiples of 8. Rows from
            masked_m[g] on are undefined afterwards.
        masked_m: [num_groups] int32 contiguous, from 0 to m.
        expected_m: tuning hint, rows per group; changes no value.
        recipe: None or (1, 128, 128), the scale blocks over (m, n, k).
        recipe_a: None or (1, 128), together with recipe_b = (128, 128) instead of `recipe`.
        recipe_b: see recipe_a.
        compiled_dims: tuning hint, changes no value.
        disable_ue8m0_cast: accepted; scales are used as they are.

    Raises:
        TypeError, ValueError, NotImplementedError: as `m_grouped_fp8_gemm_nt_contiguous`.
    """
    del compiled_dims, disable_ue8m0_cast
    op = "m_grouped_fp8_gemm_nt_masked"
    rows_per_scale(op, recipe, recipe_a, recipe_b, built=(128,))
    _of_pairs(op, a, b, d, masked_m, "masked", expected_m)


def m_grouped_gemm_fp8_fp8_bf16_nt_masked(
    lhs: Pair, rhs: Pair, out: torch.Tensor, masked_m: torch.Tensor, expected_m: int
) -> None:
    """Compute the same: the first release's name of `m_grouped_fp8_gemm_nt_masked`."""
    op = "m_grouped_gemm_fp8_fp8_bf16_nt_masked"
    _of_pairs(op, lhs, rhs, out, masked_m, "masked", expected_m)


def _of_pairs(
    op: str,
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    layout: torch.Tensor,
    grouping: str,
    expected_m: int | None,
) -> None:
    _m_grouped_fp8_gemm(
        op, *pair_of(op, "a", a), *pair_of(op, "b", b), d, layout, grouping, expected_m
    )


@torch_op(
    "m_grouped_fp8_gemm(str op, Tensor a, Tensor scale_a, Tensor b, Tensor scale_b, Tensor(a!) d,"
    " Tensor layout, str grouping, int? expected_m)"
)
def _m_grouped_fp8_gemm(
    op: str,
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor,
    grouping_name: str,
    expected_m: int | None,
) -> None:
    grouping = check_grouping(grouping_name)
    check, names = Checker(op), names_of(op)
    rows = ("num_groups", "m") if grouping == "masked" else ("m",)
    check_fp8(check, names.a, (a, scale_a), (*rows, "k"), PER_TOKEN)
    check_fp8(check, names.b, (b, scale_b), ("num_groups", "n", "k"), PER_BLOCK)
    check_output(check, d, (*rows, "n"), torch.bfloat16)
    backend = check_rows(check, layout, grouping)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0 or check.dims["num_groups"] == 0:
        d.zero_()
    elif backend == "cpu":
        cpu.grouped_gemm_nt(a, scale_a, b, scale_b, d, layout, grouping)
    else:
        fp8_kernels.gemm_nt(
            a, scale_a, b, scale_b, d, grouping=grouping, layout=layout, expected_m=expected_m
        )
