from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.ranks import Rank
from deepep import Buffer, EventOverlap
from deepep.handle import Handle
from tests.comparison import assert_matches
from tests.deepep.routed_tokens import RoutedTokens, all_of, randomly_routed, routed, tagged
from tests.forked_pool import ForkedPool
from tests.oracles import expert_parallel as oracle
from tests.strategies import routings


def processed(x: Tensor, rank: int) -> Tensor:
    """What the experts of a rank make of their rows: something else on every rank."""
    return (x.float() * (1 + rank / 8) + rank).to(torch.bfloat16)


def round_trips(
    rank: Rank, cases: list[list[RoutedTokens]], num_biases: int
) -> list[tuple[Tensor, Tensor | None]]:
    buffer = Buffer(dist.group.WORLD)
    results = []
    for case in cases:
        tokens = case[rank.rank]
        x, _, weights, _, handle, _ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
        biases = biases_of(rank.rank, tokens, num_biases)
        bias = (None, biases[0] if biases else None, tuple(biases))[num_biases]
        combined, combined_weights, event = buffer.combine(
            processed(x, rank.rank), handle, topk_weights=weights, bias=bias
        )
        assert event.event is None
        results.append((combined, combined_weights))
    return results


def biases_of(rank: int, tokens: RoutedTokens, num_biases: int) -> list[Tensor]:
    return [tagged(50 + rank + 10 * i, *tokens.x.shape) for i in range(num_biases)]


def check_round_trip(
    case: list[RoutedTokens], results: list[tuple[Tensor, Tensor | None]], num_biases: int
) -> None:
    received = oracle.dispatch(
        [t.topk_idx for t in case], [t.topk_weights for t in case], case[0].num_experts
    )
    sources = [want.sources for want in received]
    sent = [t.x for t in case]
    rows = [processed(oracle.rows_of(sent, s), rank) for rank, s in enumerate(sources)]
    weight_rows = [want.topk_weights for want in received]
    for rank, (combined, weights) in enumerate(results):
        num_tokens = len(case[rank].x)
        exact = oracle.combine(rows, sources, rank, num_tokens)
        for bias in biases_of(rank, case[rank], num_biases):
            exact += bias.double()
        assert_matches(combined, exact, dtype=torch.bfloat16)
        exact_weights = oracle.combine(weight_rows, sources, rank, num_tokens)
        assert_matches(weights, exact_weights, dtype=torch.float32)


@pytest.mark.parametrize("num_biases", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_combine(ranks: ForkedPool, world_size: int, num_biases: int) -> None:
    cases = [
        [randomly_routed(rank, count, 2, 3 * world_size, hidden) for rank in range(world_size)]
        for count, hidden in [(0, 32), (1, 8), (127, 32), (129, 32), (5, 7168)]
    ]
    answers = ranks.run(round_trips, world_size, cases, num_biases)
    for case, results in zip(cases, zip(*answers, strict=True), strict=True):
        check_round_trip(case, list(results), num_biases)


def add_small_to_large(rank: Rank) -> Tensor:
    buffer = Buffer(dist.group.WORLD)
    tokens = routed(rank.rank, torch.arange(4)[None].expand(3, 4).clone(), 4)
    x, _, _, _, handle, _ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
    return buffer.combine(torch.full_like(x, [512, 1, 1, 2][rank.rank]), handle)[0]


def test_sum_is_rounded_once(ranks: ForkedPool) -> None:
    """Rounded to bf16 after every addition, 512 + 1 + 1 + 2 is 512."""
    for combined in ranks.run(add_small_to_large, 4):
        assert torch.equal(combined, torch.full((3, 32), 516, dtype=torch.bfloat16))


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), world_size=st.sampled_from([1, 2, 4]))
def test_combine_of_dispatch_sums_over_ranks(
    ranks: ForkedPool, data: st.DataObject, world_size: int
) -> None:
    """Several routings per example: forking the ranks is what takes the time."""
    num_experts = 2 * world_size

    def draw_case(topk: int) -> list[RoutedTokens]:
        drawn = [data.draw(routings(num_experts, max_topk=4)) for _ in range(world_size)]
        padded = [torch.nn.functional.pad(d, (0, topk - d.shape[1]), value=-1) for d in drawn]
        return [routed(rank, idx, num_experts) for rank, idx in enumerate(padded)]

    cases = [draw_case(4) for _ in range(4)]
    answers = ranks.run(round_trips, world_size, cases, 0)
    for case, results in zip(cases, zip(*answers, strict=True), strict=True):
        check_round_trip(case, list(results), 0)


def sub_groups(rank: Rank, groups: list[list[int]]) -> tuple[int, Tensor]:
    mine = next(g for g in [(dist.new_group(g), g) for g in groups] if rank.rank in g[1])
    buffer = Buffer(mine[0])
    assert buffer.group is mine[0]
    assert (buffer.rank, buffer.group_size) == (mine[1].index(rank.rank), len(mine[1]))
    tokens = randomly_routed(buffer.rank, 20, 2, 6)
    for _ in range(3):
        x, _, _, _, handle, _ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
        combined, _, _ = buffer.combine(processed(x, buffer.rank), handle)
    return buffer.rank, combined


