"""One rank's trace as compact text columns, in the form that the page in the browser decodes.

A column of integers is written as zigzag differences between neighbours, each as a little-endian
base-128 number (LEB128, as in DWARF and protocol buffers), all in base64. Times are whole
nanoseconds, which is what device clocks resolve.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.trace.analysis import Analysis
from benchmarks.trace.model import NONE, Floats, Ints

# Schedule steps as dualpipe and torch write them, and the (F), (B), (W) of hand-drawn pictures.
_OVERLAPPED_STEP = re.compile(r"PP:\(.*\)OVERLAP_F_B")
_STEP = re.compile(r"PP:\d+([FBIW])\d+")
_MARKED = re.compile(r".*\(([FBIW])\)", re.DOTALL)


def encode(values: Ints) -> str:
    """Returns a column as text.

    Args:
        values: [n] int64, absolute values below 2**52 so that a browser's numbers hold them.
    """
    steps = np.diff(values, prepend=0)
    codes = np.where(steps < 0, -2 * steps - 1, 2 * steps).astype(np.uint64)
    sizes = np.ones(len(codes), np.int64)
    for group in range(1, 8):
        sizes += codes >= np.uint64(1 << 7 * group)
    ends = np.cumsum(sizes)
    content = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for group in range(int(sizes.max(initial=0))):
        has = sizes > group
        bits = (codes[has] >> np.uint64(7 * group)) & np.uint64(127)
        more = np.where(sizes[has] > group + 1, 128, 0)
        content[(ends - sizes)[has] + group] = bits.astype(np.int64) | more
    return base64.b64encode(content.tobytes()).decode()


def step_letter(name: str) -> str:
    """Returns which step of training a name tells: F, B, I, W, FB for an overlapped pair, or ""."""
    if _OVERLAPPED_STEP.fullmatch(name):
        return "FB"
    found = _STEP.fullmatch(name) or _MARKED.fullmatch(name)
    return found[1] if found else ""


def origin_us(analyses: Sequence[Analysis]) -> float:
    """Returns the time of the first event of all ranks, which is the page's zero."""
    begins = [
        float(column.begin_us[0])
        for analysis in analyses
        for column in (analysis.trace.work, analysis.trace.phases)
        if len(column)
    ]
    return min(begins, default=0.0)


def nanoseconds(times_us: Floats, zero_us: float) -> Ints:
    """Returns times as whole ns after the page's zero."""
    return np.rint((times_us - zero_us) * 1e3).astype(np.int64)


def document(analyses: Sequence[Analysis]) -> dict[str, Any]:
    """Returns what the page carries: names of all ranks, and each rank in columns."""
    names: dict[str, int] = {}
    ranks = [_rank(analysis, origin_us(analyses), names) for analysis in analyses]
    letters = {index: step_letter(name) for name, index in names.items()}
    return {
        "names": list(names),
        "letters": {index: letter for index, letter in letters.items() if letter},
        "ranks": ranks,
    }


def _rank(analysis: Analysis, zero_us: float, names: dict[str, int]) -> dict[str, Any]:
    """The items of a rank are its work, its phases, and its windows, one after the other."""
    trace, windows = analysis.trace, analysis.windows
    work, phases = trace.work, trace.phases
    send, receive = windows.send, windows.receive
    under_way = [f"{analysis.operations[row]} under way" for row in analysis.operation[send]]
    begin_us = [work.begin_us, phases.begin_us, work.end_us[send]]
    end_us = [work.end_us, phases.begin_us + phases.duration_us, work.begin_us[receive]]
    begin = nanoseconds(np.concatenate(begin_us), zero_us)
    end = nanoseconds(np.concatenate(end_us), zero_us)
    gap_begin, gap_end, gap_idle = _gaps(analysis, zero_us)
    columns = {
        "begin": begin,
        "duration": end - begin,
        "name": np.concatenate(
            [
                _renumbered(work.name, trace.names, names),
                _renumbered(phases.name, trace.names, names),
                _renumbered(np.arange(len(send)), under_way, names),
            ]
        ),
        "phase": np.concatenate([analysis.phase, phases.parent, np.full(len(send), NONE)]),
        "kind": analysis.kinds,
        "stream": work.stream,
        "num_blocks": work.num_blocks,
        "gap_begin": gap_begin,
        "gap_duration": gap_end - gap_begin,
        "gap_idle": gap_idle,
    }
    return {
        "title": trace.title,
        "num_sms": trace.num_sms,
        "num_phases": len(phases),
        "streams": trace.streams,
        "lanes": [
            _lane("compute", analysis.compute_sms),
            _lane("communication", analysis.communication_sms),
        ],
        **{name: encode(column) for name, column in columns.items()},
    }


def _lane(name: str, num_sms: int) -> str:
    return f"{name} · {num_sms} SMs" if num_sms else name


def _gaps(analysis: Analysis, zero_us: float) -> tuple[Ints, Ints, Ints]:
    """Every stretch without compute: begin, end, whether nothing at all ran."""
    spans = np.concatenate([analysis.exposed, analysis.idle])
    idle = np.repeat([0, 1], [len(analysis.exposed), len(analysis.idle)])
    order = np.argsort(spans[:, 0], kind="stable")
    times = nanoseconds(spans[order], zero_us)
    return times[:, 0], times[:, 1], idle[order]


def _renumbered(indices: Ints, own: Sequence[str], names: dict[str, int]) -> Ints:
    """Indices in a rank's own names as indices in the page's, which grow by what they lack."""
    used, inverse = np.unique(indices, return_inverse=True)
    numbers = [names.setdefault(own[index], len(names)) for index in used]
    return np.array(numbers, np.int64)[inverse]
