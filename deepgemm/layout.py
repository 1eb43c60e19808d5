"""Sizes and alignments of the operands."""

from __future__ import annotations

from csrc import Checker

# One row tile of the Hopper kernel. Every row of a tile belongs to one group.
_ROWS_PER_TILE = 128
# The tensor memory accelerator addresses memory in units of 16 bytes.
_TMA_BYTES = 16


def ceil_div(x: int, y: int) -> int:
    """Divide and round up.

    Example:
        >>> ceil_div(129, 128)
        2
    """
    return -(-x // y)


# The first release's name.
cell_div = ceil_div


def align(x: int, y: int) -> int:
    """Round up to a multiple of y.

    Example:
        >>> align(129, 128)
        256
    """
    return ceil_div(x, y) * y


def get_tma_aligned_size(x: int, element_size: int) -> int:
    """Round a number of elements up to a multiple of 16 bytes.

    Example:
        >>> get_tma_aligned_size(5, 4)
        8
    """
    if element_size not in (1, 2, 4, 8, 16):
        rule = "divide 16"
        Checker("get_tma_aligned_size").invalid("element_size", rule, element_size, "in bytes")
    return align(x, _TMA_BYTES // element_size)


def get_mk_alignment_for_contiguous_layout() -> int:
    """Return the number of rows (m) or columns (k) each group of a grouped GEMM is padded to.

    Returns:
        128.
    """
    return _ROWS_PER_TILE


get_m_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
get_k_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout


def set_mk_alignment_for_contiguous_layout(new_value: int) -> None:
    """Choose what groups are padded to: 128 is all that Hopper's kernels have.

    Raises:
        NotImplementedError: another value.
    """
    if new_value != _ROWS_PER_TILE:
        check = Checker("set_mk_alignment_for_contiguous_layout")
        check.not_built("new_value", f"be {_ROWS_PER_TILE}", new_value, "pad groups to that")


def get_theoretical_mk_alignment_for_contiguous_layout(expected_m: int | None = None) -> int:
    """Return the least alignment for groups of about `expected_m` rows: 128 for any on Hopper."""
    del expected_m
    return _ROWS_PER_TILE
