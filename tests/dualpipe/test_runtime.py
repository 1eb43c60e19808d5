"""DualPipe and DualPipeV against a single process, on forked gloo ranks."""

import os
import signal
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import dualpipe
from benchmarks.ranks import Rank, RankFailed
from dualpipe.actions import Action, Kind, Step
from dualpipe.runtime import StepRun
from tests.dualpipe.training import (
    FORMATS,
    HIDDEN,
    MICROBATCH,
    SEQ,
    LinearEnd,
    OverlappedStage,
    Stage,
    build,
    check,
    criterion,
    data,
    own_data,
    reference,
    train,
)
from tests.forked_pool import ForkedPool


@pytest.mark.parametrize("kind", [Stage, LinearEnd, OverlappedStage])
@pytest.mark.parametrize(
    ("schedule", "num_ranks", "num_chunks"),
    [
        ("dualpipe", 2, 4),
        ("dualpipe", 4, 10),
        ("dualpipe", 8, 16),
        ("dualpipev", 1, 2),
        ("dualpipev", 2, 4),
        ("dualpipev", 4, 11),
        ("dualpipev", 8, 16),
    ],
)
def test_trains_and_evaluates_like_one_process(
    ranks: ForkedPool, schedule: str, num_ranks: int, num_chunks: int, kind: type[Stage], seed: int
) -> None:
    seed %= 1 << 30
    results = ranks.run(train, num_ranks, schedule, kind, num_chunks, seed, 2)
    check(results, schedule, kind, num_ranks, num_chunks, seed, 2)
    if kind is OverlappedStage:
        assert all(calls > 0 for *_, calls in results)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [Stage, OverlappedStage])
def test_on_one_gpu(ranks: ForkedPool, kind: type[Stage], seed: int) -> None:
    seed %= 1 << 30
    results = ranks.run(partial(train, device="cuda"), 1, "dualpipev", kind, 4, seed, 2)
    check(results, "dualpipev", kind, 1, 4, seed, 2, exact=False)


