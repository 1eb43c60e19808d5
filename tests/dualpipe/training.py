"""Small pipelines to train on forked ranks, and the same training in a single process."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional

import dualpipe
from benchmarks.ranks import Rank
from dualpipe.weight_grad import run_backward

Pipe = dualpipe.DualPipe | dualpipe.DualPipeV
Trained = tuple[
    list[Tensor | None],
    list[tuple[int, list[Tensor]]],
    tuple[Tensor, list[Tensor]] | None,
    int,
]
MICROBATCH, SEQ, HIDDEN = 2, 3, 8
FORMATS = {
    "p2p_tensor_shapes": [(MICROBATCH, SEQ, HIDDEN), (MICROBATCH, SEQ), (MICROBATCH, SEQ, HIDDEN)],
    "p2p_tensor_dtypes": [torch.float64, torch.int64, torch.float64],
}


class Stage(nn.Module):
    """A stage with two activations and an integer tensor; its first output is a view."""

    def __init__(self, index: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed * 1000 + index)
        self.inner = nn.Linear(HIDDEN, 2 * HIDDEN, dtype=torch.float64)
        self.outer = nn.Linear(2 * HIDDEN, HIDDEN, bias=False, dtype=torch.float64)
        self.scale = nn.Parameter(torch.ones(HIDDEN, dtype=torch.float64))
        for parameter in self.parameters():
            with torch.no_grad():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(noise / 3)

    def forward(self, x: Tensor, ids: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shifted = x * self.scale + torch.sin(ids.double())[..., None]
        return self.outer(torch.tanh(self.inner(shifted))) + x, ids + 1, skip * 0.5 + x


class LinearEnd(Stage):
    """A stage whose output comes straight from a linear layer: a view on the CPU."""

    def forward(self, x: Tensor, ids: Tensor, skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.outer(torch.tanh(self.inner(x * self.scale))), ids, skip[:]


class OverlappedStage(Stage):
    """A stage with the hook; it counts its calls."""

    calls = 0

    @classmethod
    def overlapped_forward_backward(
        cls,
        module0: nn.Module,
        inputs0: list[Tensor],
        criterion0: Callable[..., Tensor] | None,
        labels0: list[Tensor],
        module1: nn.Module,  # noqa: ARG003
        loss1: Tensor | None,
        outputs1: list[GradientEdge],
        output_grads1: list[Tensor],
    ) -> tuple[list[Tensor], Tensor | None]:
        cls.calls += 1
        outputs0 = module0(*inputs0)
        loss0 = None if criterion0 is None else criterion0(*outputs0, *labels0)
        if loss1 is not None:
            loss1.backward()
            loss1.detach_()
        else:
            run_backward(outputs1, output_grads1)
        return list(outputs0), loss0


def criterion(x: Tensor, ids: Tensor, skip: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(x + skip, target + ids[..., None] / 100)


def data(num_chunks: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """Inputs and labels for a number of micro-batches."""
    generator = torch.Generator().manual_seed(seed)
    rows = num_chunks * MICROBATCH
    x, skip, target = torch.randn(3, rows, SEQ, HIDDEN, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 50, (rows, SEQ), generator=generator)
    return [x, ids, skip], target


def reference(
    kind: type[Stage], num_stages: int, num_chunks: int, seed: int, num_steps: int
) -> tuple[list[Tensor], list[list[Tensor]], list[list[Tensor]]]:
    """(losses, gradients of each stage, outputs) of one process, gradients added over the steps."""
    stages = nn.ModuleList(kind(index, seed) for index in range(num_stages))
    losses, outputs = [], []
    for step in range(num_steps):
        inputs, target = data(num_chunks, seed + step)
        step_losses, step_outputs = [], []
        cut = [tensor.tensor_split(num_chunks) for tensor in (*inputs, target)]
        for *pieces, label in zip(*cut, strict=True):
            tensors = pieces
            for stage in stages:
                tensors = stage(*tensors)
            loss = criterion(*tensors, label)
            loss.backward()
            step_losses.append(loss.detach())
            step_outputs.append([tensor.detach() for tensor in tensors])
        losses.append(torch.stack(step_losses))
        outputs.append([torch.cat(parts) for parts in zip(*step_outputs, strict=True)])
    return losses, [[p.grad for p in stage.parameters()] for stage in stages], outputs


def build(
    schedule: str,
    kind: type[Stage],
    seed: int,
    group: dist.ProcessGroup | None = None,
    rank_mapping: list[int] | None = None,
) -> tuple[Pipe, list[int]]:
    """This rank's pipeline and the numbers of its two stages."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    place = rank if rank_mapping is None else rank_mapping[rank]
    num_stages = size * (2 if schedule == "dualpipev" else 1)
    stages = [place, num_stages - 1 - place]
    first, second = (kind(stage, seed) for stage in stages)
    cls = dualpipe.DualPipe if schedule == "dualpipe" else dualpipe.DualPipeV
    pipe = cls((first, second), process_group=group, rank_mapping=rank_mapping, **FORMATS)
    return pipe, stages


