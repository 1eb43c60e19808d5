"""Plans and replays as text: tables, and bars for the GPUs of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eplb.baseline import contiguous, greedy
from eplb.plan import Floats, Ints, Plan, even_shares, imbalance_of, loads_of_gpus
from eplb.replay import Replay

MOST_BARS = 32
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """A plan beside what it replaces.

    Attributes:
        plan: the plan.
        before: [num_windows, num_layers, num_gpus] loads with the experts in order, no replicas.
        greedy: the same with the plan of `rebalance_experts`; None where that one cannot do it.
    """

    plan: Plan
    before: Floats
    greedy: Floats | None

    @property
    def columns(self) -> dict[str, Floats]:
        """[num_layers] max/mean of each way to place the experts; of the worst window."""
        plan, topology = self.plan, self.plan.topology
        columns = {"in order": imbalance_of(topology, self.before)}
        if self.greedy is not None:
            columns["greedy"] = imbalance_of(topology, self.greedy)
        columns["plan"] = plan.imbalance
        if (plan.weighted_imbalance < plan.imbalance).any():
            columns["weighted"] = plan.weighted_imbalance
        return columns | {"bound": plan.lower_bound}

    @property
    def worst_layer(self) -> int:
        """The layer in which the heaviest GPU stands out most."""
        return int(self.plan.imbalance.argmax())

    def worst_window(self, layer: int) -> int:
        """The window in which the heaviest GPU of a layer stands out most."""
        after = self.plan.gpu_loads()[:, layer]
        totals = after.sum(axis=1)
        return int((after.max(axis=1) / np.where(totals > 0, totals, np.inf)).argmax())


def compare(plan: Plan) -> Comparison:
    """Places the same loads in order, and with the greedy planner."""
    topology, loads = plan.topology, plan.loads

    def on_gpus(slots: Ints) -> Floats:
        return loads_of_gpus(topology, slots, even_shares(slots, plan.num_experts), loads)

    before = on_gpus(contiguous(topology, plan.num_layers, plan.num_experts))
    slots = greedy(topology, loads, hierarchical=plan.policy == "hierarchical")
    return Comparison(plan, before, None if slots is None else on_gpus(slots))


def headline(plan: Plan) -> str:
    """What was planned, in one line."""
    topology = plan.topology
    num_nodes = len({topology.node_of[gpu] for gpu in topology.alive})
    failed = topology.num_gpus - len(topology.alive)
    num_windows = len(plan.loads)
    experts = f"{_counted(plan.num_layers, 'layer')} of {_counted(plan.num_experts, 'expert')}"
    gpus = f"{_counted(len(topology.alive), 'GPU')} in {_counted(num_nodes, 'node')}"
    parts = [
        f"{experts} on {gpus}",
        f"{failed} failed" if failed else "",
        _counted(topology.num_slots, "slot"),
        plan.policy,
        f"worst of {num_windows} windows" if num_windows > 1 else "",
    ]
    return ", ".join(filter(None, parts))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def layer_table(comparison: Comparison) -> str:
    """max/mean of every layer, their mean and the worst; then gap and moves.

    "gap" is how far the plan is above the bound, "moved" what it changes of the plan before.
    """
    plan, columns = comparison.plan, comparison.columns
    header = ["max/mean of", *columns, "gap", "moved"]
    gap, moved = plan.gap, plan.num_moved

    def cells(name: str, ratios: list[float], over: float, moves: float) -> list[str]:
        return [name, *(f"{ratio:.3f}" for ratio in ratios), f"{over:.1%}", f"{moves:.0f}"]

    rows = [
        cells(f"layer {layer}", [column[layer] for column in columns.values()], over, moves)
        for layer, (over, moves) in enumerate(zip(gap, moved, strict=True))
    ]
    rows.append(cells("mean", [v.mean() for v in columns.values()], gap.mean(), moved.mean()))
    rows.append(cells("worst", [v.max() for v in columns.values()], gap.max(), moved.max()))
    return table([header, *rows])


def bars(comparison: Comparison, layer: int, columns: int, *, ascii_only: bool = False) -> str:
    """The load of each GPU in one layer before and after, in units of the mean.

    Args:
        comparison: the plan and what it replaces.
        layer: which layer, in its worst window.
        columns: width of the text.
        ascii_only: use no block characters.
    """
    plan = comparison.plan
    alive = list(plan.topology.alive)
    window = comparison.worst_window(layer)
    pair = np.stack(
        [loads[window, layer, alive] for loads in (comparison.before, plan.gpu_loads())]
    )
    mean = pair.mean(axis=1, keepdims=True)
    pair /= np.where(mean > 0, mean, 1.0)
    order = np.arange(len(alive))
    left_out = len(alive) - MOST_BARS
    if left_out > 0:
        heavy_first = np.argsort(-pair.max(axis=0), kind="stable")
        order = np.concatenate([heavy_first[: MOST_BARS // 2], heavy_first[-MOST_BARS // 2 :]])
    width = max(4, (columns - 26) // 2)
    full = pair.max(initial=1.0)

    def line(position: int) -> str:
        before, now = pair[:, position]
        left, right = (_bar(load / full, width, ascii_only) for load in (before, now))
        return f"GPU {alive[position]:>4} {before:5.2f} {left} {now:5.2f} {right}".rstrip()

    lines = [
        f"{'':>9}{'in order':<{width + 7}}{'plan':<{width}}".rstrip(),
        *map(line, order.tolist()),
    ]
    if left_out > 0:
        lines.insert(1 + MOST_BARS // 2, f"{'':>9}... {left_out} GPUs between these ...")
    return "\n".join(lines)


def replay_table(unplanned: Replay, replays: Sequence[Replay]) -> str:
    """One row per replay, figures since its first plan; above them, how it is without any plan."""
    header = ["slots", "window", "interval", "max/mean", "p99", "moved", "GB moved", "ms per plan"]
    rows = [[f"{unplanned.topology.num_slots}", "-", "never", *_imbalance(unplanned), *"---"]]
    for one in replays:
        plan_ms = f"{one.planning_s.mean() * 1e3:.0f}" if len(one.planning_s) else "-"
        moved = f"{one.num_moved[1:].sum():,}", f"{one.moved_bytes / 1e9:,.1f}"
        slots, window, interval = one.topology.num_slots, one.window, one.interval
        rows.append([f"{slots}", f"{window}", f"{interval}", *_imbalance(one), *moved, plan_ms])
    return table([header, *rows])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _imbalance(one: Replay) -> tuple[str, str]:
    return f"{one.mean:.3f}", f"{one.p99:.3f}"


def _bar(share: float, width: int, ascii_only: bool) -> str:
    if ascii_only:
        return ("#" * round(share * width)).ljust(width)
    eighths = round(share * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(width)
