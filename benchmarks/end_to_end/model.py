"""The language model, cut into pipeline stages of one layer each."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.end_to_end.attention import Attention
from benchmarks.end_to_end.config import ModelConfig
from benchmarks.end_to_end.experts import ExpertParallel, MixtureOfExperts
from benchmarks.end_to_end.text import VOCABULARY


class Stage(nn.Module):
    """One layer: attention, then experts. The first stage embeds, the last one predicts.

    Stages with the same seed and index start from the same weights, on whichever rank.
    """

    def __init__(self, config: ModelConfig, stage_idx: int, ep: ExpertParallel, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed * config.num_stages + stage_idx)
            is_first, is_last = stage_idx == 0, stage_idx == config.num_stages - 1
            self.embedding = nn.Embedding(VOCABULARY, config.hidden) if is_first else None
            self.attention = Attention(config)
            self.experts = MixtureOfExperts(config, ep)
            self.head = nn.Linear(config.hidden, VOCABULARY, bias=False) if is_last else None
            if self.head is not None:
                nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor, attend: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Runs the layer.

        Args:
            x: [batch, seq] int64 bytes on the first stage, else [batch, seq, hidden] float32.
            attend: another form of this stage's attention.

        Returns:
            [batch, seq, hidden] float32; [batch, seq, 256] logits from the last stage.
        """
        if self.embedding is not None:
            x = self.embedding(x)
        x = x + (attend or self.attention)(_norm(x))
        x = x + self.experts(_norm(x).flatten(0, 1)).view(x.shape)
        return x if self.head is None else self.head(_norm(x))


def _norm(x: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:])
