import itertools

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.ranks import Rank
from deepep import Buffer, EventOverlap
from tests.deepep.routed_tokens import RoutedTokens, all_of, layout_of, randomly_routed, routed
from tests.forked_pool import ForkedPool
from tests.oracles import expert_parallel as oracle

NONE = torch.empty(0, 2, dtype=torch.int64)


def cases_of(world_size: int) -> dict[str, list[RoutedTokens]]:
    """Name -> tokens per rank."""
    w, e = world_size, 3 * world_size

    def per_rank(num_tokens: int, topk: int, hidden: int = 32) -> list[RoutedTokens]:
        return [randomly_routed(rank, num_tokens, topk, e, hidden) for rank in range(w)]

    everyone = torch.arange(w)[None].expand(5, w).clone() * 3
    return {
        "no tokens": [routed(rank, NONE, e) for rank in range(w)],
        "one token": per_rank(1, 2),
        "seven tokens": per_rank(7, 1),
        "many tokens": per_rank(130, 3),
        "smallest row": per_rank(9, 2, hidden=8),
        "uneven": [randomly_routed(rank, 5 * rank, 2, e) for rank in range(w)],
        "nothing selected": [routed(rank, torch.full((4, 2), -1), e) for rank in range(w)],
        "all to the last expert": [routed(rank, torch.full((6, 1), e - 1), e) for rank in range(w)],
        "only rank 0 has tokens": [
            randomly_routed(rank, 0 if rank else 8, 2, e) for rank in range(w)
        ],
        "every token to every rank": [routed(rank, everyone, e) for rank in range(w)],
    }


def dispatch_all(rank: Rank, cases: list[list[RoutedTokens]], alignment: int) -> list[object]:
    buffer = Buffer(dist.group.WORLD)
    results = []
    for case in cases:
        tokens = case[rank.rank]
        *received, _ = buffer.dispatch(
            tokens.x, **all_of(buffer, tokens), expert_alignment=alignment
        )
        x, idx, weights, counts, handle = received
        results.append((x, idx, weights, counts, tuple(handle)))
    return results


@pytest.mark.parametrize(("world_size", "alignment"), [(1, 1), (2, 1), (2, 128), (4, 1), (8, 16)])
def test_dispatch(ranks: ForkedPool, world_size: int, alignment: int) -> None:
    cases = cases_of(world_size)
    answers = ranks.run(dispatch_all, world_size, list(cases.values()), alignment)
    for (name, case), results in zip(cases.items(), zip(*answers, strict=True), strict=True):
        expected = oracle.dispatch(
            [tokens.topk_idx for tokens in case],
            [tokens.topk_weights for tokens in case],
            case[0].num_experts,
            alignment,
        )
        for rank, (want, (x, idx, weights, counts, handle)) in enumerate(
            zip(expected, results, strict=True)
        ):
            where = f"{name}, rank {rank}"
            assert torch.equal(x, oracle.rows_of([t.x for t in case], want.sources)), where
            assert x.is_contiguous(), where
            assert idx.dtype == torch.int64, where
            assert torch.equal(idx, want.topk_idx), where
            assert weights.dtype == torch.float32, where
            assert torch.equal(weights.double(), want.topk_weights), where
            assert counts == want.counts, where
            check_handle(handle, rank, case, [want.sources for want in expected], where)


def check_handle(
    handle: tuple[Tensor, ...],
    rank: int,
    case: list[RoutedTokens],
    sources: list[list[tuple[int, int]]],
    where: str,
) -> None:
    """The six tensors: dtypes, shapes, and the values that callers read."""
    world_size, num_tokens = len(case), len(case[rank].x)
    prefix, channels, recv_channels, src_idx, is_in_rank, send_head = handle
    ends = [[sum(source <= s for source, _ in rows) for rows in sources] for s in range(world_size)]
    assert prefix.dtype == torch.int32, where
    assert prefix.tolist() == ends, where
    assert src_idx.dtype == torch.int32, where
    assert src_idx.tolist() == [token for _, token in sources[rank]], where
    assert is_in_rank.dtype == torch.bool, where
    for destination, token in itertools.product(range(world_size), range(num_tokens)):
        mine = [t for source, t in sources[destination] if source == rank]
        slot = mine.index(token) if token in mine else -1
        assert send_head[token, destination] == slot, where
        assert bool(is_in_rank[token, destination]) == (slot >= 0), where
    assert [t.dtype for t in (channels, recv_channels, send_head)] == [torch.int32] * 3, where
    assert channels.shape == recv_channels.shape == (world_size, 1), where


def dispatch_real_shape(rank: Rank, tokens: list[RoutedTokens]) -> tuple[Tensor, list[int]]:
    buffer = Buffer(dist.group.WORLD)
    x, _, _, counts, _, _ = buffer.dispatch(
        tokens[rank.rank].x, **all_of(buffer, tokens[rank.rank])
    )
    return x, counts


