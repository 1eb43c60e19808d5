"""Proves that a schedule does its work: completely, in order, without deadlock.

Two checks that share nothing with the code that builds schedules and programs: one counts and
orders the actions, one runs the programs with transfers that wait for their peer.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from dualpipe.actions import Action, Kind, Overlap, Schedule, ScheduleError, Step, actions_of
from dualpipe.communication import Batch, Program, Transfer, add_communication


def validate(schedule: Schedule) -> list[int]:
    """Checks a schedule and its communication.

    Every stage does one F for every micro-batch, on the rank that holds it, then either one B or
    one I and later one W; the order is free of deadlock even when no send is buffered.

    Returns:
        The most stage activations that each rank holds at once (between F and B or W).

    Raises:
        ScheduleError: naming rank and step, with the whole grid.
    """
    peaks = [_check_rank(schedule, rank) for rank in range(schedule.num_ranks)]
    _check_complete(schedule)
    check_rendezvous(add_communication(schedule))
    return peaks


def _check_rank(schedule: Schedule, rank: int) -> int:
    """Order and place of one rank's actions; returns its peak of held activations."""
    done: dict[tuple[int, int], list[Kind]] = defaultdict(list)
    allowed: dict[tuple[Kind, ...], tuple[Kind, ...]] = {
        (): (Kind.FORWARD,),
        (Kind.FORWARD,): (Kind.BACKWARD, Kind.INPUT_GRAD),
        (Kind.FORWARD, Kind.INPUT_GRAD): (Kind.WEIGHT_GRAD,),
    }
    held = peak = 0
    for index, step in enumerate(schedule.ranks[rank]):
        if isinstance(step, Overlap) and _kinds(step) != (Kind.FORWARD, Kind.BACKWARD):
            raise _error(schedule, f"{step} must be an F and a B", rank, index)
        # In an overlapped pair the forward's activation is alive while the backward still holds.
        for action in actions_of(step):
            history = done[action.stage, action.microbatch]
            if schedule.rank_of(action.stage, action.microbatch) != rank:
                raise _error(schedule, f"{action} belongs to another rank", rank, index)
            if action.kind not in allowed.get(tuple(history), ()):
                after = "".join(history) or "nothing"
                raise _error(schedule, f"{action} must not come after {after}", rank, index)
            history.append(action.kind)
            held += action.kind is Kind.FORWARD
            peak = max(peak, held)
            held -= action.kind in (Kind.BACKWARD, Kind.WEIGHT_GRAD)
    return peak


def _kinds(step: Step) -> tuple[Kind, ...]:
    return tuple(action.kind for action in actions_of(step))


def _check_complete(schedule: Schedule) -> None:
    found = Counter(
        (action.stage, action.microbatch, action.kind)
        for steps in schedule.ranks
        for step in steps
        for action in actions_of(step)
    )
    for stage in range(schedule.num_stages):
        for microbatch in range(schedule.num_microbatches):
            counts = {kind: found.pop((stage, microbatch, kind), 0) for kind in Kind}
            full = counts[Kind.BACKWARD] == 1 and counts[Kind.INPUT_GRAD] == 0
            split = counts[Kind.BACKWARD] == 0 and counts[Kind.INPUT_GRAD] == 1
            weights_ok = counts[Kind.WEIGHT_GRAD] == counts[Kind.INPUT_GRAD]
            if counts[Kind.FORWARD] != 1 or not (full or split) or not weights_ok:
                shown = ", ".join(f"{count} {kind}" for kind, count in counts.items())
                rank = schedule.rank_of(stage, microbatch)
                message = (
                    f"stage {stage} needs one F and one B or I + W of {microbatch}, has {shown}"
                )
                raise _error(schedule, message, rank, len(schedule.ranks[rank]))
    for stage, microbatch, kind in found:
        message = f"there is no {Action(stage, kind, microbatch)}"
        raise _error(schedule, message, 0, len(schedule.ranks[0]))


def _error(schedule: Schedule, message: str, rank: int, index: int) -> ScheduleError:
    return ScheduleError(
        f"validate: {schedule.name}: rank {rank}, step {index}: {message}\n"
        + schedule.grid(message, rank, index)
    )


def check_rendezvous(programs: tuple[Program, ...]) -> None:
    """Runs the programs with no buffer anywhere: a batch ends when every peer has reached its own.

    Raises:
        ScheduleError: if the ranks end up waiting for one another, or if the two ends of a channel
            name its transfers in different orders.
    """
    _check_channels(programs)
    position = [0] * len(programs)
    reached: dict[Transfer, set[int]] = defaultdict(set)
    progress = True
    while progress:
        progress = False
        for rank, program in enumerate(programs):
            while position[rank] < len(program):
                item = program[position[rank]]
                if isinstance(item, Batch):
                    for transfer in item.transfers:
                        progress |= rank not in reached[transfer]
                        reached[transfer].add(rank)
                    if any(len(reached[transfer]) < 2 for transfer in item.transfers):
                        break
                position[rank] += 1
                progress = True
    waiting = [r for r, program in enumerate(programs) if position[r] < len(program)]
    if waiting:
        lines = [f"rank {rank} waits in {programs[rank][position[rank]]}" for rank in waiting]
        raise ScheduleError("check_rendezvous: deadlock\n" + "\n".join(lines))


def _check_channels(programs: tuple[Program, ...]) -> None:
    sent: dict[tuple[int, int], list[Transfer]] = defaultdict(list)
    received: dict[tuple[int, int], list[Transfer]] = defaultdict(list)
    for rank, program in enumerate(programs):
        for item in program:
            for transfer in item.transfers if isinstance(item, Batch) else ():
                side = sent if transfer.source == rank else received
                side[transfer.source, transfer.destination].append(transfer)
    for channel in sent.keys() | received.keys():
        if sent[channel] != received[channel]:
            source, destination = channel
            raise ScheduleError(
                f"check_rendezvous: ranks {source} and {destination} order their transfers "
                f"differently: sent {', '.join(map(str, sent[channel]))}; "
                f"received {', '.join(map(str, received[channel]))}"
            )
