"""The CPU path: dequantise FP8 to float32, and let torch multiply."""

import torch

_GRAN = 128
# Weights are dequantised this many rows at a time, which keeps them in the cache for the product
# and, above all, in memory the process already has: fresh pages cost more than the arithmetic.
_ROWS_AT_A_TIME = 512


@torch.no_grad()
def bf16_gemm_nt(a: torch.Tensor, b: torch.Tensor, d: torch.Tensor) -> None:
    """Compute `d = a @ b.T` for a [m, k] and b [n, k]; torch's sums are FP32, rounded once."""
    d.copy_(a @ b.T)


@torch.no_grad()
def fp8_gemm_nt(
    a: torch.Tensor, a_scale: torch.Tensor, b: torch.Tensor, b_scale: torch.Tensor, d: torch.Tensor
) -> None:
    """Compute `d = a @ b.T` for a [m, k] and b [n, k]."""
    tokens = _dequantise(a, a_scale)
    for start in range(0, len(b), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        blocks = slice(start // _GRAN, (start + _ROWS_AT_A_TIME) // _GRAN)
        row_scale = b_scale[blocks].repeat_interleave(_GRAN, dim=0)
        weights = _dequantise(b[rows], row_scale[: len(b) - start])
        d[:, rows] = tokens @ weights.T


@torch.no_grad()
def m_grouped_fp8_gemm_nt_contiguous(
    a: torch.Tensor,
    a_scale: torch.Tensor,
    b: torch.Tensor,
    b_scale: torch.Tensor,
    d: torch.Tensor,
    row_map: torch.Tensor,
) -> None:
    """Compute `d[i] = a[i] @ b[row_map[i]].T`, and 0 where the map is -1."""
    groups, lengths = torch.unique_consecutive(row_map, return_counts=True)
    start = 0
    for group, length in zip(groups.tolist(), lengths.tolist(), strict=True):
        rows = slice(start, start + length)
        start += length
        if group < 0:
            d[rows] = 0
        else:
            fp8_gemm_nt(a[rows], a_scale[rows], b[group], b_scale[group], d[rows])


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
