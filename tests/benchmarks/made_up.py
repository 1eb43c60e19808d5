"""A case made for the tests, with every number known."""

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.case import Peer, TensorCase
from benchmarks.roofline import Peaks, Work

CPU = torch.device("cpu")
PEAKS = Peaks({"fp8": 4.0, "bf16": 2.0, "fp32": 1.0}, 100.0, "measured")


@dataclass(frozen=True, slots=True)
class Rows:
    """x [rows, 4], doubled."""

    rows: int


def double_case(**changes: Any) -> TensorCase[Rows]:
    """Doubling a matrix: ours and one peer are right, one peer is wrong, one raises."""

    def broken(_: dict[str, Any]) -> torch.Tensor:
        raise RuntimeError("no such engine\nsecond line")

    fields: dict[str, Any] = {
        "name": "double",
        "title": "x + x",
        "shapes": {"tiny": (Rows(1), Rows(3)), "real": (Rows(8),), "sweep": ()},
        "work": lambda shape: Work(4 * shape.rows, 32 * shape.rows, "fp32"),
        "tolerance": 1e-3,
        "inputs": lambda shape, device, seed: {
            "x": torch.arange(1, 4 * shape.rows + 1, device=device).view(-1, 4).float() + seed
        },
        "ours": lambda inputs: inputs["x"] * 2,
        "oracle": lambda inputs: inputs["x"].double() * 2,
        "peers": {
            "adding": Peer(lambda inputs: inputs["x"] + inputs["x"]),
            "tripling": Peer(lambda inputs: inputs["x"] * 3),
            "broken": Peer(broken),
            "gpu-only": Peer(broken, devices=("cuda",)),
        },
    }
    return TensorCase(**fields | changes)