def test_real_model_shape(ranks: ForkedPool) -> None:
    tokens = [randomly_routed(rank, 65, 8, 256, hidden=7168) for rank in range(4)]
    expected = oracle.dispatch([t.topk_idx for t in tokens], [t.topk_weights for t in tokens], 256)
    answers = ranks.run(dispatch_real_shape, 4, tokens)
    for want, (x, counts) in zip(expected, answers, strict=True):
        assert torch.equal(x, oracle.rows_of([t.x for t in tokens], want.sources))
        assert counts == want.counts


def dispatch_pair(rank: Rank, tokens: list[RoutedTokens], scales: list[Tensor]) -> list[object]:
    buffer = Buffer(dist.group.WORLD)
    mine = tokens[rank.rank]
    pair = (mine.x.to(torch.float8_e4m3fn), scales[rank.rank])
    (x, recv_scales), _, _, _, handle, _ = buffer.dispatch(pair, **all_of(buffer, mine))
    (x_again, scales_again), *rest, _ = buffer.dispatch(pair, handle=handle)
    assert rest == [None] * 4
    assert torch.equal(x.view(torch.uint8), x_again.view(torch.uint8))
    assert torch.equal(recv_scales, scales_again)
    assert x.dtype == torch.float8_e4m3fn
    return [x.view(torch.uint8), recv_scales]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32], ids=["f32", "packed-ue8m0"])
@pytest.mark.parametrize("strides", ["row-major", "column-major", "every-other"])
def test_fp8_pair(ranks: ForkedPool, dtype: torch.dtype, strides: str) -> None:
    tokens = [randomly_routed(rank, 9 + rank, 2, 6, hidden=384) for rank in range(2)]
    row_major = [
        (torch.arange(len(t.x) * 3).view(-1, 3) + 1000 * rank).to(dtype)
        for rank, t in enumerate(tokens)
    ]
    scales = {
        "row-major": row_major,
        "column-major": [s.t().contiguous().t() for s in row_major],
        "every-other": [s.repeat_interleave(2, 1)[:, ::2] for s in row_major],
    }[strides]
    expected = oracle.dispatch([t.topk_idx for t in tokens], [t.topk_weights for t in tokens], 6)
    answers = ranks.run(dispatch_pair, 2, tokens, scales)
    for want, (x, recv_scales) in zip(expected, answers, strict=True):
        sent = [t.x.to(torch.float8_e4m3fn).view(torch.uint8) for t in tokens]
        assert torch.equal(x, oracle.rows_of(sent, want.sources))
        assert torch.equal(recv_scales, oracle.rows_of(row_major, want.sources))
        assert recv_scales.is_contiguous()


def dispatch_without_topk(rank: Rank) -> None:
    buffer = Buffer(dist.group.WORLD)
    tokens = randomly_routed(rank.rank, 12, 2, 4)
    full, *_ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
    bare, idx, weights, counts, handle, event = buffer.dispatch(
        tokens.x, **layout_of(buffer, tokens)
    )
    assert torch.equal(full, bare)
    assert idx is None
    assert weights is None
    assert sum(counts) >= 1
    assert len(handle) == 6
    assert isinstance(event, EventOverlap)
    assert event.event is None


def test_topk_may_stay_at_home(ranks: ForkedPool) -> None:
    ranks.run(dispatch_without_topk, 2)


def dispatch_worst(rank: Rank) -> None:
    buffer = Buffer(dist.group.WORLD)
    tokens = randomly_routed(rank.rank, 10, 2, 4)
    exact_x, exact_idx, exact_weights, _, _, _ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
    used = len(exact_x)
    x, idx, weights, counts, handle, _ = buffer.dispatch(
        tokens.x, **all_of(buffer, tokens), num_worst_tokens=20
    )
    assert (len(x), len(idx), len(weights), counts) == (20, 20, 20, [])
    assert torch.equal(x[:used], exact_x)
    assert torch.equal(idx[:used], exact_idx)
    assert torch.equal(weights[:used], exact_weights)
    assert (idx[used:] == -1).all()
    assert (weights[used:] == 0).all()
    # What experts leave in the unused rows must not come back.
    x[used:] = float("nan")
    weights[used:] = float("nan")
    combined, combined_weights, _ = buffer.combine(x, handle, topk_weights=weights)
    visits = handle[4].sum(1, keepdim=True)
    assert torch.equal(combined.float(), (tokens.x.float() * visits).bfloat16().float())
    assert combined_weights.isfinite().all()
    cached, *_ = buffer.dispatch(tokens.x, handle=handle)
    assert len(cached) == 20
    assert torch.equal(cached[:used], exact_x)


def test_num_worst_tokens(ranks: ForkedPool) -> None:
    ranks.run(dispatch_worst, 2)


def dispatch_cached(rank: Rank) -> None:
    buffer = Buffer(dist.group.WORLD)
    tokens = randomly_routed(rank.rank, 10 + rank.rank, 2, 8)
    first, _, _, _, handle, _ = buffer.dispatch(tokens.x, **all_of(buffer, tokens))
    again, *rest, event = buffer.dispatch(-tokens.x, handle=handle)
    assert torch.equal(again, -first)
    assert rest == [None] * 4
    assert isinstance(event, EventOverlap)


def test_cached_mode_follows_the_handle(ranks: ForkedPool) -> None:
    ranks.run(dispatch_cached, 4)
