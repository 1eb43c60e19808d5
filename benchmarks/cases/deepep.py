"""One expert-parallel round, dispatch and combine, on forked ranks of this machine over gloo.

A sample holds the routing, both exchanges and the reduction, and the scheduling of more ranks than
cores; it does not hold the experts, and says nothing about NVLink or RDMA.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.distributed as dist

from benchmarks.case import SEED, Peer
from benchmarks.rank_case import RankCall, RankCase
from benchmarks.ranks import Rank
from benchmarks.roofline import Work


@dataclass(frozen=True, slots=True)
class Exchange:
    """`tokens` per rank, each to the ranks of `topk` experts out of 8 per rank."""

    ranks: int
    tokens: int
    hidden: int
    topk: int

    @property
    def num_experts(self) -> int:
        return 8 * self.ranks


def _work(shape: Exchange) -> Work:
    """Counts each row that a rank receives, on the way out and back, read once and written once."""
    experts, topk = shape.num_experts, shape.topk
    chosen = 1 - math.comb(experts - 8, topk) / math.comb(experts, topk)
    rows = shape.ranks * shape.tokens * shape.ranks * chosen
    return Work(0, rows * 2 * 2 * 2 * shape.hidden, "bf16")


class _Traffic:
    """What one rank sends: rows, the experts they go to, and the ranks that follow from those."""

    def __init__(self, rank: Rank, shape: Exchange) -> None:
        generator = torch.Generator().manual_seed(SEED + rank.rank)
        self.shape = shape
        self.x = torch.randn(shape.tokens, shape.hidden, generator=generator).bfloat16()
        scores = torch.rand(shape.tokens, shape.num_experts, generator=generator)
        self.topk_weights, self.topk_idx = scores.topk(shape.topk)
        to_rank = torch.zeros(shape.tokens, shape.ranks, dtype=torch.bool)
        self.to_rank = to_rank.scatter(1, self.topk_idx // 8, value=True)

    def oracle(self) -> torch.Tensor:
        """Experts that change nothing send each row back once per rank it went to."""
        return self.x.double() * self.to_rank.sum(1, keepdim=True)


def _deepep(traffic: _Traffic) -> RankCall:
    buffer = import_module("deepep").Buffer(dist.group.WORLD)

    def round_trip() -> torch.Tensor:
        per_rank, _, per_expert, in_rank, _ = buffer.get_dispatch_layout(
            traffic.topk_idx, traffic.shape.num_experts
        )
        rows, _, weights, _, handle, _ = buffer.dispatch(
            traffic.x,
            num_tokens_per_rank=per_rank,
            is_token_in_rank=in_rank,
            num_tokens_per_expert=per_expert,
            topk_idx=traffic.topk_idx,
            topk_weights=traffic.topk_weights,
        )
        combined: torch.Tensor
        combined, _, _ = buffer.combine(rows, handle, topk_weights=weights)
        return combined

    return round_trip


def _all_to_all(traffic: _Traffic) -> RankCall:
    """The same rows by torch.distributed alone: no expert ids or weights travel with them."""

    def exchange(rows: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        out = rows.new_empty(sum(received), rows.shape[1])
        # As bytes: gloo knows neither bfloat16 nor 16-bit integers.
        dist.all_to_all_single(out.view(torch.uint8), rows.view(torch.uint8), received, sent)
        return out

    def round_trip() -> torch.Tensor:
        sources = [column.nonzero().flatten() for column in traffic.to_rank.t()]
        counts = torch.tensor([len(source) for source in sources])
        arriving = torch.empty_like(counts)
        dist.all_to_all_single(arriving, counts)
        sent, received = counts.tolist(), arriving.tolist()
        source = torch.cat(sources)
        rows = exchange(traffic.x[source], sent, received)
        back = exchange(rows, received, sent)
        sums = torch.zeros(traffic.x.shape, dtype=torch.float32)
        return sums.index_add_(0, source, back.float()).bfloat16()

    return round_trip


CASES = (
    RankCase(
        name="deepep",
        title="dispatch + combine over gloo, bf16 rows, the slowest rank of each round",
        devices=("cpu",),
        needs=("deepep.Buffer",),
        shapes={
            "tiny": (Exchange(1, 4, 128, 1), Exchange(2, 5, 128, 2)),
            "real": (
                Exchange(2, 256, 128, 2),
                Exchange(2, 512, 7168, 8),
                Exchange(4, 256, 128, 2),
                Exchange(4, 128, 7168, 8),
            ),
            "sweep": tuple(Exchange(2, 2**power, 2048, 8) for power in range(11)),
        },
        work=_work,
        tolerance=2**-7,  # two roundings to bf16
        ranks=lambda shape: shape.ranks,
        inputs=_Traffic,
        ours=_deepep,
        oracle=_Traffic.oracle,
        peers={"torch-all-to-all": Peer(_all_to_all, devices=("cpu",))},
    ),
)
