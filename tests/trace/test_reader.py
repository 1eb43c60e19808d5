"""Chrome traces of every make become work and phases, and no file makes the reader fall over."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.trace.model import NONE, Trace, TraceError
from benchmarks.trace.reader import read_traces
from dualpipe.schedules import dualpipe
from dualpipe.simulate import Times, simulate
from dualpipe.trace import to_chrome_trace
from tests.trace.chrome import HOST_PID, MAIN_THREAD, ChromeTrace, Event, save

GLOO_THREAD = 30209


def work(trace: Trace) -> list[tuple[str, float, float, str, str | None]]:
    """(name, begin, duration, stream, phase) of each piece of work."""
    columns = trace.work
    return [
        (
            trace.names[columns.name[row]],
            float(columns.begin_us[row]),
            float(columns.duration_us[row]),
            trace.streams[columns.stream[row]],
            None if columns.phase[row] == NONE else phases(trace)[columns.phase[row]],
        )
        for row in range(len(columns))
    ]


def phases(trace: Trace) -> list[str]:
    """Names of the phases."""
    return [trace.names[name] for name in trace.phases.name]


def span(name: str, begin_us: object, duration_us: object, **fields: object) -> Event:
    """A complete event without category."""
    where = {"pid": 0, "tid": 0}
    return {"ph": "X", "name": name, "ts": begin_us, "dur": duration_us} | where | fields


def one_kernel() -> ChromeTrace:
    """A kernel of 16 blocks in a phase, and a copy."""
    trace = ChromeTrace(rank=3)
    trace.annotation("step", 0, 40)
    trace.kernel("gemm", 100, 50, num_blocks=16, launched_us=10)
    trace.kernel("Memcpy DtoH", 120, 5, stream=9, category="gpu_memcpy", launched_us=20)
    return trace


def test_columns_of_device_work(tmp_path: Path) -> None:
    [trace] = read_traces(one_kernel().save(tmp_path / "trace.json"))
    assert trace.title == "rank 3"
    assert trace.num_sms == 132
    assert trace.notes == ()
    assert work(trace) == [
        ("gemm", 100, 50, "stream 7", "step"),
        ("Memcpy DtoH", 120, 5, "stream 9", "step"),
    ]
    assert trace.work.num_blocks.tolist() == [16, 1]
    assert [trace.names[idx] for idx in trace.work.category] == ["kernel", "gpu_memcpy"]
    assert sorted(trace.names) == ["Memcpy DtoH", "gemm", "gpu_memcpy", "kernel", "step"]
    assert {column.dtype for column in (trace.work.name, trace.work.phase)} == {np.dtype(np.int64)}


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz", "trace.txt"])
def test_object_and_array_plain_and_compressed_are_the_same(tmp_path: Path, name: str) -> None:
    document = one_kernel().document()
    [as_object] = read_traces(save(tmp_path / name, document))
    [as_array] = read_traces(save(tmp_path / name, document["traceEvents"]))
    assert work(as_object) == work(as_array)
    assert (as_array.title, as_array.num_sms) == (name, 0)
    compressed = tmp_path / "no_suffix"
    compressed.write_bytes(gzip.compress(json.dumps(document, indent=1).encode()))
    assert work(read_traces(compressed)[0]) == work(as_object)


def test_members_after_the_events_and_a_byte_order_mark(tmp_path: Path) -> None:
    document = one_kernel().document()
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(dict(reversed(document.items()))), encoding="utf-8-sig")
    [trace] = read_traces(path)
    assert (trace.title, trace.num_sms, len(trace.work)) == ("rank 3", 132, 2)


def test_several_devices_are_told_apart(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.kernel("a", 0, 1, device=0)
    trace.kernel("b", 1, 1, device=1)
    [read] = read_traces(trace.save(tmp_path / "trace.json"))
    assert read.streams == ("GPU 0 stream 7", "GPU 1 stream 7")


def test_older_profilers_wrote_other_categories(tmp_path: Path) -> None:
    events = [
        span("step", 0, 9, cat="user_annotation"),
        span("cudaLaunchKernel", 1, 1, cat="Runtime", args={"correlation": 5}),
        span("a", 20, 1, cat="Kernel", tid="stream 7", args={"correlation": 5, "stream": 7}),
        span("b", 22, 1, cat="Memcpy", args={"stream": 8}),
    ]
    [trace] = read_traces(save(tmp_path / "trace.json", events))
    assert work(trace) == [("a", 20, 1, "stream 7", "step"), ("b", 22, 1, "stream 8", None)]
    assert trace.work.num_blocks.tolist() == [0, 0]


def test_times_keep_their_nanoseconds(tmp_path: Path) -> None:
    trace = ChromeTrace()
    trace.kernel("a", 4631975607315.666, 0.125)
    document = trace.document() | {"baseTimeNanoseconds": 1790857026000000000}
    [read] = read_traces(save(tmp_path / "trace.json", document))
    assert work(read)[0][1:3] == (4631975607315.666, 0.125)


def cpu_profile() -> ChromeTrace:
    """Nested operators, a phase inside an operator, collectives inside and on another thread."""
    trace = ChromeTrace(num_sms=None)
    trace.annotation("step", 0, 100)
    trace.cpu_op("aten::linear", 5, 10)
    trace.cpu_op("aten::addmm", 6, 8)
    trace.cpu_op("ExpertsBackward", 20, 60)
    trace.annotation("dispatch", 22, 30)
    trace.cpu_op("aten::empty", 23, 2)
    trace.cpu_op("c10d::alltoall_base_", 30, 6)
    trace.cpu_op("aten::copy_", 31, 1)
    trace.annotation("gloo:all_to_all", 33, 15, GLOO_THREAD)
    trace.cpu_op("aten::copy_", 40, 4, GLOO_THREAD)
    trace.cpu_op("aten::mm", 60, 10)
    trace.cpu_op("c10d::send", 85, 5)
    trace.annotation("gloo:send", 88, 9)
    trace.cpu_op("aten::mul", 200, 3)
    return trace


def test_cpu_operators_stand_for_missing_gpu_work(tmp_path: Path) -> None:
    [trace] = read_traces(cpu_profile().save(tmp_path / "trace.json"))
    main, gloo = f"thread {MAIN_THREAD}", f"thread {GLOO_THREAD}"
    assert work(trace) == [
        ("aten::linear", 5, 10, main, "step"),
        ("aten::empty", 23, 2, main, "dispatch"),
        ("c10d::alltoall_base_", 30, 6, main, "dispatch"),
        ("gloo:all_to_all", 33, 15, gloo, "dispatch"),
        ("aten::mm", 60, 10, main, "step"),
        ("gloo:send", 88, 9, main, "step"),
        ("aten::mul", 200, 3, main, None),
    ]
    assert phases(trace) == ["step", "dispatch"]
    assert trace.phases.parent.tolist() == [NONE, 0]
    assert trace.notes == ("no GPU work: CPU operators stand for it",)


def test_threads_have_the_names_that_metadata_gives_them(tmp_path: Path) -> None:
    trace = cpu_profile()
    thread = {"ph": "M", "name": "thread_name", "pid": HOST_PID, "tid": GLOO_THREAD}
    trace.events.append(thread | {"args": {"name": "thread 30209 (pt_gloo_runloop)"}})
    [read] = read_traces(trace.save(tmp_path / "trace.json"))
    assert set(read.streams) == {f"thread {MAIN_THREAD}", "thread 30209 (pt_gloo_runloop)"}


def test_a_profile_of_torch(tmp_path: Path) -> None:
    layer = torch.nn.Linear(8, 8)
    with torch.profiler.profile() as profiler:
        with torch.profiler.record_function("PP:0F0"):
            loss = layer(torch.ones(4, 8)).sum()
        with torch.profiler.record_function("PP:0B0"):
            loss.backward()  # type: ignore[no-untyped-call]
    path = tmp_path / "trace.json"
    profiler.export_chrome_trace(str(path))
    [trace] = read_traces(path)
    assert phases(trace) == ["PP:0F0", "PP:0B0"]
    seen = {(name, phase) for name, _, _, _, phase in work(trace)}
    assert ("aten::linear", "PP:0F0") in seen
    backward = {name for name, phase in seen if phase == "PP:0B0"}
    assert any("AddmmBackward0" in name for name in backward)
    assert "aten::addmm" not in {name for name, _ in seen}


def test_a_simulated_schedule_has_a_trace_for_each_rank(tmp_path: Path) -> None:
    timeline = simulate(dualpipe(4, 8), Times(forward=0.7, input_grad=1.1))
    path = tmp_path / "simulated.json"
    path.write_text(to_chrome_trace(timeline))
    traces = read_traces(path)
    assert [trace.title for trace in traces] == [f"rank {rank}" for rank in range(4)]
    for trace, spans in zip(traces, timeline.spans, strict=True):
        assert len(trace.work) == len(trace.phases) == len(spans)
        assert [phase for *_, phase in work(trace)] == [name for name, *_ in work(trace)]
        assert trace.work.begin_us.tolist() == [span.start * 1000 for span in spans]
        assert np.all(trace.phases.parent == NONE)


def test_what_spans_leave_of_their_phase_is_work_too(tmp_path: Path) -> None:
    events = [
        span("PP:0F7", 0, 100),
        span("dispatch", 20, 10, cat="communication"),
        span("send", 22, 3),
        span("combine", 90, 10),
        span("optimizer", 110, 5),
    ]
    [trace] = read_traces(save(tmp_path / "spans.json", events))
    stream = "thread 0"
    assert work(trace) == [
        ("PP:0F7", 0, 20, stream, "PP:0F7"),
        ("dispatch", 20, 2, stream, "dispatch"),
        ("send", 22, 3, stream, "dispatch"),
        ("dispatch", 25, 5, stream, "dispatch"),
        ("PP:0F7", 30, 60, stream, "PP:0F7"),
        ("combine", 90, 10, stream, "PP:0F7"),
        ("optimizer", 110, 5, stream, "optimizer"),
    ]
    assert phases(trace) == ["PP:0F7", "dispatch", "optimizer"]
    assert trace.phases.parent.tolist() == [NONE, 0, NONE]
    assert trace.title == "spans.json"


def test_spans_that_nothing_holds_and_spans_of_no_length_are_work(tmp_path: Path) -> None:
    events = [span("a", 0, 10), span("mark", 4, 0), span("b", 10, 0)]
    [trace] = read_traces(save(tmp_path / "spans.json", events))
    pieces = [(name, begin, duration) for name, begin, duration, *_ in work(trace)]
    assert pieces == [("a", 0, 4), ("mark", 4, 0), ("a", 4, 6), ("b", 10, 0)]


def metadata(kind: str, name: str, **where: object) -> Event:
    """What a process or a thread is called."""
    return {"ph": "M", "name": kind, "args": {"name": name}} | where


def test_ranks_are_processes_or_threads(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    processes = [span("a", 0, 1, pid=5), span("b", 0, 1, pid="x")]
    named = metadata("process_name", "rank 0", pid=5)
    assert [trace.title for trace in read_traces(save(path, [*processes, named]))] == [
        "rank 0",
        "process x",
    ]
    threads = [span("a", 0, 1, tid=1), span("b", 0, 1, tid=2)]
    named = metadata("thread_name", "rank 7", pid=0, tid=2)
    assert [trace.title for trace in read_traces(save(path, [*threads, named]))] == [
        "thread 1",
        "rank 7",
    ]
    named = metadata("process_name", "rank 4", pid=0)
    [trace] = read_traces(save(path, [*threads, named]))
    assert (trace.title, trace.streams) == ("rank 4", ("thread 1", "thread 2"))


def test_beginnings_and_ends_are_paired_on_their_thread(tmp_path: Path) -> None:
    def half(kind: str, time: float, thread: int, name: str = "") -> Event:
        return {"ph": kind, "ts": time, "name": name, "pid": 0, "tid": thread}

    events = [
        *(half("B", 0, 1, "outer"), half("B", 2, 2, "other"), half("B", 3, 1, "inner")),
        *(half("E", 5, 1), half("E", 6, 2), half("E", 9, 1), half("E", 10, 1)),
        half("B", 11, 1, "open"),
    ]
    [trace] = read_traces(save(tmp_path / "spans.json", events))
    assert [(name, begin, duration) for name, begin, duration, *_ in work(trace)] == [
        *(("outer", 0, 3), ("other", 2, 4), ("inner", 3, 2), ("outer", 5, 4))
    ]
    assert trace.notes == (
        "1 end without a beginning was left out",
        "1 beginning without an end was left out",
    )


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    without_duration = {"ph": "X", "name": "a", "ts": 1}
    events = [
        span("", "1.5", "2", pid="Spans", tid="", cat=None),
        *(without_duration, without_duration, span("b", 0, -1), span("c", None, 1)),
        *(span("d", math.nan, 1), span("e", 0, math.inf), span("f", 1e300, 1), span("g", 0, [])),
        *(None, "text", {"ph": "C", "name": "counter"}, {}, {"ph": ["X"]}),
    ]
    [trace] = read_traces(save(tmp_path / "spans.json", events))
    assert work(trace) == [("", 1.5, 2, "thread ", "")]
    assert trace.notes == (
        "2 complete events without a duration were left out",
        "1 complete event with a negative duration was left out",
        "3 complete events without a usable time were left out",
        "2 complete events with no usable duration were left out",
        "2 entries without fields were left out",
    )


def test_numbers_of_any_size_are_read_or_left_out(tmp_path: Path) -> None:
    huge = 10**400
    args = {"correlation": huge, "grid": [huge, 1, 1], "stream": 7, "device": 0}
    launch = span("cudaLaunchKernel", 0, 1, cat="cuda_runtime", args={"correlation": huge})
    events = [launch, span("a", 0, 1, cat="kernel", args=args), span("b", huge, 1)]
    document = {"deviceProperties": [{"id": 0, "numSms": huge}], "traceEvents": events}
    [trace] = read_traces(save(tmp_path / "trace.json", document))
    assert work(trace) == [("a", 0, 1, "stream 7", None)]
    assert (trace.work.num_blocks.tolist(), trace.num_sms) == ([0], 0)
    assert trace.notes == ("1 complete event without a usable time was left out",)


def test_names_are_printable(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    text = json.dumps([span("\ud800 here", 0, 1)])
    path.write_bytes(text.encode().replace(b"here", b"\xff"))
    [trace] = read_traces(path)
    assert work(trace)[0][0] == "? \ufffd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"hello", "no JSON trace: it begins with 'h'$"),
        (b'"text"', "no JSON trace: it begins with"),
        (b"{}", "no list named traceEvents"),
        (b'{"traceEvents": 3}', "no list named traceEvents"),
        (b'{"traceEvents": []}', r"no complete event \(ph X\) is in this trace$"),
        (b'[{"ph": "X", "ts": 1}]', "in this trace; 1 complete event without a duration was left"),
        (b'{"traceEvents": [{"ph": "M"}, {"ph"', "the file ends early, after 1 event$"),
        (b'{"traceEvents": [{"ph": "M"}]', "the file ends early, after 1 event$"),
        (b'[{"ph": "M"}, {"ph": "M"}', "the file ends early, after 2 events$"),
        (b'[{"ph": "M"},]', "no JSON trace: .*, after 1 event$"),
        (b"[] []", "it goes on after its end"),
        (b"[" * 100_000, "values are nested too deeply"),
        (b"\x1f\x8b", "the file ends early"),
        (b"\x1f\x8b nonsense", "its gzip is corrupt"),
        (gzip.compress(b"[]")[:10] + b"\xff" * 20, "its gzip is corrupt"),
        (gzip.compress(b"[]")[:-9], "the file ends early"),
        (gzip.compress(b"[]")[:-8] + b"12345678", "its gzip is corrupt"),
    ],
    ids=lambda value: repr(value[:16]) if isinstance(value, bytes) else "",
)
def test_files_that_are_no_traces(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message) as caught:
        read_traces(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="this is a folder"):
        read_traces(tmp_path)
    with pytest.raises(TraceError, match="there is no such file"):
        read_traces(tmp_path / "missing.json")


def test_progress_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    trace = ChromeTrace()
    for number in range(20_000):
        trace.kernel(f"kernel {number}", number, 1)
    for name in ("trace.json", "trace.json.gz"):
        path = trace.save(tmp_path / name)
        seen: list[tuple[int, int]] = []
        read_traces(path, lambda done, total, seen=seen: seen.append((done, total)))
        size = path.stat().st_size
        assert seen[-1] == (size, size)
        assert len(seen) > 2
        assert seen == sorted(seen)


def read_bytes(content: bytes) -> list[Trace] | None:
    """What a file of this content is, None if it is refused; any other error is the test's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace"
        path.write_bytes(content)
        try:
            return read_traces(path)
        except TraceError:
            return None


