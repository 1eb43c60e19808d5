"""What a run prints, and the same as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from benchmarks.graysort import model
from benchmarks.graysort.peers import PEERS
from benchmarks.graysort.phases import Cost
from benchmarks.graysort.rounds import OURS, SORT_PHASES, Outcome, Task
from benchmarks.graysort.sizes import in_units


def report(task: Task, outcome: Outcome) -> Group:
    """Returns tables of the phases and the peers, the verdict, and the relation to fifty nodes."""
    parts: list[Any] = [_phase_table(task, outcome)]
    if len(outcome.runs) > 1 or task.num_rounds > 1:
        parts += ["", _peer_table(task, outcome)]
    parts += [Text(f"not run: {name}: {why}", "dim") for name, why in outcome.left_out.items()]
    parts += ["", *_verdict(task, outcome)]
    parts += ["", _relation(_cpu_s_per_gb(task, outcome))]
    return Group(*parts)


def document(task: Task, outcome: Outcome) -> dict[str, object]:
    """Returns everything that was measured as plain JSON values."""
    import torch  # noqa: PLC0415 (takes seconds)

    from benchmarks import environment  # noqa: PLC0415

    best = outcome.fastest(OURS)
    phases = outcome.phases.costs if outcome.phases else {}
    return {
        "environment": environment.describe(torch.device("cpu")),
        "num_bytes": task.num_bytes,
        "skewed": task.skewed,
        "memory_limit_bytes": task.options.memory_bytes,
        "num_workers": task.options.threads,
        "plan": asdict(task.plan),
        "phases": {name: asdict(cost) for name, cost in phases.items()},
        "runs": {name: [asdict(run) for run in runs] for name, runs in outcome.runs.items()},
        "left_out": outcome.left_out,
        "wrong": outcome.wrong,
        "checksum": f"{outcome.found.checksum:x}",
        "num_duplicates": outcome.found.num_duplicates,
        "cpu_s_per_gb": _cpu_s_per_gb(task, outcome),
        "peak_bytes_of_workers": best.peak_bytes,
        "relation_to_published": asdict(model.relate(_cpu_s_per_gb(task, outcome))),
    }


def _cpu_s_per_gb(task: Task, outcome: Outcome) -> float:
    return outcome.fastest(OURS).cpu_s / (task.num_bytes / 1e9)


def _phase_table(task: Task, outcome: Outcome) -> Table:
    kind = "skewed records" if task.skewed else "records"
    table = Table(
        title=f"[bold]{in_units(task.num_bytes)}, {task.plan.num_records:,} {kind}, "
        f"{task.options.threads} workers, memory limit {in_units(task.options.memory_bytes)}[/]",
        title_justify="left",
        header_style="dim",
        box=None,
    )
    table.add_column("phase", no_wrap=True)
    for heading in ("tasks", "wall s", "MB/s", "CPU s", "CPU s/GB", "read", "written"):
        table.add_column(heading, justify="right", no_wrap=True)
    costs = outcome.phases.costs if outcome.phases else {}
    for name, cost in costs.items():
        moved = max(cost.bytes_read, cost.bytes_written)  # little of the data by `sample`
        table.add_row(name, *_cells(cost, moved, task.num_bytes))
    if outcome.phases:
        best, total = outcome.fastest(OURS), outcome.phases.total(*SORT_PHASES)
        # With the start of the workers, the removal of runs, and this process's own work.
        total.wall_s, total.cpu_s = best.wall_s, best.cpu_s
        table.add_section()
        table.add_row("[bold]whole sort", *_cells(total, task.num_bytes, task.num_bytes))
    return table


def _cells(cost: Cost, moved: int, num_bytes: int) -> tuple[str, ...]:
    return (
        str(cost.num_tasks),
        f"{cost.wall_s:.2f}",
        f"{moved / 1e6 / cost.wall_s:,.0f}",
        f"{cost.cpu_s:.2f}",
        f"{cost.cpu_s / (num_bytes / 1e9):.2f}",
        in_units(cost.bytes_read),
        in_units(cost.bytes_written),
    )


def _peer_table(task: Task, outcome: Outcome) -> Table:
    table = Table(
        title=f"[bold]raw file to raw file, {task.num_rounds} interleaved rounds[/]",
        title_justify="left",
        header_style="dim",
        box=None,
    )
    table.add_column("sort", no_wrap=True)
    for heading in ("min s", "median s", "x ours", "CPU s/GB", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what it does")
    ours = outcome.fastest(OURS).wall_s
    for name in sorted(outcome.runs, key=lambda name: outcome.fastest(name).wall_s):
        best = outcome.fastest(name)
        table.add_row(
            f"[bold]{name}" if name == OURS else name,
            f"{best.wall_s:.2f}",
            f"{outcome.median_s(name):.2f}",
            f"{best.wall_s / ours:.2f}",
            f"{best.cpu_s / (task.num_bytes / 1e9):.2f}",
            in_units(best.peak_bytes),
            "two passes, in worker processes" if name == OURS else PEERS[name].title,
        )
    return table


def _verdict(task: Task, outcome: Outcome) -> list[Text]:
    found, best = outcome.found, outcome.fastest(OURS)
    lines = [
        Text(
            f"memory: {in_units(best.peak_bytes)} in all workers together, limit "
            f"{in_units(task.options.memory_bytes)}"
        ),
        Text(
            f"{found.num_records:,} records, {found.num_duplicates:,} duplicate keys, "
            f"checksum {found.checksum:x}"
        ),
    ]
    lines += [Text(f"WRONG: {fault}", "bold red") for fault in outcome.wrong]
    if not outcome.wrong:
        lines.append(Text("valid: in order, and the checksum is the input's", "green"))
    return lines


def _relation(cpu_s_per_gb: float) -> Group:
    relation = model.relate(cpu_s_per_gb)
    return Group(
        Text("the published run (110.5 TiB in 30 min 14 s on 50 nodes) beside this one:", "bold"),
        f"  it had {relation.published_core_s_per_gb:.0f} core-seconds per GB, busy or not; here "
        f"the sort took {cpu_s_per_gb:.2f} CPU-seconds per GB",
        f"  its data at this rate on its 9600 cores: {relation.cpu_bound_s:.0f} s; two passes "
        f"through its clients' network cards {relation.client_bound_s:.0f} s, through its "
        f"storage's {relation.storage_bound_s:.0f} s",
        f"  so no run there can take less than {relation.bound_s:.0f} s (it took "
        f"{model.WALL_S} s); what it would take, this does not tell: here was one disk and its "
        "page cache, without network, replicas, stragglers or cores that share memory bandwidth",
    )
