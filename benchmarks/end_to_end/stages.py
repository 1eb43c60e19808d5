"""The five stages as the user sees them: each runs, shows what came of it, and fills one row."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

import eplb
from benchmarks.end_to_end import profile, text
from benchmarks.end_to_end.config import ModelConfig, ServeConfig, TrainConfig
from benchmarks.end_to_end.run_folder import RunFolder
from benchmarks.end_to_end.serve import serve
from benchmarks.end_to_end.train import train
from benchmarks.trace.analysis import analyse
from benchmarks.trace.merge import align
from benchmarks.trace.page import page

_SHOWN_TEXTS = 4


@dataclass(frozen=True, slots=True)
class Run:
    """What the command line asked for.

    Attributes:
        console: where to show things.
        folder: where stages leave their files.
        input: the folder with the text; None for the standard library's sources.
        model: sizes of the model.
        train: how to train; its seed is the seed of everything.
    """

    console: Console
    folder: RunFolder
    input: Path | None
    model: ModelConfig
    train: TrainConfig


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the final table.

    Attributes:
        packages: what did the work.
        backend: on what it ran.
        figures: what came out.
        ok: whether a check failed.
    """

    packages: str
    backend: str
    figures: str
    ok: bool = True


def data(run: Run) -> Row:
    """Reads text files and writes packed sequences."""
    with _progress(run.console, "looking for files") as show:
        packed = text.prepare(
            run.input,
            run.train.seq_len,
            run.train.seed,
            lambda done, total: show(done, total, f"file {done}/{total}"),
        )
    text.save(packed, run.folder)
    figures = packed.figures
    left_out = (
        f"{figures.num_duplicates} duplicates, {figures.num_not_text} not text, "
        f"{figures.num_unreadable} unreadable"
    )
    source = run.input or text.default_input()
    more = "; there is more, this is enough" if figures.truncated else ""
    _say(run, f"from [bold]{source}[/]\n[dim]left out: {left_out}{more}[/]")
    return Row(
        "smallpond, on plain files (threefs is not there yet)",
        "CPU",
        f"{figures.num_files} files, {figures.num_bytes / 1e6:.1f} MB → {len(packed.train)} "
        f"training and {len(packed.validation)} validation sequences",
    )


def training(run: Run) -> Row:
    """Trains the model."""
    steps = run.train.steps
    with _progress(run.console, "starting the ranks") as show:
        figures = train(
            run.folder,
            run.model,
            run.train,
            lambda done, loss: show(done, steps, f"step {done}/{steps}  loss [bold]{loss:.3f}[/]"),
        )
    better = figures.validation_loss < figures.bigram.nats
    verdict = "[green]below[/]" if better else "[yellow]not below[/] (train for more --steps)"
    _say(
        run,
        f"validation loss [bold]{figures.validation_loss:.3f}[/] nats per byte, {verdict} the best "
        f"bigram model's [bold]{figures.bigram.nats:.3f}[/]\n"
        f"[dim]Both on the same {figures.num_validation_bytes} unseen bytes. The bigram model has "
        "counted all of the training text, and its smoothing is the best for these very bytes.[/]",
    )
    return Row(
        "dualpipe, deepep, deepgemm",
        f"CPU, {run.model.num_stages} × {run.train.expert_parallel} gloo ranks",
        f"loss {figures.losses[0]:.2f} → {figures.losses[-1]:.2f}, validation "
        f"{figures.validation_loss:.3f}, best bigram {figures.bigram.nats:.3f}; "
        f"{figures.tokens_per_s:.0f} tokens/s",
    )


def balance(run: Run) -> Row:
    """Plans replicas of experts for the load that training has measured."""
    train = run.folder.load_json("train", made_by="train")
    load = np.array(train["expert_load"], dtype=np.float64)
    num_gpus, num_experts = run.train.expert_parallel, run.model.num_experts
    begin = time.perf_counter()
    plan = eplb.rebalance(load, eplb.Topology.regular(num_gpus, num_experts + num_gpus))
    planning_ms = 1e3 * (time.perf_counter() - begin)
    eplb.write_plan(run.folder.path / "plan.json", plan)
    per_rank = load.reshape(len(load), num_gpus, -1).sum(axis=2)
    before, after = per_rank.max(axis=1) / per_rank.mean(axis=1), plan.imbalance
    for layer, counts in enumerate(load):
        bars = " ".join(_bar(count / counts.mean()) for count in counts)
        doubled = ", ".join(map(str, np.flatnonzero(plan.counts[layer] > 1)))
        _say(
            run,
            f"layer {layer}  [cyan]{bars}[/]  max/mean of the ranks [bold]{before[layer]:.3f} → "
            f"{after[layer]:.3f}[/]  [dim]replicas of {doubled}[/]",
        )
    _say(run, "[dim]the tokens of each expert; a full bar is twice the mean[/]")
    return Row(
        "eplb",
        "CPU",
        f"one more slot on each of {num_gpus} ranks: max/mean {before.mean():.3f} → "
        f"{after.mean():.3f} over {len(load)} layers, planned in {planning_ms:.0f} ms",
    )


