"""What each rank did when: a training step in torch.profiler, a file per rank, drawn as text."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity

from benchmarks.end_to_end.run_folder import RunError, RunFolder
from benchmarks.trace.model import Trace, TraceError
from benchmarks.trace.reader import read_traces
from benchmarks.whole_file import whole_file
from dualpipe.simulate import Times, compare
from dualpipe.trace import to_chrome_trace

FOLDER = "profiles"  # inside the run's folder: a trace of each rank's last step

# The letter of each kind of work in the drawing, and its colour.
STYLES = {
    "F": ("forward", "blue"),
    "B": ("backward, or a forward and a backward", "yellow"),
    "I": ("input gradient", "magenta"),
    "W": ("weight gradient", "green"),
    "S": ("gradient sync", "cyan"),
    "O": ("optimizer", "red"),
    "·": ("waiting", "dim"),
}
GRADIENT_SYNC, OPTIMIZER = "gradient sync", "optimizer"


@contextmanager
def profiled(path: Path) -> Iterator[None]:
    """Writes what happens in the body, which all ranks begin together, to a gzipped trace."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it tells its own stages on stderr
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities):
        pass  # the first start takes long, and not equally long on all ranks
    if dist.is_initialized():
        dist.barrier()
    with torch.profiler.profile(activities=activities) as profiler:
        yield
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished.json.gz")  # the profiler packs what ends in .gz
    try:
        profiler.export_chrome_trace(str(unfinished))
        with whole_file(path) as file:
            file.write(unfinished.read_bytes())
    finally:
        unfinished.unlink(missing_ok=True)


def read_ranks(folder: RunFolder, num_ranks: int, expert_parallel: int) -> list[Trace]:
    """What the ranks of the train stage have left in ``folder``, on their common clock."""
    traces = []
    for rank in range(num_ranks):
        path = folder.path / FOLDER / f"rank{rank}.json.gz"
        if not path.is_file():
            raise RunError(
                f"--stages: {path} is not there, the stage train writes it "
                "(add train to --stages, or name the folder of an earlier run with --out)"
            )
        try:
            (trace,) = read_traces(path)
        except TraceError as error:
            raise RunError(
                f"--out: {error} (run the stage train again, which writes it)"
            ) from error
        pipeline, experts = divmod(rank, expert_parallel)
        title = f"rank {rank} (pipeline {pipeline}, experts {experts})"
        traces.append(replace(trace, title=title))
    return traces


def simulate_ranks(folder: RunFolder, num_ranks: int, num_microbatches: int) -> list[Trace]:
    """The step as the simulator plays it with the measured times."""
    document = folder.load_json("times", made_by="train")
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
    times = Times(**cast("dict[str, Any]", fields))
    timelines = compare(num_ranks, num_microbatches, times)
    timeline = next(line for line in timelines if line.schedule.name == "dualpipe")
    with tempfile.TemporaryDirectory() as unread:
        path = Path(unread, "simulated.json")
        path.write_text(to_chrome_trace(timeline))
        return [replace(trace, title=f"simulated {trace.title}") for trace in read_traces(path)]


def draw(ranks: Sequence[Trace], width: int) -> list[str]:
    """One string of ``width`` letters per rank: what it did at each moment, "·" for nothing."""
    spans = [_lettered(trace) for trace in ranks]
    begin_us = min(begin for own in spans for begin, _, _ in own)
    end_us = max(end for own in spans for _, end, _ in own)
    moments = [begin_us + (cell + 0.5) * (end_us - begin_us) / width for cell in range(width)]
    return ["".join(_letter_at(own, moment) for moment in moments) for own in spans]


def _lettered(trace: Trace) -> list[tuple[float, float, str]]:
    """(begin, end, letter) of the phases that have a letter."""
    phases = trace.phases
    ends = phases.begin_us + phases.duration_us
    rows = zip(phases.begin_us.tolist(), ends.tolist(), phases.name.tolist(), strict=True)
    named = ((begin, end, _letter(trace.names[name])) for begin, end, name in rows)
    return [span for span in named if span[2]]


def _letter(phase: str) -> str:
    """Of a phase that is no part of another; empty for any other."""
    if phase in {GRADIENT_SYNC, OPTIMIZER}:
        return "S" if phase == GRADIENT_SYNC else "O"
    step = phase.removeprefix("PP:")
    if step == phase:
        return ""
    return "B" if step.startswith("(") else step.lstrip("0123456789")[0]


def _letter_at(spans: Sequence[tuple[float, float, str]], moment_us: float) -> str:
    return next((letter for begin, end, letter in spans if begin <= moment_us < end), "·")
