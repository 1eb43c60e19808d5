"""A case that runs on forked ranks of this machine over gloo.

A sample is one call: all ranks leave a barrier together, and the slowest rank's time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.case import Case, Measurement, Peer, ShapeT, worst_row_error
from benchmarks.ranks import Rank, run_ranks
from benchmarks.timing import Timing

_WARM_UP_ROUNDS = 3
_TIMEOUT_S = 120.0

RankCall = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankCase(Case[ShapeT]):
    """Ours and peers as functions that every rank calls at the same time.

    Attributes:
        ranks: Number of ranks of a shape.
        inputs: Builds what one rank works on.
        ours: Prepares the call under test on a rank; the call returns this rank's result.
        oracle: This rank's true result in float64, from its inputs.
    """

    ranks: Callable[[ShapeT], int]
    inputs: Callable[[Rank, ShapeT], Any]
    ours: Callable[[Any], RankCall]
    oracle: Callable[[Any], torch.Tensor]

    def measure(
        self, shape: ShapeT, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        del device  # CPU only
        makers = {"ours": self.ours, **{name: peer.run for name, peer in peers.items()}}
        num_ranks = self.ranks(shape)
        results = run_ranks(
            _on_rank, num_ranks, self, shape, makers, budget_s, timeout_s=_TIMEOUT_S + budget_s
        )
        errors, names = results[0][0], results[0][1].keys()
        timings = {}
        for name in names:
            rounds = zip(*(samples[name] for _, samples in results), strict=True)
            timings[name] = Timing(tuple(map(max, rounds)), f"slowest of {num_ranks} ranks")
        wrong = [name for name in peers if not errors[name] <= self.tolerance]
        notes = tuple(f"{name} left out: its error is {errors[name]:.1e}" for name in wrong)
        return Measurement(errors["ours"], timings, notes)


def _on_rank(
    rank: Rank,
    case: RankCase[Any],
    shape: Any,
    makers: Mapping[str, Callable[[Any], RankCall]],
    budget_s: float,
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Returns each implementation's error on any rank; us per round of ours and the right peers."""
    inputs = case.inputs(rank, shape)
    calls = {name: maker(inputs) for name, maker in makers.items()}
    truth = case.oracle(inputs)
    worst = torch.tensor([worst_row_error(call(), truth) for call in calls.values()])
    dist.all_reduce(worst, dist.ReduceOp.MAX)
    errors = dict(zip(calls, worst.tolist(), strict=True))
    if not errors["ours"] <= case.tolerance:
        return errors, {}
    calls = {name: call for name, call in calls.items() if errors[name] <= case.tolerance}
    start = time.perf_counter()
    _rounds(calls, _WARM_UP_ROUNDS)
    round_s = (time.perf_counter() - start) / _WARM_UP_ROUNDS
    # All ranks must run the same number of rounds: rank 0 decides.
    count = torch.tensor([min(200, max(5, int(budget_s / round_s)))])
    dist.broadcast(count, 0)
    return errors, _rounds(calls, int(count))


def _rounds(calls: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(count):
        for name, call in calls.items():
            dist.barrier()
            start = time.perf_counter_ns()
            call()
            samples[name].append((time.perf_counter_ns() - start) / 1e3)
    return samples