def serving(run: Run) -> Row:
    """Completes beginnings of validation text."""
    config = ServeConfig(seed=run.train.seed)
    with _progress(run.console, "prefill") as show:
        figures = serve(
            run.folder,
            run.model,
            config,
            lambda done, total: show(done, total, f"byte {done}/{total}"),
        )
    for prompt, generated in figures.texts[:_SHOWN_TEXTS]:
        shown = Text(_visible(prompt), style="dim")
        shown.append(_visible(generated), style="not dim bold").rstrip()
        run.console.print(Padding(shown, (0, 0, 1, 2)))
    agrees = figures.logit_error <= config.max_logit_error
    verdict = "[green]within[/]" if agrees else "[red]outside[/]"
    remedy = "" if agrees else ": run the tests of flashmla, deepgemm and deepep"
    _say(
        run,
        f"given text is dim, generated text bold; logits of decoding are {verdict} "
        f"{config.max_logit_error:.0%} of the training forward's: "
        f"[bold]{figures.logit_error:.2%}[/] over {figures.num_checked} bytes{remedy}",
    )
    return Row(
        "flashmla, deepgemm, deepep; plain files (threefs is not there yet)",
        f"CPU, {config.expert_parallel} gloo ranks",
        f"{figures.tokens_per_s:.0f} tokens/s, {figures.num_pages} pages stored, logits within "
        f"{figures.logit_error:.2%}",
        ok=agrees,
    )


def trace(run: Run) -> Row:
    """Draws the profiled training step, and the simulated one below it."""
    num_ranks = run.model.num_stages * run.train.expert_parallel
    measured = profile.read_ranks(run.folder, num_ranks, run.train.expert_parallel)
    lines = profile.draw(
        measured[:: run.train.expert_parallel], max(40, min(run.console.width - 12, 120))
    )
    for number, line in enumerate(lines):
        drawn = Text(f"  rank {number * run.train.expert_parallel}  ")
        for letter in line:
            drawn.append(letter, style=profile.STYLES[letter][1])
        run.console.print(drawn, no_wrap=True)
    legend = Text("  ")
    for letter, (name, style) in profile.STYLES.items():
        legend.append(f"{letter} ", style=style).append(f"{name}  ", style="dim")
    run.console.print(legend)
    simulated = profile.simulate_ranks(run.folder, run.model.num_stages, run.train.num_microbatches)
    analyses = [analyse(trace) for ranks in align([measured, simulated]) for trace in ranks]
    path = run.folder.write(
        "trace.html",
        lambda file: file.write(
            page(analyses, "One training step, measured and simulated").encode()
        ),
    )
    _say(run, f"[dim]all ranks, every operator, and the simulated step: open {path}[/]")
    sizes = f"--stages {run.model.num_stages} --microbatches {run.train.num_microbatches}"
    times = run.folder.path / "times.json"
    _say(
        run, f"[dim]other schedules with these times: python -m dualpipe {sizes} --times {times}[/]"
    )
    figures = [analysis.figures for analysis in analyses[:num_ranks]]
    communication = sum(each.communication_us for each in figures)
    hidden = sum(each.hidden_us for each in figures) / communication if communication else 0.0
    busy = sum(letter != "·" for line in lines for letter in line) / sum(map(len, lines))
    return Row(
        "torch.profiler, dualpipe's simulator, HTML timeline",
        "CPU",
        f"ranks busy {busy:.0%} of the step, {hidden:.0%} of communication behind compute",
    )


STAGES: dict[str, Callable[[Run], Row]] = {
    "data": data,
    "train": training,
    "balance": balance,
    "serve": serving,
    "trace": trace,
}


@contextmanager
def _progress(console: Console, beginning: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar, if somebody watches; yields ``show(done, total, what)``."""
    columns = (
        TextColumn(" "),
        BarColumn(bar_width=30),
        TextColumn("{task.description}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(beginning, total=None)
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total, description=what
        )


def _say(run: Run, markup: str) -> None:
    run.console.print(Padding(Text.from_markup(markup), (0, 0, 0, 2)))


def _bar(share_of_mean: float) -> str:
    eighths = " ▁▂▃▄▅▆▇█"
    return eighths[min(8, round(share_of_mean * 4))]


def _visible(shown: str) -> str:
    """Keeps line ends and replaces what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in shown)
