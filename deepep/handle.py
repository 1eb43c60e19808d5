"""The handle: what a dispatch leaves behind for its combine and for cached dispatches."""

from dataclasses import dataclass
from typing import Self

import torch

from deepep.rows import Segments


@dataclass(frozen=True, slots=True)
class Routes:
    """The rows that travel between the ranks, as all of them agreed in a dispatch.

    Attributes:
        hidden: columns of x.
        topk: columns of topk_weights, 0 when the dispatch had none.
        token_idx: [num_sent] i64 — token of every row sent, by destination rank, then by token.
        sent: rows sent to each rank.
        received: rows received from each rank.
    """

    hidden: int
    topk: int
    token_idx: torch.Tensor
    sent: Segments
    received: Segments

    def back(self) -> "Routes":
        """The way back: what was received is sent, row by row."""
        rows = torch.arange(self.received.num_rows)
        return Routes(self.hidden, self.topk, rows, self.received, self.sent)


class Handle(tuple[torch.Tensor, ...]):  # noqa: SLOT001 - a tuple with an attribute
    """Six tensors, and the routes behind them.

    `(rank_prefix_matrix i32 [R, R], channel_prefix_matrix i32 [R, C], recv_channel_prefix_matrix
    i32 [R, C], recv_src_idx i32 [num_recv_tokens], is_token_in_rank bool [T, R], send_head i32
    [T, R])`, where `rank_prefix_matrix[i][r]` is the row on rank r at which the rows of source i
    end. Gloo moves all tokens in one channel, so C is 1 on CPU.
    """

    routes: Routes

    def __new__(cls, tensors: tuple[torch.Tensor, ...], routes: Routes) -> Self:
        """Attach the routes to the six tensors."""
        handle = super().__new__(cls, tensors)
        handle.routes = routes
        return handle