def check(trace: Trace) -> None:
    """Whatever was read is sound: every index points into its table, and all is in order."""
    columns, ranges = trace.work, trace.phases
    assert all(
        np.all((column >= 0) & (column < len(table)))
        for column, table in [
            (columns.name, trace.names),
            (columns.category, trace.names),
            (columns.stream, trace.streams),
            (ranges.name, trace.names),
        ]
    )
    assert np.all((columns.phase >= NONE) & (columns.phase < len(ranges)))
    assert np.all((ranges.parent >= NONE) & (ranges.parent < np.arange(len(ranges))))
    for begin_us, duration_us in [
        (columns.begin_us, columns.duration_us),
        (ranges.begin_us, ranges.duration_us),
    ]:
        assert np.all(np.diff(begin_us) >= 0)
        assert np.all(np.isfinite(begin_us))
        assert np.all((duration_us >= 0) & np.isfinite(duration_us))
    assert np.all(columns.num_blocks >= 0)
    "".join([trace.title, *trace.names, *trace.streams, *trace.notes]).encode()


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
times = st.integers(-5, 30) | st.floats(0, 30) | st.just("7") | anything
categories = [
    *("kernel", "gpu_memcpy", "cuda_runtime", "cuda_driver", "user_annotation", "cpu_op"),
    *("gpu_user_annotation", "python_function", "Operator", ""),
]
arguments = st.fixed_dictionaries(
    {},
    optional={
        "correlation": st.integers(0, 3) | anything,
        "stream": st.integers(0, 2) | anything,
        "device": st.integers(0, 1) | anything,
        "grid": st.lists(st.integers(0, 9), max_size=4) | anything,
        "name": st.sampled_from(["rank 0", "rank 1"]) | anything,
    },
)
names = ["gloo:send", "c10d::send", "aten::mm", "PP:0F0", "process_name", "thread_name"]
entries = st.fixed_dictionaries(
    {},
    optional={
        "ph": st.sampled_from(["X", "X", "X", "B", "E", "M", "C"]) | anything,
        "ts": times,
        "dur": times,
        "cat": st.sampled_from(categories) | anything,
        "name": st.sampled_from(names) | anything,
        "pid": st.integers(0, 2) | anything,
        "tid": st.integers(0, 2) | anything,
        "args": arguments | anything,
    },
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "deviceProperties": st.lists(
            st.fixed_dictionaries({}, optional={"id": st.integers(0, 1), "numSms": anything})
        )
        | anything,
        "distributedInfo": st.fixed_dictionaries({}, optional={"rank": anything}) | anything,
    },
)


