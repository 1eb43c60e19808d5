"""One engine on one job in a process of its own: `python -m benchmarks.dataframes.process SPEC`.

It writes one JSON object a line: "ready" when the engine has started and answered a first query;
then for each workload "next", "done" with the seconds it took, and "checked" with the digest of the
result if that was asked for; "closing" before the engine is closed. After "next" and "done" it
waits for a line on its input, so that its memory can be looked at meanwhile.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.dataframes import tree
from benchmarks.dataframes.job import MEASURES, NAMES, RECORDS, Engine, Job

if TYPE_CHECKING:
    import pyarrow as pa

ENGINES = {
    "ours": ("ours", "Smallpond"),
    "duckdb": ("peers_duckdb", "DuckDb"),
    "polars": ("peers_polars", "Polars"),
    "ray-data": ("peers_ray", "RayData"),
    "daft": ("peers_daft", "Daft"),
}
EVERY = ("group_by", "medians", "join", "sort", "map_rows", "map_batches", "tasks")


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """What a process is to do.

    Attributes:
        engine: one of `ENGINES`.
        job: its fields, as JSON holds them.
        inputs: folder of the input files.
        scratch: folder for what the engine writes, there and empty.
        check: digest the results; otherwise only their rows are counted.
    """

    engine: str
    job: dict[str, Any]
    inputs: str
    scratch: str
    check: bool


def main(text: str, channel: IO[str]) -> None:
    """Does what a specification in JSON says, and tells of it on a channel."""

    def say(event: str, **fields: Any) -> None:
        channel.write(json.dumps({"event": event, **fields}) + "\n")
        channel.flush()

    begin = time.perf_counter()
    spec = Spec(**json.loads(text))
    job, scratch = Job(**spec.job), Path(spec.scratch)
    module, name = ENGINES[spec.engine]
    made = getattr(importlib.import_module(f"benchmarks.dataframes.{module}"), name)
    own = scratch / "engine"
    own.mkdir()
    engine: Engine = made(own, job.limit_mb * 10**6 or None)
    answer = engine.trivial()
    say("ready", seconds=time.perf_counter() - begin, answer=answer)
    if job.workload not in {"start", "exit"}:
        for workload in EVERY if job.workload == "every" else (job.workload,):
            _run(say, engine, workload, job, Path(spec.inputs), scratch / workload, spec.check)
    say("closing")
    engine.close()


def _run(
    say: Callable[..., None],
    engine: Engine,
    workload: str,
    job: Job,
    inputs: Path,
    out: Path,
    check: bool,
) -> None:
    out.mkdir()
    items = _items(job) if workload == "tasks" else None
    say("next")
    sys.stdin.readline()
    before, begin = _cpu_seconds(), time.perf_counter()
    result = _call(engine, workload, inputs, out, items, written=job.limit_mb > 0)
    seconds = time.perf_counter() - begin
    say("done", workload=workload, seconds=seconds, cpu_s=_cpu_seconds() - before)
    sys.stdin.readline()
    say("checked", **_checked(result, workload, out, check))
    shutil.rmtree(out)


def _call(
    engine: Engine, workload: str, inputs: Path, out: Path, items: Any, *, written: bool
) -> pa.Table | None:
    """Calls the method of a workload; None where the result lies in `out`."""
    measures, target = inputs / MEASURES, out if written else None
    if workload == "group_by":
        return engine.group_by(measures, target)
    if workload == "medians":
        return engine.medians(measures, target)
    if workload == "join":
        engine.join(measures, inputs / NAMES, out)
        return None
    if workload == "sort":
        engine.sort(inputs / RECORDS, out)
        return None
    if workload == "map_rows":
        return engine.map_rows(measures)
    if workload == "map_batches":
        return engine.map_batches(measures)
    return engine.tasks(items)


def _items(job: Job) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 (an engine that needs no Arrow starts without it)

    return pa.table({"item": pa.array(range(job.rows), pa.int64())})


def _checked(result: pa.Table | None, workload: str, out: Path, check: bool) -> dict[str, Any]:
    from benchmarks.dataframes import digest  # noqa: PLC0415

    if not check:
        return {"rows": digest.rows_of_files(out) if result is None else len(result)}
    if result is None:
        found = digest.digest_of_files(out, "k" if workload == "sort" else None)
    else:
        found = digest.digest_of_table(result)
    return {"rows": found.rows, "digest": dataclasses.asdict(found)}


def _cpu_seconds() -> float:
    return tree.cpu_seconds(tree.tree_of(os.getpid()))


if __name__ == "__main__":
    # What a library prints goes where its errors go, also from native code and its own children.
    with os.fdopen(os.dup(1), "w") as channel:
        os.dup2(2, 1)
        main(sys.argv[1], channel)
