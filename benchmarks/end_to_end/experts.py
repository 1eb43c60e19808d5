"""Routed experts: tokens travel through deepep, experts multiply through deepgemm in FP8.

Routing is DeepSeek-V3's (2024, section 2.1.2): sigmoid scores, and a bias that moves experts into
or out of the top k to balance their load, but never into the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import record_function

import deepep
import deepgemm
from benchmarks.end_to_end.config import ModelConfig
from dualpipe import WeightGradStore

Fp8 = tuple[Tensor, Tensor]  # values and dequantisation scales


class ExpertParallel:
    """The ranks over which the experts are spread: expert e lives on rank e // num_local."""

    def __init__(self, group: dist.ProcessGroup, num_experts: int) -> None:
        self.buffer = deepep.Buffer(group)
        self.num_experts = num_experts
        self.num_local = num_experts // group.size()
        self.local = slice(group.rank() * self.num_local, (group.rank() + 1) * self.num_local)


class _Dispatch(torch.autograd.Function):
    """Sends tokens to the ranks of their experts; gradients come back by the reverse way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, topk_weights: Tensor, topk_idx: Tensor, ep: ExpertParallel
    ) -> tuple[Any, ...]:
        with record_function("dispatch"):
            per_rank, per_node, per_expert, in_rank, _ = ep.buffer.get_dispatch_layout(
                topk_idx, ep.num_experts
            )
            recv_x, recv_idx, recv_weights, counts, handle, _ = ep.buffer.dispatch(
                x,
                num_tokens_per_rank=per_rank,
                num_tokens_per_rdma_rank=per_node,
                is_token_in_rank=in_rank,
                num_tokens_per_expert=per_expert,
                topk_idx=topk_idx,
                topk_weights=topk_weights,
            )
        ctx.ep, ctx.handle = ep, handle
        ctx.mark_non_differentiable(recv_idx)
        return recv_x, recv_weights, recv_idx, counts, handle

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        grad_x, grad_weights = grads[:2]
        with record_function("dispatch backward"):
            x, weights, _ = ctx.ep.buffer.combine(
                grad_x.contiguous(), ctx.handle, topk_weights=grad_weights.contiguous()
            )
        return x, weights, None, None


class _Combine(torch.autograd.Function):
    """Brings the experts' results back and adds them up per token."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, handle: Any, ep: ExpertParallel) -> Tensor:
        ctx.ep, ctx.handle = ep, handle
        with record_function("combine"):
            combined: Tensor = ep.buffer.combine(y, handle)[0]
        return combined

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        with record_function("combine backward"):
            grad_y = ctx.ep.buffer.dispatch(grads[0].contiguous(), handle=ctx.handle)[0]
        return grad_y, None, None


