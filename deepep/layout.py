"""The dispatch layout: which ranks every token goes to, from the experts it selected."""

from dataclasses import dataclass

import torch

# The counts travel before the ranks know each other's sizes, so their message has a fixed size.
MAX_LOCAL_EXPERTS = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """What the caller of an uncached dispatch says about it.

    Attributes:
        num_tokens_per_rank: [num_ranks] i32.
        is_token_in_rank: [num_tokens, num_ranks] bool.
        num_tokens_per_expert: [num_experts] i32.
        expert_alignment: the received counts are rounded up to a multiple of this.
        num_worst_tokens: rows of the results, 0 for as many as arrive.
    """

    num_tokens_per_rank: torch.Tensor
    is_token_in_rank: torch.Tensor
    num_tokens_per_expert: torch.Tensor
    expert_alignment: int
    num_worst_tokens: int


def dispatch_layout(
    topk_idx: torch.Tensor, num_experts: int, num_ranks: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Count tokens per rank and per expert; expert e lives on rank `e // (num_experts/num_ranks)`.

    Args:
        topk_idx: [num_tokens, topk] i64 — selected experts, -1 for none.
        num_experts: experts of the whole group, a multiple of `num_ranks`.
        num_ranks: size of the group.

    Returns:
        num_tokens_per_rank: [num_ranks] i32 — a token with two experts on a rank counts once.
        num_tokens_per_expert: [num_experts] i32 — every selection counts.
        is_token_in_rank: [num_tokens, num_ranks] bool.
    """
    num_local_experts = num_experts // num_ranks
    # Slot 0 collects the selections that are -1.
    slot = torch.div(topk_idx, num_local_experts, rounding_mode="floor") + 1
    selected = torch.zeros(topk_idx.shape[0], num_ranks + 1, dtype=torch.bool)
    is_token_in_rank = selected.scatter_(1, slot, value=True)[:, 1:].contiguous()
    num_tokens_per_rank = is_token_in_rank.sum(0, dtype=torch.int32)
    per_expert = torch.bincount(topk_idx.flatten() + 1, minlength=num_experts + 1)
    return num_tokens_per_rank, per_expert[1:].to(torch.int32), is_token_in_rank


def source_tokens(is_token_in_rank: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """List the tokens to send, by destination rank, then by token.

    Args:
        is_token_in_rank: [num_tokens, num_ranks] bool.

    Returns:
        token_idx: [num_sent] i64, and how many of them go to each rank.
    """
    destination, token_idx = is_token_in_rank.t().nonzero(as_tuple=True)
    counts = torch.bincount(destination, minlength=is_token_in_rank.shape[1])
    return token_idx, counts.tolist()


def send_slots(is_token_in_rank: torch.Tensor) -> torch.Tensor:
    """Place of every token among those sent to a rank: [num_tokens, num_ranks] i32, -1 if not."""
    place = is_token_in_rank.cumsum(0, dtype=torch.int32) - 1
    return place.masked_fill_(~is_token_in_rank, -1)
