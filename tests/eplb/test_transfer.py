"""Transfers: carried out by an oracle in the worst order, and counted."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.ranks import Rank
from eplb.plan import EMPTY, Plan, even_shares
from eplb.rounds import Move, Round, order_moves
from eplb.start import place, replicate
from eplb.topology import Topology
from eplb.transfer import (
    DEEPSEEK_V3_EXPERT_BYTES,
    STORAGE,
    Transfer,
    align_slots,
    by_gpu,
    plan_transfer,
)
from tests.forked_pool import ForkedPool
from tests.oracles.expert_transfer import Buffers, garbage, play
from tests.strategies import placements, topologies

Slots = NDArray[np.int64]


def plan_of(topology: Topology, slots: Slots, num_experts: int) -> Plan:
    """A plan with these slots; transfers look at nothing else."""
    shape = len(slots)
    loads = np.ones((1, shape, num_experts))
    shares = even_shares(slots, num_experts)
    return Plan(
        topology, "global", loads, slots, shares, np.ones(shape), np.zeros(shape, dtype=np.int64)
    )


def buffers_of(plan: Plan, layer: int, sizes: list[int]) -> Buffers:
    """Each GPU's slots hold the tag of their expert, 100 + its number; the rest is garbage."""
    buffers = garbage(sizes)
    table = by_gpu(plan.slots, plan.topology)[layer].tolist()
    for gpu, experts in enumerate(table):
        for slot, expert in enumerate(experts):
            if expert != EMPTY:
                buffers[gpu][slot] = 100.0 + expert
    return buffers


def check(transfer: Transfer, plan: Plan, previous: Plan) -> None:
    """Every layer ends in the new plan, lost experts included, and the figures add up."""
    new, old = plan.topology, previous.topology
    sizes = [max(pair) if pair[0] else 0 for pair in zip(new.slots, old.slots, strict=True)]
    tags = [100.0 + expert for expert in range(plan.num_experts)]
    for layer in range(plan.num_layers):
        buffers = buffers_of(previous, layer, [max(s) for s in zip(sizes, old.slots, strict=True)])
        for gpu in set(range(new.num_gpus)) - set(new.alive):
            buffers[gpu] = [math.nan] * len(buffers[gpu])  # it has failed
        play(buffers, [(list(c), list(m)) for c, m in transfer.rounds[layer]], tags)
        survivors = {tag for buffer in buffers for tag in buffer}
        for source, _, gpu, slot, expert in transfer.lost[layer]:
            assert source == STORAGE
            assert tags[expert] not in survivors
            buffers[gpu][slot] = tags[expert]
        for gpu, experts in enumerate(by_gpu(plan.slots, new)[layer].tolist()):
            for slot, expert in enumerate(experts):
                assert expert == EMPTY or buffers[gpu][slot] == tags[expert]
    assert sum(transfer.bytes_sent) == sum(transfer.bytes_received) == transfer.bytes_total
    assert transfer.min_rounds <= transfer.num_rounds <= transfer.num_moves
    assert transfer.bytes_between_nodes <= transfer.bytes_total


@st.composite
def changes(draw: st.DrawFn) -> tuple[Plan, Plan]:
    """A plan and the one before, for the same GPUs with slots of their own."""
    old = draw(topologies())
    sizes = st.lists(st.integers(0, 4), min_size=old.num_gpus, max_size=old.num_gpus)
    slots = old.slots if draw(st.booleans()) else tuple(draw(sizes))
    new = Topology(slots if sum(slots) else old.slots, old.node_of)
    num_experts = draw(st.integers(1, min(new.num_slots, old.num_slots)))
    num_layers = draw(st.integers(1, 2))
    before, after = (draw(placements(t, num_experts, num_layers)) for t in (old, new))
    return plan_of(new, after, num_experts), plan_of(old, before, num_experts)


@settings(max_examples=300)
@given(changes(), st.booleans())
def test_a_transfer_ends_in_the_new_plan_whatever_the_order_inside_rounds(
    change: tuple[Plan, Plan], align: bool
) -> None:
    plan, previous = change
    if align:
        slots = align_slots(plan.slots, previous.slots, plan.topology, previous.topology)
        plan = plan_of(plan.topology, slots, plan.num_experts)
    check(plan_transfer(plan, previous), plan, previous)


@settings(max_examples=200)
@given(changes())
def test_aligned_slots_hold_the_same_and_keep_what_stays(change: tuple[Plan, Plan]) -> None:
    plan, previous = change
    aligned = align_slots(plan.slots, previous.slots, plan.topology, previous.topology)
    tables = [
        by_gpu(slots, topology).tolist()
        for slots, topology in (
            (plan.slots, plan.topology),
            (aligned, plan.topology),
            (previous.slots, previous.topology),
        )
    ]
    for layers in zip(*tables, strict=True):
        for gpu, (wanted, got, before) in enumerate(zip(*layers, strict=True)):
            assert sorted(got) == sorted(wanted)
            for slot, expert in enumerate(before[: plan.topology.slots[gpu]]):
                assert expert == EMPTY or expert not in wanted or got[slot] == expert


