"""The page's data without a browser: what was encoded can be read again, and means the same."""

import base64
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.trace.analysis import Analysis, analyse
from benchmarks.trace.model import Kind
from benchmarks.trace.wire import document, encode, step_letter
from tests.trace import made_traces


def decoded(text: str) -> list[int]:
    """What a column says, number by number."""
    values: list[int] = []
    value = code = shift = 0
    for byte in base64.b64decode(text):
        code |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            value += -(code + 1) // 2 if code % 2 else code // 2
            values.append(value)
            code = shift = 0
    return values


@given(st.lists(st.integers(-(2**52) + 1, 2**52 - 1)))
def test_a_column_is_read_as_it_was_written(values: list[int]) -> None:
    assert decoded(encode(np.array(values, np.int64))) == values


@pytest.mark.parametrize("value", [0, -1, 1, 63, 64, -64, -65, 8191, 8192, 2**31, 2**52 - 1])
def test_every_length_of_a_number(value: int) -> None:
    assert decoded(encode(np.array([value]))) == [value]
    assert decoded(encode(np.array([0, value, -value, value]))) == [0, value, -value, value]


STEPS = {
    "PP:0F7": "F",
    "PP:12B3": "B",
    "PP:7I0": "I",
    "PP:7W10": "W",
    "PP:(0F7;7B3)OVERLAP_F_B": "FB",
    "attn(F)": "F",
    "void mlp (W)": "W",
    "PP:0X7": "",
    "PP:0F7 and more": "",
    "gemm(float)": "",
    "attn(F) then mlp": "",
    "F": "",
    "": "",
}


@pytest.mark.parametrize(("name", "letter"), STEPS.items())
def test_letter_of_a_step(name: str, letter: str) -> None:
    assert step_letter(name) == letter


def columns(analysis: Analysis, rank: dict[str, Any]) -> dict[str, list[int]]:
    """The decoded columns of a rank, without its windows."""
    numeric = "begin duration name phase kind stream num_blocks gap_begin gap_duration gap_idle"
    count = len(analysis.trace.work) + len(analysis.trace.phases)
    read = {name: decoded(rank[name]) for name in numeric.split()}
    for name in ("begin", "duration", "name", "phase"):
        read[name] = read[name][:count]
    return read


def test_a_rank_is_its_trace() -> None:
    analysis = analyse(made_traces.training_step())
    content = document([analysis])
    (rank,) = content["ranks"]
    read, work, phases = columns(analysis, rank), analysis.trace.work, analysis.trace.phases
    begins = np.concatenate([work.begin_us, phases.begin_us])
    np.testing.assert_allclose(np.array(read["begin"]) / 1e3, begins - begins.min(), atol=6e-4)
    durations = np.concatenate([work.duration_us, phases.duration_us])
    np.testing.assert_allclose(np.array(read["duration"]) / 1e3, durations, atol=1.1e-3)
    indices = np.concatenate([work.name, phases.name])
    names = [analysis.trace.names[index] for index in indices]
    assert [content["names"][index] for index in read["name"]] == names
    assert read["phase"] == [*work.phase, *phases.parent]
    assert read["kind"] == analysis.kinds.tolist()
    assert read["stream"] == work.stream.tolist()
    assert read["num_blocks"] == work.num_blocks.tolist()
    assert rank["lanes"] == ["compute · 112 SMs", "communication · 20 SMs"]
    assert rank["num_phases"] == len(phases)
    marked = {content["names"][int(index)]: mark for index, mark in content["letters"].items()}
    assert marked["mlp(B)"] == "B"
    assert set(marked.values()) == {"F", "B", "W"}


def test_work_that_touches_still_touches_in_whole_nanoseconds() -> None:
    sketch = made_traces.Sketch()
    edges = np.cumsum([0.0, *np.random.default_rng(3).uniform(0.0001, 0.9, 200)])
    for begin, end in pairwise(edges):
        sketch.work.append((begin, end - begin, "gemm", 0, -1, 1))
    analysis = analyse(sketch.trace())
    read = columns(analysis, document([analysis])["ranks"][0])
    ends = [begin + length for begin, length in zip(read["begin"], read["duration"], strict=True)]
    assert ends[:-1] == read["begin"][1:]


def test_gaps_are_the_exposed_and_the_idle_times() -> None:
    analysis = analyse(made_traces.training_step())
    read = columns(analysis, document([analysis])["ranks"][0])
    idle = np.array(read["gap_idle"], bool)
    length_us = np.array(read["gap_duration"]) / 1e3
    assert read["gap_begin"] == sorted(read["gap_begin"])
    assert length_us[idle].sum() == pytest.approx(analysis.figures.idle_us, abs=0.1)
    assert length_us[~idle].sum() == pytest.approx(analysis.figures.exposed_us, abs=0.1)


def test_windows_follow_the_phases() -> None:
    analysis = analyse(made_traces.decode_step(num_layers=1))
    content = document([analysis])
    (rank,) = content["ranks"]
    assert decoded(rank["kind"]).count(Kind.WAITING) == 3
    names = [content["names"][index] for index in decoded(rank["name"])[-3:]]
    assert names == ["dispatch under way", "dispatch under way", "combine under way"]
    assert decoded(rank["begin"])[-3:] == [6_000, 92_000, 178_000]
    assert decoded(rank["duration"])[-3:] == [71_000] * 3


def test_ranks_share_names_and_a_zero() -> None:
    first, second = made_traces.schedule_step("a"), made_traces.training_step(title="b")
    content = document([analyse(first), analyse(second)])
    assert len(set(content["names"])) == len(content["names"])
    assert [rank["title"] for rank in content["ranks"]] == ["a", "b"]
    for trace, rank in zip((first, second), content["ranks"], strict=True):
        names = [content["names"][i] for i in decoded(rank["name"])][: len(trace.work)]
        assert names == [trace.names[i] for i in trace.work.name]
    assert min(decoded(rank["begin"])[0] for rank in content["ranks"]) == 0


def test_a_trace_without_work() -> None:
    content = document([analyse(made_traces.Sketch().trace())])
    assert content["names"] == []
    assert decoded(content["ranks"][0]["begin"]) == []


def test_a_hundred_thousand_events_are_small() -> None:
    content = document([analyse(made_traces.many_events(100_000))])
    assert len(json.dumps(content)) < 2_000_000
