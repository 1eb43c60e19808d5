"""Rounds of runs: in each, every engine once, in an order drawn anew."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.case import SEED, one_line
from benchmarks.dataframes.digest import Digest, difference
from benchmarks.dataframes.watch import EngineError, Run


@dataclass(slots=True)
class Played:
    """What the engines did.

    Attributes:
        runs: by engine, in order; only of engines that always did the job, and right.
        errors: by engine, of its first run: the worst relative difference from the truth.
        left_out: by engine, why it has no runs.
    """

    runs: dict[str, list[Run]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def play(
    engines: Mapping[str, Callable[[bool], Run]],
    truths: Mapping[str, Digest],
    *,
    tolerance: float,
    rounds: int,
    patience_s: float,
) -> Played:
    """Plays rounds; all results of the first are checked, and the number of rows of all others.

    Args:
        engines: by name, what runs a job once; told whether the result will be checked.
        truths: the right results, by workload of the job.
        tolerance: largest error that still counts as right.
        rounds: how many.
        patience_s: an engine that has taken so long takes no part in further rounds.
    """
    order = random.Random(SEED)
    played = Played()
    for number in range(rounds):
        ready = [
            name
            for name in engines
            if name not in played.left_out
            and sum(run.total_s for run in played.runs.get(name, ())) < patience_s
        ]
        for name in order.sample(ready, len(ready)):
            os.sync()  # what the one before has written is not this one's load
            try:
                run = engines[name](number == 0)
                _check(played, name, run, truths, tolerance)
            except EngineError as failure:
                played.left_out[name] = one_line(failure).removeprefix("EngineError: ")
                played.runs.pop(name, None)
            else:
                played.runs.setdefault(name, []).append(run)
    return played


def _check(
    played: Played, name: str, run: Run, truths: Mapping[str, Digest], tolerance: float
) -> None:
    for workload, truth in truths.items():
        if run.rows[workload] != truth.rows:
            raise EngineError(f"its {workload} has {run.rows[workload]} rows, not {truth.rows}")
    if name not in played.errors:
        errors = [difference(run.digests[workload], truths[workload]) for workload in truths]
        played.errors[name] = max(errors, default=0.0)
        if not played.errors[name] <= tolerance:
            raise EngineError(f"its error is {played.errors[name]:.1e}")
