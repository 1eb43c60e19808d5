"""FP8 GEMM with block scales, element by element in float64."""

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]


def dequantised(data: Tensor, scale: Tensor, block_rows: int) -> Tensor:
    """The float64 values [rows, k] that e4m3 `data` and its scales stand for."""
    rows, k = data.shape
    row_blocks = torch.tensor([row // block_rows for row in range(rows)], dtype=torch.int64)
    column_blocks = torch.tensor([column // 128 for column in range(k)], dtype=torch.int64)
    each = scale.cpu().double()[row_blocks][:, column_blocks]
    return data.cpu().double() * each


def gemm_nt(a: Pair, b: Pair, block_rows_b: int = 128) -> Tensor:
    """A @ B.T of a [m, k] with 1 x 128 scales and b [n, k], whose blocks have so many rows."""
    return dequantised(*a, 1) @ dequantised(*b, block_rows_b).T


def grouped(rows: Tensor, weights: list[Tensor], groups: list[int]) -> Tensor:
    """Row i times the transposed weights of group `groups[i]`; 0 where that is -1."""
    result = torch.zeros(len(rows), len(weights[0]) if weights else 0, dtype=torch.float64)
    for group, weight in enumerate(weights):
        mine = [row for row, its_group in enumerate(groups) if its_group == group]
        result[mine] = rows[mine] @ weight.T
    return result


def m_grouped_gemm_nt(a: Pair, b: Pair, groups: list[int]) -> Tensor:
    """`grouped` of a [m, k] with 1 x 128 and b [groups, n, k] with 128 x 128 scales."""
    weights = [dequantised(data, scale, 128) for data, scale in zip(*b, strict=True)]
    if not weights:
        return torch.zeros(len(groups), b[0].shape[1], dtype=torch.float64)
    return grouped(dequantised(*a, 1), weights, groups)


def row_map_of_ends(ends: list[int], num_rows: int, alignment: int = 128) -> list[int]:
    """The group of each row, -1 for none: groups begin at aligned ends of those before."""
    row_map = [-1] * num_rows
    begin = 0
    for group, end in enumerate(ends):
        for row in range(begin, end):
            row_map[row] = group
        begin = end
        while begin % alignment:
            begin += 1
    return row_map
