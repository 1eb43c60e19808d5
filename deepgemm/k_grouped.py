"""FP8 products whose columns are split into groups, a sum each: gradients of experts' weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from csrc import Checker
from deepgemm import cpu, fp8_kernels
from deepgemm.column_groups import check_columns, sizes_and_layout
from deepgemm.layout import ceil_div
from deepgemm.operands import (
    PER_TOKEN,
    Pair,
    Recipe,
    check_addend,
    check_extents,
    check_output,
    names_of,
    pair_of,
    rows_per_scale,
    start_from,
)
from deepgemm.ops import torch_op

_E4M3 = torch.float8_e4m3fn


def k_grouped_fp8_gemm_nt_contiguous(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    recipe: Recipe = (1, 1, 128),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
) -> None:
    """Compute `d[g] = c[g] + a_g @ b_g.T` in FP32 for groups of columns of any size.

    Products and sums are those of `fp8_gemm_nt` with float32 d. CUDA tensors are computed on the
    current stream, which nobody waits for; CPU tensors before the call returns.

    Args:
        a: `(data, scale)`: data [m * sum(ks)] float8_e4m3fn contiguous, the groups' [m, ks[g]] one
            after another; scale [m, sum(ks) / 128] float32, any strides.
        b: `(data, scale)`: data [n * sum(ks)], scale [n, sum(ks) / 128], likewise.
        d: [num_groups, m, n] float32, overwritten; last dim contiguous, other strides multiples of
            4.
        ks_cpu: the columns of each group: multiples of 128, 0 allowed.
        grouped_layout: [num_groups] int32 contiguous: ks_cpu on the device.
        c: [num_groups, m, n] float32 like d; required; may be d itself, which is then added to.
        recipe: (1, 1, 128), the scale blocks over (m, n, k).
        compiled_dims: tuning hint, changes no value.
        use_psum_layout: must be False.
        ks: an older name of ks_cpu.
        ks_tensor: an older name of grouped_layout.

    Raises:
        TypeError, ValueError: a dtype, shape, stride or size breaks a rule above.
        NotImplementedError: no c, another recipe, use_psum_layout, or tensors on a device without
            a kernel.
    """
    del compiled_dims
    op = "k_grouped_fp8_gemm_nt_contiguous"
    sizes, layout = sizes_and_layout(
        op, ks_cpu, ks, grouped_layout, ks_tensor, use_psum_layout=use_psum_layout
    )
    addend = _checked_addend(op, c, recipe)
    (a_data, a_scale), (b_data, b_scale) = pair_of(op, "a", a), pair_of(op, "b", b)
    _k_grouped_fp8_accumulate(op, a_data, a_scale, b_data, b_scale, d, addend, sizes, layout)


def k_grouped_fp8_gemm_tn_contiguous(
    a: Pair,
    b: Pair,
    d: torch.Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    recipe: Recipe = (1, 1, 128),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
) -> None:
    """Compute `d[g] = c[g] + a_g.T @ b_g` for groups of rows: `k_grouped_fp8_gemm_nt_contiguous`.

    Hopper multiplies FP8 along contiguous columns only, so the operands are copied into the layout
    of that function first; casting to FP8 can write it directly.

    Args:
        a: `(data, scale)`: data [sum(ks), m] float8_e4m3fn, scale [sum(ks) / 128, m] float32, any
            strides.
        b: `(data, scale)`: data [sum(ks), n], scale [sum(ks) / 128, n], likewise.
        d: [num_groups, m, n] float32, as there.
        ks_cpu: the rows of each group: multiples of 128, 0 allowed.
        grouped_layout: [num_groups] int32 contiguous: ks_cpu on the device.
        c: [num_groups, m, n] float32, as there.
        recipe: (1, 1, 128), the scale blocks over (m, n, k).
        compiled_dims: tuning hint, changes no value.
        use_psum_layout: must be False.
        ks: an older name of ks_cpu.
        ks_tensor: an older name of grouped_layout.

    Raises:
        TypeError, ValueError, NotImplementedError: as there.
    """
    del compiled_dims
    op = "k_grouped_fp8_gemm_tn_contiguous"
    sizes, layout = sizes_and_layout(
        op, ks_cpu, ks, grouped_layout, ks_tensor, use_psum_layout=use_psum_layout
    )
    addend = _checked_addend(op, c, recipe)
    (a_data, a_scale), (b_data, b_scale) = pair_of(op, "a", a), pair_of(op, "b", b)
    check = Checker(op)
    check.tensor("a[0]", a_data, (sum(sizes), "m"), _E4M3, layout="any")
    check.tensor("b[0]", b_data, (sum(sizes), "n"), _E4M3, layout="any")
    check.tensor("a[1]", a_scale, (sum(sizes) // 128, "m"), torch.float32, layout="any")
    check.tensor("b[1]", b_scale, (sum(sizes) // 128, "n"), torch.float32, layout="any")
    check.tensor("d", d, ("num_groups", "m", "n"), torch.float32, layout="any")
    flat_a, flat_b = _group_after_group(a_data, sizes), _group_after_group(b_data, sizes)
    _k_grouped_fp8_accumulate(op, flat_a, a_scale.T, flat_b, b_scale.T, d, addend, sizes, layout)


def k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(
    lhs: Pair, rhs: Pair, out: torch.Tensor, batch_sizes: Sequence[int]
) -> None:
    """Add `lhs_g @ rhs_g.T` to `out[g]`: the gradients of all experts' weights.

    Args:
        lhs: like a of `k_grouped_fp8_gemm_nt_contiguous`; its scale may also come as
            [sum(batch_sizes) / 128, m], unless that is the same shape.
        rhs: like b there, likewise.
        out: [num_groups, m, n] float32, added to.
        batch_sizes: the columns of each group: multiples of 128, 0 allowed.

    Raises:
        TypeError, ValueError, NotImplementedError: as there.
    """
    op = "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt"
    (a, scale_a), (b, scale_b) = pair_of(op, "a", lhs), pair_of(op, "b", rhs)
    blocks = sum(batch_sizes) // 128
    if isinstance(out, torch.Tensor) and out.dim() == 3:
        _, m, n = out.shape
        scale_a = scale_a if scale_a.shape == (m, blocks) else scale_a.T
        scale_b = scale_b if scale_b.shape == (n, blocks) else scale_b.T
    _k_grouped_fp8_accumulate(op, a, scale_a, b, scale_b, out, out, list(batch_sizes), None)


def _checked_addend(op: str, c: torch.Tensor | None, recipe: Recipe) -> torch.Tensor:
    rows_per_scale(op, recipe, None, None, built=(1,))
    if c is None:
        Checker(op).not_built("c", "be given", None, "pass d as c too, filled with zeros")
    return c


def _group_after_group(columns: torch.Tensor, ks: list[int]) -> torch.Tensor:
    """Copy [sum(ks), rows] into the groups' [rows, ks[g]], one after another in one dim."""
    # Of bytes: torch cannot concatenate every kind of FP8 tensor.
    groups = torch.split(columns.view(torch.uint8), ks)
    return torch.cat([group.T.reshape(-1) for group in groups]).view(columns.dtype)


