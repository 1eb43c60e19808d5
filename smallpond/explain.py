"""Plans and rows as text."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smallpond.depth import deep
from smallpond.errors import PlanError
from smallpond.physical import Graph
from smallpond.plan import (
    Aggregate,
    Computed,
    Distinct,
    Files,
    Filter,
    Function,
    Held,
    Join,
    Limit,
    Memory,
    Parts,
    Plan,
    Project,
    Repartition,
    Saved,
    Sort,
    Sql,
    TaskOutput,
    Window,
    Write,
    walk,
)
from smallpond.task import ToDriver, ToRowRanges, ToSplit

if TYPE_CHECKING:
    from smallpond.job import Job

_WIDTH = 100


def explained(job: Job, plan: Plan, mode: str) -> str:
    """The plan as written, after the rules, and as tasks."""
    shown: dict[str, Callable[[], str]] = {
        "logical": lambda: tree(plan),
        "optimised": lambda: tree(job.optimised(plan)),
        "physical": lambda: stages(job.graph(plan)),
    }
    if mode != "all" and mode not in shown:
        raise PlanError(f"explain: mode must be 'all' or one of {list(shown)}, got {mode!r}")
    if mode != "all":
        return shown[mode]()
    return "\n\n".join(f"== {name}\n{text()}" for name, text in shown.items())


@deep
def tree(plan: Plan) -> str:
    """A plan, a node a line, inputs below what reads them."""
    lines: list[str] = []
    seen: dict[int, int] = {}

    def visit(node: Plan, indent: str, last: bool, root: bool) -> None:
        branch = "" if root else "└─ " if last else "├─ "
        again = f" (#{seen[id(node)]} again)" if id(node) in seen and node.inputs else ""
        lines.append(f"{indent}{branch}{line(node)}{again}")
        if id(node) in seen:
            return
        seen[id(node)] = len(lines)
        below = indent if root else indent + ("   " if last else "│  ")
        for i, source in enumerate(node.inputs):
            visit(source, below, i == len(node.inputs) - 1, root=False)

    visit(plan, "", last=True, root=True)
    return "\n".join(lines)


def line(node: Plan) -> str:
    """A node in one line."""
    match node:
        case Files():
            size = sum(file.size_bytes for file in node.files)
            columns = f", columns {', '.join(node.columns)}" if node.columns else ""
            files = _counted(len(node.files), f"{node.format.value} file")
            text = f"read {files}, {_bytes(size)}{columns}"
        case Memory():
            text = f"table of {_counted(node.table.num_rows, 'row')}, {_bytes(node.table.nbytes)}"
        case Parts():
            rows = sum(part.rows for part in node.parts)
            text = f"{_counted(len(node.parts), 'part')}, {_counted(rows, 'row')}"
        case Computed():
            rows = sum(part.rows for _, parts in node.partitions for part in parts)
            partitions = _counted(len(node.partitions), "partition")
            text = f"computed: {partitions}, {_counted(rows, 'row')}"
        case TaskOutput():
            text = f"output {node.output_idx} of task {node.task_key[:8]}"
        case Project():
            text = f"{node.label}: {node.select}"
        case Filter():
            text = f"filter: {node.condition}"
        case Sql():
            text = f"{node.label}: {node.query}"
        case Function():
            text = f"{node.label}: {node.function.name} ({node.shape.value})"
        case Aggregate():
            keys = ", ".join(expression for _, expression in node.keys)
            what = f"group_by {keys}" if keys else "agg"
            text = f"{what}: {', '.join(e for _, e in node.aggregates)}"
        case Distinct():
            text = f"distinct {', '.join(node.on)}"
        case Sort():
            kind = "partial_sort" if node.partial else "sort"
            text = f"{kind}: {', '.join(key.sql() for key in node.keys)}"
        case Window():
            text = f"window: {node.select}"
        case Limit():
            text = f"limit {node.num_rows}"
        case Join():
            on = ", ".join(
                f"{a} = {b}" for a, b in zip(node.left_keys, node.right_keys, strict=True)
            )
            text = f"{node.how.value} join on {on}" + (" (broadcast)" if node.broadcast else "")
        case Repartition():
            keys = ", ".join([*node.columns, *(key.sql() for key in node.order)])
            text = f"repartition into {node.npartitions} by {node.by.value} {keys}"
        case Held():
            text = "made once for all that read it"
        case Saved():
            text = f"write parquet to {node.folder}"
        case Write():
            text = f"write {node.format.value} to {node.folder}"
        case _:
            text = type(node).__name__.lower()
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= _WIDTH else one_line[: _WIDTH - 1] + "…"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def digraph(plans: Sequence[Plan]) -> Any:
    """Plans as a ``graphviz.Digraph``, equal parts once."""
    try:
        from graphviz import Digraph, escape  # noqa: PLC0415
    except ImportError as error:
        raise PlanError("graph: needs graphviz (pip install 'openweek[graph]')") from error
    made = Digraph(comment="smallpond")
    seen: set[str] = set()
    for node in (node for plan in plans for node in walk(plan)):
        if node.key not in seen:
            seen.add(node.key)
            made.node(node.key, escape(line(node)))
            for source in node.inputs:
                made.edge(source.key, node.key)
    return made


def stages(graph: Graph) -> str:
    """The stages of a graph, with the program of the first task of each."""
    lines = []
    for stage in graph.stages:
        tasks = [task for task in graph.tasks if task.stage_idx == stage.stage_idx]
        if not tasks:
            continue
        after = (
            f" after {', '.join(f'stage {i}' for i in stage.input_stages)}"
            if stage.input_stages
            else ""
        )
        match tasks[0].sink:
            case ToSplit() as sink:
                goal = f" -> {sink.npartitions} partitions by {sink.by.value}"
            case ToRowRanges() as rows:
                goal = f" -> {rows.npartitions} partitions by rows, by the driver"
            case ToDriver():
                goal = " -> the driver"
            case _:
                goal = ""
        plural = "s" if len(tasks) != 1 else ""
        cpus = tasks[0].resources.cpus
        lines.append(
            f"stage {stage.stage_idx} {stage.name}: {len(tasks)} task{plural} of {cpus} CPU"
            f"{'s' if cpus != 1 else ''}{after}{goal}"
        )
        lines += ["  " + text for text in tree(tasks[0].program).splitlines()]
    return "\n".join(lines) or "nothing to do"


def box(table: pa.Table) -> str:
    """Rows as a table of text."""
    names = table.column_names
    cells = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    types = [str(field.type) for field in table.schema]
    widths = [
        max(map(len, (name, kind, *column)), default=0)
        for name, kind, column in zip(names, types, cells, strict=True)
    ]

    def row(values: list[str]) -> str:
        return "│ " + " │ ".join(v.ljust(w) for v, w in zip(values, widths, strict=True)) + " │"

    def rule(left: str, middle: str, right: str) -> str:
        return left + middle.join("─" * (width + 2) for width in widths) + right

    body = [row(list(values)) for values in zip(*cells, strict=True)] if cells else []
    return "\n".join(
        [
            rule("┌", "┬", "┐"),
            row(names),
            row(types),
            rule("├", "┼", "┤"),
            *body,
            rule("└", "┴", "┘"),
        ]
    )


def preview(job: Job, plan: Plan, rows: int = 10) -> str:
    """The plan as HTML, with its first rows if they are there already; nothing is computed."""
    drawn = f"<pre>{html.escape(tree(plan))}</pre>"
    if not isinstance(plan, Memory) and not job.is_computed(plan):
        return f"{drawn}<p>not computed; show() prints the first rows</p>"
    table = plan.table.slice(0, rows) if isinstance(plan, Memory) else job.first(plan, rows)
    head = "".join(
        f"<th>{html.escape(field.name)}<br><small>{html.escape(str(field.type))}</small></th>"
        for field in table.schema
    )
    cells = [[html.escape(_cell(value)) for value in column.to_pylist()] for column in table]
    body = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in zip(*cells, strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{drawn}"


def _cell(value: object) -> str:
    text = "NULL" if value is None else str(value).replace("\n", "\\n")
    return text if len(text) <= 40 else text[:39] + "…"


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
