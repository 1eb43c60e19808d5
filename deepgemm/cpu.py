"""The CPU path: dequantise FP8 to float32, and let torch multiply."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deepgemm.row_groups import RowGrouping, slices

_GRAN = 128
# Weights are dequantised this many rows at a time, which keeps them in the cache for the product
# and, above all, in memory the process already has: fresh pages cost more than the arithmetic.
_ROWS_AT_A_TIME = 512


@torch.no_grad()
def gemm_nt(
    a: torch.Tensor, scale_a: torch.Tensor, b: torch.Tensor, scale_b: torch.Tensor, d: torch.Tensor
) -> None:
    """Compute `d = a @ b.T` for a [m, k] with 1 × 128 and b [n, k] with 128 × 128 scales."""
    tokens = _dequantise(a, scale_a)
    for start in range(0, len(b), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        blocks = slice(start // _GRAN, (start + _ROWS_AT_A_TIME) // _GRAN)
        row_scale = scale_b[blocks].repeat_interleave(_GRAN, dim=0)
        weights = _dequantise(b[rows], row_scale[: len(b) - start])
        d[:, rows] = tokens @ weights.T


@torch.no_grad()
def accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
) -> None:
    """Compute `d = c + a @ b.T` for float32 d, a [m, k] and b [n, k] with 1 × 128 scales."""
    left = _dequantise(a, scale_a)
    for start in range(0, len(b), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        right = _dequantise(b[rows], scale_b[rows])
        torch.addmm(c[:, rows], left, right.T, out=d[:, rows])


@torch.no_grad()
def grouped_gemm_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor,
    grouping: RowGrouping,
) -> None:
    """Compute `gemm_nt` for the rows of every group, and 0 in padding rows."""
    for group, rows in slices(layout, grouping):
        index = (group, rows) if grouping == "masked" else rows
        if group < 0:
            d[rows] = 0
        else:
            gemm_nt(a[index], scale_a[index], b[group], scale_b[group], d[index])


@torch.no_grad()
def k_grouped_accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    ks: Sequence[int],
) -> None:
    """Compute `accumulate_nt` for every group of columns; a and b are those groups in one dim."""
    _, m, n = d.shape
    first = 0
    for group, k in enumerate(ks):
        columns = slice(first, first + k)
        blocks = slice(first // _GRAN, (first + k) // _GRAN)
        if k:
            left = a[m * columns.start : m * columns.stop].view(m, k)
            right = b[n * columns.start : n * columns.stop].view(n, k)
            scales = scale_a[:, blocks], scale_b[:, blocks]
            accumulate_nt(left, scales[0], right, scales[1], c[group], d[group])
        first += k


@torch.no_grad()
def bf16_gemm(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, d: torch.Tensor) -> None:
    """Compute `d = a @ b.T`, or `c + a @ b.T`, for a [m, k] and b [n, k] with FP32 sums."""
    if d.dtype == torch.bfloat16:
        torch.mm(a, b.T, out=d)
    elif c is None:
        torch.mm(a.float(), b.float().T, out=d)
    else:
        torch.addmm(c, a.float(), b.float().T, out=d)


@torch.no_grad()
def grouped_bf16_gemm(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, layout: torch.Tensor, grouping: RowGrouping
) -> None:
    """Compute `bf16_gemm` for the rows of every group, and 0 in padding rows."""
    for group, rows in slices(layout, grouping):
        index = (group, rows) if grouping == "masked" else rows
        if group < 0:
            d[rows] = 0
        else:
            bf16_gemm(a[index], b[group], None, d[index])


@torch.no_grad()
def k_grouped_bf16_gemm(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None, d: torch.Tensor, ks: Sequence[int]
) -> None:
    """Compute `bf16_gemm` for every group of the columns of a [m, k] and b [n, k]."""
    first = 0
    for group, k in enumerate(ks):
        columns = slice(first, first + k)
        if k:
            addend = None if c is None else c[group]
            bf16_gemm(a[:, columns], b[:, columns], addend, d[group])
        first += k


def _dequantise(data: torch.Tensor, row_scale: torch.Tensor) -> torch.Tensor:
    # row_scale is [rows, ceil(k / 128)]; the last of its columns may serve fewer than 128 of k.
    values = _to_float32(data)
    rows, k = data.shape
    whole = k // _GRAN
    blocks = values[:, : whole * _GRAN].view(rows, whole, _GRAN)
    blocks.mul_(row_scale[:, :whole].unsqueeze(-1))
    if k % _GRAN:
        values[:, whole * _GRAN :].mul_(row_scale[:, whole:])
    return values


def _to_float32(data: torch.Tensor) -> torch.Tensor:
    # torch converts e4m3 one element after the other. The same bits moved into a half, whose
    # exponent has one bit more, are the value divided by 2 ** 8, subnormals included, and that
    # runs ten times as fast. Only the two NaN codes would turn into numbers: 127 and 255 are the
    # largest bytes, so a maximum finds them.
    codes = data.view(torch.int8)
    if data.numel() == 0 or codes.max() == 0x7F or data.view(torch.uint8).max() == 0xFF:
        return data.float()
    half = codes.to(torch.int16).bitwise_left_shift_(7)
    # Widening copied the sign into bit 15, where it belongs, and into bit 14, where it does not.
    half.bitwise_and_(~(1 << 14))
    return half.view(torch.float16).float().mul_(256)
