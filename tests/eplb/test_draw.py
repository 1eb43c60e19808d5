"""The picture of a plan: what is drawn, read back from the figure, and what is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eplb.draw import save_plot
from eplb.plan import EMPTY, Plan, even_shares
from eplb.topology import Topology

matplotlib_figure = pytest.importorskip("matplotlib.figure")


def made(topology: Topology, num_layers: int, num_experts: int, num_windows: int = 1) -> Plan:
    """Any placement: experts by turns, every expert at least once."""
    rng = np.random.default_rng(num_layers)
    loads = rng.lognormal(0, 1, (num_windows, num_layers, num_experts))
    row = np.arange(topology.num_slots) % num_experts
    slots = np.stack([rng.permutation(row) for _ in range(num_layers)])
    shares = even_shares(slots, num_experts)
    bound, moved = np.ones(num_layers), np.zeros(num_layers, np.int64)
    return Plan(topology, "global", loads, slots, shares, bound, moved)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were saved."""
    saved: list[Any] = []
    save = matplotlib_figure.Figure.savefig

    def savefig(figure: Any, *arguments: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib_figure.Figure, "savefig", savefig)
    return saved


PLANS = {
    "one GPU, one expert": made(Topology((1,), (0,)), 1, 1),
    "8 GPUs": made(Topology.regular(8, 24), 3, 16),
    "a failed GPU": made(Topology((3, 0, 3, 2), (0, 0, 1, 1)), 2, 5, num_windows=2),
    "320 GPUs, 58 layers": made(Topology.regular(320, 320, 40), 58, 256),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_bars_add_up_to_the_loads_of_the_gpus(
    plan: Plan, tmp_path: Path, figures: list[Any]
) -> None:
    path = tmp_path / "plan.png"
    save_plot(path, plan)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 500_000
    (figure,) = figures
    left, right, _, layers, close = figure.axes
    layer = int(plan.imbalance.argmax())
    by_window = plan.gpu_loads()[:, layer]
    window = int((by_window.max(axis=1) / by_window.sum(axis=1)).argmax())
    heights = np.zeros(plan.topology.num_gpus)
    for bar in right.patches:
        heights[round(bar.get_x() + bar.get_width() / 2)] += bar.get_height()
    expected = by_window[window]
    np.testing.assert_allclose(heights, expected / expected.sum() * len(plan.topology.alive))
    title = f"Layer {layer}, the plan: heaviest GPU {plan.imbalance[layer]:.3f} x mean"
    assert right.get_title(loc="left") == title
    assert sum(bar.get_height() for bar in left.patches) == pytest.approx(heights.sum())
    lines = {line.get_label().split()[0]: line.get_ydata() for line in close.lines}
    np.testing.assert_array_equal(lines["plan"], plan.imbalance)
    assert len(layers.lines) == len(close.lines) + 1
    failed = [text for text in right.texts if text.get_text() == "failed"]
    assert len(failed) == plan.topology.num_gpus - len(plan.topology.alive)


def test_hot_experts_have_colours_of_their_own(tmp_path: Path, figures: list[Any]) -> None:
    topology = Topology.regular(4, 12)
    loads = np.array([[[50.0, 20.0, 10.0, 9.0, 8.0, 7.0, 1.0, 1.0]]])
    slots = np.array([[0, 1, 2, 0, 3, 4, 0, 5, 6, 0, 7, EMPTY]])
    plan = Plan(
        topology, "global", loads, slots, even_shares(slots, 8), np.ones(1), np.zeros(1, np.int64)
    )
    save_plot(tmp_path / "plan.svg", plan, layer=0)
    _, right, below, *_ = figures[0].axes
    colour = {
        text.get_text(): handle.get_facecolor()
        for text, handle in zip(
            below.get_legend().get_texts(), below.get_legend().legend_handles, strict=True
        )
        if text.get_text().startswith("expert")
    }
    hottest = next(iter(colour))
    assert re.fullmatch(r"expert 0: load 1\.89, replicas 4", hottest)
    assert len(colour) == len(set(colour.values())) == 6
    with_it = [bar for bar in right.patches if bar.get_facecolor() == colour[hottest]]
    assert sorted(round(bar.get_x() + bar.get_width() / 2) for bar in with_it) == [0, 1, 2, 3]
    assert {bar.get_y() for bar in with_it} == {0}
    assert b"<svg" in (tmp_path / "plan.svg").read_bytes()


def test_layers_without_load_can_be_drawn(tmp_path: Path) -> None:
    plan = made(Topology.regular(2, 4), 2, 4)
    plan.loads[:] = 0
    save_plot(tmp_path / "plan.pdf", plan)
    assert (tmp_path / "plan.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("plan.png", 2, "save_plot: layer must be from 0 to 1, got 2"),
        ("plan.png", -1, "save_plot: layer must be from 0 to 1, got -1"),
        ("plan.txt", 0, r"save_plot: path must end in \.png, \.svg or \.pdf, got"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, layer: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_plot(tmp_path / name, made(Topology.regular(2, 4), 2, 4), layer=layer)
    assert not list(tmp_path.iterdir())


def test_a_plan_without_a_layer(tmp_path: Path) -> None:
    plan = made(Topology.regular(2, 4), 1, 4)
    none = Plan(
        plan.topology, "global", plan.loads[:, :0], plan.slots[:0], plan.shares[:0],
        np.ones(0), np.zeros(0, np.int64),
    )  # fmt: skip
    with pytest.raises(ValueError, match="save_plot: plan must have a layer, got none"):
        save_plot(tmp_path / "plan.png", none)
