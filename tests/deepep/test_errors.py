"""Wrong calls: on one rank before anything is sent, between ranks, and with a peer that is gone."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist

from benchmarks.ranks import Rank
from deepep import Buffer
from tests.deepep.routed_tokens import all_of, layout_of, randomly_routed, routed
from tests.forked_pool import ForkedPool

BF16 = torch.bfloat16


def said_by(call: Callable[[], Any]) -> str:
    """Type and text of what a call raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return f"{type(error).__name__}: {error}"
    return "nothing"


def wrong_calls(_: Rank) -> dict[str, str]:
    """Expected text -> what was said; the group has one rank, so nothing could ever hang."""
    buffer = Buffer(dist.group.WORLD)
    tokens = routed(0, torch.tensor([[0, 3]] * 6), 4)
    good = all_of(buffer, tokens)
    recv_x, _, weights, _, handle, _ = buffer.dispatch(tokens.x, **good)
    bare = buffer.dispatch(tokens.x, **layout_of(buffer, tokens))[4]
    gone = Buffer(dist.group.WORLD, explicitly_destroy=True)
    gone.destroy()
    cuda_only = Buffer(dist.new_group([0], backend="cuda:gloo"))

    def dispatch(x: Any = tokens.x, **changed: Any) -> Callable[[], Any]:
        return lambda: buffer.dispatch(x, **(good | changed))

    def cached(x: Any = tokens.x, **more: Any) -> Callable[[], Any]:
        return lambda: buffer.dispatch(x, **({"handle": handle} | more))

    def combine(x: Any = recv_x, **more: Any) -> Callable[[], Any]:
        return lambda: buffer.combine(x, **({"handle": handle} | more))

    def layout(topk_idx: Any = tokens.topk_idx, num_experts: int = 4, **more: Any) -> Any:
        return lambda: buffer.get_dispatch_layout(topk_idx, num_experts, **more)

    fp8 = tokens.x.to(torch.float8_e4m3fn)
    calls = {
        "TypeError: dispatch: x must have dtype bfloat16, got float32": dispatch(tokens.x.float()),
        "TypeError: dispatch: x must have dtype float8_e4m3fn, got bfloat16": dispatch(
            (tokens.x, torch.ones(6, 1))
        ),
        "ValueError: dispatch: x must be a tensor or a pair (fp8, scales), got 1 items": dispatch(
            (fp8,)
        ),
        "ValueError: dispatch: scales must have shape [num_tokens, num_scales]": dispatch(
            (fp8, torch.ones(5, 1))
        ),
        "ValueError: dispatch: x must have rows of a positive multiple of 16 bytes, got 24 bytes": (
            dispatch(torch.zeros(6, 12, dtype=BF16))
        ),
        "ValueError: dispatch: x must be contiguous": dispatch(tokens.x.repeat(1, 2)[:, ::2]),
        "ValueError: dispatch: x must have shape": dispatch(tokens.x[:5]),
        "NotImplementedError: dispatch: is_token_in_rank must be on cpu, got meta": (
            lambda: buffer.dispatch(
                tokens.x.to("meta"),
                **{k: v if v is None else v.to("meta") for k, v in good.items()},
            )
        ),
        "ValueError: dispatch: num_tokens_per_rank, is_token_in_rank and num_tokens_per_expert must"
        " be given without a handle": dispatch(is_token_in_rank=None),
        "ValueError: dispatch: num_tokens_per_rank must be the column sums [6]": dispatch(
            num_tokens_per_rank=torch.tensor([5], dtype=torch.int32),
            is_token_in_rank=torch.ones(6, 1, dtype=torch.bool),
        ),
        "ValueError: dispatch: topk_idx and topk_weights must come together": dispatch(
            topk_weights=None
        ),
        "TypeError: dispatch: topk_idx must have dtype int64, got int32": dispatch(
            topk_idx=tokens.topk_idx.int()
        ),
        "ValueError: dispatch: topk_idx must be between -1 and 3, got 4": dispatch(
            topk_idx=torch.full((6, 2), 4)
        ),
        "ValueError: dispatch: expert_alignment must be between 1": dispatch(expert_alignment=0),
        "ValueError: dispatch: num_worst_tokens must be between 0": dispatch(num_worst_tokens=-1),
        "ValueError: dispatch: num_worst_tokens must be at least the": dispatch(num_worst_tokens=1),
        "TypeError: dispatch: config must be a Config, got dict": dispatch(config={}),
        "ValueError: dispatch: allocate_on_comm_stream must come with previous_event": dispatch(
            allocate_on_comm_stream=True
        ),
        "ValueError: dispatch: topk_idx must be None with a handle": cached(
            topk_idx=tokens.topk_idx
        ),
        "TypeError: dispatch: handle must come from dispatch, got tuple": cached(
            handle=tuple(handle)
        ),
        "ValueError: dispatch: x must have 32 columns as in the dispatch of the handle": cached(
            torch.zeros(6, 16, dtype=BF16)
        ),
        "ValueError: dispatch: x must have 6 rows as in the dispatch of the handle, got 7": cached(
            torch.zeros(7, 32, dtype=BF16)
        ),
        "ValueError: dispatch: scales must take no more bytes than x": cached(
            (fp8, torch.ones(6, 9))
        ),
        "TypeError: combine: x must have dtype bfloat16": combine(recv_x.float()),
        "ValueError: combine: x must have shape": combine(recv_x[1:]),
        "ValueError: combine: topk_weights must have shape [6, 2], got [6, 3]": combine(
            topk_weights=torch.ones(6, 3)
        ),
        "ValueError: combine: topk_weights must be None as in the dispatch": combine(
            handle=bare, topk_weights=weights
        ),
        "ValueError: combine: bias must be one tensor or two, got 3 tensors": combine(
            bias=(tokens.x,) * 3
        ),
        "ValueError: combine: bias must have shape [6, 32]": combine(bias=tokens.x[1:]),
        "ValueError: get_dispatch_layout: num_experts must be positive": layout(num_experts=0),
        "ValueError: get_dispatch_layout: num_experts must be between 1 and 512": layout(
            num_experts=513
        ),
        "ValueError: get_dispatch_layout: topk_idx must be between -1 and 3, got -2": layout(
            torch.full((2, 2), -2)
        ),
        "ValueError: combine: group must have a backend for CPU tensors, got cuda:gloo": (
            lambda: cuda_only.combine(recv_x, handle)
        ),
        "ValueError: combine: buffer must be alive": lambda: gone.combine(recv_x, handle),
        "ValueError: destroy: explicitly_destroy must be True": buffer.destroy,
        "NotImplementedError: Buffer: low_latency_mode must be False": lambda: Buffer(
            dist.group.WORLD, low_latency_mode=True
        ),
        "NotImplementedError: Buffer: comm must be None": lambda: Buffer(None, comm=object()),
        "TypeError: Buffer: group must be a process group that this rank belongs to": (
            lambda: Buffer(None)
        ),
        "ValueError: Buffer: num_nvl_bytes must be a multiple of 128, got 100": lambda: Buffer(
            dist.group.WORLD, num_nvl_bytes=100
        ),
    }
    return {expected: said_by(call) for expected, call in calls.items()}


