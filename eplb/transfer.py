"""From one plan to the next: which GPU sends which expert to which, round by round."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eplb.plan import DEEPSEEK_V3_EXPERT_BYTES, EMPTY, Ints, Plan
from eplb.rounds import STAGING, Location, Move, Round, degree, order_moves
from eplb.topology import Topology

STORAGE = -1  # the source GPU of an expert that no GPU holds any more


@dataclass(frozen=True, slots=True)
class Transfer:
    """The moves that turn one plan into the next, layer by layer, in place.

    A slot is written when nobody reads its old content any more; where slots wait for each other
    in a circle, one expert waits in the staging slot of its GPU. So a rank keeps one buffer more
    per layer than it has slots, and slot -1 is that buffer. With ``weights[layer]`` a tensor
    [num_slots_of_this_rank + 1, ...] a rank carries out a transfer by::

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
            # then the weights of transfer.lost[layer] are loaded from storage

    If the plans give a GPU different numbers of slots, the larger one counts for its buffers.

    Attributes:
        topology: that of the new plan.
        expert_bytes: the size of one expert's weights in one layer.
        rounds: [num_layers][num_rounds of the layer] what happens when.
        lost: [num_layers] moves from storage (source GPU -1), after the rounds: the experts of
            which every replica was on a GPU that has no slots any more.
    """

    topology: Topology
    expert_bytes: int
    rounds: tuple[tuple[Round, ...], ...]
    lost: tuple[tuple[Move, ...], ...]

    @property
    def num_moves(self) -> int:
        """Experts sent from one GPU to another."""
        return sum(1 for _ in self._moves())

    @property
    def num_copies(self) -> int:
        """Copies within a GPU, those out of and into staging included."""
        return sum(len(step.copies) for rounds in self.rounds for step in rounds)

    @property
    def num_staged(self) -> int:
        """Experts that wait in a staging slot."""
        steps = [step for rounds in self.rounds for step in rounds]
        return sum(move.slot == STAGING for step in steps for move in (*step.copies, *step.moves))

    @property
    def num_rounds(self) -> int:
        """Rounds in which GPUs send, of all layers."""
        return sum(1 for rounds in self.rounds for step in rounds if step.moves)

    @property
    def min_rounds(self) -> int:
        """What each layer's busiest GPU sends or receives: no order has fewer rounds."""
        return sum(degree(move for step in rounds for move in step.moves) for rounds in self.rounds)

    @property
    def bytes_total(self) -> int:
        """What all GPUs send."""
        return self.num_moves * self.expert_bytes

    @property
    def bytes_between_nodes(self) -> int:
        """What is sent to a GPU of another node."""
        node_of = self.topology.node_of
        crossing = (node_of[move.source_gpu] != node_of[move.gpu] for move in self._moves())
        return sum(crossing) * self.expert_bytes

    @property
    def bytes_sent(self) -> tuple[int, ...]:
        """[num_gpus] what each GPU sends."""
        sent = Counter(move.source_gpu for move in self._moves())
        return tuple(sent[gpu] * self.expert_bytes for gpu in range(self.topology.num_gpus))

    @property
    def bytes_received(self) -> tuple[int, ...]:
        """[num_gpus] what each GPU receives from others."""
        received = Counter(move.gpu for move in self._moves())
        return tuple(received[gpu] * self.expert_bytes for gpu in range(self.topology.num_gpus))

    def _moves(self) -> Iterator[Move]:
        return (move for rounds in self.rounds for step in rounds for move in step.moves)


def plan_transfer(
    plan: Plan, previous: Plan, *, expert_bytes: int = DEEPSEEK_V3_EXPERT_BYTES
) -> Transfer:
    """The moves from `previous` to `plan`.

    A replica comes from its own GPU if that holds the expert already, else from a GPU of its node,
    else from any; of those, from the one that has least to send. In each round a GPU sends at most
    one expert and receives at most one, not necessarily from the GPU that it sends to.

    Args:
        plan: what is to be; `align_slots` keeps replicas that stay in their slots.
        previous: what is; its GPUs may have had other numbers of slots.
        expert_bytes: the size of one expert's weights in one layer.

    Raises:
        ValueError: if the plans differ in their numbers of layers, experts or GPUs, or an expert
            has no size.
    """
    for name, new, old in (
        ("layers", plan.num_layers, previous.num_layers),
        ("experts", plan.num_experts, previous.num_experts),
        ("GPUs", plan.topology.num_gpus, previous.topology.num_gpus),
    ):
        if new != old:
            raise ValueError(
                f"plan_transfer: previous must have the {new} {name} of plan, got {old}"
            )
    if expert_bytes < 1:
        raise ValueError(f"plan_transfer: expert_bytes must be at least 1, got {expert_bytes}")
    old_tables = by_gpu(previous.slots, previous.topology)
    new_tables = by_gpu(plan.slots, plan.topology)
    rounds, lost = [], []
    for new_table, old_table in zip(new_tables, old_tables, strict=True):
        moves = _find_sources(new_table, old_table, plan.topology)
        rounds.append(order_moves(move for move in moves if move.source_gpu != STORAGE))
        lost.append(tuple(move for move in moves if move.source_gpu == STORAGE))
    return Transfer(plan.topology, expert_bytes, tuple(rounds), tuple(lost))