@dataclass(frozen=True, slots=True)
class RowGroups:
    """Received rows sorted by expert, each group padded to the GEMM's alignment.

    Attributes:
        layout: [num_rows] int32, the group of each row, -1 for padding.
        begins: first row of each group.
        counts: rows of each group, padding not counted.
        rows: [num_pairs] int64, where each (token, expert) pair stands among the rows.
        tokens: [num_pairs] int64, the received token of each pair.
        slots: [num_pairs] int64, which of its top k choices the pair is.
    """

    layout: Tensor
    begins: list[int]
    counts: Sequence[int]
    rows: Tensor
    tokens: Tensor
    slots: Tensor

    @classmethod
    def of(cls, topk_idx: Tensor, counts: Sequence[int]) -> "RowGroups":
        """From local expert choices [num_tokens, topk], -1 for none, and how many each got."""
        alignment = deepgemm.get_m_alignment_for_contiguous_layout()
        begins, num_rows = [], 0
        for count in counts:
            begins.append(num_rows)
            num_rows += deepgemm.ceil_div(count, alignment) * alignment
        layout = torch.full((num_rows,), -1, dtype=torch.int32)
        for group, (begin, count) in enumerate(zip(begins, counts, strict=True)):
            layout[begin : begin + count] = group
        choices = topk_idx.flatten()
        # Stable: within a group, rows keep the order in which tokens came, so that sums repeat.
        pairs = choices.argsort(stable=True)[choices.numel() - sum(counts) :]
        rows = (layout >= 0).nonzero().squeeze(1)
        topk = topk_idx.shape[1]
        return cls(layout, begins, counts, rows, pairs // topk, pairs % topk)


class GroupedLinear(nn.Module):
    """One FP8 linear map per local expert."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # [num_local, out, in] float32
        self._quantised: tuple[int, Fp8, Fp8] | None = None

    def forward(self, rows: Tensor, groups: RowGroups) -> Tensor:
        """[num_rows, in] bf16 -> [num_rows, out] bf16; padding rows come out 0."""
        return _grouped_linear(rows, self.weight, *self.quantised(), groups)

    def quantised(self) -> tuple[Fp8, Fp8]:
        """The weight in FP8, and its transpose; made anew only once the weight has changed."""
        version = self.weight._version  # noqa: SLF001 - what autograd itself goes by
        if self._quantised is None or self._quantised[0] != version:
            num_local, n, k = self.weight.shape
            values, scales = deepgemm.per_block_cast_to_fp8(self.weight.detach().flatten(0, 1))
            values, scales = values.view(num_local, n, k), scales.view(num_local, -1, k // 128)
            # Blocks are square: the transpose of the quantised weight is the quantised transpose.
            transposed = values.mT.contiguous(), scales.mT.contiguous()
            self._quantised = version, (values, scales), transposed
        return self._quantised[1:]


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, fp8: Fp8, fp8_transposed: Fp8, groups: RowGroups
    ) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.weight, ctx.fp8_transposed, ctx.groups = weight, fp8_transposed, groups
        return _grouped_gemm(rows, fp8, groups)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        (rows,) = ctx.saved_tensors
        grad, weight, groups = grads[0], ctx.weight, ctx.groups

        def add_weight_grad() -> None:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            with record_function("weight grad"):
                for group, (begin, count) in enumerate(
                    zip(groups.begins, groups.counts, strict=True)
                ):
                    part = slice(begin, begin + count)
                    weight.grad[group].addmm_(grad[part].t().float(), rows[part].float())

        if WeightGradStore.enabled:
            WeightGradStore.put(add_weight_grad)
        else:
            add_weight_grad()
        return _grouped_gemm(grad, ctx.fp8_transposed, groups), None, None, None, None


_dispatch: Callable[..., tuple[Tensor, Tensor, Tensor, list[int], Any]] = _Dispatch.apply
_combine: Callable[..., Tensor] = _Combine.apply
_grouped_linear: Callable[..., Tensor] = _GroupedLinear.apply


def _grouped_gemm(rows: Tensor, weight: Fp8, groups: RowGroups) -> Tensor:
    out = torch.empty(rows.shape[0], weight[0].shape[1], dtype=torch.bfloat16)
    with record_function("expert gemm"):
        deepgemm.m_grouped_fp8_gemm_nt_contiguous(
            deepgemm.per_token_cast_to_fp8(rows), weight, out, groups.layout
        )
    return out


class MixtureOfExperts(nn.Module):
    """Routed experts, topk of num_experts per token, and one shared expert for all tokens."""

    def __init__(self, config: ModelConfig, ep: ExpertParallel) -> None:
        super().__init__()
        self.topk, self.ep = config.topk, ep
        hidden, inner = config.hidden, config.expert_hidden
        self.router = nn.Linear(hidden, config.num_experts, bias=False)
        # Its `grad` is the measured load: it has to be added up over ranks just as gradients are,
        # and the optimizer has its own rule for it.
        self.balance_bias = nn.Parameter(torch.zeros(config.num_experts))
        # All experts are drawn on every rank, so that the model is the same for any number of them.
        up = torch.randn(config.num_experts, 2 * inner, hidden) / hidden**0.5
        self.up = GroupedLinear(up[ep.local].clone())
        self.down = GroupedLinear(torch.zeros(ep.num_local, hidden, inner))
        self.shared_up = nn.Linear(hidden, 2 * inner, bias=False)
        self.shared_down = nn.Linear(inner, hidden, bias=False)
        nn.init.zeros_(self.shared_down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[num_tokens, hidden] float32 -> the same."""
        topk_idx, topk_weights = self._route(x)
        received = _dispatch(x.to(torch.bfloat16), topk_weights, topk_idx, self.ep)
        recv_x, recv_weights, recv_idx, counts, handle = received
        groups = RowGroups.of(recv_idx, counts)
        rows = recv_x.new_zeros(len(groups.layout), x.shape[1])
        rows = rows.index_copy(0, groups.rows, recv_x[groups.tokens])
        results = self.down(_swiglu(self.up(rows, groups)), groups)
        weights = recv_weights[groups.tokens, groups.slots].unsqueeze(1)
        weighted = results[groups.rows].float() * weights
        local = torch.zeros(recv_x.shape).index_add(0, groups.tokens, weighted)
        routed = _combine(local.to(torch.bfloat16), handle, self.ep)
        shared: Tensor = self.shared_down(_swiglu(self.shared_up(x)))
        return shared + routed

    def _route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.router(x).sigmoid()
        topk_idx = (scores.detach() + self.balance_bias.detach()).topk(self.topk, dim=-1).indices
        if torch.is_grad_enabled():
            load = torch.bincount(topk_idx.flatten(), minlength=self.ep.num_experts).float()
            grad = self.balance_bias.grad
            self.balance_bias.grad = load if grad is None else grad + load
        weights = scores.gather(1, topk_idx)
        return topk_idx, weights / weights.sum(dim=-1, keepdim=True)


def _swiglu(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    out: Tensor = functional.silu(gate) * up
    return out
