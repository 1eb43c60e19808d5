"""Which phase launched which kernel, by looking through all events for each kernel."""

from __future__ import annotations

from typing import Any

Event = dict[str, Any]


def innermost(ranges: list[tuple[float, float]], time: float) -> int | None:
    """Index of the (begin, end) that began last of those around the time.

    Of ranges that begin together it is the shortest, of equal ones the last.
    """
    around = [idx for idx, (begin, end) in enumerate(ranges) if begin <= time < end]
    return max(around, key=lambda idx: (ranges[idx][0], -ranges[idx][1], idx), default=None)


def launch_of(kernel: Event, calls: list[Event]) -> Event | None:
    """The call with the kernel's id: the latest before it, else the first after it.

    None if there is no such call, or if they are of several processes.
    """
    correlation = kernel["args"].get("correlation")
    same = [call for call in calls if call["args"]["correlation"] == correlation]
    if correlation is None or len({call["pid"] for call in same}) != 1:
        return None
    before = [call for call in same if call["ts"] <= kernel["ts"]]
    if before:
        latest = max(call["ts"] for call in before)
        return [call for call in before if call["ts"] == latest][-1]
    first = min(call["ts"] for call in same)
    return next(call for call in same if call["ts"] == first)


def phase_of_kernel(kernel: Event, events: list[Event]) -> Event | None:
    """The innermost annotation on the launching thread, else on the most annotated one.

    Of threads with as many annotations it is the one that the file mentions first.
    """
    call = launch_of(kernel, [event for event in events if event["cat"] == "cuda_runtime"])
    if call is None:
        return None
    phases = [event for event in events if event["cat"] == "user_annotation"]
    threads = [(event["pid"], event["tid"]) for event in phases]
    own = (call["pid"], call["tid"])
    mentioned = [(event["pid"], event["tid"]) for event in events]
    main = max(mentioned, key=threads.count, default=own)
    for thread in (own, main):
        there = [event for event in phases if (event["pid"], event["tid"]) == thread]
        spans = [(event["ts"], event["ts"] + event["dur"]) for event in there]
        found = innermost(spans, call["ts"])
        if found is not None:
            return there[found]
    return None