def test_aligned_copies_of_an_expert_on_one_gpu_keep_their_slots_too() -> None:
    topology = Topology((4,), (0,))
    before, after = np.array([[5, 7, 5, 3]]), np.array([[3, 5, 5, 9]])
    np.testing.assert_array_equal(align_slots(after, before, topology), [[5, 9, 5, 3]])


def test_a_slot_that_is_gone_keeps_nothing() -> None:
    """Expert 2 stays on GPU 0 but lay in its third slot, which GPU 1 has now."""
    aligned = align_slots(
        np.array([[2, 0, 1, 3, 4]]),
        np.array([[0, 1, 2, 3, 4]]),
        Topology((2, 3), (0, 0)),
        Topology((3, 2), (0, 0)),
    )
    np.testing.assert_array_equal(aligned, [[0, 2, 3, 4, 1]])


def test_an_unchanged_plan_moves_nothing() -> None:
    topology = Topology((2, 2), (0, 0))
    plan = plan_of(topology, np.array([[0, 1, 1, EMPTY], [1, 0, 0, 1]]), 2)
    transfer = plan_transfer(plan, plan)
    assert transfer.rounds == ((), ())
    assert transfer.lost == ((), ())
    assert transfer.num_moves == transfer.num_rounds == transfer.bytes_total == 0


def test_two_gpus_that_exchange_experts_need_one_staged_move() -> None:
    topology = Topology((1, 1), (0, 1))
    previous, plan = (plan_of(topology, np.array([row]), 2) for row in ([0, 1], [1, 0]))
    transfer = plan_transfer(plan, previous)
    check(transfer, plan, previous)
    assert transfer.num_staged <= 2
    assert transfer.num_rounds == transfer.min_rounds == 1
    assert transfer.bytes_between_nodes == transfer.bytes_total == 2 * DEEPSEEK_V3_EXPERT_BYTES


def test_experts_that_change_places_on_one_gpu_are_copied_through_staging() -> None:
    topology = Topology((3,), (0,))
    previous, plan = (plan_of(topology, np.array([row]), 3) for row in ([0, 1, 2], [1, 2, 0]))
    transfer = plan_transfer(plan, previous)
    check(transfer, plan, previous)
    assert (transfer.num_moves, transfer.num_copies, transfer.num_staged) == (0, 4, 1)


def test_sources_are_the_own_gpu_then_the_own_node_then_whoever_sends_least() -> None:
    topology = Topology((2, 2, 2, 2), (0, 0, 1, 1))
    previous = plan_of(topology, np.array([[0, 1, 0, 1, 0, 2, 2, 3]]), 4)
    slots = previous.slots.copy()
    slots[0, [2, 6]] = [3, 0]  # GPU 1 drops 0 for 3, which is on GPU 3; GPU 3 drops 2 for 0
    plan = plan_of(topology, slots, 4)
    moves = {move for step in plan_transfer(plan, previous).rounds[0] for move in step.moves}
    assert moves == {Move(3, 1, 1, 0, 3), Move(2, 0, 3, 0, 0)}

    spread = plan_of(Topology((1,) * 6, (0,) * 6), np.array([[0, 0, 0, 1, 1, 1]]), 2)
    wanted = plan_of(spread.topology, np.array([[0, 0, 0, 0, 0, 1]]), 2)
    transfer = plan_transfer(wanted, spread)
    assert sorted(transfer.bytes_sent) == [0] * 4 + [DEEPSEEK_V3_EXPERT_BYTES] * 2
    assert transfer.num_rounds == 1


def test_what_only_failed_gpus_held_comes_from_storage() -> None:
    old = Topology((2, 2, 2), (0, 0, 0))
    previous = plan_of(old, np.array([[0, 1, 2, 3, 1, 0]]), 4)
    new = old.without([1])
    plan = plan_of(new, np.array([[2, 1, 3, 0]]), 4)
    transfer = plan_transfer(plan, previous)
    check(transfer, plan, previous)
    assert transfer.lost == ((Move(-1, -1, 0, 0, 2), Move(-1, -1, 2, 0, 3)),)
    assert transfer.num_moves == 0