def test_wrong_calls(ranks: ForkedPool) -> None:
    (said,) = ranks.run(wrong_calls, 1)
    assert [text for want, text in said.items() if not text.startswith(want)] == []
    for text in said.values():
        assert re.search(r": .+ must .+, got .+ \(.+\)$", text, re.DOTALL), text


def indivisible(_: Rank) -> tuple[str, str]:
    buffer = Buffer(dist.group.WORLD)
    handle = buffer.dispatch(torch.zeros(0, 8, dtype=BF16), **two_experts(buffer, 8))[4]
    alone = Buffer([dist.new_group([rank]) for rank in range(2)][buffer.rank])
    return (
        said_by(lambda: buffer.get_dispatch_layout(torch.zeros(1, 1, dtype=torch.int64), 3)),
        said_by(lambda: alone.combine(torch.zeros(0, 8, dtype=BF16), handle)),
    )


def two_experts(buffer: Buffer, hidden: int) -> dict[str, Any]:
    """Arguments of a dispatch of no tokens."""
    return layout_of(buffer, randomly_routed(0, 0, 1, 2, hidden))


def test_wrong_group(ranks: ForkedPool) -> None:
    for layout, handle in ranks.run(indivisible, 2):
        assert layout.startswith("ValueError: get_dispatch_layout: num_experts must be a multiple")
        assert handle.startswith("ValueError: combine: handle must be made on this group of 1 rank")


