"""Which kernel computes an FP8 product, in which tiles: numbers in, a configuration out.

A model estimates the clock cycles of every tiling that the kernels have, and the cheapest wins.
It knows what the tensor cores, shared memory, L2 and HBM can do at most, how many rounds the tiles
take on the SMs there are, and what starting costs. The numbers are Hopper's (H100, H800, H200).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deepgemm.layout import ceil_div

Grouping = Literal["dense", "row_map", "prefix_sum", "masked", "along_k"]
Share = Literal["nothing", "a", "b"]
Output = Literal["bf16", "fp32"]

SMEM_BYTES = 232448
_BLOCK_K = 128
_BLOCKS_M = (64, 128, 256)
# A tile may lie in two blocks of 128 scales of b, not in three.
_BLOCKS_N = (*range(16, 129, 16), 144, 160, 192)
_TOKENS = tuple(range(8, 65, 8))
_SPLITS = (1, 2, 4, 8)
_FEWEST_STAGES, _MOST_STAGES = 3, 12

# Per clock: products and sums of an SM, bytes of its shared memory, bytes that it gets from L2
# while all others do too, and bytes that all of them get from HBM (3.35 TB/s at 1.7 GHz).
_FLOPS, _SMEM_RATE, _L2_RATE, _HBM_RATE = 8192, 128, 46, 1970
# Units overlap, but not wholly: this part of what the slowest one hides shows.
_SHOWS = 0.1
# With so few rows operands are swapped: the tensor core's 64 rows would be mostly empty.
_FEW_TOKENS = 64
# Cycles: until the first products of a kernel, of a step at least, of ending a tile, and of meeting
# in a cluster.
_START, _SHORTEST_STEP, _TILE_END, _MEETING = 2000, 130, 600, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A product d[m, n] = a[m, k] @ b[n, k].T, or one for every group.

    Attributes:
        grouping: How groups lie in the operands; see csrc/deepgemm/scheduler.cuh.
        m: Rows of all groups together, or of each where groups are a dim of their own.
        n: Columns of d.
        k: Columns of a and b; of each group on average where groups split them.
        num_groups: 1 if dense.
        expected_m: Rows of a masked group that are likely to count; m if nobody knows.
        output: "fp32" is added to what is there, and b has a scale for every row.
    """

    grouping: Grouping = "dense"
    m: int
    n: int
    k: int
    num_groups: int = 1
    expected_m: int | None = None
    output: Output = "bf16"

    @property
    def planes(self) -> int:
        """How often tiles of m rows and n columns have to be counted."""
        return self.num_groups if self.grouping in ("masked", "along_k") else 1

    @property
    def likely_m(self) -> int:
        if self.grouping != "masked" or self.expected_m is None:
            return self.m
        return min(self.m, max(1, self.expected_m))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """A configuration of csrc/deepgemm/fp8_gemm_sm90.cuh or fp8_accumulate_sm90.cuh.

    Attributes:
        block_m: Rows of a tile: 64, 128 or 256.
        block_n: Columns of a tile.
        num_stages: Stages of the pipeline.
        share: What a cluster of two CTAs loads once for both.
        output: The problem's.
    """

    block_m: int
    block_n: int
    num_stages: int
    share: Share
    output: Output = "bf16"

    @property
    def cluster(self) -> int:
        return 1 if self.share == "nothing" else 2

    @property
    def num_threads(self) -> int:
        return 256 if self.block_m == 64 else 384

    @property
    def smem_bytes(self) -> int:
        """Operands of all stages, two mbarriers each; the tile of d, or scales of all stages."""
        stage = (self.block_m + self.block_n) * _BLOCK_K + 16
        if self.output == "fp32":
            return _aligned(self.num_stages * (stage + 4 * self.block_n))
        return _aligned(self.num_stages * stage + 2 * self.block_m * self.block_n)

    def num_clusters(self, problem: Problem) -> int:
        rows, columns = ceil_div(problem.m, self.block_m), ceil_div(problem.n, self.block_n)
        if self.share == "a":
            columns = ceil_div(columns, 2)
        if self.share == "b":
            rows = ceil_div(rows, 2)
        return problem.planes * rows * columns


@dataclass(frozen=True, slots=True, kw_only=True)
class FewTokens:
    """A configuration of csrc/deepgemm/fp8_small_m_sm90.cuh.

    Attributes:
        tokens: Rows of a in a tile, a multiple of 8 up to 64.
        num_stages: Stages of the pipeline.
        split: CTAs of a cluster, each of which takes a part of k.
    """

    tokens: int
    num_stages: int
    split: int

    num_threads = 384
    block_n = 128

    @property
    def cluster(self) -> int:
        return self.split

    @property
    def smem_bytes(self) -> int:
        """Operands and scales of all stages, the tile of d, others' sums, mbarriers."""
        stage = (self.block_n + self.tokens) * _BLOCK_K + 4 * self.tokens + 16
        partial = 4 * self.tokens * self.block_n * (self.split - 1) if self.split > 1 else 16
        return _aligned(self.num_stages * stage + 2 * self.tokens * self.block_n + partial + 16)

    def num_clusters(self, problem: Problem) -> int:
        tiles = ceil_div(problem.m, self.tokens) * ceil_div(problem.n, self.block_n)
        return problem.planes * tiles


