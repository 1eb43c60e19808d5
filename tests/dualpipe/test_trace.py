"""The Chrome trace of a simulation: valid events, the runtime's names, the simulated times."""

import json

import pytest

from dualpipe.actions import parse_step
from dualpipe.schedules import SCHEDULES, dualpipe
from dualpipe.simulate import Times, simulate
from dualpipe.trace import to_chrome_trace


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("unit_us", [1000.0, 1.0])
def test_events_say_what_the_timeline_says(name: str, unit_us: float) -> None:
    timeline = simulate(SCHEDULES[name](4, 8), Times(1, 1.5, 0.5, 0.75, 0.25))
    events = json.loads(to_chrome_trace(timeline, unit_us=unit_us))["traceEvents"]
    for rank, spans in enumerate(timeline.spans):
        own = [event for event in events if event["pid"] == rank]
        assert {"ph": "M", "name": "process_name", "pid": rank, "tid": 0} | {
            "args": {"name": f"rank {rank}"}
        } in own
        steps = [event for event in own if event["ph"] == "X"]
        found = [(event["name"], event["ts"], event["dur"]) for event in steps]
        assert found == [
            (f"PP:{span.step}", span.start * unit_us, (span.end - span.start) * unit_us)
            for span in spans
        ]
        assert [parse_step(event["name"].removeprefix("PP:")) for event in steps] == [
            span.step for span in spans
        ]
        held = [event["args"]["held"] for event in own if event["ph"] == "C"]
        assert max(held) == timeline.peak_memory(rank)
        assert held[-1] == 0


def test_an_overlapped_pair_is_one_event() -> None:
    events = json.loads(to_chrome_trace(simulate(dualpipe(4, 8), Times())))["traceEvents"]
    pairs = [event for event in events if event.get("cat") == "overlap"]
    assert pairs[0]["name"] == "PP:(0F3;3B5)OVERLAP_F_B"
    assert pairs[0]["args"] == {"stages": [0, 3], "microbatches": [3, 5]}
    assert {event["cat"] for event in events if event["ph"] == "X"} == {
        "forward",
        "backward",
        "input_grad",
        "weight_grad",
        "overlap",
    }


@pytest.mark.parametrize("unit_us", [0, -1.0, float("nan")])
def test_the_unit_must_be_positive(unit_us: float) -> None:
    timeline = simulate(dualpipe(2, 4), Times())
    with pytest.raises(ValueError, match="to_chrome_trace: unit_us must be positive, got"):
        to_chrome_trace(timeline, unit_us=unit_us)
