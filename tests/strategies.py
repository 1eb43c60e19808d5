"""What hypothesis draws for the packages' tests: shapes, layouts and plans, never the numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from eplb.topology import Topology

# An index no pool of pages has: whoever follows the tail of a page table reads out of bounds.
GARBAGE_PAGE = 2_147_480_000


def extents(tile: int, max_tiles: int = 2) -> st.SearchStrategy[int]:
    """Lengths around the edges of a tile, the edges themselves preferred."""
    edges = st.sampled_from([0, 1, tile - 1, tile, tile + 1])
    return edges | st.integers(0, max_tiles * tile)


@st.composite
def gemm_shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """(m, n, k) of a GEMM with 128x128 tiles: m any, n a multiple of 64, k a multiple of 128."""
    m = draw(extents(128))
    n = 64 * draw(st.integers(1, 6))
    k = 128 * draw(st.integers(1, 4))
    return m, n, k


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Which pages of a shared pool hold which request.

    Attributes:
        page_size: tokens per page.
        num_pages: pages in the pool, those that belong to no request included.
        cache_seqlens: [batch] int32 — tokens per request, 0 allowed.
        block_table: [batch, max pages of a request] int32 — no page is in two requests; after the
            pages of a request comes GARBAGE_PAGE.
    """

    page_size: int
    num_pages: int
    cache_seqlens: Tensor
    block_table: Tensor


@st.composite
def paged_caches(
    draw: st.DrawFn, page_size: int = 64, max_batch: int = 4, max_pages: int = 3
) -> PagedCache:
    """Requests of any length up to ``max_pages`` full pages, their pages scattered in the pool."""
    length = extents(page_size, max_pages)
    seqlens = draw(st.lists(length, min_size=1, max_size=max_batch))
    page_counts = [-(-length // page_size) for length in seqlens]
    num_pages = sum(page_counts) + draw(st.integers(1, 3))
    pages = iter(draw(st.permutations(range(num_pages))))
    block_table = torch.full((len(seqlens), max(1, *page_counts)), GARBAGE_PAGE, dtype=torch.int32)
    for request, count in enumerate(page_counts):
        for slot in range(count):
            block_table[request, slot] = next(pages)
    return PagedCache(page_size, num_pages, torch.tensor(seqlens, dtype=torch.int32), block_table)


@st.composite
def routings(draw: st.DrawFn, num_experts: int, max_tokens: int = 12, max_topk: int = 4) -> Tensor:
    """topk_idx [num_tokens, topk] int64: a token's experts differ; -1 where a choice is masked."""
    num_tokens = draw(st.integers(0, max_tokens))
    topk = draw(st.integers(1, min(max_topk, num_experts)))
    experts = st.permutations(range(num_experts)).map(lambda order: order[:topk])
    kept = st.lists(st.sampled_from([True, True, True, False]), min_size=topk, max_size=topk)
    rows = [
        [expert if keep else -1 for expert, keep in zip(draw(experts), draw(kept), strict=True)]
        for _ in range(num_tokens)
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(num_tokens, topk)


@st.composite
def schedule_sizes(draw: st.DrawFn, max_ranks: int = 8) -> tuple[int, int]:
    """(number of ranks, number of micro-batches) that DualPipe takes: both even, 2 per rank."""
    num_ranks = 2 * draw(st.integers(1, max_ranks // 2))
    num_microbatches = 2 * num_ranks + 2 * draw(st.integers(0, num_ranks))
    return num_ranks, num_microbatches


@st.composite
def topologies(draw: st.DrawFn, max_gpus: int = 6, max_slots: int = 4) -> Topology:
    """GPUs of several nodes, with different numbers of slots; some have none."""
    num_gpus = draw(st.integers(1, max_gpus))
    slots = draw(st.lists(st.integers(0, max_slots), min_size=num_gpus, max_size=num_gpus))
    if not sum(slots):
        slots[draw(st.integers(0, num_gpus - 1))] = 1
    nodes = draw(st.lists(st.integers(0, 2), min_size=num_gpus, max_size=num_gpus))
    return Topology(tuple(slots), tuple(nodes))


@st.composite
def placements(
    draw: st.DrawFn, topology: Topology, num_experts: int, num_layers: int, *, empty: bool = True
) -> NDArray[np.int64]:
    """[num_layers, num_slots]: each expert at least once, none twice on a GPU; -1 where empty.

    The topology must have a slot for each expert.
    """
    gpus = np.array(topology.gpu_of_slot)
    layers = []
    for _ in range(num_layers):
        order = draw(st.permutations(range(len(gpus))))
        layer = np.full(len(gpus), -1)
        layer[list(order[:num_experts])] = range(num_experts)
        for slot in order[num_experts:]:
            there = set(layer[gpus == gpus[slot]].tolist())
            others = sorted(set(range(num_experts)) - there)
            if others and not (empty and draw(st.integers(0, 3)) == 0):
                layer[slot] = draw(st.sampled_from(others))
        layers.append(layer)
    return np.stack(layers)
