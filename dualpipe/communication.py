"""From compute order to what a rank runs: where the transfers between ranks go.

A program is the rank's steps with batches of transfers between them. The rule that places them
makes deadlock impossible even if nothing is buffered, that is if a batch ends only when every
peer has reached the matching one. Give each step the time at which it ends in a simulation, each
transfer the time at which its producer ends, and let every rank go through its own steps and
transfers in the order of these times. Among everything not yet done, the earliest item can always
proceed: both ends of a transfer have nothing earlier left, and a step's inputs are earlier. The
two ranks of a channel see its transfers in one order too, which NCCL relies on to match them.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualpipe.actions import Kind, Schedule, Step, actions_of
from dualpipe.simulate import Times, simulate


@dataclass(frozen=True, slots=True, order=True)
class Transfer:
    """What a stage receives for a micro-batch: activations (F) or gradients (I)."""

    stage: int
    kind: Kind
    microbatch: int
    source: int
    destination: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}:{self.source}>{self.destination}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Transfers that a rank starts together."""

    transfers: tuple[Transfer, ...]

    def __str__(self) -> str:
        return "[" + " ".join(map(str, self.transfers)) + "]"


Program = tuple[Step | Batch, ...]


def transfer_between(
    schedule: Schedule, kind: Kind, microbatch: int, sender: int, receiver: int
) -> Transfer | None:
    """What stage `sender` hands to stage `receiver`; None on one rank or past the model's ends."""
    if not (0 <= sender < schedule.num_stages and 0 <= receiver < schedule.num_stages):
        return None
    source = schedule.rank_of(sender, microbatch)
    destination = schedule.rank_of(receiver, microbatch)
    if source == destination:
        return None
    return Transfer(receiver, kind, microbatch, source, destination)


def transfers_after(schedule: Schedule, step: Step) -> list[Transfer]:
    """What must travel to other ranks once a step is done."""
    transfers = []
    for action in actions_of(step):
        if action.kind is Kind.WEIGHT_GRAD:
            continue
        forward = action.kind is Kind.FORWARD
        kind, receiver = (Kind.FORWARD, 1) if forward else (Kind.INPUT_GRAD, -1)
        transfer = transfer_between(
            schedule, kind, action.microbatch, action.stage, action.stage + receiver
        )
        if transfer:
            transfers.append(transfer)
    return transfers


def add_communication(schedule: Schedule, times: Times | None = None) -> tuple[Program, ...]:
    """The program of every rank: its steps, with its sends and receives in batches between them.

    Args:
        schedule: the compute order.
        times: of the stages, if known; they only move batches to where they wait least.
    """
    timeline = simulate(schedule, times or Times())
    moments: list[list[tuple[float, int, Step | Transfer]]] = [[] for _ in schedule.ranks]
    for rank, spans in enumerate(timeline.spans):
        for span in spans:
            moments[rank].append((span.end, 0, span.step))
            for transfer in transfers_after(schedule, span.step):
                moments[rank].append((span.end, 1, transfer))
                moments[transfer.destination].append((span.end, 1, transfer))
    return tuple(_batched(sorted(rank, key=_moment_key)) for rank in moments)


def _moment_key(moment: tuple[float, int, Step | Transfer]) -> tuple[float, int, str]:
    time, is_transfer, item = moment
    return time, is_transfer, str(item)


def _batched(moments: list[tuple[float, int, Step | Transfer]]) -> Program:
    """Joins the transfers of one moment, and only these.

    A step that needs one transfer of a batch waits for all of it. Were transfers joined that are
    due while the step could already run, every step would start late: DualPipe on 8 ranks with 20
    micro-batches would take 75 units instead of 66.
    """
    program: list[Step | Batch] = []
    batch_time = None
    for time, _, item in moments:
        if not isinstance(item, Transfer):
            program.append(item)
            batch_time = None
        elif time == batch_time and isinstance(program[-1], Batch):
            program[-1] = Batch((*program[-1].transfers, item))
        else:
            program.append(Batch((item,)))
            batch_time = time
    return tuple(program)
