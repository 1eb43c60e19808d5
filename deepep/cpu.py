"""Dispatch and combine of CPU tensors: one exchange of counts, one exchange of rows."""

from collections.abc import Callable

import torch
import torch.distributed as dist

from csrc import Checker
from deepep.gloo import exchange
from deepep.handle import Handle, Routes
from deepep.layout import MAX_LOCAL_EXPERTS, Plan, send_slots, source_tokens
from deepep.rows import (
    SIGNATURE,
    SIGNATURE_BYTES,
    Rows,
    Segments,
    allocate_like,
    bytes_per_row,
    check_headers,
    check_signatures,
    pack,
    sign,
    unpack,
)

Finish = Callable[[], None]


def dispatch(
    group: dist.ProcessGroup, rows: Rows, plan: Plan
) -> tuple[Rows, list[int], Handle, Finish]:
    """Agree on the counts, then start the exchange of rows.

    Returns:
        The received rows (valid after `finish()`), aligned tokens per local expert, handle, finish.
    """
    rank, num_ranks = group.rank(), group.size()
    token_idx, num_sent = source_tokens(plan.is_token_in_rank)
    given = plan.num_tokens_per_rank.tolist()
    if given != num_sent:
        rule = f"be the column sums {num_sent} of is_token_in_rank"
        Checker("dispatch").invalid("num_tokens_per_rank", rule, given, "call get_dispatch_layout")
    signature = sign(rows, "dispatch", plan.num_tokens_per_expert.shape[0])
    counts, num_per_expert = _exchange_counts(group, plan, num_sent, signature)
    topk = rows["topk_weights"].shape[1] if "topk_weights" in rows else 0
    expected = Segments.of(counts[:, rank].tolist())
    routes = Routes(rows["x"].shape[1], topk, token_idx, Segments.of(num_sent), expected)
    num_received = expected.num_rows
    source = {**rows, "token_idx": torch.arange(rows["x"].shape[0], dtype=torch.int32)[:, None]}
    received = allocate_like(source, plan.num_worst_tokens or num_received, num_received)
    deliver = _start("dispatch", group, source, routes, received, bytes_per_row(source), signature)

    def finish() -> None:
        deliver()
        if "topk_idx" in received:
            _localise(received, num_received, rank, len(num_per_expert))

    tensors = (
        counts.cumsum(0, dtype=torch.int32),
        torch.tensor(num_sent, dtype=torch.int32)[:, None],
        torch.zeros(num_ranks, 1, dtype=torch.int32),
        received["token_idx"][:, 0],
        plan.is_token_in_rank,
        send_slots(plan.is_token_in_rank),
    )
    alignment = plan.expert_alignment
    aligned = [-(-count // alignment) * alignment for count in num_per_expert]
    return received, [] if plan.num_worst_tokens else aligned, Handle(tensors, routes), finish


def cached_dispatch(group: dist.ProcessGroup, rows: Rows, handle: Handle) -> tuple[Rows, Finish]:
    """Start the exchange of rows along the routes of an earlier dispatch."""
    routes, row_bytes = handle.routes, _agreed_row_bytes(handle.routes)
    received = allocate_like(rows, handle[3].shape[0], routes.received.num_rows)
    signature = sign(rows, "cached dispatch")
    return received, _start("dispatch", group, rows, routes, received, row_bytes, signature)


def combine(
    group: dist.ProcessGroup, rows: Rows, handle: Handle, biases: list[torch.Tensor]
) -> tuple[Rows, Finish]:
    """Start the way back of the rows, to be summed in float32 at their source."""
    routes, row_bytes = handle.routes, _agreed_row_bytes(handle.routes)
    token_idx, num_tokens = routes.token_idx, handle[4].shape[0]
    back = allocate_like(rows, routes.sent.num_rows, routes.sent.num_rows)
    signature = sign(rows, "combine")
    deliver = _start("combine", group, rows, routes.back(), back, row_bytes, signature)
    combined = allocate_like(rows, num_tokens, num_tokens)
    totals = {name: torch.zeros(part.shape) for name, part in combined.items()}
    for bias in biases:
        totals["x"] += bias

    def finish() -> None:
        deliver()
        for name, total in totals.items():
            # index_add_ goes row by row: contributions are added in the order of their ranks.
            combined[name].copy_(total.index_add_(0, token_idx, back[name].float()))

    return combined, finish


def _agreed_row_bytes(routes: Routes) -> int:
    """Row size of a combine or cached dispatch: room for the most it may carry.

    It follows from the first dispatch alone. Ranks that then carry different things still send
    messages of the expected size, and the headers tell.
    """
    return max(2 * routes.hidden + 4 * routes.topk, SIGNATURE_BYTES)


def _start(
    op: str,
    group: dist.ProcessGroup,
    rows: Rows,
    routes: Routes,
    received: Rows,
    row_bytes: int,
    signature: list[int],
) -> Finish:
    """Send rows along the routes; the returned function waits and fills `received`."""
    frame = pack(rows, routes.token_idx, routes.sent, row_bytes, signature)
    lengths = (routes.sent.lengths(), routes.received.lengths())
    incoming, wait = exchange(op, "the rows", group, frame, lengths)

    def deliver() -> None:
        wait()
        check_headers(op, incoming, routes.received)
        unpack(incoming, routes.received, received)

    return deliver


def _exchange_counts(
    group: dist.ProcessGroup, plan: Plan, num_sent: list[int], signature: list[int]
) -> tuple[torch.Tensor, list[int]]:
    """Tell every rank who sends how much to whom, and check that all ranks made the same call.

    Returns:
        counts: [num_ranks, num_ranks] i32, rows from source to destination.
        Tokens received per local expert.
    """
    num_ranks = group.size()
    words = [*signature, plan.num_worst_tokens, *num_sent]
    local_experts = plan.num_tokens_per_expert.view(num_ranks, -1)
    message = torch.zeros(num_ranks, len(words) + MAX_LOCAL_EXPERTS, dtype=torch.int32)
    message[:, : len(words)] = torch.tensor(words, dtype=torch.int32)
    message[:, len(words) : len(words) + local_experts.shape[1]] = local_experts
    ones = [1] * num_ranks
    incoming, wait = exchange("dispatch", "the token counts", group, message, (ones, ones))
    wait()
    check_signatures("dispatch", incoming[:, : len(SIGNATURE)].tolist())
    counts = incoming[:, len(SIGNATURE) + 1 : len(words)]
    _check_worst_tokens(incoming[:, len(SIGNATURE)].tolist(), counts.sum(0).tolist())
    num_per_expert = incoming[:, len(words) : len(words) + local_experts.shape[1]].sum(0)
    return counts, num_per_expert.tolist()


def _check_worst_tokens(room: list[int], received: list[int]) -> None:
    for rank, (most, count) in enumerate(zip(room, received, strict=True)):
        if most and count > most:
            rule = f"be at least the {count} tokens that rank {rank} receives"
            remedy = "num_ranks times the largest num_tokens always suffices"
            Checker("dispatch").invalid("num_worst_tokens", rule, most, remedy)


def _localise(received: Rows, num_used: int, rank: int, num_local_experts: int) -> None:
    """Turn expert ids into local ones; other ranks' experts become -1 with weight 0."""
    local = received["topk_idx"][:num_used].sub_(rank * num_local_experts)
    elsewhere = (local < 0) | (local >= num_local_experts)
    local.masked_fill_(elsewhere, -1)
    received["topk_weights"][:num_used].masked_fill_(elsewhere, 0)