def own_data(pipe: Pipe, num_chunks: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """The inputs and labels that this rank must give; DualPipe's labels are crossed."""
    inputs, target = data(num_chunks, seed)
    inputs, target = [tensor.to(pipe.device) for tensor in inputs], target.to(pipe.device)
    last = pipe.num_ranks - 1
    if isinstance(pipe, dualpipe.DualPipeV):
        return (inputs, [target]) if pipe.rank == 0 else ([], [])
    if pipe.rank not in (0, last):
        return [], []
    half = int(pipe.rank == last)
    return [tensor.chunk(2)[half] for tensor in inputs], [target.chunk(2)[1 - half]]


def train(
    rank: Rank,
    schedule: str,
    kind: type[Stage],
    num_chunks: int,
    seed: int,
    num_steps: int,
    *,
    members: list[int] | None = None,
    rank_mapping: list[int] | None = None,
    mirror: bool = False,
    device: str = "cpu",
) -> Trained | None:
    """Per rank: losses per step, (stage, gradients) of its two stages, outputs of an evaluation."""
    group = None
    if device == "cuda":
        torch.cuda.set_device(rank.rank)
    if members or device == "cuda":
        group = dist.new_group(members, backend="nccl" if device == "cuda" else "gloo")
    if members and rank.rank not in members:
        return None
    pipe, stages = build(schedule, kind, seed, group, rank_mapping)
    pipe.to(device)
    losses = []
    for step in range(num_steps):
        inputs, labels = own_data(pipe, num_chunks, seed + step)
        loss, outputs = pipe.step(
            *inputs, num_chunks=num_chunks, criterion=criterion, labels=labels
        )
        assert outputs is None
        losses.append(loss if loss is None else loss.cpu())
    if mirror:
        pipe.sync_mirrored_gradients()
    gradients = [
        (stage, [p.grad if p.grad is None else p.grad.cpu() for p in module.parameters()])
        for stage, module in zip(stages, pipe.module, strict=True)
    ]
    inputs, labels = own_data(pipe, num_chunks, seed)
    with torch.no_grad():
        loss, outputs = pipe.step(
            *inputs, num_chunks=num_chunks, criterion=criterion, labels=labels, return_outputs=True
        )
    evaluation = None if loss is None else (loss.cpu(), [output.cpu() for output in outputs])
    return losses, gradients, evaluation, getattr(kind, "calls", 0)


def check(
    results: list[Trained],
    schedule: str,
    kind: type[Stage],
    num_ranks: int,
    num_chunks: int,
    seed: int,
    num_steps: int,
    mapping: list[int] | None = None,
    *,
    exact: bool = True,
) -> None:
    """Compares what `train` returned with a single process; `exact` for outputs and losses."""
    same = torch.equal if exact else partial(torch.allclose, rtol=1e-12, atol=1e-12)
    num_stages = num_ranks * (2 if schedule == "dualpipev" else 1)
    losses, gradients, outputs = reference(kind, num_stages, num_chunks, seed, num_steps)
    places = list(range(num_ranks)) if mapping is None else mapping
    by_place = {place: results[position] for position, place in enumerate(places)}
    halves = {0: slice(None)}
    if schedule == "dualpipe":  # crossed: rank 0 has the loss of the second half
        halves = {
            0: slice(num_chunks // 2, None),
            num_ranks - 1: slice(0, num_chunks // 2),
        }
    for place, (found_losses, _, evaluation, _) in by_place.items():
        if place not in halves:
            assert found_losses == [None] * num_steps
            assert evaluation is None
            continue
        eval_loss, eval_outputs = evaluation
        half = halves[place]
        for step in range(num_steps):
            assert same(found_losses[step], losses[step][half])
        assert same(eval_loss, losses[0][half])
        rows = slice(
            *(None if edge is None else edge * MICROBATCH for edge in (half.start, half.stop))
        )
        for found, expected in zip(eval_outputs, outputs[0], strict=True):
            assert same(found, expected[rows])
    totals = [[torch.zeros_like(grad) for grad in stage] for stage in gradients]
    for _, found, _, _ in by_place.values():
        for stage, grads in found:
            totals[stage] = [a + b for a, b in zip(totals[stage], grads, strict=True)]
    for stage, (found_stage, expected_stage) in enumerate(zip(totals, gradients, strict=True)):
        for found, expected in zip(found_stage, expected_stage, strict=True):
            bound = 1e-14 * num_chunks * expected.abs().max()
            assert (found - expected).abs().max() <= bound, f"stage {stage}"
