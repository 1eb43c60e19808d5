"""How even `eplb.rebalance` makes the load in the time it is given, beside the greedy plan."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

import eplb
from benchmarks.case import SEED, Case, Measurement, Peer
from benchmarks.roofline import Work
from benchmarks.timing import Timing
from eplb.plan import even_shares, imbalance_of, loads_of_gpus

_BUDGET_MS = 50  # per layer
_CALLS = 3


@dataclass(frozen=True, slots=True)
class Search:
    """256 experts in 8 groups; a load of each layer, and the mean max/mean that is asked for."""

    policy: str
    nodes: int
    gpus: int
    replicas: int
    load: str
    target: float
    layers: int = 58


def loads(kind: str, num_layers: int) -> np.ndarray:
    """[num_layers, 256] float64: "lognormal1", or "zipf" and its exponent, in random order."""
    random = np.random.default_rng(SEED)
    if kind == "lognormal1":
        return random.lognormal(0, 1, (num_layers, 256))
    ranked = np.arange(1, 257) ** -float(kind.removeprefix("zipf"))
    return np.stack([random.permutation(ranked) for _ in range(num_layers)])


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCase(Case[Search]):
    """The error of a shape is how far the mean max/mean is above the target."""

    def measure(
        self,
        shape: Search,
        device: torch.device,  # noqa: ARG002 - plans are made on the CPU
        peers: Mapping[str, Peer],  # noqa: ARG002 - no other planner is at hand
        budget_s: float,  # noqa: ARG002 - the time per layer is what is asked for
    ) -> Measurement:
        """Plans a few times; all plans count, not the best."""
        load = loads(shape.load, shape.layers)
        topology = eplb.Topology.regular(shape.gpus, shape.replicas, shape.nodes, 8)
        samples_us, imbalances = [], []
        for _ in range(_CALLS):
            begin = time.perf_counter()
            plan = eplb.rebalance(load, topology, policy=shape.policy, time_budget_ms=_BUDGET_MS)
            samples_us.append(1e6 * (time.perf_counter() - begin))
            imbalances.append(plan.imbalance.mean())
        reached = float(np.mean(imbalances))
        groups, nodes = (8, shape.nodes) if shape.policy == "hierarchical" else (1, 1)
        weight = torch.from_numpy(load)
        slots = eplb.rebalance_experts(weight, shape.replicas, groups, nodes, shape.gpus)[0].numpy()
        gpu_loads = loads_of_gpus(topology, slots, even_shares(slots, 256), load[None])
        theirs = imbalance_of(topology, gpu_loads).mean()
        note = (
            f"max/mean {reached:.4f} (tokens split unevenly {plan.weighted_imbalance.mean():.4f}; "
            f"rebalance_experts {theirs:.4f}; no plan below {plan.lower_bound.mean():.4f}), "
            f"{np.median(samples_us) / 1e3 / shape.layers:.1f} ms per layer"
        )
        error = max(0.0, reached / shape.target - 1)
        return Measurement(error, {"ours": Timing(tuple(samples_us), "wall clock")}, (note,))


def _work(shape: Search) -> Work:
    """Loads in, a table out; a search has no least amount of arithmetic."""
    return Work(0, shape.layers * 8 * (256 + shape.replicas), "fp32")


CASES = (
    SearchCase(
        name="eplb_rebalance",
        title=f"rebalance: the evenness of plans searched for {_BUDGET_MS} ms per layer at most",
        devices=("cpu",),
        needs=("eplb.rebalance",),
        shapes={
            "tiny": (Search("global", 1, 32, 288, "lognormal1", 1.02, layers=1),),
            "real": (
                Search("global", 16, 128, 384, "lognormal1", 1.02),
                Search("global", 16, 128, 384, "zipf1.2", 1.06),
                Search("hierarchical", 4, 32, 288, "zipf1.2", 1.65),
                Search("hierarchical", 4, 32, 288, "lognormal1", 1.08),
                Search("hierarchical", 8, 64, 320, "zipf1.2", 2.95),
                Search("global", 18, 144, 288, "lognormal1", 1.34),
            ),
            "sweep": tuple(
                Search("global", 16, 128, 384, f"zipf{exponent}", 1.06, layers=8)
                for exponent in (0.4, 0.8, 1.0, 1.2, 1.4)
            ),
        },
        work=_work,
        tolerance=0.0,
    ),
)
