"""What a search for placements can change, and what would come of it.

Many problems are looked at together, in numpy: a step costs little more for 58 layers than for one.
Shapes: W windows, P problems, E experts, R slots, G GPUs, S slots of the GPU with most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eplb.plan import EMPTY, Floats, Ints


class Layout:
    """Which slot is on which GPU.

    Attributes:
        gpu_of: [R] the GPU of each slot.
        firsts: [G] the first slot of each GPU.
        slots_of: [G, S] the slots of each GPU; one with fewer than S repeats its last one.
    """

    def __init__(self, gpu_slots: Ints) -> None:
        self.gpu_of = np.repeat(np.arange(len(gpu_slots)), gpu_slots)
        self.firsts = np.cumsum(gpu_slots) - gpu_slots
        within = np.minimum(np.arange(gpu_slots.max()), gpu_slots[:, None] - 1)
        self.slots_of = self.firsts[:, None] + within


@dataclass(slots=True)
class Batch:
    """Problems in the middle of a search; the expert E, `nobody`, stands for an empty slot.

    Attributes:
        loads: [W, P, E + 1] of each expert; nobody has none.
        slots: [P, R] the expert in each slot.
        counts: [P, E + 1] replicas of each expert; of nobody one.
        holds: [P, E + 1, G] whether an expert is on a GPU; nobody never is.
    """

    loads: Floats
    slots: Ints
    counts: Ints
    holds: NDArray[np.bool_]

    @classmethod
    def start(cls, loads: Floats, slots: Ints, layout: Layout) -> Batch:
        """From loads [W, P, E] and slots [P, R], in which -1 is an empty one."""
        num_problems, num_experts = loads.shape[1:]
        filled = np.where(slots == EMPTY, num_experts, slots)
        holds = np.zeros((num_problems, num_experts + 1, len(layout.firsts)), dtype=bool)
        holds[np.arange(num_problems)[:, None], filled, layout.gpu_of] = True
        batch = cls(np.pad(loads, ((0, 0), (0, 0), (0, 1))), filled, holds.sum(axis=2), holds)
        batch._forget_nobody()
        return batch

    @property
    def nobody(self) -> int:
        return int(self.loads.shape[2] - 1)

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Drops all problems but `chosen` [P]."""
        self.loads = self.loads[:, chosen]
        self.slots, self.counts = self.slots[chosen], self.counts[chosen]
        self.holds = self.holds[chosen]

    def weigh(self, layout: Layout) -> tuple[Floats, Floats]:
        """([W, P, G] load of each GPU, [W, P, R] load of each slot)."""
        column = np.arange(len(self.slots))[:, None]
        replica = (self.loads / self.counts)[:, column, self.slots]
        return np.add.reduceat(replica, layout.firsts, axis=2), replica

    def put(self, p: Ints, slot: Ints, expert: Ints, layout: Layout) -> None:
        """Puts an expert into a slot of each problem in `p`, in the place of what is there."""
        gpu, leaves = layout.gpu_of[slot], self.slots[p, slot]
        self.holds[p, leaves, gpu] = False
        self.holds[p, expert, gpu] = True
        self.counts[p, leaves] -= 1
        self.counts[p, expert] += 1
        self.slots[p, slot] = expert
        self._forget_nobody()

    def _forget_nobody(self) -> None:
        self.holds[:, -1], self.counts[:, -1] = False, 1


