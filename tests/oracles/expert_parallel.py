"""Expert-parallel dispatch and combine of all ranks in one process: what must arrive, row by row.

Expert e lives on rank `e // num_local_experts`. Every function takes one tensor per rank and loops.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Received:
    """What one rank has after a dispatch, in the order of (source rank, source token).

    Attributes:
        sources: (source rank, source token) of every row.
        topk_idx: [num_rows, topk] i64 — local expert ids, -1 for others.
        topk_weights: [num_rows, topk] f64 — 0 where topk_idx is -1.
        counts: selections per local expert, rounded up to the alignment.
    """

    sources: list[tuple[int, int]]
    topk_idx: Tensor
    topk_weights: Tensor
    counts: list[int]


def dispatch(
    topk_idx: list[Tensor], topk_weights: list[Tensor], num_experts: int, alignment: int = 1
) -> list[Received]:
    """Say which rows every rank receives; the payload of a row is that of its source token."""
    num_ranks = len(topk_idx)
    num_local = num_experts // num_ranks
    return [
        _receive(rank, topk_idx, topk_weights, num_local, alignment) for rank in range(num_ranks)
    ]


def _receive(
    rank: int, topk_idx: list[Tensor], topk_weights: list[Tensor], num_local: int, alignment: int
) -> Received:
    sources, ids, weights = [], [], []
    counts = [0] * num_local
    for source, selections in enumerate(topk_idx):
        for token, experts in enumerate(selections.tolist()):
            here = [expert != -1 and expert // num_local == rank for expert in experts]
            if not any(here):
                continue
            sources.append((source, token))
            ids.append([e % num_local if h else -1 for e, h in zip(experts, here, strict=True)])
            given = topk_weights[source][token].tolist()
            weights.append([w if h else 0.0 for w, h in zip(given, here, strict=True)])
            for expert in ids[-1]:
                if expert != -1:
                    counts[expert] += 1
    topk = topk_idx[0].shape[1]
    aligned = [(count + alignment - 1) // alignment * alignment for count in counts]
    return Received(
        sources,
        torch.tensor(ids, dtype=torch.int64).reshape(len(sources), topk),
        torch.tensor(weights, dtype=torch.float64).reshape(len(sources), topk),
        aligned,
    )


def rows_of(parts: list[Tensor], sources: list[tuple[int, int]]) -> Tensor:
    """The payload that arrives: row (source rank, source token) of the ranks' tensors."""
    if not sources:
        return parts[0][:0]
    return torch.stack([parts[source][token] for source, token in sources])


def combine(
    processed: list[Tensor], sources: list[list[tuple[int, int]]], origin: int, num_tokens: int
) -> Tensor:
    """Sum of all that comes back to the tokens of rank `origin`: [num_tokens, columns] f64.

    Args:
        processed: [num_rows, columns] per rank — its rows, in the order in which they arrived.
        sources: per rank, (source rank, source token) of these rows.
        origin: the rank whose tokens are asked for.
        num_tokens: how many it has.
    """
    total = torch.zeros(num_tokens, processed[0].shape[1], dtype=torch.float64)
    for rows, row_sources in zip(processed, sources, strict=True):
        for row, (source, token) in zip(rows, row_sources, strict=True):
            if source == origin:
                total[token] += row.double()
    return total
