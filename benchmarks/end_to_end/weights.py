"""The model's weights as one set of arrays, however many ranks hold them.

A parameter of stage i is named ``stage.i.<parameter>``; the experts of all ranks stand together.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.end_to_end.config import ModelConfig
from benchmarks.end_to_end.experts import ExpertParallel
from benchmarks.end_to_end.model import Stage

Weights = dict[str, np.ndarray[Any, Any]]


def is_expert_weight(name: str) -> bool:
    """Whether a parameter of a stage exists only on the rank of its experts."""
    return name in ("experts.up.weight", "experts.down.weight")


def merge(parts: Iterable[tuple[int, Mapping[str, Tensor]]]) -> Weights:
    """From (stage, state) of every rank, those with the first experts first."""
    by_stage: dict[int, list[Mapping[str, Tensor]]] = {}
    for stage_idx, state in parts:
        by_stage.setdefault(stage_idx, []).append(state)
    merged: Weights = {}
    for stage_idx, states in sorted(by_stage.items()):
        for name, first in states[0].items():
            is_split = is_expert_weight(name)
            whole = torch.cat([state[name] for state in states]) if is_split else first
            merged[f"stage.{stage_idx}.{name}"] = whole.numpy()
    return merged


def load_stages(weights: Weights, model: ModelConfig, ep: ExpertParallel) -> list[Stage]:
    """All stages of the model on one rank, with its share of the experts."""
    stages = [Stage(model, stage_idx, ep, seed=0) for stage_idx in range(model.num_stages)]
    for stage_idx, stage in enumerate(stages):
        state = {}
        for name in stage.state_dict():
            whole = torch.from_numpy(weights[f"stage.{stage_idx}.{name}"])
            state[name] = whole[ep.local] if is_expert_weight(name) else whole
        stage.load_state_dict(state)
    return stages


def digest(weights: Weights) -> str:
    """Tells one set of weights from another."""
    sha = hashlib.sha256()
    for name, array in sorted(weights.items()):
        sha.update(name.encode() + array.tobytes())
    return sha.hexdigest()
