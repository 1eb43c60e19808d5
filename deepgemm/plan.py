"""Which tiles a product is computed in: pure numbers in, a configuration of the kernels out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepgemm.layout import ceil_div

Grouping = Literal["dense", "row_map", "prefix_sum", "masked", "along_k"]
Share = Literal["nothing", "a", "b"]

# Of compute capability 9.0.
_SMEM_BYTES = 232448
_BLOCK_K = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A product d[m, n] = a[m, k] @ b[n, k].T, or one for every group.

    Attributes:
        grouping: How groups lie in the operands; see csrc/deepgemm/scheduler.cuh.
        m: Rows of all groups together, or of each where groups are a dim of their own.
        n: Columns of d.
        k: Columns of a and b.
        num_groups: 1 if dense.
        expected_m: Rows per group that are likely to count, where only the device knows.
    """

    grouping: Grouping = "dense"
    m: int
    n: int
    k: int
    num_groups: int = 1
    expected_m: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How the kernel for large m is compiled.

    Attributes:
        block_m: Rows of a tile: 64, 128 or 256.
        block_n: Columns of a tile.
        num_stages: Stages of the pipeline.
        share: What a cluster of two CTAs loads once for both.
    """

    block_m: int
    block_n: int
    num_stages: int
    share: Share

    @property
    def cluster(self) -> int:
        return 1 if self.share == "nothing" else 2

    @property
    def num_threads(self) -> int:
        return 256 if self.block_m == 64 else 384


def smem_bytes(block_m: int, block_n: int, num_stages: int) -> int:
    """Shared memory of the FP8 kernel: a and b of all stages, d, two mbarriers a stage."""
    staged = num_stages * (block_m + block_n) * _BLOCK_K + 2 * block_m * block_n
    return ceil_div(staged + 16 * num_stages, 1024) * 1024
