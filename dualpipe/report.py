"""What simulations say about a choice of schedule, as text: figures, a comparison, advice."""

from __future__ import annotations

from dataclasses import replace

from dualpipe.actions import Placement, ScheduleError
from dualpipe.draw import headline, shown
from dualpipe.schedules import SCHEDULES, dualpipev, zbv
from dualpipe.simulate import STAGE_FIELDS, PerStage, Timeline, Times, simulate

LEGEND = (
    "F forward, B full backward, I input gradient, W weight gradient, F&B overlapped;\n"
    "small letters: second stage or direction of the rank; - goes on, . is idle"
)


def figures(timeline: Timeline) -> str:
    """The headline of a schedule with its bubble in time."""
    return f"{timeline.schedule.name}: {headline(timeline)}, idle {_idle_range(timeline)}"


def comparison(timelines: list[Timeline]) -> str:
    """A table of schedules on the same devices and model.

    Args:
        timelines: from `compare`.
    """
    rows = [("schedule", "makespan", "bubble", "idle per rank", "activations", "parameters")]
    rows += [
        (
            timeline.schedule.name,
            shown(timeline.makespan),
            f"{timeline.bubble:.1%}",
            _idle_range(timeline),
            str(peak_half_stages(timeline)),
            f"{parameter_copies(timeline)}x",
        )
        for timeline in timelines
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, "(activations: the most on a device, in half stages)"])


def best(timelines: list[Timeline]) -> str:
    """Which schedule to take, and if it duplicates the parameters, which one does not.

    Args:
        timelines: from `compare`, fastest first.
    """
    fastest = timelines[0]
    text = f"Fastest for these times: {fastest.schedule.name}"
    if parameter_copies(fastest) == 1:
        return text + "."
    single = next(timeline for timeline in timelines if parameter_copies(timeline) == 1)
    return (
        f"{text}, with every parameter on two devices; with one copy: {single.schedule.name}, "
        f"{single.makespan / fastest.makespan - 1:.1%} slower."
    )


def peak_half_stages(timeline: Timeline) -> int:
    """The most activations on a rank, in halves of a device's share of the model."""
    peak = max(timeline.peak_memory(rank) for rank in range(timeline.schedule.num_ranks))
    return peak * (1 if timeline.schedule.placement is Placement.V_SHAPE else 2)


def parameter_copies(timeline: Timeline) -> int:
    """On how many devices each parameter lives."""
    return 2 if timeline.schedule.placement is Placement.BIDIRECTIONAL else 1


def _idle_range(timeline: Timeline) -> str:
    idle = [timeline.idle(rank) for rank in range(timeline.schedule.num_ranks)]
    low, high = shown(min(idle)), shown(max(idle))
    return low if low == high else f"{low} to {high}"


def break_even_overlap(num_ranks: int, num_microbatches: int, half_stage: Times) -> float:
    """The overlap factor below which DualPipeV is faster than ZBV, whose steps never overlap.

    Args:
        num_ranks: devices.
        num_microbatches: at least twice as many.
        half_stage: times of the model cut into 2 * num_ranks parts; its overlap factor is ignored.

    Returns:
        Between 0 and 1, to four digits: 1 if DualPipeV needs no overlap to be as fast, 0 if none
        is enough.
    """
    goal = simulate(zbv(num_ranks, num_microbatches), half_stage).makespan
    schedule = dualpipev(num_ranks, num_microbatches)

    def fast_enough(factor: float) -> bool:
        return simulate(schedule, replace(half_stage, overlap_factor=factor)).makespan <= goal

    if fast_enough(1.0):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if fast_enough(middle) else (low, middle)
    return round(low, 4)


def break_even_text(num_ranks: int, num_microbatches: int, half_stage: Times) -> str:
    """`break_even_overlap` as a sentence; empty if the sizes do not allow the two schedules."""
    try:
        factor = break_even_overlap(num_ranks, num_microbatches, half_stage)
    except ScheduleError:
        return ""
    if factor == 1:
        return "dualpipev is as fast as zbv or faster here even if overlapping gains nothing."
    if factor == 0:
        return "dualpipev is slower than zbv here, whatever overlapping gains."
    return (
        f"dualpipev is faster than zbv where an overlapped pair takes less than {factor:.3f} of "
        f"its parts one by one; in these times it takes {shown(half_stage.overlap_factor)}."
    )


def published_bubble(
    num_stages: int,
    forward: float,
    input_grad: float,
    weight_grad: float,
    overlap_factor: float = 1.0,
) -> float:
    """The bubble as DualPipe's authors give it, (PP/2 - 1)(F&B + B - 3W).

    It is the idle time of the rank that idles most if F = I >= W and transfers take no time; in
    general it may be too large or too small.

    Args:
        num_stages: PP, also for DualPipeV, which folds them on half as many ranks.
        forward: F of one stage; all stages are equal.
        input_grad: I of one stage.
        weight_grad: W of one stage.
        overlap_factor: F&B / (F + I + W).
    """
    backward = input_grad + weight_grad
    overlapped = overlap_factor * (forward + backward)
    return (num_stages / 2 - 1) * (overlapped + backward - 3 * weight_grad)


def published_bubble_text(timeline: Timeline, stage: Times) -> str:
    """The published bubble beside the simulated one; empty for schedules without such a formula.

    Args:
        timeline: of the schedule in question.
        stage: the times it was simulated with.
    """
    schedule = timeline.schedule
    if schedule.name not in ("dualpipe", "dualpipev"):
        return ""
    times = [value for name in STAGE_FIELDS for value in _if_equal(getattr(stage, name))]
    if len(times) < len(STAGE_FIELDS):
        return "The published bubble, (PP/2-1)(F&B + B - 3W), is for equal stages only."
    forward, input_grad, weight_grad = times
    formula = published_bubble(
        schedule.num_stages, forward, input_grad, weight_grad, stage.overlap_factor
    )
    simulated = max(timeline.idle(rank) for rank in range(schedule.num_ranks))
    exact = forward == input_grad >= weight_grad and not stage.communication
    remark = (
        "exact, since F = I >= W and transfers take no time"
        if exact
        else "exact only if F = I >= W and transfers take no time, unlike here"
    )
    return (
        f"Published bubble, (PP/2-1)(F&B + B - 3W): {shown(formula)}; simulated: "
        f"{shown(simulated)}. The formula is {remark}."
    )


def _if_equal(value: PerStage) -> tuple[float, ...]:
    """The one time of all stages, or nothing."""
    values = set(value) if isinstance(value, tuple) else {value}
    return tuple(values) if len(values) == 1 else ()


def impossible(num_ranks: int, num_microbatches: int) -> dict[str, ScheduleError]:
    """Why which schedules cannot be built for these sizes."""
    errors = {}
    for name, build in SCHEDULES.items():
        try:
            build(num_ranks, num_microbatches)
        except ScheduleError as error:
            errors[name] = error
    return errors
