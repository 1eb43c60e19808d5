"""The pictures: text against golden files, SVG by its parts."""

import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dualpipe.actions import Kind, Overlap, actions_of
from dualpipe.draw import FILLS, headline, shown, to_svg, to_text
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev, one_f_one_b, zbv
from dualpipe.simulate import Timeline, Times, simulate

GOLDEN = Path(__file__).parent / "golden"
SVG = "{http://www.w3.org/2000/svg}"
UNEVEN = Times(1.3, 1.7, 0.9, 0.8, 0.1)


@pytest.mark.parametrize(
    ("timeline", "width", "file"),
    [
        (simulate(dualpipe(8, 20), Times()), 80, "dualpipe_8_20_80_columns.txt"),
        (simulate(dualpipev(4, 10), Times()), 150, "dualpipev_4_10_150_columns.txt"),
        (simulate(one_f_one_b(4, 6), Times()), 100, "1f1b_4_6_100_columns.txt"),
    ],
    ids=["letters", "numbers", "wide"],
)
def test_golden_text(timeline: Timeline, width: int, file: str) -> None:
    assert to_text(timeline, width).splitlines() == (GOLDEN / file).read_text().splitlines()


@given(
    st.sampled_from(list(SCHEDULES)),
    st.sampled_from([(2, 4), (4, 12), (12, 24)]),
    st.integers(0, 300),
    st.sampled_from([Times(), UNEVEN]),
)
def test_text_has_a_line_of_one_width_per_rank(
    name: str, sizes: tuple[int, int], width: int, times: Times
) -> None:
    lines = to_text(simulate(SCHEDULES[name](*sizes), times), width).splitlines()
    assert [line.split()[:2] for line in lines] == [["rank", str(r)] for r in range(sizes[0])]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) <= max(width, len("rank 11 ") + 1)


def cells(svg: str) -> list[ET.Element]:
    root = ET.fromstring(svg)  # noqa: S314 - our own text
    return [group for group in root.iter(f"{SVG}g") if group.find(f"{SVG}title") is not None]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sizes", [(2, 4), (8, 20), (16, 32)], ids=str)
@pytest.mark.parametrize("times", [Times(), UNEVEN], ids=["equal", "uneven"])
def test_every_step_is_one_cell_in_its_place(
    name: str, sizes: tuple[int, int], times: Times
) -> None:
    timeline = simulate(SCHEDULES[name](*sizes), times)
    svg = to_svg(timeline)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")  # nothing to load
    root = ET.fromstring(svg)  # noqa: S314
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    spans = [span for row in timeline.spans for span in row]
    found = cells(svg)
    assert len(found) == len(spans)
    starts = []
    for cell, span in zip(found, spans, strict=True):
        title = cell.findtext(f"{SVG}title")
        assert title == f"{span.step}, {shown(span.start)} to {shown(span.end)}"
        boxes = cell.findall(f"{SVG}rect")
        assert len(boxes) == len(actions_of(span.step)) + isinstance(span.step, Overlap)
        for box in boxes:
            x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height
        starts.append((float(boxes[0].attrib["x"]), span.start))
    scales = {round((x - 66) / start, 1) for x, start in starts if start > 10}
    assert max(scales) - min(scales) < 0.11


def test_equal_forwards_show_their_number() -> None:
    numbers = [cell.findtext(f"{SVG}text") for cell in cells(to_svg(simulate(zbv(4, 8), Times())))]
    steps = [step for steps in zbv(4, 8).ranks for step in steps]
    expected = [str(action.microbatch) for step in steps for action in actions_of(step)]
    assert numbers == expected


def test_shades_tell_the_two_directions() -> None:
    timeline = simulate(dualpipe(4, 8), Times())
    for cell in cells(to_svg(timeline)):
        title = cell.findtext(f"{SVG}title")
        assert title is not None
        microbatches = [int(text) for text in re.findall(r"[FBIW](\d+)", title)]
        shades = [box.attrib["class"][-1] for box in cell.findall(f"{SVG}rect")]
        assert shades[: len(microbatches)] == [str(int(m >= 4)) for m in microbatches]


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("1f1b", ["input gradient", "weight gradient", "overlapped", "light:"]),
        ("zb1p", ["full backward", "overlapped", "light:"]),
        ("zbv", ["full backward", "overlapped"]),
        ("dualpipe", []),
    ],
)
def test_the_legend_names_what_occurs(name: str, absent: list[str]) -> None:
    svg = to_svg(simulate(SCHEDULES[name](4, 8), Times()))
    names = [
        "forward",
        "full backward",
        "input gradient",
        "weight gradient",
        "overlapped",
        "light:",
    ]
    found = Counter({name: f">{name}" in svg for name in names})
    assert found == {name: name not in absent for name in names}


def test_headline_and_margins() -> None:
    timeline = simulate(dualpipe(8, 20), Times())
    assert headline(timeline) == (
        "8 ranks, 8 stages, 20 micro-batches: makespan 66, bubble 9.1%, "
        "at most 9 stage activations on a rank"
    )
    svg = to_svg(timeline)
    assert ">dualpipe</text>" in svg
    assert headline(timeline) in svg
    for rank in range(8):
        assert f">Device {rank}</text>" in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (66.0, "66"), (1 / 3, "0.3333"), (9999.4, "9999"), (123456.7, "123457")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert shown(value) == text


# Matrices of Machado, Oliveira and Fernandes (2009) for full colour blindness, on linear RGB.
COLOUR_BLINDNESS = {
    "none": [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour: str) -> Tensor:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    values = torch.tensor(channels, dtype=torch.float64)
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: Tensor) -> Tensor:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    white = torch.tensor([0.9505, 1.0, 1.089], dtype=torch.float64)
    xyz = torch.tensor(to_xyz, dtype=torch.float64) @ rgb.clamp(0, 1) / white
    f = torch.where(xyz > 0.008856, xyz.clamp(min=1e-9) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", COLOUR_BLINDNESS)
def test_colours_differ_for_the_colour_blind(kind: str) -> None:
    matrix = torch.tensor(COLOUR_BLINDNESS[kind], dtype=torch.float64)
    colours = [colour for pair in FILLS.values() for colour in pair] + ["#eceef1"]
    for one, other in combinations(colours, 2):
        distance = (lab(matrix @ linear(one)) - lab(matrix @ linear(other))).norm()
        assert distance > 12, (one, other)


@pytest.mark.parametrize("kind", Kind)
def test_numbers_can_be_read_on_their_cells(kind: Kind) -> None:
    weights = torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64)
    text = weights @ linear("#1a1a1a")
    for colour in FILLS[kind]:
        assert (weights @ linear(colour) + 0.05) / (text + 0.05) >= 4.5


def test_the_picture_in_the_readme_is_what_the_command_draws() -> None:
    picture = Path(__file__).parents[2] / "dualpipe/schedule.svg"
    assert picture.read_text() == to_svg(simulate(dualpipe(8, 20), Times()))