Config = Tiles | FewTokens


@functools.lru_cache(maxsize=4096)
def plan(problem: Problem, num_sms: int) -> Config:
    """Returns the configuration that the model rates best.

    Args:
        problem: No size of it is 0.
        num_sms: SMs that may be used.
    """
    return min(candidates(problem), key=lambda config: cycles(problem, config, num_sms))


def candidates(problem: Problem) -> Iterator[Config]:
    """Every configuration that computes the problem, the simplest first."""
    by_rows = problem.grouping in ("row_map", "prefix_sum")
    swaps = problem.grouping in ("dense", "masked") and problem.output == "bf16"
    if swaps and problem.likely_m <= _FEW_TOKENS:
        yield from _candidates_for_few_tokens(problem)
        return
    for block_m in _BLOCKS_M:
        # Rows of one alignment unit, not of two, are known to be of one group.
        if by_rows and block_m > 128:
            continue
        for block_n in _BLOCKS_N:
            if block_m > 128 and block_n > 128:
                continue
            shares: tuple[Share, ...] = ("nothing", "a") if by_rows else ("nothing", "a", "b")
            for share in shares:
                yield from _deepest(
                    Tiles(
                        block_m=block_m,
                        block_n=block_n,
                        num_stages=stages,
                        share=share,
                        output=problem.output,
                    )
                    for stages in range(_MOST_STAGES, _FEWEST_STAGES - 1, -1)
                )


def _candidates_for_few_tokens(problem: Problem) -> Iterator[Config]:
    for tokens in _TOKENS:
        for split in _SPLITS:
            if split > ceil_div(problem.k, _BLOCK_K):
                continue
            yield from _deepest(
                FewTokens(tokens=tokens, num_stages=stages, split=split)
                for stages in range(_MOST_STAGES, _FEWEST_STAGES - 1, -1)
            )


def _deepest(configs: Iterator[Config]) -> Iterator[Config]:
    """The first of the configurations that fits in shared memory, if one does."""
    fitting = (config for config in configs if config.smem_bytes <= SMEM_BYTES)
    yield from itertools.islice(fitting, 1)


def cycles(problem: Problem, config: Config, num_sms: int) -> float:
    """The model's estimate of clock cycles."""
    tiled = dataclasses.replace(problem, m=problem.likely_m)
    rounds = ceil_div(config.num_clusters(tiled), max(1, num_sms // config.cluster))
    work, traffic = rounds * _tile_cycles(tiled, config), _traffic(tiled) / _HBM_RATE
    return _START + _overlapped(work, traffic)


def _tile_cycles(problem: Problem, config: Config) -> float:
    steps = ceil_div(problem.k, _BLOCK_K)
    if isinstance(config, FewTokens):
        rows, columns, split = config.block_n, config.tokens, config.split
        loaded = float((rows + columns) * _BLOCK_K)
        meeting = _MEETING + 4 * (split - 1) * rows * columns / _L2_RATE if split > 1 else 0.0
    else:
        rows, columns, split = config.block_m, config.block_n, 1
        loaded = (
            rows / (2 if config.share == "a" else 1) + columns / (2 if config.share == "b" else 1)
        ) * _BLOCK_K
        meeting = 0.0
    tensor = 2 * rows * columns * _BLOCK_K / _FLOPS
    # Written once; for every 64 rows the tensor core reads these rows and all columns.
    smem = (rows + columns + rows / 64 * (64 + columns)) * _BLOCK_K / _SMEM_RATE
    step = max(_SHORTEST_STEP, _overlapped(tensor, smem, loaded / _L2_RATE))
    stored = (2 if problem.output == "bf16" else 8) * rows * columns / _L2_RATE
    return ceil_div(steps, split) * step + _TILE_END + stored + meeting


def _overlapped(*times: float) -> float:
    return (1 - _SHOWS) * max(times) + _SHOWS * sum(times)


def _traffic(problem: Problem) -> float:
    """Bytes that come from HBM or go there at least."""
    rows = problem.planes * problem.m
    weights = problem.num_groups * problem.n * problem.k
    if problem.grouping == "along_k":
        return (problem.m + problem.n) * problem.k + 8 * rows * problem.n
    return rows * problem.k + weights + (2 if problem.output == "bf16" else 8) * rows * problem.n


def _aligned(num_bytes: int) -> int:
    return ceil_div(num_bytes, 1024) * 1024
