"""One training step of DualPipeV on forked ranks over gloo, beside torch's own runtime.

Both runtimes follow the same list of actions on the same modules, so the ratio compares what they
add to it: bookkeeping, transfers, the split of backward into its two parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import nn

from benchmarks.case import SEED, Peer
from benchmarks.rank_case import RankCall, RankCase
from benchmarks.ranks import Rank
from benchmarks.roofline import Work


@dataclass(frozen=True, slots=True)
class Training:
    """Stages of two linear layers; `rows` per micro-batch."""

    ranks: int
    microbatches: int
    rows: int
    hidden: int


class _Stage(nn.Module):
    def __init__(self, stage_idx: int, hidden: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED + stage_idx)
        self.inner, self.outer = (nn.Linear(hidden, hidden, bias=False) for _ in range(2))
        for layer in (self.inner, self.outer):
            noise = torch.randn(hidden, hidden, generator=generator)
            layer.weight.data.copy_(noise / hidden**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change: torch.Tensor = self.outer(self.inner(x).relu())
        return x + change


def _loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().mean()


class _OneRank:
    """What one rank trains: two of the stages, and on rank 0 the data."""

    def __init__(self, rank: Rank, shape: Training) -> None:
        self.rank, self.shape = rank.rank, shape
        self.num_stages = 2 * shape.ranks
        self.stage_idxs = (self.rank, self.num_stages - 1 - self.rank)
        generator = torch.Generator().manual_seed(SEED)
        size = (shape.microbatches * shape.rows, shape.hidden)
        self.x, self.targets = (torch.randn(size, generator=generator) for _ in range(2))

    def stages(self) -> tuple[_Stage, _Stage]:
        first, second = (_Stage(stage_idx, self.shape.hidden) for stage_idx in self.stage_idxs)
        return first, second

    def oracle(self) -> torch.Tensor:
        """The gradients of this rank's stages, by one process in float64."""
        whole = [_Stage(i, self.shape.hidden).double() for i in range(self.num_stages)]
        cut = (each.double().chunk(self.shape.microbatches) for each in (self.x, self.targets))
        for x, targets in zip(*cut, strict=True):
            _loss(nn.Sequential(*whole)(x), targets).backward()  # type: ignore[no-untyped-call]
        return _gradients(*(whole[stage_idx] for stage_idx in self.stage_idxs))


def _gradients(*stages: nn.Module) -> torch.Tensor:
    """All gradients as rows; they are taken, so the next step starts without."""
    taken = []
    for stage in stages:
        taken += [parameter.grad for parameter in stage.parameters() if parameter.grad is not None]
        stage.zero_grad()
    return torch.cat(taken)


def _dualpipe(one: _OneRank) -> RankCall:
    stages = one.stages()
    pipe = import_module("dualpipe").DualPipeV(
        stages,
        p2p_tensor_shapes=[(one.shape.rows, one.shape.hidden)],
        p2p_tensor_dtypes=torch.float32,
    )
    feed, labels = ([one.x], [one.targets]) if one.rank == 0 else ([], [])

    def step() -> torch.Tensor:
        pipe.step(*feed, num_chunks=one.shape.microbatches, criterion=_loss, labels=labels)
        return _gradients(*stages)

    return step


def _torch_pipelining(one: _OneRank) -> RankCall:
    pipelining = import_module("torch.distributed.pipelining")
    schedules = import_module("torch.distributed.pipelining.schedules")
    stages = one.stages()
    wrapped = [
        pipelining.PipelineStage(stage, stage_idx, one.num_stages, torch.device("cpu"))
        for stage, stage_idx in zip(stages, one.stage_idxs, strict=True)
    ]
    schedule = schedules.ScheduleDualPipeV(
        wrapped, one.shape.microbatches, loss_fn=_loss, scale_grads=False
    )

    def step() -> torch.Tensor:
        if one.rank == 0:
            schedule.step(one.x, target=one.targets)
        else:
            schedule.step()
        return _gradients(*stages)

    return step


def _work(shape: Training) -> Work:
    """Forward and both halves of backward, on all ranks; weights and data once."""
    layers, rows = 4 * shape.ranks, shape.microbatches * shape.rows
    weights = layers * shape.hidden**2
    return Work(6 * rows * weights, 4 * (2 * weights + 2 * rows * shape.hidden), "fp32")


CASES = (
    RankCase(
        name="dualpipe",
        title="one DualPipeV training step over gloo, the slowest rank of each step",
        devices=("cpu",),
        needs=("dualpipe.DualPipeV",),
        shapes={
            "tiny": (Training(1, 2, 2, 8), Training(2, 4, 2, 8)),
            "real": (
                Training(1, 8, 256, 512),
                Training(2, 8, 64, 64),
                Training(2, 8, 128, 512),
                Training(4, 16, 64, 64),
            ),
            "sweep": tuple(Training(2, 8, 32, 2**power) for power in range(4, 11)),
        },
        work=_work,
        tolerance=1e-4,
        peers={"torch-pipelining": Peer(_torch_pipelining, devices=("cpu",))},
        ranks=lambda shape: shape.ranks,
        inputs=_OneRank,
        ours=_dualpipe,
        oracle=_OneRank.oracle,
    ),
)
