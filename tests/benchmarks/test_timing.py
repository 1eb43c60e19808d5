"""Percentiles, rotation of inputs, the order of calls; the CUDA path on a make-believe device."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import timing
from benchmarks.timing import Timing, rotate, time_interleaved

CPU = torch.device("cpu")
MIB = 2**20


def test_percentiles_of_known_samples() -> None:
    found = Timing((5.0, 1.0, 4.0, 2.0, 3.0), "by hand")
    assert [found.percentile(percent) for percent in (0, 20, 50, 80, 100)] == pytest.approx(
        [1.0, 1.8, 3.0, 4.2, 5.0]
    )


def test_percentile_of_one_sample_is_that_sample() -> None:
    assert Timing((7.5,), "").percentile(20) == 7.5


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50))
def test_percentiles_are_ordered_and_inside_the_samples(samples: list[float]) -> None:
    found = Timing(tuple(samples), "")
    p20, p50, p80 = (found.percentile(percent) for percent in (20, 50, 80))
    slack = 1 + 1e-9
    assert min(samples) <= p20 * slack
    assert p20 <= p50 * slack
    assert p50 <= p80 * slack
    assert p80 <= max(samples) * slack


@pytest.mark.parametrize(
    ("touched_mib", "copies"),
    # The cache holds 10 MiB: a round has to touch 20.
    [(1, 20), (3, 7), (19, 2), (20, 1), (21, 1), (500, 1)],
)
def test_rotation_exceeds_twice_the_cache(
    monkeypatch: pytest.MonkeyPatch, touched_mib: int, copies: int
) -> None:
    monkeypatch.setattr(timing, "cache_bytes", lambda _: 10 * MIB)
    rotation, note = rotate({"x": torch.zeros(4)}, touched_mib * MIB, CPU)
    assert len(rotation) == copies
    assert note is None


def test_rotation_that_memory_cuts_short_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "cache_bytes", lambda _: 10 * MIB)
    monkeypatch.setattr(timing, "_CPU_MEMORY_CAP_BYTES", 6 * MIB)
    rotation, note = rotate({"x": torch.zeros(2 * MIB, dtype=torch.uint8)}, 2 * MIB, CPU)
    assert len(rotation) == 3
    assert note == ("inputs may be warm: they rotate over less than twice the cache's 10 MiB")


def test_rotated_inputs_are_equal_and_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "cache_bytes", lambda _: MIB)
    fp8 = torch.randn(3, 4).to(torch.float8_e4m3fn)
    transposed = torch.randn(4, 6).t()
    inputs = {"pair": (fp8, transposed), "nested": {"n": torch.ones(2)}, "s_k": 3}
    rotation, _ = rotate(inputs, MIB, CPU)
    assert len(rotation) == 2
    assert rotation[0] is inputs
    copy = rotation[1]
    assert copy["s_k"] == 3
    assert copy["pair"][0].dtype == torch.float8_e4m3fn
    assert copy["pair"][1].stride() == transposed.stride()
    torch.testing.assert_close(copy["pair"][1], transposed)
    copy["nested"]["n"].zero_()
    assert inputs["nested"]["n"].tolist() == [1, 1]  # type: ignore[index]


def test_calls_alternate_and_never_meet_the_inputs_just_used() -> None:
    used: list[tuple[str, int]] = []

    def call(name: str) -> timing.Call:
        def slow(inputs: dict[str, Any]) -> None:
            time.sleep(0.002)  # longer than a burst: one call each
            used.append((name, inputs["id"]))

        return slow

    rotation = [{"id": number} for number in range(3)]
    found = time_interleaved({"ours": call("ours"), "peer": call("peer")}, rotation, CPU, 0.01)
    names, ids = zip(*used, strict=True)
    rounds = len(found["ours"].samples_us)
    assert len(found["peer"].samples_us) == rounds >= 5
    assert names[-2 * rounds :] == ("ours", "peer") * rounds
    assert all(a != b for a, b in itertools.pairwise(ids))


def test_a_call_that_turns_slow_is_given_up_on_early() -> None:
    naps = iter([0.001] * 3)

    def call(_: dict[str, Any]) -> None:
        time.sleep(next(naps, 0.05))

    found = time_interleaved({"ours": call}, [{}], CPU, 0.003)["ours"]
    assert len(found.samples_us) == 1


def test_fast_calls_are_timed_in_bursts() -> None:
    calls = 0

    def call(_: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1

    found = time_interleaved({"ours": call}, [{}], CPU, 0.01)["ours"]
    assert found.method == "host clock"
    assert calls > 100 * len(found.samples_us)
    assert all(sample > 0 for sample in found.samples_us)


class _Clock:
    """A make-believe GPU: enqueued work advances its clock, capture only records."""

    def __init__(self) -> None:
        self.now_us = 0.0
        self.recording: list[float] | None = None

    def enqueue(self, us: float) -> None:
        if self.recording is None:
            self.now_us += us
        else:
            self.recording.append(us)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_us = made.now_us

        def elapsed_time(self, end: "Event") -> float:
            return (end.at_us - self.at_us) / 1e3

    class Graph:
        work: list[float]

        def replay(self) -> None:
            made.now_us += sum(self.work)

    class Stream:
        def __init__(self, *_: object) -> None: ...

        def wait_stream(self, _: object) -> None: ...

    @contextlib.contextmanager
    def graph(target: Graph, *, stream: object) -> Iterator[None]:
        assert isinstance(stream, Stream)
        made.recording = []
        try:
            yield
            target.work = made.recording
        finally:
            made.recording = None

    for name, value in {
        "Event": Event,
        "CUDAGraph": Graph,
        "Stream": Stream,
        "graph": graph,
        "current_stream": Stream,
        "stream": lambda _: contextlib.nullcontext(),
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return made


def test_cuda_calls_are_replayed_as_a_graph(clock: _Clock) -> None:
    calls: dict[str, timing.Call] = {
        "ours": lambda _: clock.enqueue(4.0),
        "peer": lambda _: clock.enqueue(12.0),
    }
    found = time_interleaved(calls, [{}, {}], torch.device("cuda"), 0.01)
    assert found["ours"].method == found["peer"].method == "CUDA graph"
    assert found["ours"].samples_us == pytest.approx([4.0] * len(found["ours"].samples_us))
    assert found["peer"].percentile(50) == pytest.approx(12.0)


def test_a_call_that_cannot_be_captured_is_timed_by_events_and_says_so(clock: _Clock) -> None:
    def reads_back(_: dict[str, Any]) -> None:
        if clock.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        clock.enqueue(30.0)

    found = time_interleaved({"ours": reads_back}, [{}], torch.device("cuda"), 0.01)["ours"]
    assert found.method == (
        "events, includes launch gaps "
        "(no CUDA graph: operation not permitted when stream is capturing)"
    )
    assert found.percentile(50) == pytest.approx(30.0)


@pytest.mark.gpu
def test_a_gpu_captures_what_it_can_and_times_the_rest_by_events() -> None:
    device = torch.device("cuda")
    rotation = [{"x": torch.randn(256, 256, device=device)} for _ in range(3)]
    calls: dict[str, timing.Call] = {
        "captured": lambda inputs: inputs["x"] @ inputs["x"],
        "reads back": lambda inputs: inputs["x"].sum().item(),
        "captured after that": lambda inputs: inputs["x"] + 1,
    }
    found = time_interleaved(calls, rotation, device, 0.05)
    assert found["captured"].method == found["captured after that"].method == "CUDA graph"
    assert found["reads back"].method.startswith("events")
    assert all(min(each.samples_us) > 0 for each in found.values())
