"""Operands for the tests: numbers that show a mistake, in memory that shows a stray access."""

import torch
from torch import Tensor

E4M3 = torch.float8_e4m3fn
E4M3_NAN = 0x7F
PADDING = -1

Pair = tuple[Tensor, Tensor]


def fp8_operand(rows: int, k: int, block_rows: int, num_groups: int | None = None) -> Pair:
    """Codes of any size, and scales so far apart that one in a wrong place shows."""
    groups = () if num_groups is None else (num_groups,)
    data = torch.randn(*groups, rows, k).to(E4M3)
    blocks = (-(-rows // block_rows), -(-k // 128))
    return data, torch.exp2(torch.rand(*groups, *blocks) * 12 - 8)


def bf16_operand(*shape: int) -> Tensor:
    """Random numbers, each row of another size."""
    return (torch.randn(shape) * torch.exp2(torch.rand(*shape[:-1], 1) * 12 - 6)).bfloat16()


def spoil(rows: Tensor, pair: Pair) -> None:
    """Makes rows of a pair NaN, data and scale."""
    pair[0].view(torch.uint8)[rows] = 0xFF
    pair[1][rows] = torch.nan


def to(device: torch.device, pair: Pair) -> Pair:
    """Moves both tensors."""
    return pair[0].to(device), pair[1].to(device)


def surrounded(values: Tensor, margin: int = 16) -> Tensor:
    """A copy that is a view, with NaN before and behind each row and each matrix."""
    *groups, rows, columns = values.shape
    width = -(-columns // margin) * margin + 2 * margin
    wide = torch.full((*groups, rows + 4, width), torch.nan, device=values.device)
    wide = wide.to(values.dtype)
    inside = wide[..., 2 : rows + 2, margin : columns + margin]
    inside.copy_(values)
    return inside


def nan_output(*shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """NaN, with NaN around it that `assert_untouched_around` looks for."""
    return surrounded(torch.full(shape, torch.nan, dtype=dtype, device=device))


def assert_untouched_around(output: Tensor) -> None:
    """Raises unless all around an output of `nan_output` still is NaN. Overwrites the output."""
    around = output._base
    assert around is not None
    output.fill_(torch.nan)
    assert around.isnan().all()


def float32_sums(left: Tensor, right: Tensor, start: Tensor | None = None) -> Tensor:
    """Start + left @ right.T, as far off as sums in float32 may be in an unlucky order.

    Each of k partial sums is rounded by eps / 2 of what the sizes of the products sum to at most;
    at random that makes sqrt(k) times as much.
    """
    left, right = left.double(), right.double()
    sizes = left.abs() @ right.abs().T
    exact = left @ right.T
    if start is not None:
        exact, sizes = exact + start.double(), sizes + start.double().abs()
    error = torch.finfo(torch.float32).eps / 2 * (left.shape[1] + 1) ** 0.5 * sizes
    return (exact + error).float()


def aligned(*group_sizes: tuple[int, int]) -> list[int]:
    """The row map of groups of so many tokens, each padded to whole blocks of 128 rows."""
    row_map = []
    for group, size in group_sizes:
        row_map += [group] * size + [PADDING] * (-size % 128)
    return row_map
