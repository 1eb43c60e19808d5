"""One rank of the training: its two stages, its pipeline, and the ranks it shares experts with.

Rank p * 2 + e is expert-parallel rank e of pipeline rank p. The ranks with one e form a pipeline,
each pair with one p shares the experts of its two layers.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.profiler import record_function

from benchmarks.end_to_end.config import ModelConfig, TrainConfig
from benchmarks.end_to_end.experts import ExpertParallel
from benchmarks.end_to_end.model import Stage
from benchmarks.end_to_end.optimizer import gradient_of
from benchmarks.end_to_end.profile import GRADIENT_SYNC
from benchmarks.end_to_end.text import Bytes
from benchmarks.end_to_end.weights import is_expert_weight
from benchmarks.ranks import Rank
from dualpipe import DualPipe


class RankTrainer:
    """What one rank does in a step.

    Attributes:
        stage_idx: the stage of which this rank has the first copy.
        stages: that stage, and a copy of the mirrored rank's.
        pipe: the pipeline this rank is in.
    """

    def __init__(self, rank: Rank, model: ModelConfig, config: TrainConfig) -> None:
        self._config = config
        self.stage_idx, self._ep_idx = divmod(rank.rank, config.expert_parallel)
        pipeline, self._ep_group = self._groups(model.num_stages)
        ep = ExpertParallel(self._ep_group, model.num_experts)
        mirrored_idx = model.num_stages - 1 - self.stage_idx
        self.stages = (
            Stage(model, self.stage_idx, ep, config.seed),
            Stage(model, mirrored_idx, ep, config.seed),
        )
        self.pipe = DualPipe(
            self.stages,
            process_group=pipeline,
            p2p_tensor_shapes=[(config.sequences_per_microbatch, config.seq_len, model.hidden)],
            p2p_tensor_dtypes=torch.float32,
        )

    def gradients(self, sequences: Bytes, first: int) -> float | None:
        """Makes the gradients of one step's sequences, the same on all ranks that hold a parameter.

        Args:
            sequences: [num_sequences, seq_len + 1] uint8, those of all steps.
            first: where the step's begin; they go on from the end at the beginning.

        Returns:
            The summed loss of what this rank judged, None if it has no last stage.
        """
        loss = self.loss(sequences, first)
        with torch.no_grad(), record_function(GRADIENT_SYNC):
            self.pipe.sync_mirrored_gradients()
            self._sync_dense_gradients()
        return loss

    def loss(self, sequences: Bytes, first: int) -> float | None:
        """One pass of the pipeline, a backward one too if gradients are enabled."""
        batch = self._batch(sequences, first)
        inputs: list[Tensor] = []
        labels: list[Tensor] = []
        if self.pipe.rank in (0, self.pipe.num_ranks - 1):
            end = 0 if self.pipe.rank == 0 else 1
            inputs = [batch[end, :, :-1].contiguous()]
            labels = [batch[1 - end, :, 1:].contiguous()]  # crossed: what entered at the other end
        losses, _ = self.pipe.step(
            *inputs,
            num_chunks=self._config.num_microbatches,
            criterion=summed_loss,
            labels=labels,
        )
        return None if losses is None else float(losses.sum())

    def _groups(self, num_stages: int) -> tuple[dist.ProcessGroup, dist.ProcessGroup]:
        """This rank's pipeline and expert-parallel group; all ranks make all, in one order."""
        width = self._config.expert_parallel
        pipelines = [
            dist.new_group([p * width + e for p in range(num_stages)]) for e in range(width)
        ]
        pairs = [dist.new_group([p * width + e for e in range(width)]) for p in range(num_stages)]
        return pipelines[self._ep_idx], pairs[self.stage_idx]

    def _batch(self, sequences: Bytes, first: int) -> Tensor:
        """[2, num_sequences, seq_len + 1] int64: what enters at the first rank and at the last."""
        config = self._config
        rows = np.arange(first, first + config.sequences_per_step) % len(sequences)
        mine = np.split(rows, config.expert_parallel)[self._ep_idx]
        batch = torch.from_numpy(sequences[mine].astype(np.int64))
        return batch.view(2, -1, config.seq_len + 1)

    def _sync_dense_gradients(self) -> None:
        """Adds up, over the ranks that share experts, the gradients of all but those experts."""
        dense = [
            parameter
            for stage in self.stages
            for name, parameter in stage.named_parameters()
            if not is_expert_weight(name)
        ]
        flat = torch.cat([gradient_of(parameter).flatten() for parameter in dense])
        dist.all_reduce(flat, group=self._ep_group)
        parts = torch.split(flat, [parameter.numel() for parameter in dense])
        for parameter, grad in zip(dense, parts, strict=True):
            parameter.grad = grad.view_as(parameter)


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, nats: [batch, seq, 256] float32 logits of [batch, seq] int64 targets."""
    # Summed, not averaged: gradients near 1 lie well inside the range of the FP8 scales.
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
