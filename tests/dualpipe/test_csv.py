"""The exported order: loaded and trained by torch's own pipeline runtime."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from benchmarks.ranks import Rank
from dualpipe.actions import ScheduleError, to_csv
from dualpipe.schedules import dualpipe, dualpipev, one_f_one_b, zb1p, zbv
from tests.forked_pool import ForkedPool

HIDDEN, NUM_MICROBATCHES, NUM_STAGES = 6, 6, 4
Gradients = dict[str, Tensor]


def stage_module(stage: int) -> nn.Module:
    torch.manual_seed(stage)
    return nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.LayerNorm(HIDDEN)).double()


def data() -> tuple[Tensor, Tensor]:
    torch.manual_seed(99)
    return torch.randn(2, 2 * NUM_MICROBATCHES, HIDDEN, dtype=torch.float64).unbind()


def loss(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum()


def train(rank: Rank, path: str) -> tuple[dict[int, Gradients], list[float]]:
    """One step on two ranks, driven by the file; gradients of the rank's stages, and losses."""
    own = [rank.rank, NUM_STAGES - 1 - rank.rank]
    modules = {stage: stage_module(stage) for stage in own}
    device = torch.device("cpu")
    stages = [PipelineStage(modules[stage], stage, NUM_STAGES, device) for stage in own]
    runtime = _PipelineScheduleRuntime(stages, NUM_MICROBATCHES, loss_fn=loss, scale_grads=False)
    runtime._load_csv(path)
    inputs, targets = data()
    losses: list[Tensor] = []
    if rank.rank == 0:  # holds the first and the last stage
        runtime.step(inputs, target=targets, losses=losses)
    else:
        runtime.step()
    gradients = {
        stage: {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        for stage, module in modules.items()
    }
    return gradients, [float(value.detach()) for value in losses]


@pytest.mark.parametrize("build", [dualpipev, zbv], ids=["dualpipev", "zbv"])
def test_torch_trains_from_the_csv(ranks: ForkedPool, tmp_path: Path, build: object) -> None:
    path = tmp_path / "order.csv"
    path.write_text(to_csv(build(2, NUM_MICROBATCHES)))  # type: ignore[operator]
    results = ranks.run(train, 2, str(path), timeout_s=60)

    modules = [stage_module(stage) for stage in range(NUM_STAGES)]
    inputs, targets = data()
    total = loss(nn.Sequential(*modules)(inputs), targets)
    total.backward()
    assert sum(results[0][1]) == pytest.approx(float(total.detach()), rel=1e-12)
    found = {stage: grads for gradients, _ in results for stage, grads in gradients.items()}
    for stage, module in enumerate(modules):
        expected = {name: parameter.grad for name, parameter in module.named_parameters()}
        torch.testing.assert_close(found[stage], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("build", [dualpipev, zbv, one_f_one_b, zb1p], ids=lambda b: b.__name__)
def test_one_line_per_rank(build: object) -> None:
    schedule = build(3, 7)  # type: ignore[operator]
    lines = to_csv(schedule).splitlines()
    assert [line.split(",") for line in lines] == [list(map(str, row)) for row in schedule.ranks]


def test_two_copies_of_a_stage_cannot_be_written() -> None:
    with pytest.raises(ScheduleError, match="to_csv: schedule must hold every stage on one rank"):
        to_csv(dualpipe(4, 8))
