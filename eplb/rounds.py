"""In which order the replicas of a layer can move when every slot is overwritten in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

STAGING = -1  # the slot of a GPU that belongs to no plan; of a buffer with a row more, the last row

Location = tuple[int, int]  # GPU, slot of that GPU


class Move(NamedTuple):
    """One expert's weights go from a slot to another.

    Attributes:
        source_gpu: who sends; -1 for weights that only storage still has.
        source_slot: where they lie there, counted from 0 on each GPU; -1 for its staging slot.
        gpu: who receives.
        slot: where they go there; -1 for its staging slot.
        expert: whose weights they are.
    """

    source_gpu: int
    source_slot: int
    gpu: int
    slot: int
    expert: int

    @property
    def source(self) -> Location:
        return self.source_gpu, self.source_slot

    @property
    def target(self) -> Location:
        return self.gpu, self.slot


class Round(NamedTuple):
    """What can happen before the GPUs wait for each other again.

    Attributes:
        copies: within a GPU, in this order, before the moves.
        moves: between GPUs, all at the same time: no GPU sends twice, none receives twice, and no
            slot that is read is written.
    """

    copies: tuple[Move, ...]
    moves: tuple[Move, ...]


def order_moves(wanted: Iterable[Move]) -> tuple[Round, ...]:
    """Rounds that carry out `wanted` without overwriting what has still to be read.

    In every round the GPUs that have most left to send or to receive come first, as in a greedy
    edge colouring. A move whose slot has still to be read goes to the staging slot of its GPU if
    that is free, and from there to its own slot as soon as possible; moves that need no staging are
    preferred. This always ends: a slot is written once, from one slot, so moves that wait for each
    other form one circle at most, and one staged move opens it.

    Args:
        wanted: one move at most into each slot; each reads what lies in its source at the start.
    """
    queue = _Queue(wanted)
    rounds = []
    while queue.copies or queue.moves:
        copies, moves = queue.take_copies(), queue.take_moves()
        if not (copies or moves):
            copies = [queue.stage_copy()]
        rounds.append(Round(tuple(copies), tuple(moves)))
    return tuple(rounds)


def degree(moves: Iterable[Move]) -> int:
    """The most that a GPU sends or receives: no order of these moves has fewer rounds."""
    between = [move for move in moves if move.source_gpu != move.gpu]
    sent = Counter(move.source_gpu for move in between)
    received = Counter(move.gpu for move in between)
    return max((sent | received).values(), default=0)


class _Queue:
    """The moves of a layer that have not been made yet.

    Attributes:
        copies: those within a GPU.
        moves: those between GPUs.
        reads: how many of them read each slot. A full staging slot is one that is read.
    """

    def __init__(self, wanted: Iterable[Move]) -> None:
        todo = list(wanted)
        self.copies = [move for move in todo if move.source_gpu == move.gpu]
        self.moves = [move for move in todo if move.source_gpu != move.gpu]
        self.reads = Counter(move.source for move in todo)

    def take_copies(self) -> list[Move]:
        """Copies into slots that nobody reads any more; each may free a slot for another."""
        taken: list[Move] = []
        while ready := [copy for copy in self.copies if not self.reads[copy.target]]:
            for copy in ready:
                self.reads[copy.source] -= 1
            taken += ready
            self.copies = [copy for copy in self.copies if copy not in ready]
        return taken

    def take_moves(self) -> list[Move]:
        """Moves of which no GPU sends two or receives two."""
        to_send = Counter(move.source_gpu for move in self.moves)
        to_receive = Counter(move.gpu for move in self.moves)

        def urgency(move: Move) -> tuple[int, int, int]:
            degrees = to_send[move.source_gpu], to_receive[move.gpu]
            return max(degrees), -self.reads[move.target], sum(degrees)

        senders: set[int] = set()
        receivers: set[int] = set()
        direct: list[Move] = []
        staged: list[Move] = []
        left = []
        for move in sorted(self.moves, key=urgency, reverse=True):
            waits = self.reads[move.target] > 0
            staging_full = self.reads[move.gpu, STAGING] > 0
            if move.source_gpu in senders or move.gpu in receivers or (waits and staging_full):
                left.append(move)
                continue
            senders.add(move.source_gpu)
            receivers.add(move.gpu)
            (staged if waits else direct).append(move)
        self.moves = left
        # Only now: what is read in a round is not written in it.
        for move in (*direct, *staged):
            self.reads[move.source] -= 1
        return direct + [self._stage(move) for move in staged]

    def stage_copy(self) -> Move:
        """The first half of a copy that waits, in a circle, for itself."""
        copy = self.copies.pop(0)
        self.reads[copy.source] -= 1
        return self._stage(copy)

    def _stage(self, move: Move) -> Move:
        self.copies.append(Move(move.gpu, STAGING, move.gpu, move.slot, move.expert))
        self.reads[move.gpu, STAGING] += 1
        return move._replace(slot=STAGING)