@pytest.mark.parametrize(
    ("num_gpus", "num_replicas", "num_nodes", "slack"),
    [(32, 288, 1, 1.15), (128, 384, 16, 1.02), (144, 288, 18, 1.05), (320, 320, 40, 1.0)],
    ids=["32 GPUs", "128 GPUs", "144 GPUs", "320 GPUs"],
)
def test_new_plans_of_deployments_take_few_rounds(
    num_gpus: int, num_replicas: int, num_nodes: int, slack: float
) -> None:
    topology = Topology.regular(num_gpus, num_replicas, num_nodes)
    random = np.random.default_rng(num_gpus)
    loads = random.lognormal(0, 1, (2, 1, 6, 256))
    before, after = (
        place(load, replicate(load, num_replicas, num_gpus), np.array(topology.slots))
        for load in loads
    )
    after = align_slots(after, before, topology)
    plan, previous = (plan_of(topology, slots, 256) for slots in (after, before))
    transfer = plan_transfer(plan, previous)
    check(transfer, plan, previous)
    assert transfer.num_rounds <= slack * transfer.min_rounds
    assert transfer.num_staged <= transfer.num_moves


def test_a_long_chain_of_slots_takes_two_rounds() -> None:
    """Each GPU hands its expert to the next: one round, but for staging; none waits for all."""
    moves = [Move(gpu, 0, gpu + 1, 0, gpu) for gpu in range(50)]
    assert len([step for step in order_moves(moves) if step.moves]) == 1
    assert order_moves([]) == ()


def run_documented_loop(
    this: Rank, transfer: Transfer, plan: Plan, previous: Plan
) -> list[list[float]]:
    """The example of Transfer's docstring; an expert's weights are its number."""
    rank = this.rank
    size = max(plan.topology.slots[rank], previous.topology.slots[rank])
    weights = torch.full((plan.num_layers, size + 1, 3), math.nan)
    before = torch.from_numpy(by_gpu(previous.slots, previous.topology)[:, rank])
    weights[:, : before.shape[1]] = before[..., None].float()
    for layer, rounds in enumerate(transfer.rounds):
        for copies, moves in rounds:
            for copy in copies:
                if copy.gpu == rank:
                    weights[layer][copy.slot].copy_(weights[layer][copy.source_slot])
            batch = [
                dist.P2POp(dist.isend, weights[layer][move.source_slot], move.gpu)
                for move in moves
                if move.source_gpu == rank
            ] + [
                dist.P2POp(dist.irecv, weights[layer][move.slot], move.source_gpu)
                for move in moves
                if move.gpu == rank
            ]
            for work in dist.batch_isend_irecv(batch) if batch else ():
                work.wait()
    held: list[list[float]] = weights[:, :size, 0].tolist()
    return held


def test_the_documented_loop_moves_weights_between_processes(ranks: ForkedPool) -> None:
    topology = Topology((2, 2, 2, 2), (0, 0, 1, 1))
    previous = plan_of(topology, np.array([[0, 1, 2, 3, 4, 5, 6, 7]] * 2), 8)
    slots = np.array([[7, 0, 1, 2, 3, 4, 5, 6], [2, 3, 0, 1, 6, 7, 4, 0]])
    plan = plan_of(topology, slots, 8)
    transfer = plan_transfer(plan, previous)
    assert transfer.num_staged
    held = ranks.run(run_documented_loop, 4, transfer, plan, previous, timeout_s=60)
    np.testing.assert_array_equal(np.concatenate([np.array(rows) for rows in held], axis=1), slots)


@pytest.mark.parametrize(
    ("slots", "num_experts", "gpus", "message"),
    [
        ([[0, 1]] * 2, 2, 2, "previous must have the 1 layers of plan, got 2"),
        ([[0, 1]], 3, 2, "previous must have the 2 experts of plan, got 3"),
        ([[0, 1]], 2, 1, "previous must have the 2 GPUs of plan, got 1"),
    ],
    ids=["layers", "experts", "GPUs"],
)
def test_plans_that_do_not_go_together(
    slots: list[list[int]], num_experts: int, gpus: int, message: str
) -> None:
    plan = plan_of(Topology((1, 1), (0, 0)), np.array([[0, 1]]), 2)
    topology = Topology((2 // gpus,) * gpus, (0,) * gpus)
    with pytest.raises(ValueError, match=f"plan_transfer: {message}"):
        plan_transfer(plan, plan_of(topology, np.array(slots), num_experts))


def test_experts_without_a_size() -> None:
    plan = plan_of(Topology((1,), (0,)), np.array([[0]]), 1)
    with pytest.raises(ValueError, match="plan_transfer: expert_bytes must be at least 1, got 0"):
        plan_transfer(plan, plan, expert_bytes=0)


def test_rounds_and_moves_unpack_as_documented() -> None:
    (copies, moves), *rest = order_moves([Move(0, 1, 1, 2, 3)])
    assert (copies, moves, rest) == ((), (Move(0, 1, 1, 2, 3),), [])
    assert isinstance(Round(copies, moves), tuple)
