"""Sizes and alignments of the operands."""

# One row tile of the Hopper kernel. Every row of a tile belongs to one group.
_ROWS_PER_TILE = 128


def ceil_div(x: int, y: int) -> int:
    """Divide and round up.

    Example:
        >>> ceil_div(129, 128)
        2
    """
    return -(-x // y)


def get_mk_alignment_for_contiguous_layout() -> int:
    """Return the number of rows (m) or columns (k) each group of a grouped GEMM is padded to.

    Returns:
        128.
    """
    return _ROWS_PER_TILE


get_m_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