class Moves:
    """What the moves at one GPU of every problem would lead to.

    Each kind of move returns the heaviest load among the GPUs that it touches, in the worst window;
    infinite where it is not allowed. Where a GPU is touched in two ways, the load is an upper
    bound.

    Args:
        batch: the problems.
        layout: of their GPUs.
        totals: [W, P, G] the load of each GPU.
        replica: [W, P, R] the load of each slot.
        gpu: [P] the GPU of each problem at which it is to move.
    """

    def __init__(
        self, batch: Batch, layout: Layout, totals: Floats, replica: Floats, gpu: Ints
    ) -> None:
        rows = np.arange(len(gpu))
        column = rows[:, None]
        gpu_of = layout.gpu_of
        self.batch, self.layout, self.column = batch, layout, column
        self.replica = replica
        self.own = layout.slots_of[gpu]  # [P, S] the slots of the GPU
        self.experts = batch.slots[column, self.own]  # [P, S]
        self.mine = replica[:, column, self.own]  # [W, P, S]
        self.peak = totals[:, rows, gpu]  # [W, P]
        self.others = totals[:, :, gpu_of]  # [W, P, R] the load of each slot's GPU
        # [W, P, G] the loads of all GPUs but this one
        self.without = totals.copy()
        self.without[:, rows, gpu] = 0.0
        # [P, S, R] whether expert s of this GPU is on the GPU of slot r
        self.there = batch.holds[column, self.experts][:, :, gpu_of]
        # [P, E + 1] whether this GPU has an expert; [P, R] whether it has that of slot r
        self.here = batch.holds[rows, :, gpu]
        self.shared = self.here[column, batch.slots]
        # [W, P, R] what the other replicas of a slot's expert gain if this one goes
        counts = batch.counts[column, batch.slots]
        spare = np.where(counts > 1, replica / np.maximum(counts - 1, 1), np.inf)
        self.gain = np.where(batch.slots == batch.nobody, 0.0, spare)

    def swap(self) -> Floats:
        """[P, S, R]: slot s of this GPU with slot r."""
        moved = self.mine[..., None] - self.replica[:, :, None, :]
        here, there = self.peak[:, :, None, None] - moved, self.others[:, :, None, :] + moved
        result: Floats = np.maximum(here, there).max(axis=0)
        result[self.there | self.shared[:, None, :]] = np.inf
        return result

    def spread(self) -> Floats:
        """[P, S, R]: slot r gets a new replica of expert s of this GPU."""
        loads = self.batch.loads[:, self.column, self.experts]
        new = loads / (self.batch.counts[self.column, self.experts] + 1)
        relieved = self.peak[:, :, None] - self.mine + new
        gain_here = np.where(self.shared, self.gain, 0.0)
        received = (self.others - self.replica)[:, :, None, :] + new[..., None]
        after = np.maximum(received, relieved[..., None] + gain_here[:, :, None, :])
        np.maximum(after, self._heaviest_elsewhere()[:, :, None, :], out=after)
        result: Floats = after.max(axis=0)
        result[self.there] = np.inf
        result[self.experts == self.batch.nobody] = np.inf
        return result

    def renew(self) -> Floats:
        """[P, S, E + 1]: slot s of this GPU gets a new replica of any expert."""
        new = self.batch.loads / (self.batch.counts + 1)
        here = (self.peak[:, :, None] - self.mine)[..., None] + new[:, :, None, :]
        elsewhere = (self.batch.holds[self.column, self.experts] * self.without[:, :, None, :]).max(
            3
        )
        gain = self.gain[:, self.column, self.own]
        result: Floats = np.maximum(here, (elsewhere + gain)[..., None]).max(axis=0)
        result[np.broadcast_to(self.here[:, None, :], result.shape)] = np.inf
        result[..., -1] = np.inf
        return result

    def _heaviest_elsewhere(self) -> Floats:
        """[W, P, R]: the heaviest other GPU that holds slot r's expert, if slot r gave it up."""
        num_windows, num_problems, _ = self.others.shape
        per_expert = np.zeros((num_windows, num_problems, self.batch.counts.shape[1]))
        where = (self.column, self.batch.slots)
        others = self.without[:, :, self.layout.gpu_of]
        for window in range(num_windows):
            np.maximum.at(per_expert[window], where, others[window])
        per_expert[..., -1] = 0.0
        return np.asarray(per_expert[:, *where] + self.gain)