@pytest.mark.multigpu
@pytest.mark.parametrize("schedule", ["dualpipe", "dualpipev"])
@pytest.mark.parametrize("kind", [Stage, OverlappedStage])
def test_on_several_gpus(ranks: ForkedPool, schedule: str, kind: type[Stage], seed: int) -> None:
    seed %= 1 << 30
    num_ranks = min(torch.cuda.device_count() // 2 * 2, 8)
    results = ranks.run(partial(train, device="cuda"), num_ranks, schedule, kind, 16, seed, 2)
    check(results, schedule, kind, num_ranks, 16, seed, 2, exact=False)


def test_rank_mapping_and_subgroups(ranks: ForkedPool, seed: int) -> None:
    """Ranks 1..4 of 5 in a group of their own, in another order than the pipeline's."""
    seed %= 1 << 30
    mapping = [2, 0, 3, 1]
    work = partial(train, members=[1, 2, 3, 4], rank_mapping=mapping)
    results = ranks.run(work, 5, "dualpipe", Stage, 10, seed, 1)
    assert results[0] is None
    check(results[1:], "dualpipe", Stage, 4, 10, seed, 1, mapping)


def test_mirrored_gradients_are_the_sum_on_both_ranks(ranks: ForkedPool, seed: int) -> None:
    seed %= 1 << 30
    results = ranks.run(partial(train, mirror=True), 4, "dualpipe", Stage, 8, seed, 1)
    expected = reference(Stage, 4, 8, seed, 1)[1]
    copies: dict[int, list[list[Tensor]]] = {}
    for _, found, _, _ in results:
        for stage, grads in found:
            copies.setdefault(stage, []).append(grads)
            for grad, full in zip(grads, expected[stage], strict=True):
                assert (grad - full).abs().max() <= 1e-13 * full.abs().max()
    for first, second in copies.values():
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def two_pipelines(rank: Rank, seed: int) -> tuple[Tensor | None, ...]:
    """A DualPipe and a DualPipeV with other shapes, taking turns on the same ranks."""
    dualpipe.set_p2p_tensor_shapes([(7,)])  # nobody's: both have formats of their own
    dualpipe.set_p2p_tensor_dtype(torch.float16)
    first, _ = build("dualpipe", Stage, seed)
    shapes = [(1, 4, HIDDEN), (1, 4), (1, 4, HIDDEN)]
    stages = [Stage(rank.rank, seed), Stage(2 * rank.world_size - 1 - rank.rank, seed)]
    second = dualpipe.DualPipeV(
        tuple(stages), p2p_tensor_shapes=shapes, p2p_tensor_dtypes=FORMATS["p2p_tensor_dtypes"]
    )
    losses = []
    for _ in range(2):
        inputs, labels = own_data(first, 4, seed)
        loss, _ = first.step(*inputs, num_chunks=4, criterion=criterion, labels=labels)
        losses.append(loss)
        x = torch.linspace(0, 1, 4 * 4 * HIDDEN, dtype=torch.float64).view(4, 4, HIDDEN)
        feed = (x, torch.zeros(4, 4, dtype=torch.int64), x) if rank.rank == 0 else ()
        loss, _ = second.step(*feed, num_chunks=4, criterion=criterion, labels=[x])
        losses.append(loss)
    return tuple(losses)


def test_two_pipelines_do_not_disturb_each_other(ranks: ForkedPool, seed: int) -> None:
    results = ranks.run(two_pipelines, 2, seed % (1 << 30))
    for first, second, first_again, second_again in results:
        assert torch.equal(first, first_again)
        assert (second is None and second_again is None) or torch.equal(second, second_again)
    alone = ranks.run(train, 2, "dualpipe", Stage, 4, seed % (1 << 30), 1)
    assert torch.equal(alone[0][0][0], results[0][0])


class Dropped(Stage):
    """A stage that ignores an input and hands on an activation without a graph."""

    def forward(self, x: Tensor, ids: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.outer(torch.tanh(self.inner(x))), ids, torch.ones_like(skip)


def test_missing_gradients_count_as_zero(ranks: ForkedPool, seed: int) -> None:
    def without_scale(gradients: list[list[Tensor]]) -> list[list[Tensor]]:
        return [[grad for grad in stage if grad is not None] for stage in gradients]

    results = ranks.run(train, 2, "dualpipev", Dropped, 4, seed % (1 << 30), 1)
    expected = without_scale(reference(Dropped, 4, 4, seed % (1 << 30), 1)[1])
    for _, found, _, _ in results:
        for stage, grads in found:
            for grad, full in zip(without_scale([grads])[0], expected[stage], strict=True):
                assert (grad - full).abs().max() <= 1e-13 * full.abs().max()


def default_formats(_: Rank) -> None:
    """The setters serve pipelines without formats of their own, also when set later."""
    pipe = dualpipe.DualPipeV((Stage(0, 1), Stage(1, 1)))
    inputs, target = data(2, 1)
    call = partial(pipe.step, *inputs, num_chunks=2, criterion=criterion, labels=[target])
    with pytest.raises(ValueError, match="the shapes of tensors between stages must be known"):
        call()
    dualpipe.set_p2p_tensor_shapes(FORMATS["p2p_tensor_shapes"])
    with pytest.raises(ValueError, match="call set_p2p_tensor_dtype before the first step"):
        call()
    dualpipe.set_p2p_tensor_dtype(FORMATS["p2p_tensor_dtypes"])
    call()
    dualpipe.set_p2p_tensor_dtype([torch.float64])
    with pytest.raises(ValueError, match="dtypes must be one or one per shape, got 1 for 3"):
        call()


def test_setters_are_defaults(ranks: ForkedPool) -> None:
    ranks.run(default_formats, 1)


def bad_calls(rank: Rank) -> list[str]:
    """The messages of calls that are refused; none of them talks to another rank."""
    pipe, _ = build("dualpipe", Stage, 1)
    own = own_data(pipe, 4, 1)
    (x, ids, skip), labels = own
    cases = [
        ((x, ids, skip), {"num_chunks": 0}),
        ((x, ids, skip), {"num_chunks": 3}),
        ((x, ids, skip), {"num_chunks": 2}),
        ((x[:3], ids, skip), {"num_chunks": 4}),
        ((x, ids, None), {"num_chunks": 4}),
        ((), {"num_chunks": 4}),
        ((x, ids, skip), {"num_chunks": 4, "criterion": None}),
        ((x, ids, skip), {"num_chunks": 4, "labels": [labels[0][:3]]}),
    ]
    messages = []
    for inputs, options in cases:
        with pytest.raises((ValueError, TypeError)) as caught:
            pipe.step(*inputs, **({"criterion": criterion, "labels": labels} | options))
        messages.append(f"{rank.rank}: {caught.value}")
    return messages


def test_bad_calls_are_refused_before_anything_is_sent(ranks: ForkedPool) -> None:
    expected = [
        "num_microbatches must be an even number, at least 4, got 0",
        "num_microbatches must be an even number, at least 4, got 3",
        "num_microbatches must be an even number, at least 4, got 2",
        r"inputs[0] must divide evenly into 2 micro-batches along dim 0, got shape [3, 3, 8]",
        r"inputs[2] must be a tensor on rank 0, got NoneType",
        "inputs must be given on rank 0, got none",
        "criterion must be given on rank 0, which holds the last stage",
        r"labels[0] must divide evenly into 2 micro-batches",
    ]
    first = ranks.run(bad_calls, 2)[0]
    for message, text in zip(first, expected, strict=True):
        assert text in message


def bad_construction(_: Rank) -> None:
    stage = Stage(0, 1)
    with pytest.raises(ValueError, match=r"modules must be two nn\.Modules, got 1 objects"):
        dualpipe.DualPipe((stage,))
    with pytest.raises(
        ValueError, match=r"rank_mapping must be a permutation of 0..1, got \[0, 0\]"
    ):
        dualpipe.DualPipe((stage, stage), rank_mapping=[0, 0])


def test_bad_construction(ranks: ForkedPool) -> None:
    ranks.run(bad_construction, 2)
    with pytest.raises(ValueError, match=r"call torch\.distributed\.init_process_group first"):
        dualpipe.DualPipe((Stage(0, 1), Stage(1, 1)))


def wrong_output(_: Rank) -> None:
    pipe = dualpipe.DualPipeV(
        (Stage(0, 1), Stage(1, 1)),
        p2p_tensor_shapes=[(MICROBATCH, SEQ, HIDDEN)],
        p2p_tensor_dtypes=torch.float64,
    )
    inputs, target = data(2, 1)
    pipe.step(*inputs, num_chunks=2, criterion=criterion, labels=[target])


def test_outputs_that_differ_from_the_agreed_formats_are_named(ranks: ForkedPool) -> None:
    found = r"got torch.float64 \[2, 3, 8\], torch.int64 \[2, 3\], torch.float64 \[2, 3, 8\]"
    message = rf"stage 0 must hand on torch.float64 \[2, 3, 8\], {found}"
    with pytest.raises(RankFailed, match=message):
        ranks.run(wrong_output, 1)


class Suicidal(Stage):
    """A stage whose rank is killed in the middle of a step."""

    def forward(self, x: Tensor, ids: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if dist.get_rank() == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x, ids, skip)


def survivors(rank: Rank, seed: int) -> str:
    try:
        train(rank, "dualpipe", Suicidal, 8, seed, 1)
    except RuntimeError as error:
        time.sleep(1)  # the parent hears of the dead rank first and would end this one
        return str(error)
    return "nothing"


def test_a_rank_that_dies_in_a_step_ends_the_step_everywhere(ranks: ForkedPool) -> None:
    start = time.monotonic()
    with pytest.raises(RankFailed, match="rank 2 of 4 was killed by signal 9"):
        ranks.run(survivors, 4, 1, timeout_s=60)
    assert time.monotonic() - start < 30


def count_deferred(_: Rank, seed: int) -> list[int]:
    """How many weight gradients each W of a step has to do."""
    pipe, _ = build("dualpipe", Stage, seed)
    counts = []
    execute = StepRun._execute

    def counting(self: StepRun, step: Step) -> None:
        if isinstance(step, Action) and step.kind is Kind.WEIGHT_GRAD:
            counts.append(len(self._weight_grads[step.stage, step.microbatch]))
        execute(self, step)

    StepRun._execute = counting  # in this forked process only
    inputs, labels = own_data(pipe, 8, seed)
    pipe.step(*inputs, num_chunks=8, criterion=criterion, labels=labels)
    assert not any(parameter.grad.requires_grad for parameter in pipe.parameters())
    return counts


def test_the_weight_gradients_of_linears_wait_for_their_slot(ranks: ForkedPool) -> None:
    for counts in ranks.run(count_deferred, 4, 1):
        assert counts
        assert set(counts) == {2}
