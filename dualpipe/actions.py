"""What a pipeline schedule is made of: actions, where stages live, and the list per rank.

The text form is that of torch.distributed.pipelining: `2F0` is the forward of stage 2 on
micro-batch 0, `(0F7;7B3)OVERLAP_F_B` a forward and a backward that run together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

OVERLAP_SUFFIX = "OVERLAP_F_B"
ACTION_PATTERN = re.compile(r"(\d+)([FBIW])(\d+)")
OVERLAP_PATTERN = re.compile(r"\(([^;]+);([^;]+)\)" + OVERLAP_SUFFIX)


class ScheduleError(ValueError):
    """A schedule that cannot be built, or that does not do its work."""


class Kind(StrEnum):
    """The four things a stage does with a micro-batch."""

    FORWARD = "F"
    BACKWARD = "B"  # gradients of inputs and weights
    INPUT_GRAD = "I"
    WEIGHT_GRAD = "W"


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """One stage doing one thing with one micro-batch."""

    stage: int
    kind: Kind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """A forward and a full backward of another micro-batch, run together on one rank."""

    forward: Action
    backward: Action

    def __str__(self) -> str:
        return f"({self.forward};{self.backward}){OVERLAP_SUFFIX}"


Step = Action | Overlap


def actions_of(step: Step) -> tuple[Action, ...]:
    """The single actions of a step, in the order in which they run when nothing overlaps."""
    return (step,) if isinstance(step, Action) else (step.forward, step.backward)


def phase_name(step: Step) -> str:
    """The name of a step in traces, measured or simulated, as torch's own pipelines write it."""
    return f"PP:{step}"


def parse_step(text: str) -> Step:
    """Reads the text form of a step; the inverse of `str`.

    >>> parse_step("(0F7;7B3)OVERLAP_F_B").backward
    Action(stage=7, kind=<Kind.BACKWARD: 'B'>, microbatch=3)
    """
    overlap = OVERLAP_PATTERN.fullmatch(text)
    if overlap:
        forward, backward = (parse_step(part) for part in overlap.groups())
        if isinstance(forward, Action) and isinstance(backward, Action):
            return Overlap(forward, backward)
    action = ACTION_PATTERN.fullmatch(text)
    if not action:
        raise ScheduleError(
            f"parse_step: text must be like '2F0' or '(0F7;7B3){OVERLAP_SUFFIX}', got {text!r}"
        )
    stage, kind, microbatch = action.groups()
    return Action(int(stage), Kind(kind), int(microbatch))


class Placement(StrEnum):
    """Which rank holds which stages; `chunk` is the index of a stage among its rank's own."""

    LINEAR = "linear"  # rank r holds stage r
    V_SHAPE = "v"  # N ranks, 2N stages: rank r holds stages r and 2N-1-r
    BIDIRECTIONAL = "bidirectional"  # N ranks, N stages: rank r holds copies of stages r and N-1-r


@dataclass(frozen=True, slots=True)
class Schedule:
    """What every rank does in one training step, in order.

    With bidirectional placement the first half of the micro-batches enters at rank 0, the second
    half at the last rank, so a stage lives on two ranks and the micro-batch tells which one.
    """

    name: str
    placement: Placement
    num_microbatches: int
    ranks: tuple[tuple[Step, ...], ...]

    @property
    def num_ranks(self) -> int:
        return len(self.ranks)

    @property
    def num_stages(self) -> int:
        """How many parts the model is cut into."""
        return self.num_ranks * (2 if self.placement is Placement.V_SHAPE else 1)

    def rank_of(self, stage: int, microbatch: int) -> int:
        """The rank on which a stage meets a micro-batch."""
        if self.placement is Placement.V_SHAPE and stage >= self.num_ranks:
            return self.num_stages - 1 - stage
        if self.direction_of(microbatch):
            return self.num_ranks - 1 - stage
        return stage

    def direction_of(self, microbatch: int) -> int:
        """1 for a micro-batch that enters at the last rank, else 0."""
        bidirectional = self.placement is Placement.BIDIRECTIONAL
        return int(bidirectional and microbatch >= self.num_microbatches // 2)

    def chunk_of(self, stage: int, microbatch: int) -> int:
        """The index of the module on `rank_of(stage, microbatch)` that does this work."""
        if self.placement is Placement.V_SHAPE:
            return int(stage >= self.num_ranks)
        return self.direction_of(microbatch)

    def grid(self, error: str = "", rank: int = -1, index: int = -1) -> str:
        """The lists as text, one line a rank; `error` is written behind step `index` of `rank`."""
        lines = []
        for row, steps in enumerate(self.ranks):
            texts = [str(step) for step in steps]
            if row == rank:
                texts[index : index + 1] = [*texts[index : index + 1], f"<-- {error}"]
            lines.append(f"rank {row}: " + " ".join(texts))
        return "\n".join(lines)


def to_csv(schedule: Schedule) -> str:
    """The schedule in the "compute_only" CSV of torch.distributed.pipelining: one row a rank.

    Raises:
        ScheduleError: for bidirectional placement, which that format cannot say: it wants every
            stage on one rank.
    """
    if schedule.placement is Placement.BIDIRECTIONAL:
        raise ScheduleError(
            f"to_csv: schedule must hold every stage on one rank, got {schedule.name} with two "
            "copies of each (use dualpipev, whose order torch can run)"
        )
    return "".join(",".join(map(str, steps)) + "\n" for steps in schedule.ranks)
