"""The picture of a plan: the GPUs of one layer before and after, and all layers below."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eplb.baseline import contiguous
from eplb.files import whole_file
from eplb.plan import EMPTY, Floats, Ints, Plan, even_shares
from eplb.report import Comparison, compare, headline
from eplb.topology import Topology

_INK, _FAINT, _BOUND = "#22272e", "#d5d9de", "#c8553d"
# The most loaded experts of a layer, the rest in two greys by turns.
_HOT = ("#c8553d", "#2f6f9f", "#e0a526", "#2a9d8f", "#8a6fb0", "#d87fa6")
_COLD = ("#b9c0c8", "#cfd4da")
_LINES: dict[str, dict[str, Any]] = {
    "in order": {"color": "#9aa3ad", "linewidth": 1.1, "marker": "o", "markersize": 3},
    "greedy": {"color": "#e0a526", "linewidth": 1.1, "marker": "o", "markersize": 4},
    "plan": {"color": "#2f6f9f", "linewidth": 1.1, "marker": "o", "markersize": 3},
    "weighted": {"color": "#2a9d8f", "linewidth": 1.1, "marker": "o", "markersize": 3},
    "bound": {"color": _BOUND, "linewidth": 0, "marker": "_", "markersize": 7},
}


def save_plot(path: str | Path, plan: Plan, *, layer: int | None = None) -> None:
    """Draws a plan and writes the picture; its format follows the file's ending.

    Above, the load of each GPU in one layer: with the experts in order, and with the plan. A bar is
    stacked from replicas; the experts with the most load have a colour, so that one sees them
    split. Below, max/mean of all layers. Needs matplotlib.

    Args:
        path: where to write, `.png`, `.svg` or `.pdf`.
        plan: what to draw; of several windows of loads, that in which a GPU stands out most.
        layer: the layer to show above; by default that with the largest max/mean.

    Raises:
        OSError: the file cannot be written.
        ValueError: the plan has no such layer, or the ending is unknown.
    """
    path = Path(path)
    if not plan.num_layers:
        raise ValueError("save_plot: plan must have a layer, got none")
    if layer is not None and not 0 <= layer < plan.num_layers:
        raise ValueError(f"save_plot: layer must be from 0 to {plan.num_layers - 1}, got {layer}")
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise ValueError(f"save_plot: path must end in .png, .svg or .pdf, got {path}")
    # Not through pyplot, which would choose a backend for the whole process. Imported here: a
    # second that only whoever draws should pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    comparison = compare(plan)
    shown = comparison.worst_layer if layer is None else layer
    figure = Figure(figsize=(13, 8.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(headline(plan), x=0.01, ha="left", color=_INK, fontsize=13)
    grid = figure.add_gridspec(3, 2, height_ratios=(1.5, 0.1, 1))
    left = figure.add_subplot(grid[0, 0])
    right = figure.add_subplot(grid[0, 1], sharey=left)
    _draw_layer((left, right, figure.add_subplot(grid[1, :])), comparison, shown)
    columns = comparison.columns
    _draw_layers(figure.add_subplot(grid[2, 0]), columns, shown, "All layers")
    del columns["in order"]
    _draw_layers(figure.add_subplot(grid[2, 1]), columns, shown, "Close up")
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=140)


def _draw_layer(axes: tuple[Any, Any, Any], comparison: Comparison, layer: int) -> None:
    """Before and after, and below both of them what the colours mean."""
    left, right, below = axes
    plan = comparison.plan
    load = plan.loads[comparison.worst_window(layer), layer]
    mean = load.sum() / len(plan.topology.alive)
    load = load / mean if mean > 0 else np.zeros_like(load)
    hottest = np.argsort(-load, kind="stable")[: len(_HOT)]
    colours = [_COLD[expert % 2] for expert in range(plan.num_experts)]
    for expert, colour in zip(hottest, _HOT, strict=False):
        colours[expert] = colour
    in_order = contiguous(plan.topology, 1, plan.num_experts)[0]
    rows = {"experts in order": in_order, "the plan": plan.slots[layer]}
    for axis, (title, row) in zip((left, right), rows.items(), strict=True):
        top = _draw_gpus(axis, plan.topology, row, load, colours)
        _prepare(axis, f"Layer {layer}, {title}: heaviest GPU {top:.3f} x mean")
        axis.axhline(1, color=_INK, linewidth=0.9)
        axis.set_xlabel("GPU", color=_INK)
    left.set_ylabel("load / mean load of a GPU", color=_INK)
    right.axhline(plan.lower_bound[layer], color=_BOUND, linewidth=1.2, linestyle=(0, (5, 3)))
    _explain(below, plan, load, hottest, layer)


def _draw_gpus(axis: Any, topology: Topology, row: Ints, load: Floats, colours: list[str]) -> float:
    """Stacks the replicas of each GPU, hot experts below; returns the highest stack."""
    per_slot = load[row] * even_shares(row[None], len(load))[0]
    gpus = np.array(topology.gpu_of_slot)
    # Slot by slot within the GPUs, in the order of their loads.
    order = np.lexsort((-load[row], gpus))
    heights = np.arange(len(row)) - np.array(topology.first_slots)[gpus]
    tops = np.zeros(topology.num_gpus)
    few = topology.num_gpus <= 64
    for height in range(max(topology.slots)):
        slots = order[heights == height]
        slots = slots[row[slots] != EMPTY]
        where, parts = gpus[slots], per_slot[slots]
        axis.bar(
            where, parts, 0.86 if few else 1.0, tops[where],
            color=[colours[expert] for expert in row[slots]],
            edgecolor="white", linewidth=0.4 if few else 0.0,
        )  # fmt: skip
        tops[where] += parts
    for gpu in set(range(topology.num_gpus)) - set(topology.alive):
        axis.text(gpu, 0.03, "failed", rotation=90, ha="center", fontsize=8, color=_BOUND)
    axis.set_xlim(-0.8, topology.num_gpus - 0.2)
    return float(tops.max())


def _explain(axis: Any, plan: Plan, load: Floats, hottest: Ints, layer: int) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415
    from matplotlib.patches import Patch  # noqa: PLC0415

    bound = f"lower bound {plan.lower_bound[layer]:.3f}"
    keys: list[Any] = [
        Line2D([], [], color=_INK, linewidth=0.9, label="mean"),
        Line2D([], [], color=_BOUND, linewidth=1.2, linestyle=(0, (5, 3)), label=bound),
    ]
    for expert, colour in zip(hottest, _HOT, strict=False):
        count = plan.counts[layer, expert]
        label = f"expert {expert}: load {load[expert]:.2f}, replicas {count}"
        keys.append(Patch(color=colour, label=label))
    axis.axis("off")
    axis.legend(
        handles=keys, loc="center", ncols=(len(keys) + 1) // 2, frameon=False, fontsize=9,
        labelcolor=_INK, handlelength=1.6,
    )  # fmt: skip


def _draw_layers(axis: Any, columns: Mapping[str, Floats], layer: int, title: str) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    layers = np.arange(len(columns["bound"]))
    axis.axvspan(layer - 0.5, layer + 0.5, color=_FAINT, alpha=0.5, linewidth=0)
    for name, ratios in columns.items():
        style = _LINES[name] | {"label": f"{name} {ratios.mean():.3f}"}
        axis.plot(layers, ratios, **style)
    _prepare(axis, title)
    axis.set_xlim(-1, len(layers))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    axis.set_xlabel("layer", color=_INK)
    axis.set_ylabel("heaviest GPU / mean", color=_INK)
    axis.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=5, frameon=False, fontsize=9,
        labelcolor=_INK, borderaxespad=0.1, handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip


def _prepare(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=11, color=_INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(_FAINT)
    axis.tick_params(color=_FAINT, labelcolor=_INK, labelsize=9, which="both")
    axis.grid(axis="y", color=_FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
