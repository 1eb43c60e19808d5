"""Pictures of a simulated schedule: SVG for documents, plain text for terminals.

Both show one row per rank with time to the right. Colours and letters tell the kind of work;
light shades and small letters tell the second direction (dualpipe) or the second stage of a rank
(schedules folded into a V).
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from dualpipe.actions import Action, Kind, Overlap, Placement, Schedule, Step, actions_of
from dualpipe.simulate import Span, Timeline

# All eight differ from one another and from the background by a CIE76 distance of at least 12 in
# simulated deuteranopia, protanopia and tritanopia, and carry the dark text at 4.5 : 1 or more.
FILLS = {
    Kind.FORWARD: ("#2f8de4", "#bbdcfb"),
    Kind.BACKWARD: ("#e69f00", "#e8cd8a"),
    Kind.INPUT_GRAD: ("#e0468f", "#f08fc0"),
    Kind.WEIGHT_GRAD: ("#189b46", "#9cecb8"),
}
KIND_NAMES = {
    Kind.FORWARD: "forward",
    Kind.BACKWARD: "full backward",
    Kind.INPUT_GRAD: "input gradient",
    Kind.WEIGHT_GRAD: "weight gradient",
}
SHADE_NOTES = {
    Placement.LINEAR: "",
    Placement.V_SHAPE: "light: second stage of the rank",
    Placement.BIDIRECTIONAL: "light: micro-batches that enter at the last rank",
}

# Pixels. An average forward is just wide enough for two digits.
FORWARD_WIDTH, MIN_PLOT_WIDTH, DIGIT_WIDTH = 14.5, 700.0, 6.2
LEFT, RIGHT, TOP, BOTTOM, ROW, GAP = 66.0, 84.0, 66.0, 62.0, 30.0, 5.0
STYLE = (
    "text{font:11px Helvetica,Arial,sans-serif;fill:#1a1a1a}"
    ".n{text-anchor:middle}.r{text-anchor:end}.q{fill:#57606a}.h{font-size:16px;font-weight:bold}"
    ".c{stroke:#fff;stroke-width:1}.o{fill:none;stroke:#1a1a1a;stroke-width:1.4}"
    ".i{fill:#eceef1}.t{stroke:#c8cdd3;stroke-width:1}"
    + "".join(
        f".{kind}{chunk}{{fill:{fill}}}"
        for kind, fills in FILLS.items()
        for chunk, fill in enumerate(fills)
    )
)


def shown(value: float) -> str:
    """A time or count as short text: four significant digits, no exponent for large ones."""
    return f"{value:.4g}" if value < 10_000 else f"{value:.0f}"


def headline(timeline: Timeline) -> str:
    """Sizes and figures of a simulated schedule in one line."""
    schedule = timeline.schedule
    peak = max(timeline.peak_memory(rank) for rank in range(schedule.num_ranks))
    return (
        f"{schedule.num_ranks} ranks, {schedule.num_stages} stages, "
        f"{schedule.num_microbatches} micro-batches: makespan {shown(timeline.makespan)}, "
        f"bubble {timeline.bubble:.1%}, at most {peak} stage activations on a rank"
    )


def to_svg(timeline: Timeline) -> str:
    """The classic picture of a pipeline schedule.

    Args:
        timeline: from `simulate`.

    Returns:
        A self-contained SVG document on a white background. Each cell shows its micro-batch; an
        overlapped pair is one outlined cell with the forward above the backward.
    """
    schedule = timeline.schedule
    scale = max(FORWARD_WIDTH / _mean_forward(timeline), MIN_PLOT_WIDTH / timeline.makespan)
    width = LEFT + timeline.makespan * scale + RIGHT
    height = TOP + schedule.num_ranks * (ROW + GAP) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"',
        f'width="{width:.0f}" height="{height:.0f}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
        f'<text class="h" x="10" y="24">{escape(schedule.name)}</text>',
        f'<text class="q" x="10" y="42">{escape(headline(timeline))}</text>',
        _text("q r", width - 44, TOP - 6, "idle"),
        _text("q r", width - 8, TOP - 6, "peak"),
    ]
    parts += _axis(timeline.makespan, scale, height - BOTTOM)
    for rank in range(schedule.num_ranks):
        parts += _row(timeline, rank, scale, TOP + rank * (ROW + GAP), width)
    parts += _legend(timeline, height - 18)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _mean_forward(timeline: Timeline) -> float:
    forwards = [
        span.end - span.start
        for row in timeline.spans
        for span in row
        if isinstance(span.step, Action) and span.step.kind is Kind.FORWARD
    ]
    return sum(forwards) / len(forwards)


def _row(timeline: Timeline, rank: int, scale: float, y: float, width: float) -> Iterator[str]:
    middle = y + ROW / 2 + 4
    yield _text("", 10, middle, f"Device {rank}")
    yield _rect("i", LEFT, y, timeline.makespan * scale, ROW)
    for span in timeline.spans[rank]:
        yield from _cell(timeline, span, scale, y)
    yield _text("r", width - 44, middle, shown(timeline.idle(rank)))
    yield _text("r", width - 8, middle, str(timeline.peak_memory(rank)))


def _cell(timeline: Timeline, span: Span, scale: float, y: float) -> Iterator[str]:
    x, width = LEFT + span.start * scale, (span.end - span.start) * scale
    actions = actions_of(span.step)
    height = ROW / len(actions)
    times = f"{shown(span.start)} to {shown(span.end)}"
    yield f"<g><title>{escape(str(span.step))}, {times}</title>"
    for index, action in enumerate(actions):
        chunk = timeline.schedule.chunk_of(action.stage, action.microbatch)
        top = y + index * height
        yield _rect(f"c {action.kind}{chunk}", x, top, width, height)
        label = str(action.microbatch)
        if len(label) * DIGIT_WIDTH < width:
            yield _text("n", x + width / 2, top + height / 2 + 4, label)
    if isinstance(span.step, Overlap):
        yield _rect("o", x + 1, y + 0.7, max(width - 2, 0), ROW - 1.4)
    yield "</g>"


def _axis(makespan: float, scale: float, y: float) -> Iterator[str]:
    """Ticks at multiples of 1, 2 or 5 times a power of ten, at least 60 pixels apart."""
    candidates = (factor * 10.0**power for power in range(-12, 13) for factor in (1, 2, 5))
    tick = next((step for step in candidates if step * scale >= 60), makespan)
    for index in range(int(makespan / tick) + 1):
        x = LEFT + index * tick * scale
        yield f'<path class="t" d="M{x:.1f} {TOP - 4:.1f}V{y:.1f}"/>'
        yield _text("q n", x, y + 12, shown(index * tick))
    yield _text("q", 10, y + 12, "time")


def _legend(timeline: Timeline, y: float) -> Iterator[str]:
    """Swatches of what occurs, with names, then what light shades mean."""
    schedule = timeline.schedule
    steps = [step for steps in schedule.ranks for step in steps]
    used = {
        f"{action.kind}{schedule.chunk_of(action.stage, action.microbatch)}"
        for step in steps
        for action in actions_of(step)
    }
    x, box = 10.0, 13.0
    for kind, name in KIND_NAMES.items():
        swatches = sorted(used & {f"{kind}0", f"{kind}1"})
        for swatch in swatches:
            yield _rect(swatch, x, y - 11, box, box)
            x += box
        if swatches:
            yield _text("", x + 5, y, name)
            x += 6 * len(name) + 20
    if any(isinstance(step, Overlap) for step in steps):
        yield _rect("F0", x, y - 11, 2 * box, box / 2)
        yield _rect("B1", x, y - 11 + box / 2, 2 * box, box / 2)
        yield _rect("o", x + 0.7, y - 10.3, 2 * box - 1.4, box - 1.4)
        yield _text("", x + 2 * box + 5, y, "overlapped")
        x += 2 * box + 80
    yield _text("q", x, y, SHADE_NOTES[schedule.placement])


def _rect(style: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _text(style: str, x: float, y: float, text: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def to_text(timeline: Timeline, width: int = 80) -> str:
    """The picture in characters: `F3` is the forward of micro-batch 3, `F3&b7-` an overlap.

    Args:
        timeline: from `simulate`.
        width: most columns of the text; numbers appear where there is room for all of them.

    Returns:
        One line per rank. Letters are the kinds of `Action`, small for the second stage or
        direction of the rank; `-` continues a step, `.` is idle.
    """
    schedule = timeline.schedule
    labels = [f"rank {rank} " for rank in range(schedule.num_ranks)]
    columns = max(width - max(map(len, labels)), 1)
    per_forward = columns * _mean_forward(timeline) / timeline.makespan
    if per_forward >= 1:  # whole columns, so that equal steps look equal
        columns = round(columns * int(per_forward) / per_forward)
    named = per_forward >= len(f"F{schedule.num_microbatches - 1}")
    scale = columns / timeline.makespan
    lines = []
    for label, spans in zip(labels, timeline.spans, strict=True):
        line = ""
        for span in spans:
            line = line.ljust(round(span.start * scale), ".")
            line += _cell_text(schedule, span.step, round(span.end * scale) - len(line), named)
        lines.append(label.ljust(len(labels[-1])) + line.ljust(columns, "."))
    return "\n".join(lines) + "\n"


def _cell_text(schedule: Schedule, step: Step, width: int, named: bool) -> str:
    parts = []
    for action in actions_of(step):
        second = schedule.chunk_of(action.stage, action.microbatch)
        letter = action.kind.lower() if second else str(action.kind)
        parts.append(f"{letter}{action.microbatch}" if named else letter)
    text = "&".join(parts)
    if len(parts) > 1 and len(text) > width:
        text = "&"
    return text.ljust(width, "-")[:width]
