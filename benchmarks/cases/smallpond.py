"""smallpond beside DuckDB alone, Polars, Ray Data and Daft: the same files, the same results.

A sample is one run in a fresh process, after import, start and a first query; `start` and `exit`
time just these. Engines take turns, and what each returns is checked before its times count. A
limit on memory is told to each in its own way, and `benchmarks.dataframes.watch` ends those that
grow far beyond it, see `cap_bytes` there.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Case, Measurement, Peer
from benchmarks.dataframes.job import Job
from benchmarks.roofline import Work
from benchmarks.timing import Timing

_ROUNDS = 5
_TIMEOUT_S = 300.0
# Per second of budget: what an engine may take of all rounds together.
_PATIENCE = 15
_MODULES = {"duckdb": "duckdb", "polars": "polars", "ray-data": "ray.data", "daft": "daft"}
_UNTIMED = ("start", "exit")


def _run(name: str, *args: Any, **settings: Any) -> Any:
    return import_module("benchmarks.dataframes.watch").run_once(name, *args, **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFrameCase(Case[Job]):
    """A peer's `run` is `watch.run_once` of that engine."""

    def measure(
        self, shape: Job, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        del device
        absent = {name: reason for name in peers if (reason := _absence(name, shape))}
        runners: dict[str, Any] = {"ours": functools.partial(_run, "ours")}
        runners |= {name: peer.run for name, peer in peers.items() if name not in absent}
        data, truth, rounds = (
            import_module(f"benchmarks.dataframes.{name}") for name in ("data", "truth", "rounds")
        )
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            inputs = folder / "inputs"
            inputs.mkdir()
            data.make(shape, inputs)
            truths = {work: truth.truth_of(work, inputs, shape.rows) for work in parts(shape)}
            engines = {
                name: lambda check, run=run: run(
                    shape, inputs, folder, check=check, timeout_s=_TIMEOUT_S
                )
                for name, run in runners.items()
            }
            played = rounds.play(
                engines,
                truths,
                tolerance=self.tolerance,
                rounds=_ROUNDS,
                patience_s=_PATIENCE * budget_s,
            )
        return _measurement(shape, played, absent)


def parts(job: Job) -> Sequence[str]:
    """Returns the workloads of a job whose results are checked."""
    every: Sequence[str] = import_module("benchmarks.dataframes.process").EVERY
    if job.workload == "every":
        return every
    return () if job.workload in _UNTIMED else (job.workload,)


def _absence(name: str, job: Job) -> str | None:
    try:
        found = find_spec(_MODULES[name])
    except ModuleNotFoundError:
        found = None
    if found is None:
        return f"{_MODULES[name]} is not installed"
    # Its start and its fixed cost of each operation add up.
    return "takes a minute" if (name, job.workload) == ("ray-data", "every") else None


def _measurement(job: Job, played: Any, absent: Mapping[str, str]) -> Measurement:
    left_out = {**absent, **played.left_out}
    if "ours" in left_out and "ours" in played.errors:
        return Measurement(played.errors["ours"])
    if "ours" in left_out:
        raise RuntimeError(f"smallpond: {left_out['ours']}")
    timings, notes = {}, []
    for name, runs in played.runs.items():
        seconds = [_sample(job, run) for run in runs]
        timings[name] = Timing(tuple(1e6 * s for s in seconds), "wall clock in a fresh process")
        notes.append(
            f"{name}: min {min(seconds):.3f} s, median {statistics.median(seconds):.3f} s of "
            f"{len(runs)}; CPU {statistics.median(run.cpu_s for run in runs):.2f} s, at most "
            f"{max(run.grown_bytes for run in runs) / 1e6:.0f} MB more; whole process "
            f"{statistics.median(run.total_s for run in runs):.2f} s"
        )
    notes += [f"{name} left out: {reason}" for name, reason in left_out.items()]
    return Measurement(played.errors["ours"], timings, tuple(notes))


def _sample(job: Job, run: Any) -> float:
    times = {"start": run.start_s, "exit": run.exit_s}
    return float(times.get(job.workload, run.seconds))


def _work(job: Job) -> Work:
    """Bytes of the columns that are read, and of the result."""
    group = 40 * min(job.groups, job.rows)
    sizes = {
        "group_by": 24 * job.rows + group,
        "medians": 16 * job.rows + group,
        "join": 24 * job.rows + 30 * job.groups + 46 * job.rows,
        "sort": 2 * 100 * job.rows,
        "map_rows": 40 * job.rows,
        "map_batches": 40 * job.rows,
        "tasks": 16 * job.rows,
    }
    sizes["every"] = sum(sizes.values())
    return Work(0, sizes.get(job.workload, 1), "fp32")


CASES = (
    DataFrameCase(
        name="smallpond",
        title="group-by, join, sort, functions and tasks of tables in Parquet files",
        devices=("cpu",),
        needs=("smallpond.init", "duckdb.connect", "pyarrow.parquet.read_table"),
        shapes={
            "tiny": (Job("every", 100, groups=20, files=3),),
            "real": (
                Job("group_by", 10_000_000, groups=100),
                Job("group_by", 10_000_000, groups=1_000_000),
                # A limit here is a quarter of the rows in memory.
                Job("group_by", 10_000_000, groups=5_000_000, limit_mb=60),
                Job("medians", 10_000_000, groups=1_000_000),
                Job("medians", 10_000_000, groups=1_000_000, limit_mb=60),
                Job("join", 10_000_000, groups=1_250_000),
                Job("sort", 10_000_000),
                Job("sort", 10_000_000, limit_mb=250),
                Job("group_by", 2_000_000, groups=1000, files=2000),
                Job("map_rows", 1_000_000, groups=1000),
                Job("map_batches", 10_000_000, groups=1000),
                Job("map_batches", 40_000_000, groups=1000),
                Job("tasks", 1000),
                Job("start", 1),
                Job("exit", 1),
            ),
            "sweep": tuple(Job("group_by", 4_000_000, groups=10**power) for power in range(7)),
        },
        work=_work,
        tolerance=1e-9,
        peers={name: Peer(functools.partial(_run, name), devices=("cpu",)) for name in _MODULES},
    ),
)
