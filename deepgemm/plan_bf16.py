"""In which tiles a BF16 product is computed: numbers in, a configuration of its kernel out.

A model estimates the clock cycles of every tiling that the kernel has, and the cheapest wins. It
knows what the tensor cores, shared memory, the way from L2 and HBM can do at most, and how many
rounds the tiles take on the SMs there are. The numbers are Hopper's; a step of k is 128 bytes of
every row.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from deepgemm.layout import ceil_div
from deepgemm.plan import SMEM_BYTES, Output, Problem, Share, Tiles

Major = Literal["k", "mn"]

_BLOCK_K, _ROW_BYTES = 64, 128
_PANEL_ROWS = 64  # of an operand that does not run along k
_BLOCKS_M, _BLOCKS_N = (64, 128, 256), range(16, 257, 16)
# Columns of the largest tiles: their accumulators fill the registers of two warpgroups.
_WIDEST = {64: 256, 128: 256, 256: 192}
# One stage is read, the one before it is released, and one has to be on its way.
_FEWEST_STAGES, _MOST_STAGES = 3, 12

# Per clock: products and sums of an SM, bytes of its shared memory, bytes that reach it from L2,
# bytes that leave L2 for all SMs, and bytes of HBM (3.35 TB/s at 1.7 GHz).
_FLOPS, _SMEM_RATE, _LINK_RATE, _L2_RATE, _HBM_RATE = 4096, 128, 64, 6000, 1970
# Units overlap, but not wholly: this part of what the slowest one hides shows.
_SHOWS = 0.1
# Cycles: until the first products of a kernel, of a step at least, of ending a tile.
_START, _SHORTEST_STEP, _TILE_END = 2000, 130, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Bf16Tiles(Tiles):
    """A configuration of csrc/deepgemm/bf16_gemm_sm90.cuh.

    Attributes:
        major_a: The dim along which a runs: "k", or "mn" for its rows m.
        major_b: The same of b and n.
    """

    major_a: Major = "k"
    major_b: Major = "k"

    @property
    def smem_bytes(self) -> int:
        """Operands of all stages, the tile of d if it is bf16, two mbarriers a stage."""
        stage = (self.block_m + self.block_n) * _ROW_BYTES + 16
        staged = 2 * self.block_m * self.block_n if self.output == "bf16" else 16
        return ceil_div(self.num_stages * stage + staged, 1024) * 1024

    @property
    def loaded_rows(self) -> tuple[int, int]:
        """Rows of a and of b that one CTA loads."""
        a, b = self.share == "a", self.share == "b"
        return self.block_m // (2 if a else 1), self.block_n // (2 if b else 1)


@functools.lru_cache(maxsize=4096)
def plan(problem: Problem, num_sms: int, major_a: Major, major_b: Major) -> Bf16Tiles:
    """Returns the tiles that the model rates best.

    Args:
        problem: No size of it is 0.
        num_sms: SMs that may be used.
        major_a: As of the tiles.
        major_b: As of the tiles.
    """
    tilings = candidates(problem, major_a, major_b)
    possible = (tiles for tiles in tilings if tiles.cluster <= num_sms)
    return min(possible, key=lambda tiles: cycles(problem, tiles, num_sms))


def candidates(problem: Problem, major_a: Major, major_b: Major) -> Iterator[Bf16Tiles]:
    """All tiles that compute the problem, those without clusters first."""
    by_rows = problem.grouping in ("row_map", "prefix_sum")
    # Rows of one alignment unit of 128, not of two, are known to be of one group.
    shares: tuple[Share, ...] = ("nothing", "a") if by_rows else ("nothing", "a", "b")
    for share in shares:
        for block_m in _BLOCKS_M[:2] if by_rows else _BLOCKS_M:
            for block_n in _BLOCKS_N:
                tilings = (
                    Bf16Tiles(
                        block_m=block_m,
                        block_n=block_n,
                        num_stages=num_stages,
                        share=share,
                        major_a=major_a,
                        major_b=major_b,
                        output=problem.output,
                    )
                    for num_stages in range(_MOST_STAGES, _FEWEST_STAGES - 1, -1)
                )
                deepest = next((t for t in tilings if t.smem_bytes <= SMEM_BYTES), None)
                if deepest is not None and _is_compiled(deepest):
                    yield deepest


def _is_compiled(tiles: Bf16Tiles) -> bool:
    rows_a, rows_b = tiles.loaded_rows
    return (
        tiles.block_n <= _WIDEST[tiles.block_m]
        and (tiles.major_a == "k" or rows_a % _PANEL_ROWS == 0)
        and (tiles.major_b == "k" or rows_b % _PANEL_ROWS == 0)
    )


def cycles(problem: Problem, tiles: Bf16Tiles, num_sms: int) -> float:
    """The model's estimate of clock cycles."""
    likely = dataclasses.replace(problem, m=problem.likely_m)
    clusters, at_a_time = tiles.num_clusters(likely), max(1, num_sms // tiles.cluster)
    busy = min(clusters, at_a_time) * tiles.cluster
    work = ceil_div(clusters, at_a_time) * _tile_cycles(likely, tiles, busy)
    return _START + _overlapped(work, _traffic(likely) / _HBM_RATE)


def _tile_cycles(problem: Problem, tiles: Bf16Tiles, busy: int) -> float:
    """Of one tile, while so many SMs load from L2."""
    rows, columns = tiles.block_m, tiles.block_n
    tensor = 2 * rows * columns * _BLOCK_K / _FLOPS
    # Written once; for every 64 rows the tensor core reads these rows and all columns.
    smem = (rows + columns + rows / 64 * (64 + columns)) * _ROW_BYTES / _SMEM_RATE
    link = (rows + columns) * _ROW_BYTES / _LINK_RATE
    shared = sum(tiles.loaded_rows) * _ROW_BYTES * busy / _L2_RATE
    step = max(_SHORTEST_STEP, _overlapped(tensor, smem, max(link, shared)))
    stored = rows * columns * _bytes_of(problem.output) * max(1 / _LINK_RATE, busy / _L2_RATE)
    return ceil_div(problem.k, _BLOCK_K) * step + _TILE_END + stored


def _overlapped(*times: float) -> float:
    return (1 - _SHOWS) * max(times) + _SHOWS * sum(times)


def _traffic(problem: Problem) -> float:
    """Bytes that come from HBM or go there at least."""
    rows = problem.planes * problem.m
    operands = 2 * (rows + problem.num_groups * problem.n) * problem.k
    return operands + _bytes_of(problem.output) * rows * problem.n


def _bytes_of(output: Output) -> int:
    return 2 if output == "bf16" else 4
