"""The train stage: DualPipe over four pipeline ranks, experts spread over two ranks each."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from benchmarks.end_to_end import profile
from benchmarks.end_to_end.bigram import BigramLoss, best_bigram_loss
from benchmarks.end_to_end.config import ModelConfig, TrainConfig
from benchmarks.end_to_end.optimizer import Optimizer, gradient_of
from benchmarks.end_to_end.run_folder import RunError, RunFolder
from benchmarks.end_to_end.text import Bytes
from benchmarks.end_to_end.text import load as load_text
from benchmarks.end_to_end.trainer import RankTrainer
from benchmarks.end_to_end.weights import merge
from benchmarks.ranks import Rank, RankFailed, run_ranks
from dualpipe.simulate import Times

_MAX_VALIDATION_PASSES = 16


@dataclass(slots=True)
class TrainFigures:
    """What came of the training.

    Attributes:
        losses: mean training loss of each step, nats per byte.
        validation_loss: of the trained model, nats per byte.
        bigram: the best bigram model's loss on the same validation bytes.
        num_validation_bytes: how many bytes were predicted for both.
        tokens_per_s: training tokens per second.
        expert_load: [num_stages][num_experts] tokens routed to each expert in the last quarter.
    """

    losses: list[float]
    validation_loss: float
    bigram: BigramLoss
    num_validation_bytes: int
    tokens_per_s: float
    expert_load: list[list[int]]


@dataclass(slots=True)
class _RankResult:
    """What a rank knows in the end; the ranks' sums and unions are the run's."""

    validation_loss: float  # summed over the bytes it judged
    train_seconds: float
    stage_idx: int
    weights: dict[str, Tensor]
    expert_load: Tensor
    times: Times


@dataclass(slots=True)
class _LossMeter:
    """Adds up what the ranks with a last stage report, and passes on each step once complete."""

    config: TrainConfig
    on_step: Callable[[int, float], None]
    losses: list[float] = field(default_factory=list)
    _pending: dict[int, list[float]] = field(default_factory=dict)

    def __call__(self, _rank: int, report: tuple[int, float]) -> None:
        step, loss = report
        parts = self._pending.setdefault(step, [])
        parts.append(loss)
        if len(parts) == 2 * self.config.expert_parallel:
            del self._pending[step]
            self.losses.append(sum(parts) / (self.config.sequences_per_step * self.config.seq_len))
            self.on_step(step + 1, self.losses[-1])


def train(
    folder: RunFolder,
    model: ModelConfig,
    config: TrainConfig,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> TrainFigures:
    """Trains on the run folder's text and writes the weights there.

    Args:
        folder: where the data stage has left its text.
        model: sizes of the model.
        config: how to train.
        on_step: called as ``on_step(steps_done, mean_loss)``.

    Raises:
        RunError: the text is not there, or a rank failed.
    """
    text = load_text(folder)
    per_pass = config.sequences_per_step
    num_passes = min(_MAX_VALIDATION_PASSES, len(text["validation"]) // per_pass)
    validation = text["validation"][: num_passes * per_pass]
    meter = _LossMeter(config, on_step)
    try:
        results: list[_RankResult] = run_ranks(
            _train_rank,
            model.num_stages * config.expert_parallel,
            model,
            config,
            text["train"],
            validation,
            folder.path / profile.FOLDER,
            timeout_s=120 + 15 * config.steps,
            on_report=meter,
        )
    except RankFailed as error:
        raise RunError(
            f"train: {error} (nothing was saved; run it again, with other programs closed if "
            "memory ran out)"
        ) from error
    num_bytes = len(validation) * config.seq_len
    figures = TrainFigures(
        losses=meter.losses,
        validation_loss=sum(result.validation_loss for result in results) / num_bytes,
        bigram=best_bigram_loss(text["train"], validation),
        num_validation_bytes=num_bytes,
        tokens_per_s=max(1, config.steps - 1)  # without the one that was profiled
        * config.sequences_per_step
        * config.seq_len
        / max(result.train_seconds for result in results),
        expert_load=_expert_load(results, model),
    )
    folder.save_arrays("weights", merge((result.stage_idx, result.weights) for result in results))
    folder.save_json("times", asdict(results[0].times))  # for python -m dualpipe --times
    folder.save_json("train", asdict(figures) | {"seed": config.seed})
    return figures


def _train_rank(
    rank: Rank,
    model: ModelConfig,
    config: TrainConfig,
    train: Bytes,
    validation: Bytes,
    profiles: Path,
) -> _RankResult:
    trainer = RankTrainer(rank, model, config)
    optimizer = Optimizer(trainer.stages, config.steps)
    load = torch.zeros(model.num_experts)

    dist.barrier()
    seconds = 0.0
    for step in range(config.steps):
        # The last step but one is timed, the last one profiled, which takes longer.
        trainer.pipe.record_times = step == max(0, config.steps - 2)
        is_last = step == config.steps - 1
        begin = time.perf_counter()
        with profile.profiled(profiles / f"rank{rank.rank}.json.gz") if is_last else nullcontext():
            loss = trainer.gradients(train, step * config.sequences_per_step)
            if step >= config.steps * 3 // 4:
                load += gradient_of(trainer.stages[0].experts.balance_bias)
            with record_function(profile.OPTIMIZER):
                optimizer.step()
        if not is_last or step == 0:
            seconds += time.perf_counter() - begin
        if loss is not None:
            rank.report((step, loss))
    trainer.pipe.record_times = False

    with torch.no_grad():
        passes = range(0, len(validation), config.sequences_per_step)
        judged = sum(trainer.loss(validation, first) or 0.0 for first in passes)
    weights = trainer.stages[0].state_dict()
    times = trainer.pipe.measured_times()
    return _RankResult(judged, seconds, trainer.stage_idx, weights, load, times)


def _expert_load(results: list[_RankResult], model: ModelConfig) -> list[list[int]]:
    by_stage = {result.stage_idx: result.expert_load for result in results}
    return [[int(count) for count in by_stage[stage]] for stage in range(model.num_stages)]