def align_slots(
    slots: Ints, previous_slots: Ints, topology: Topology, previous_topology: Topology | None = None
) -> Ints:
    """Permutes the slots of each GPU so that the experts that stay on it keep their slots.

    Args:
        slots: [num_layers, num_slots] int64 — what each slot is to hold; -1 if empty.
        previous_slots: [num_layers, num_slots before] int64 — what they hold now.
        topology: of `slots`.
        previous_topology: of `previous_slots`, if it differs.

    Returns:
        [num_layers, num_slots] int64: each GPU holds the same experts as in `slots`.
    """
    old = by_gpu(previous_slots, previous_topology or topology)
    new = by_gpu(slots, topology)
    shared = min(old.shape[2], new.shape[2])
    exists = np.arange(new.shape[2]) < np.array(topology.slots)[:, None]
    # The first replica of an expert on a GPU stays where the first was, the second likewise.
    same = new[..., :, None] == old[..., None, :shared]
    same &= (_occurrence(new)[..., :, None] == _occurrence(old)[..., None, :shared]) & (
        new[..., :, None] != EMPTY
    )
    same &= exists[:, None, :shared]
    stays, taken = same.any(axis=3), np.zeros(new.shape, dtype=bool)
    taken[..., :shared] = same.any(axis=2)
    # Who stays goes to his old slot, the others to what is free, both in ascending order; what lies
    # beyond the last slot of a GPU stays there.
    width = new.shape[2]
    beyond = ~exists
    places = np.argsort(np.where(beyond, 2, taken), axis=2, kind="stable")
    items = np.argsort(
        np.where(beyond, 2 * width, np.where(stays, width + same.argmax(axis=3), 0)),
        axis=2,
        kind="stable",
    )
    aligned = np.empty_like(new)
    np.put_along_axis(aligned, places, np.take_along_axis(new, items, axis=2), axis=2)
    return aligned[:, exists]


def by_gpu(slots: Ints, topology: Topology) -> Ints:
    """[num_layers, num_gpus, most slots of a GPU]: slots [num_layers, num_slots]; -1 where none."""
    width = max(topology.slots)
    table = np.full((slots.shape[0], topology.num_gpus, width), EMPTY)
    table[:, np.arange(width) < np.array(topology.slots)[:, None]] = slots
    return table


def _occurrence(table: Ints) -> Ints:
    """How many slots of the same GPU, before this one, hold the same expert."""
    same = table[..., :, None] == table[..., None, :]
    return np.asarray(np.tril(same, -1).sum(axis=3))


def _find_sources(new: Ints, old: Ints, topology: Topology) -> list[Move]:
    """Where each slot of a layer [num_gpus, slots] that changes gets its expert from."""
    holders: defaultdict[int, list[Location]] = defaultdict(list)
    overwritten: set[Location] = set()
    wanted: list[tuple[int, int, int]] = []
    rows = zip(new.tolist(), old.tolist(), strict=True)
    for gpu, (experts, before) in enumerate(rows):
        if not topology.slots[gpu]:
            continue
        for slot, expert in enumerate(before):
            holders[expert].append((gpu, slot))
        for slot, expert in enumerate(experts):
            if expert != EMPTY and (slot >= len(before) or before[slot] != expert):
                wanted.append((expert, gpu, slot))
                overwritten.add((gpu, slot))
    sent: Counter[int] = Counter()
    moves = []
    # Those with the fewest sources first: the others can go round the GPUs that these burden.
    for expert, gpu, slot in sorted(wanted, key=lambda want: len(holders[want[0]])):

        def cost(source: Location, gpu: int = gpu) -> tuple[bool, bool, int, bool]:
            other_node = topology.node_of[source[0]] != topology.node_of[gpu]
            return source[0] != gpu, other_node, sent[source[0]], source in overwritten

        source = min(holders[expert], key=cost, default=(STORAGE, STORAGE))
        sent[source[0]] += source[0] != gpu
        moves.append(Move(*source, gpu, slot, expert))
    return moves