def disagree(rank: Rank, argument: str) -> tuple[str, str]:
    """The last rank makes another call; then all make the same one, on the same group."""
    odd = rank.rank == rank.world_size - 1
    buffer = Buffer(dist.group.WORLD)
    tokens = randomly_routed(rank.rank, 5, 2, 8)
    good = all_of(buffer, tokens)
    recv_x, _, weights, _, handle, _ = buffer.dispatch(tokens.x, **good)
    fp8 = (tokens.x.to(torch.float8_e4m3fn), torch.ones(5, 1))

    def other() -> Any:
        if argument == "hidden":
            return buffer.dispatch(torch.zeros(5, 64, dtype=BF16), **good)
        if argument == "num_experts":
            wide = randomly_routed(rank.rank, 5, 2, 16)
            return buffer.dispatch(wide.x, **all_of(buffer, wide))
        if argument == "x dtype":
            return buffer.dispatch(fp8, **good)
        if argument == "topk":
            return buffer.dispatch(tokens.x, **layout_of(buffer, tokens))
        if argument == "num_worst_tokens":
            return buffer.dispatch(tokens.x, **good, num_worst_tokens=1)
        if argument == "cached x dtype":
            return buffer.dispatch(fp8, handle=handle)
        return buffer.combine(recv_x, handle)

    def usual() -> Any:
        if argument == "cached x dtype":
            return buffer.dispatch(tokens.x, handle=handle)
        if argument == "combined topk":
            return buffer.combine(recv_x, handle, topk_weights=weights)
        return buffer.dispatch(tokens.x, **good)

    said = said_by(other if odd else usual)
    again, *_ = buffer.dispatch(tokens.x, **good)
    assert torch.equal(again, recv_x)
    return said


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("hidden", "hidden must be the same on every rank, got 32 on rank 0 and 64 on rank 2"),
        ("num_experts", "num_experts must be the same on every rank, got 8 on rank 0 and 16"),
        ("x dtype", "x dtype must be the same on every rank, got bfloat16 on rank 0 and float8"),
        ("topk", "topk must be the same on every rank, got 2 on rank 0 and 0 on rank 2"),
        ("num_worst_tokens", "num_worst_tokens must be at least the"),
        ("cached x dtype", "x dtype must be the same on every rank, got bfloat16 on rank 0"),
        ("combined topk", "topk must be the same on every rank, got 2 on rank 0 and 0 on rank 2"),
    ],
)
def test_ranks_that_disagree_all_raise(ranks: ForkedPool, argument: str, expected: str) -> None:
    for said in ranks.run(disagree, 4 if argument == "num_experts" else 2, argument):
        op = "combine" if argument == "combined topk" else "dispatch"
        assert said.startswith(f"ValueError: {op}: {expected}".replace("rank 2", "rank 1"))


def lose_a_peer(rank: Rank, gone: bool, stage: str) -> tuple[str, float]:
    group = dist.new_group([0, 1], timeout=timedelta(seconds=2))
    buffer = Buffer(group)
    tokens = randomly_routed(rank.rank, 5, 2, 4)
    good = all_of(buffer, tokens)
    recv_x, *_, handle, _ = buffer.dispatch(tokens.x, **good)
    dist.barrier()
    if rank.rank == 1:
        if gone:  # the connections close, as when the process ends
            dist.destroy_process_group(group)
        return "", 0.0
    start = time.monotonic()
    if stage == "counts":
        said = said_by(lambda: buffer.dispatch(tokens.x, **good))
    elif stage == "rows":
        said = said_by(lambda: buffer.combine(recv_x, handle))
    else:
        *_, event = buffer.combine(recv_x, handle, async_finish=True)
        said = said_by(event.current_stream_wait)
        assert said_by(event.current_stream_wait).startswith("RuntimeError")
    return said, time.monotonic() - start


@pytest.mark.parametrize("stage", ["counts", "rows", "event"])
@pytest.mark.parametrize("gone", [True, False], ids=["dead", "absent"])
def test_lost_peer(ranks: ForkedPool, gone: bool, stage: str) -> None:
    said, seconds = ranks.run(lose_a_peer, 2, gone, stage)[0]
    op, awaited = ("dispatch", "token counts") if stage == "counts" else ("combine", "rows")
    assert said.startswith(f"RuntimeError: {op}: lost group ")
    assert f"(global ranks 0, 1; this is rank 0 of 2) while waiting for the {awaited} of" in said
    assert seconds < 3.5
