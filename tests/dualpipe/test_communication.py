"""Where transfers go: each once on both sides, in time, in one order, without slowing the ranks."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualpipe.actions import Action, Kind, Schedule, ScheduleError, actions_of, parse_step
from dualpipe.communication import (
    Batch,
    Program,
    Transfer,
    add_communication,
    transfer_between,
    transfers_after,
)
from dualpipe.schedules import SCHEDULES, dualpipe, dualpipev, forward_only, one_f_one_b
from dualpipe.simulate import Times, inputs_of, simulate
from dualpipe.validate import check_rendezvous
from tests.oracles import pipeline

SIZES = [(2, 4), (2, 6), (4, 8), (4, 14), (6, 12), (8, 20)]
schedules = st.builds(
    lambda name, sizes: SCHEDULES[name](*sizes),
    st.sampled_from(list(SCHEDULES)),
    st.sampled_from(SIZES),
)
durations = st.integers(1, 40).map(lambda n: n / 16)
times_of_equal_stages = st.builds(
    Times, durations, durations, durations, st.integers(8, 16).map(lambda n: n / 16)
)


def transfers_of(program: Program) -> list[Transfer]:
    return [t for item in program if isinstance(item, Batch) for t in item.transfers]


def expected_transfers(schedule: Schedule) -> Counter[str]:
    """From the definition of the work: every hand-over between stages on different ranks."""
    sizes = schedule.num_ranks, schedule.num_microbatches
    found: Counter[str] = Counter()
    for microbatch in range(schedule.num_microbatches):
        places = [
            pipeline.owner(schedule.placement, sizes, stage, microbatch)
            for stage in range(schedule.num_stages)
        ]
        for stage in range(1, schedule.num_stages):
            before, here = places[stage - 1], places[stage]
            if before != here:
                found[f"{stage}F{microbatch}:{before}>{here}"] += 1
                found[f"{stage - 1}I{microbatch}:{here}>{before}"] += 1
    return found


@given(schedules)
def test_every_transfer_is_sent_once_and_received_once(schedule: Schedule) -> None:
    programs = add_communication(schedule)
    expected = expected_transfers(schedule)
    sent = Counter(
        str(t) for rank, p in enumerate(programs) for t in transfers_of(p) if t.source == rank
    )
    received = Counter(
        str(t) for rank, p in enumerate(programs) for t in transfers_of(p) if t.destination == rank
    )
    assert sent == received == expected
    assert sum(map(len, map(transfers_of, programs))) == 2 * expected.total()
    steps = [tuple(item for item in p if not isinstance(item, Batch)) for p in programs]
    assert tuple(steps) == schedule.ranks


@given(schedules, times_of_equal_stages)
def test_transfers_come_after_their_producer_and_before_their_use(
    schedule: Schedule, times: Times
) -> None:
    for rank, program in enumerate(add_communication(schedule, times)):
        ready: set[Transfer] = set()
        arrived: set[Action] = set()
        for item in program:
            if isinstance(item, Batch):
                for transfer in item.transfers:
                    if transfer.source == rank:
                        ready.remove(transfer)
                    else:
                        arrived.add(Action(transfer.stage, transfer.kind, transfer.microbatch))
                continue
            ready.update(transfers_after(schedule, item))
            for action in actions_of(item):
                for need in inputs_of(schedule, action):
                    if schedule.rank_of(need.stage, need.microbatch) != rank:
                        kind = Kind.FORWARD if action.kind is Kind.FORWARD else Kind.INPUT_GRAD
                        arrived.remove(Action(action.stage, kind, action.microbatch))
        assert not ready
        assert not arrived


def replay(schedule: Schedule, programs: tuple[Program, ...], times: Times) -> float:
    """Runs programs like a GPU: batches start at once, one after the other, on their own stream.

    Both ends of a transfer must have started it (nothing is buffered), and a step waits for the
    whole batches that bring its inputs. Starts grow from 0 until every wait is satisfied.
    """
    batch_of = {
        (transfer, rank): (rank, index)
        for rank, program in enumerate(programs)
        for index, item in enumerate(program)
        for transfer in (item.transfers if isinstance(item, Batch) else ())
    }
    started, ended = dict.fromkeys(batch_of.values(), 0.0), dict.fromkeys(batch_of.values(), 0.0)
    while True:
        before = dict(started), dict(ended)
        makespan = 0.0
        for rank, program in enumerate(programs):
            clock = stream = 0.0
            for index, item in enumerate(program):
                if isinstance(item, Batch):
                    started[rank, index] = max(clock, stream)
                    peers = [
                        batch_of[t, r] for t in item.transfers for r in (t.source, t.destination)
                    ]
                    stream = ended[rank, index] = max(started[peer] for peer in peers)
                    continue
                for transfer in arrivals(schedule, item, rank):
                    clock = max(clock, ended[batch_of[transfer, rank]])
                clock += times.of(item)
            makespan = max(makespan, clock)
        if before == (started, ended):
            return makespan


def arrivals(schedule: Schedule, step: object, rank: int) -> list[Transfer]:
    found = []
    for action in actions_of(step):  # type: ignore[arg-type]
        forward = action.kind is Kind.FORWARD
        if action.kind is not Kind.WEIGHT_GRAD:
            kind = Kind.FORWARD if forward else Kind.INPUT_GRAD
            sender = action.stage - 1 if forward else action.stage + 1
            found.append(transfer_between(schedule, kind, action.microbatch, sender, action.stage))
    return [transfer for transfer in found if transfer]


@settings(max_examples=40)
@given(schedules, times_of_equal_stages)
def test_batches_do_not_slow_the_ranks(schedule: Schedule, times: Times) -> None:
    programs = add_communication(schedule, times)
    assert replay(schedule, programs, times) == simulate(schedule, times).makespan


def test_batches_made_for_other_times_cost_little() -> None:
    schedule, times = dualpipe(8, 20), Times(1, 1.63, 0.83, 0.8)
    ideal = simulate(schedule, times).makespan
    assert ideal < replay(schedule, add_communication(schedule), times) < 1.03 * ideal


@given(schedules)
def test_evaluation_communicates_forwards_alone(schedule: Schedule) -> None:
    programs = add_communication(forward_only(schedule))
    check_rendezvous(programs)
    expected = {name for name in expected_transfers(schedule) if "F" in name}
    assert {str(t) for program in programs for t in transfers_of(program)} == expected


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (dualpipe(4, 8), "0F0", ["1F0:0>1"]),
        (dualpipe(4, 8), "0F4", ["1F4:3>2"]),  # the second direction enters at the last rank
        (dualpipe(4, 8), "3F0", []),
        (dualpipe(4, 8), "1B0", ["0I0:1>0"]),
        (dualpipe(4, 8), "1I4", ["0I4:2>3"]),
        (dualpipe(4, 8), "1W0", []),
        (dualpipe(4, 8), "(1F5;2B0)OVERLAP_F_B", ["2F5:2>1", "1I0:2>1"]),
        (dualpipev(2, 4), "1F0", []),  # both stages at the turn are on one rank
        (dualpipev(2, 4), "2F0", ["3F0:1>0"]),
        (dualpipev(2, 4), "2I0", []),
        (one_f_one_b(2, 2), "0B0", []),
    ],
)
def test_what_travels_after_a_step(schedule: Schedule, step: str, expected: list[str]) -> None:
    assert list(map(str, transfers_after(schedule, parse_step(step)))) == expected


def test_one_rank_is_silent() -> None:
    assert add_communication(dualpipev(1, 3)) == dualpipev(1, 3).ranks


# The check itself: it must refuse what would hang or mix up data.

A, B = Transfer(1, Kind.FORWARD, 0, 0, 1), Transfer(1, Kind.FORWARD, 1, 0, 1)
BACK = Transfer(0, Kind.INPUT_GRAD, 0, 1, 0)


def test_rendezvous_refuses_a_crossed_channel() -> None:
    one, other = (Batch((A,)), Batch((B,))), (Batch((B,)), Batch((A,)))
    with pytest.raises(ScheduleError) as error:
        check_rendezvous((one, other))
    assert "ranks 0 and 1 order their transfers differently" in str(error.value)
    assert "sent 1F0:0>1, 1F1:0>1; received 1F1:0>1, 1F0:0>1" in str(error.value)


def test_rendezvous_refuses_opposite_orders_of_two_channels() -> None:
    one, other = (Batch((A,)), Batch((BACK,))), (Batch((BACK,)), Batch((A,)))
    with pytest.raises(ScheduleError) as error:
        check_rendezvous((one, other))
    assert str(error.value) == (
        "check_rendezvous: deadlock\nrank 0 waits in [1F0:0>1]\nrank 1 waits in [0I0:1>0]"
    )
    check_rendezvous((one, (Batch((BACK, A)),)))  # started together, they wait for neither


def test_rendezvous_refuses_a_send_without_a_receiver() -> None:
    with pytest.raises(ScheduleError, match=r"sent 1F0:0>1; received $"):
        check_rendezvous(((Batch((A,)),), ()))


@pytest.mark.parametrize("rank", range(4))
def test_rendezvous_catches_any_two_swapped_batches_of_one_channel(rank: int) -> None:
    programs = add_communication(dualpipe(4, 8))
    program = programs[rank]
    batches = [index for index, item in enumerate(program) if isinstance(item, Batch)]
    for first, second in pairwise(batches):
        swapped = list(program)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        channels = [
            {(t.source, t.destination) for t in program[index].transfers}  # type: ignore[union-attr]
            for index in (first, second)
        ]
        if channels[0] & channels[1]:
            with pytest.raises(ScheduleError, match="order their transfers differently"):
                check_rendezvous((*programs[:rank], tuple(swapped), *programs[rank + 1 :]))
