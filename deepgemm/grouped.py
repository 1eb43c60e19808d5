"""FP8 matrix products of many groups of rows, each with its own weights: mixture of experts."""

import torch
from torch.nn import functional

from csrc import Checker
from deepgemm import cpu
from deepgemm.layout import get_mk_alignment_for_contiguous_layout
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
    """Compute `d[i] = a[i] @ b[grouped_layout[i]].T`, the rows of all groups in one tensor.

    Each product is that of `fp8_gemm_nt`. Rows of `a` that are padding may hold anything, NaN too.
    CPU tensors are computed before the call returns. No gradient is recorded.

    Args:
        a: `(data, scale)`: data [m, k] float8_e4m3fn, last dim contiguous, row stride a multiple
            of 16; scale [m, ceil(k / 128)] float32, any strides.
        b: `(data, scale)`: data [num_groups, n, k] like a; scale
            [num_groups, ceil(n / 128), ceil(k / 128)] float32, any strides.
        d: [m, n] bf16, overwritten, padding rows with 0; last dim contiguous, row stride a
            multiple of 8.
        grouped_layout: [m] int32 contiguous, the group of each row, or -1 for padding. A block of
            `get_m_alignment_for_contiguous_layout()` rows holds one group and padding.
        recipe: None or (1, 128, 128), the scale blocks over (m, n, k).
        recipe_a: None or (1, 128), together with recipe_b = (128, 128) instead of `recipe`.
        recipe_b: see recipe_a.
        compiled_dims: tuning hint, changes no value.
        disable_ue8m0_cast: accepted; scales are used as they are.
        use_psum_layout: must be False.
        ensure_zero_padding: accepted; padding rows come out 0 either way.
        expected_m_for_psum_layout: tuning hint, changes no value.
        m_indices: the older name of `grouped_layout`.

    m may be 0; n must be a multiple of 8 and k of 16, and neither needs whole blocks of 128.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above, or (CPU tensors only,
            a GPU would have to wait for the answer) a value of grouped_layout does.
        NotImplementedError: `use_psum_layout`, another recipe, or tensors on a device without a
            kernel.
    """
    del compiled_dims, disable_ue8m0_cast, ensure_zero_padding, expected_m_for_psum_layout
    check = Checker("m_grouped_fp8_gemm_nt_contiguous")
    check_recipe(check, recipe, recipe_a, recipe_b)
    if use_psum_layout:
        check.not_built("use_psum_layout", "be False", True, "end offsets are not built yet")
    if grouped_layout is None:
        grouped_layout, m_indices = m_indices, None
    if grouped_layout is None or m_indices is not None:
        given = "neither" if grouped_layout is None else "both"
        check.wrong_type("grouped_layout", "be given once", given, "m_indices is its other name")
    a_data, a_scale = check_operand(check, "a", a, ("m", "k"), PER_TOKEN)
    b_data, b_scale = check_operand(check, "b", b, ("num_groups", "n", "k"), PER_BLOCK)
    check_output(check, d)
    check.tensor("grouped_layout", grouped_layout, ("m",), torch.int32)
    check.backend()
    _check_row_map(check, grouped_layout)
    cpu.m_grouped_fp8_gemm_nt_contiguous(a_data, a_scale, b_data, b_scale, d, grouped_layout)


def _check_row_map(check: Checker, row_map: torch.Tensor) -> None:
    if row_map.numel() == 0:
        return
    low, high = (int(bound) for bound in row_map.aminmax())
    last = check.dims["num_groups"] - 1
    for group in (low, high):
        check.between("grouped_layout", group, -1, last, "use -1 for padding")
    tile = get_mk_alignment_for_contiguous_layout()
    tiles = functional.pad(row_map, (0, -len(row_map) % tile), value=-1).view(-1, tile)
    mixed = ((tiles != tiles.amax(1, keepdim=True)) & (tiles != -1)).any(1)
    if mixed.any():
        groups = sorted(set(tiles[mixed][0].tolist()) - {-1})
        rule = f"hold one group, or -1, in each block of {tile} rows"
        actual = f"groups {' and '.join(map(str, groups))} in one"
        check.invalid("grouped_layout", rule, actual, "pad each group")
