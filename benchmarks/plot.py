"""The picture of a run: how ours stands to its peers, and to what the device allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Row

_INK, _FAINT, _OURS = "#22272e", "#d5d9de", "#2f6f9f"
_PEER_COLOURS = ("#c8553d", "#2a9d8f", "#8a6fb0", "#b08a1e")


def save_plot(path: Path, rows: Sequence[Row], environment: Mapping[str, object]) -> None:
    """Draws two panels per case and writes the picture; its format follows the file's ending.

    Args:
        path: Where to write.
        rows: Rows of a run; only timed ones are drawn.
        environment: Its device and commit go into the title.

    Raises:
        ValueError: No row was timed.
    """
    import matplotlib as mpl  # noqa: PLC0415 (a second of import that only --plot should pay)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    timed: dict[str, list[Row]] = {}
    for row in rows:
        if row.status == "ok":
            timed.setdefault(row.case, []).append(row)
    if not timed:
        raise ValueError("plot: there must be a timed row, got none (see the reasons above)")
    heights = [len(group) + 2.2 for group in timed.values()]
    figure, axes = plt.subplots(
        len(timed),
        2,
        squeeze=False,
        figsize=(12, 0.9 + 0.34 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
        gridspec_kw={"width_ratios": (1.25, 1)},
    )
    for (left, right), group in zip(axes, timed.values(), strict=True):
        _draw_ratios(left, group)
        _draw_roofline(right, group)
    where = f"{environment['device']}, torch {environment['torch']}, commit {environment['commit']}"
    figure.suptitle(where, x=0.01, ha="left", color=_INK, fontsize=11)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _draw_ratios(axis: Any, rows: Sequence[Row]) -> None:
    """One dot per peer and shape on a log axis; on the shaded side of 1, ours is faster."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.ratios))
    _prepare(axis, rows, f"{rows[0].case}: {'speed over peers' if peers else 'no peers'}")
    if not peers:
        axis.set_xticks([])
        return
    axis.set_xscale("log")
    axis.axvline(1, color=_INK, linewidth=0.8)
    for peer, colour in zip(peers, _PEER_COLOURS, strict=False):
        points = [(row.ratios[peer], y) for y, row in enumerate(rows) if peer in row.ratios]
        ratios, heights = zip(*points, strict=True)
        axis.scatter(ratios, heights, s=34, color=colour, zorder=3)
        for ratio, y in points:
            _label(axis, f"{ratio:.2f}", ratio, y, colour)
        axis.annotate(
            peer, (ratios[0], heights[0]), (0, 9), "data", "offset points", color=colour,
            ha="center", fontsize=8.5, weight="bold",
        )  # fmt: skip
    lowest, highest = axis.get_xlim()
    lowest, highest = min(lowest, 0.7), max(highest, 1.4) * 1.25  # room for the last label
    axis.set_xlim(lowest, highest)
    axis.axvspan(1, highest, color=_FAINT, alpha=0.3, linewidth=0, zorder=0)
    ticks = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if lowest <= tick <= highest]
    axis.set_xticks(shown, [f"{tick:g}x" for tick in shown])
    axis.set_xticks([], minor=True)


def _draw_roofline(axis: Any, rows: Sequence[Row]) -> None:
    _prepare(axis, rows, "% of roofline")
    axis.set_yticklabels([])
    axis.set_xlim(0, 112)
    axis.barh(range(len(rows)), [100] * len(rows), color=_FAINT, height=0.55, alpha=0.45)
    shares = [100 * (row.roofline or 0) for row in rows]
    axis.barh(range(len(rows)), [min(share, 100) for share in shares], color=_OURS, height=0.55)
    for y, (row, share) in enumerate(zip(rows, shares, strict=True)):
        _label(axis, f"{share:.0f}%  {row.p50_us or 0:,.0f} us", min(share, 100), y, _INK)
    axis.set_xticks([])


def _prepare(axis: Any, rows: Sequence[Row], title: str) -> None:
    axis.set_title(title, loc="left", fontsize=10, color=_INK, pad=14)
    axis.set_yticks(range(len(rows)), [row.shape for row in rows], fontsize=8.5, color=_INK)
    axis.set_ylim(len(rows) - 0.4, -0.6)  # the first shape on top
    axis.tick_params(length=0, labelsize=8.5, labelcolor=_INK)
    axis.spines[:].set_visible(False)
    for y in range(len(rows)):
        axis.axhline(y, color=_FAINT, linewidth=0.6, zorder=0)


def _label(axis: Any, text: str, x: float, y: float, colour: str) -> None:
    axis.annotate(
        text, (x, y), (6, 0), "data", "offset points", va="center", fontsize=8, color=colour
    )