@pytest.mark.parametrize(
    "groups",
    [[[0, 1], [2, 3], [4, 5], [6, 7]], [[0, 3, 5], [1, 2, 4]], [[0], [1], [2, 3]]],
    ids=["pairs", "interleaved", "alone"],
)
def test_sub_groups(ranks: ForkedPool, groups: list[list[int]]) -> None:
    answers = ranks.run(sub_groups, sum(map(len, groups)), groups)
    for group in groups:
        case = [randomly_routed(rank, 20, 2, 6) for rank in range(len(group))]
        received = oracle.dispatch([t.topk_idx for t in case], [t.topk_weights for t in case], 6)
        sources = [want.sources for want in received]
        sent = [t.x for t in case]
        rows = [processed(oracle.rows_of(sent, s), rank) for rank, s in enumerate(sources)]
        for group_rank, world_rank in enumerate(group):
            assert answers[world_rank][0] == group_rank
            exact = oracle.combine(rows, sources, group_rank, 20)
            assert_matches(answers[world_rank][1], exact, dtype=torch.bfloat16)


def two_buffers_in_flight(rank: Rank) -> None:
    """Two buffers on one group, all calls asynchronous, inputs overwritten while they travel."""
    buffers = [Buffer(dist.group.WORLD), Buffer(dist.group.WORLD)]
    tokens = [randomly_routed(rank.rank + 2 * i, 30 + i, 2, 4) for i in range(2)]
    synchronous = [b.dispatch(t.x, **all_of(b, t)) for b, t in zip(buffers, tokens, strict=True)]
    want = [b.combine(s[0], s[4])[0] for b, s in zip(buffers, synchronous, strict=True)]

    sent = [t.x.clone() for t in tokens]
    flying = [
        b.dispatch(
            x,
            **all_of(b, t),
            previous_event=EventOverlap(None),
            async_finish=True,
            allocate_on_comm_stream=True,
        )
        for b, t, x in zip(buffers, tokens, sent, strict=True)
    ]
    for x in sent:
        x.fill_(float("nan"))
    flying[1][5].current_stream_wait()
    assert torch.equal(flying[1][0], synchronous[1][0])
    assert torch.equal(flying[1][1], synchronous[1][1])
    # The second call waits for the first one's event itself.
    back = [
        b.combine(*arguments(b, f), async_finish=True) for b, f in zip(buffers, flying, strict=True)
    ]
    for (combined, _, event), expected in zip(back, want, strict=True):
        with event:
            pass
        event.current_stream_wait()  # again: nothing is left to do
        assert torch.equal(combined, expected)


def arguments(buffer: Buffer, flying: Any) -> tuple[Tensor, Handle]:
    chained = buffer.get_dispatch_layout(
        torch.zeros(1, 1, dtype=torch.int64), 2, previous_event=flying[5], async_finish=True
    )
    chained[4].current_stream_wait()
    return flying[0], flying[4]


def test_two_buffers_in_flight(ranks: ForkedPool) -> None:
    ranks.run(two_buffers_in_flight, 2)


class Dispatch(torch.autograd.Function):
    """The gradient of a dispatch is a combine, of the weights too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        buffer: Buffer,
        tokens: RoutedTokens,
        out: list[Handle],
    ) -> Any:
        call = all_of(buffer, tokens) | {"topk_weights": weights}
        recv_x, recv_idx, recv_weights, _, handle, _ = buffer.dispatch(x, **call)
        ctx.buffer, ctx.handle = buffer, handle
        out.append(handle)
        ctx.mark_non_differentiable(recv_idx)
        return recv_x, recv_idx, recv_weights

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, _: Tensor, grad_weights: Tensor) -> Any:
        grad_x, grad_weights, _ = ctx.buffer.combine(
            grad_x, ctx.handle, topk_weights=grad_weights.contiguous()
        )
        return grad_x, grad_weights, None, None, None


class Combine(torch.autograd.Function):
    """The gradient of a combine is a cached dispatch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, buffer: Buffer, handle: Handle) -> Tensor:
        ctx.buffer, ctx.handle = buffer, handle
        return buffer.combine(x, handle)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return ctx.buffer.dispatch(grad, handle=ctx.handle)[0], None, None


def gradients(rank: Rank) -> None:
    """Rank r multiplies its rows by r + 1 and by the summed weights of its own experts."""
    buffer, handles = Buffer(dist.group.WORLD), []
    tokens = randomly_routed(rank.rank, 12, 2, 4)
    x, weights = tokens.x.clone().requires_grad_(), tokens.topk_weights.clone().requires_grad_()
    recv_x, recv_idx, recv_weights = Dispatch.apply(x, weights, buffer, tokens, handles)
    gates = recv_weights.where(recv_idx >= 0, 0).sum(1, keepdim=True)
    rows = recv_x.float() * (rank.rank + 1) * gates
    out = Combine.apply(rows.to(torch.bfloat16), buffer, handles[0])
    upstream = tagged(90 + rank.rank, *x.shape)
    out.backward(upstream)

    factor = torch.where(tokens.topk_idx >= 0, tokens.topk_idx // 2 + 1, 0).double()
    want_x = upstream.double() * (factor * weights.detach().double()).sum(1, keepdim=True)
    want_weights = factor * (upstream.double() * x.detach().double()).sum(1, keepdim=True)
    # Rounded to bf16 on the way: each contribution, and their sum.
    torch.testing.assert_close(x.grad.double(), want_x, rtol=2**-6, atol=2**-6)
    torch.testing.assert_close(weights.grad.double(), want_weights, rtol=1e-4, atol=1e-2)


def test_gradients_travel_the_other_way(ranks: ForkedPool) -> None:
    ranks.run(gradients, 2)