@torch_op(
    "k_grouped_fp8_accumulate(str op, Tensor a, Tensor scale_a, Tensor b, Tensor scale_b,"
    " Tensor(a!) d, Tensor c, int[] ks, Tensor? layout)"
)
def _k_grouped_fp8_accumulate(
    op: str,
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor,
    ks: list[int],
    layout: torch.Tensor | None,
) -> None:
    check, names = Checker(op), names_of(op)
    check.tensor(names.d, d, ("num_groups", "m", "n"), torch.float32, layout="tma")
    check_columns(check, ks, layout, 128, "batch_sizes" if names.d == "out" else "ks_cpu")
    (num_groups, m, n), total = d.shape, sum(ks)
    for name, data, scale, extent in ((names.a, a, scale_a, m), (names.b, b, scale_b, n)):
        check.tensor(name.data, data, (extent * total,), _E4M3)
        blocks = ceil_div(total, PER_TOKEN[1])
        check.tensor(name.scale, scale, (extent, blocks), torch.float32, layout="any")
    check_extents(check, m, n)
    check_output(check, d, ("num_groups", "m", "n"), torch.float32)
    check_addend(check, c, d, ("num_groups", "m", "n"))
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    for group in range(num_groups):
        if ks[group] == 0:
            start_from(c[group], d[group])
    if total == 0:
        return
    if backend == "cpu":
        cpu.k_grouped_accumulate_nt(a, scale_a, b, scale_b, c, d, ks)
    else:
        fp8_kernels.k_grouped_accumulate_nt(a, scale_a, b, scale_b, c, d, ks)
