"""Tokens whose payload tells where they come from, so that a swapped or mispaired row shows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from deepep import Buffer


@dataclass
class RoutedTokens:
    """What one rank dispatches.

    Attributes:
        x: [num_tokens, hidden] bf16 — rank and token number in the first three columns.
        topk_idx: [num_tokens, topk] i64.
        topk_weights: [num_tokens, topk] f32.
        num_experts: of the whole group.
    """

    x: Tensor
    topk_idx: Tensor
    topk_weights: Tensor
    num_experts: int


def tagged(rank: int, num_tokens: int, columns: int) -> Tensor:
    """[num_tokens, columns] bf16: rank, token // 128, token % 128, then noise."""
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(num_tokens, columns, generator=generator)
    token = torch.arange(num_tokens)
    x[:, 0], x[:, 1], x[:, 2] = rank, token // 128, token % 128
    return x.to(torch.bfloat16)


def routed(rank: int, topk_idx: Tensor, num_experts: int, hidden: int = 32) -> RoutedTokens:
    """Tokens of this rank with these selections."""
    weights = torch.rand(topk_idx.shape, generator=torch.Generator().manual_seed(rank))
    return RoutedTokens(tagged(rank, len(topk_idx), hidden), topk_idx, weights, num_experts)


def randomly_routed(
    rank: int, num_tokens: int, topk: int, num_experts: int, hidden: int = 32
) -> RoutedTokens:
    """Tokens of this rank with distinct random experts each, one selection in eight masked."""
    generator = torch.Generator().manual_seed(1000 + rank)
    scores = torch.rand(num_tokens, num_experts, generator=generator)
    topk_idx = scores.topk(topk, dim=1).indices
    masked = torch.rand(topk_idx.shape, generator=generator) < 1 / 8
    return routed(rank, topk_idx.masked_fill(masked, -1), num_experts, hidden)


def layout_of(buffer: Buffer, tokens: RoutedTokens) -> dict[str, Tensor | None]:
    """The layout, under the names under which dispatch takes it."""
    per_rank, per_rdma_rank, per_expert, is_in_rank, _ = buffer.get_dispatch_layout(
        tokens.topk_idx, tokens.num_experts
    )
    return {
        "num_tokens_per_rank": per_rank,
        "num_tokens_per_rdma_rank": per_rdma_rank,
        "is_token_in_rank": is_in_rank,
        "num_tokens_per_expert": per_expert,
    }


def all_of(buffer: Buffer, tokens: RoutedTokens) -> dict[str, Tensor | None]:
    """The layout and what travels along, under the names under which dispatch takes them."""
    return layout_of(buffer, tokens) | {
        "topk_idx": tokens.topk_idx,
        "topk_weights": tokens.topk_weights,
    }
