"""BF16 matrix products of many groups: of rows with weights of their own, or of columns."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from csrc import Checker
from deepgemm import bf16_kernels, cpu
from deepgemm.bf16 import flipped
from deepgemm.column_groups import check_columns, sizes_and_layout
from deepgemm.operands import (
    check_addend,
    check_bf16,
    check_output,
    given_once,
    names_of,
    start_from,
)
from deepgemm.ops import torch_op
from deepgemm.row_groups import check_grouping, check_rows


def m_grouped_bf16_gemm_nt_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    compiled_dims: str = "nk",
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Compute `d[i] = a[i] @ b[group of row i].T`, the rows of all groups in one tensor.

    Each product is that of `bf16_gemm_nt` with bf16 d; layouts, padding and who waits are those of
    `m_grouped_fp8_gemm_nt_contiguous`.

    Args:
        a: [m, k] bf16; one dim contiguous, the other's stride a multiple of 8.
        b: [num_groups, n, k] bf16; one of the last dims contiguous, other strides multiples of 8.
        d: [m, n] bf16, overwritten, padding rows with 0; last dim contiguous, row stride a
            multiple of 8.
        grouped_layout: [m] or [num_groups] int32 contiguous, as there.
        compiled_dims: tuning hint, changes no value.
        use_psum_layout: what grouped_layout holds.
        ensure_zero_padding: accepted; padding rows come out 0 either way.
        expected_m_for_psum_layout: tuning hint, rows per group; changes no value.
        m_indices: the older name of `grouped_layout`.

    Raises:
        TypeError, ValueError, NotImplementedError: as there.
    """
    del compiled_dims, ensure_zero_padding
    op = "m_grouped_bf16_gemm_nt_contiguous"
    layout = given_once(op, ("grouped_layout", grouped_layout), ("m_indices", m_indices))
    grouping = "prefix_sum" if use_psum_layout else "row_map"
    _m_grouped_bf16_gemm(op, a, b, d, layout, grouping, expected_m_for_psum_layout)


def m_grouped_bf16_gemm_nn_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    compiled_dims: str = "nk",
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Compute the same for b [num_groups, k, n]."""
    del compiled_dims, ensure_zero_padding
    op = "m_grouped_bf16_gemm_nn_contiguous"
    layout = given_once(op, ("grouped_layout", grouped_layout), ("m_indices", m_indices))
    grouping = "prefix_sum" if use_psum_layout else "row_map"
    _m_grouped_bf16_gemm(op, a, flipped(b), d, layout, grouping, None)


def m_grouped_bf16_gemm_nt_masked(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    compiled_dims: str = "nk",
) -> None:
    """Compute `d[g, :masked_m[g]] = a[g, :masked_m[g]] @ b[g].T` for every group.

    Args:
        a: [num_groups, m, k] bf16; one of the last dims contiguous, other strides multiples of 8.
        b: [num_groups, n, k] bf16, like a.
        d: [num_groups, m, n] bf16; last dim contiguous, other strides multiples of 8. Rows from
            masked_m[g] on are undefined afterwards.
        masked_m: [num_groups] int32 contiguous, from 0 to m; only the device reads it.
        expected_m: tuning hint, rows per group; changes no value.
        compiled_dims: tuning hint, changes no value.

    Raises:
        TypeError, ValueError, NotImplementedError: as `m_grouped_fp8_gemm_nt_masked`.
    """
    del compiled_dims
    op = "m_grouped_bf16_gemm_nt_masked"
    _m_grouped_bf16_gemm(op, a, b, d, masked_m, "masked", expected_m)


@torch_op(
    "m_grouped_bf16_gemm(str op, Tensor a, Tensor b, Tensor(a!) d, Tensor layout, str grouping,"
    " int? expected_m)"
)
def _m_grouped_bf16_gemm(
    op: str,
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor,
    grouping_name: str,
    expected_m: int | None,
) -> None:
    grouping = check_grouping(grouping_name)
    check, names = Checker(op), names_of(op)
    rows = ("num_groups", "m") if grouping == "masked" else ("m",)
    check_bf16(check, names.a, a, (*rows, "k"))
    check_bf16(check, names.b, b, ("num_groups", "n", "k"))
    check_output(check, d, (*rows, "n"), torch.bfloat16)
    backend = check_rows(check, layout, grouping)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0 or check.dims["num_groups"] == 0:
        d.zero_()
    elif backend == "cpu":
        cpu.grouped_bf16_gemm(a, b, d, layout, grouping)
    else:
        bf16_kernels.gemm(a, b, None, d, grouping=grouping, layout=layout, expected_m=expected_m)


def k_grouped_bf16_gemm_tn_contiguous(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
) -> None:
    """Compute `d[g] = a_g.T @ b_g`, or `c[g] + a_g.T @ b_g`, in FP32 for groups of rows.

    Args:
        a: [sum(ks), m] bf16, the groups' [ks[g], m] one after another; one dim contiguous, the
            other's stride a multiple of 8.
        b: [sum(ks), n] bf16, like a.
        d: [num_groups, m, n] float32, or bf16 where c is None; overwritten; last dim contiguous,
            other strides multiples of 16 bytes.
        ks_cpu: the rows of each group: multiples of 64, 0 allowed.
        grouped_layout: [num_groups] int32 contiguous: ks_cpu on the device.
        c: None, or [num_groups, m, n] float32; may be d itself, which is then added to.
        compiled_dims: tuning hint, changes no value.
        use_psum_layout: must be False.
        ks: an older name of ks_cpu.
        ks_tensor: an older name of grouped_layout.

    Raises:
        TypeError, ValueError: a dtype, shape, stride or size breaks a rule above.
        NotImplementedError: c with bf16 d, use_psum_layout, or tensors on a device without a
            kernel.
    """
    del compiled_dims
    op = "k_grouped_bf16_gemm_tn_contiguous"
    sizes, layout = sizes_and_layout(
        op, ks_cpu, ks, grouped_layout, ks_tensor, use_psum_layout=use_psum_layout
    )
    _k_grouped_bf16_gemm(op, a, b, d, c, sizes, layout)


@torch_op(
    "k_grouped_bf16_gemm(str op, Tensor a, Tensor b, Tensor(a!) d, Tensor? c, int[] ks,"
    " Tensor layout)"
)
def _k_grouped_bf16_gemm(
    op: str,
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None,
    ks: list[int],
    layout: torch.Tensor,
) -> None:
    check, names = Checker(op), names_of(op)
    for name, value in (("a", a), ("b", b)):
        check.tensor(name, value, ("k", "m" if name == "a" else "n"), torch.bfloat16, layout="any")
    if sum(ks) != check.dims["k"]:
        check.invalid("ks_cpu", f"sum to the {check.dims['k']} rows of a", sum(ks), "check them")
    check_bf16(check, names.a, a.T, ("m", "k"))
    check_bf16(check, names.b, b.T, ("n", "k"))
    dtypes = (torch.float32,) if c is not None else (torch.float32, torch.bfloat16)
    check_output(check, d, ("num_groups", "m", "n"), *dtypes)
    check_columns(check, ks, layout, 64, "ks_cpu")
    if c is not None:
        check_addend(check, c, d, ("num_groups", "m", "n"))
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    for group, size in enumerate(ks):
        if size == 0:
            start_from(None if c is None else c[group], d[group])
    if sum(ks) == 0:
        return
    if backend == "cpu":
        cpu.k_grouped_bf16_gemm(a.T, b.T, c, d, ks)
    else:
        bf16_kernels.gemm(a.T, b.T, c, d, grouping="along_k", layout=layout)
