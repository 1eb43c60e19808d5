"""FP8 GEMM with block scales, element by element in float64."""

import torch
from torch import Tensor


def dequantised(data: Tensor, scale: Tensor, block_rows: int) -> Tensor:
    """The float64 values [rows, k] that e4m3 `data` and its scales stand for."""
    rows, k = data.shape
    row_blocks = torch.tensor([row // block_rows for row in range(rows)], dtype=torch.int64)
    column_blocks = torch.tensor([column // 128 for column in range(k)], dtype=torch.int64)
    each = scale.cpu().double()[row_blocks][:, column_blocks]
    return data.cpu().double() * each


def gemm_nt(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """A @ B.T of a [m, k] with 1 x 128 and b [n, k] with 128 x 128 scales."""
    return dequantised(*a, 1) @ dequantised(*b, 128).T


def m_grouped_gemm_nt(
    a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], groups: list[int]
) -> Tensor:
    """Row i times the weights of group `groups[i]`; 0 where that is -1."""
    rows = dequantised(*a, 1)
    result = torch.zeros(len(rows), b[0].shape[1], dtype=torch.float64)
    for group, (data, scale) in enumerate(zip(*b, strict=True)):
        mine = [row for row, its_group in enumerate(groups) if its_group == group]
        result[mine] = rows[mine] @ dequantised(data, scale, 128).T
    return result