@given(st.lists(entries | anything, max_size=12), headers)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_events_of_any_kind_are_read_or_refused(events: list[Any], header: Event) -> None:
    for document in (events, header | {"traceEvents": events}):
        for trace in read_bytes(json.dumps(document).encode()) or []:
            check(trace)


@given(st.data())
@settings(max_examples=200)
def test_files_of_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    content = json.dumps(one_kernel().document()).encode()
    if data.draw(st.booleans()):
        content = gzip.compress(content, mtime=0)
    place = st.integers(0, len(content))
    begin, end = sorted([data.draw(place), data.draw(place)])
    content = content[:begin] + data.draw(st.binary(max_size=4)) + content[end:]
    for trace in read_bytes(content) or []:
        check(trace)


def test_every_beginning_of_a_trace_is_refused() -> None:
    whole = json.dumps(one_kernel().document()).encode()
    assert read_bytes(whole) is not None
    assert [end for end in range(0, len(whole), 3) if read_bytes(whole[:end])] == []
    whole = gzip.compress(whole)
    assert [end for end in range(0, len(whole), 3) if read_bytes(whole[:end])] == []


# VmHWM is of the new program alone, what getrusage says also of the one that started it.
MEASURE = """
import json, re, sys
from pathlib import Path
from benchmarks.trace.reader import read_traces

def peak_kib():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])

path, before = Path(sys.argv[1]), peak_kib()
kept = read_traces(path) if sys.argv[2] == "stream" else json.loads(path.read_text())
print((peak_kib() - before) / 1024)
"""


def peak_mib(path: Path, how: str) -> float:
    """By how much reading the file raises the peak memory of a fresh process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURE, str(path), how]
    run = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=100
    )
    return float(run.stdout)


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    trace = ChromeTrace()
    for number in range(1000):
        trace.kernel(f"kernel {number % 50}", 10.0 * number, 5.0, launched_us=number)
    for event in trace.events:
        event["args"]["unread"] = "x" * 400
    text = ",\n".join(json.dumps(event) for event in trace.events)
    path = tmp_path / "trace.json"
    with path.open("w") as file:
        file.write('{"traceEvents": [\n' + ",\n".join([text] * 35) + "]}")
    assert path.stat().st_size > 35e6
    assert peak_mib(path, "stream") < 30
    assert peak_mib(path, "whole") > 60
