"""A placement in force made better with as few moved replicas as possible, layers in lock-step.

In every step every layer makes one change at its heaviest GPU:

- it swaps one of its replicas with one of another GPU,
- one of its experts gets a further replica, in an empty slot or in that of a spare replica,
- another expert's further replica takes the place of a spare replica of its own.

Of all these the layer makes the change that takes most, per replica moved, from what its GPUs have
above the target; it is finished when there is no such change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eplb.moves import Layout
from eplb.plan import EMPTY, Floats, Ints, held
from eplb.topology import Topology

Bools = NDArray[np.bool_]

_WORTHWHILE = 1e-3  # a change removes at least this share of what a layer has above the target
_LEAST_COST = 0.5  # replicas; a change that only brings replicas back does not beat all others


def improve(
    slots: Ints,
    loads: Floats,
    topology: Topology,
    *,
    target_imbalance: Floats,
    max_moves: int | None = None,
    hierarchical: bool,
) -> Ints:
    """Changes a placement until it is good enough, moving few replicas.

    Args:
        slots: [num_layers, num_slots] int64 — every expert is somewhere, none twice on a GPU; -1
            where empty.
        loads: [num_windows, num_layers, num_experts] float64 — any unit; all windows count.
        topology: of `slots`.
        target_imbalance: [num_layers] float64 — the max/mean, tokens split evenly, at which a layer
            is left alone.
        max_moves: per layer, the most replicas on GPUs that did not hold their expert in `slots`.
        hierarchical: change nothing across nodes.

    Returns:
        [num_layers, num_slots] int64: no layer has a larger max/mean than before. It stays above
        the target where the moves did not suffice or no single change helps any more.

    Raises:
        ValueError: if a GPU holds an expert twice.
    """
    had = held(slots, topology, loads.shape[2])
    if had.sum() != (slots != EMPTY).sum():
        raise ValueError(
            "improve: slots must not hold an expert twice on a GPU, got one that does "
            "(repair drops the copy)"
        )
    batch = _Batch.start(slots, loads, had[:, list(topology.alive)], target_imbalance)
    gpus = _Gpus(topology, hierarchical=hierarchical)
    result = batch.slots.copy()
    lightest = np.full(len(slots), np.inf)
    while len(batch.number):
        step = _Step(batch, gpus)
        peak = step.totals.max(axis=(0, 2))
        better = peak < lightest[batch.number] * (1 - 1e-12)
        lightest[batch.number[better]] = peak[better]
        result[batch.number[better]] = batch.slots[better]
        heavy = peak > batch.target * (1 + 1e-12)
        batch.keep(step.make_best(max_moves) if heavy.all() else heavy)
    result[result == loads.shape[2]] = EMPTY
    return result


@dataclass(slots=True)
class _Batch:
    """The layers that are not finished; E as an expert stands for an empty slot.

    Attributes:
        number: [P] which layer each is.
        loads: [W, P, E + 1] in units of the mean load of a GPU.
        slots: [P, R] is changed step by step.
        had: [P, G, E + 1] what each GPU held at the start; everybody had emptiness.
        target: [P] the load of a GPU that is good enough.
    """

    number: Ints
    loads: Floats
    slots: Ints
    had: Bools
    target: Floats

    @classmethod
    def start(cls, slots: Ints, loads: Floats, had: Bools, target: Floats) -> _Batch:
        num_gpus = had.shape[1]
        total = loads.sum(axis=2, keepdims=True)
        scaled = np.divide(loads * num_gpus, total, out=np.zeros_like(loads), where=total > 0)
        return cls(
            number=np.arange(len(slots)),
            loads=np.pad(scaled, ((0, 0), (0, 0), (0, 1))),
            slots=np.where(slots == EMPTY, loads.shape[2], slots),
            had=np.pad(had, ((0, 0), (0, 0), (0, 1)), constant_values=True),
            target=target,
        )

    def keep(self, chosen: Bools) -> None:
        if chosen.all():
            return
        self.loads = self.loads[:, chosen]
        for name in ("number", "slots", "had", "target"):
            setattr(self, name, getattr(self, name)[chosen])


class _Gpus(Layout):
    """The working GPUs, numbered anew, and their slots.

    Attributes:
        node_of: [G] the node of each; all the same if replicas may go anywhere.
    """

    def __init__(self, topology: Topology, *, hierarchical: bool) -> None:
        alive = list(topology.alive)
        super().__init__(np.array(topology.slots)[alive])
        self.node_of = np.array(topology.node_of)[alive] * hierarchical


class _Step:
    """What a change at the heaviest GPU of every layer would bring.

    Each kind of change is weighed by two arrays: the gain, how much less the GPUs have above the
    target in all windows together, and the moved replicas. The gain is never too large: where a
    change touches a GPU in two ways their effects are added up, and the excess is a convex function
    of the load. A gain of -1 stands for a change that is not allowed.
    """

    def __init__(self, batch: _Batch, gpus: _Gpus) -> None:
        self.batch, self.gpus = batch, gpus
        slots, loads = batch.slots, batch.loads
        rows = np.arange(len(slots))
        self.rows, self.column = rows, rows[:, None]
        self.empty = loads.shape[2] - 1
        self.has = np.zeros(batch.had.shape, dtype=bool)
        self.has[self.column, gpus.gpu_of, slots] = True
        self.counts = self.has.sum(axis=1)
        self.has[..., self.empty], self.counts[:, self.empty] = False, 1
        self.replica = (loads / self.counts)[:, self.column, slots]  # [W, P, R]
        self.totals = np.add.reduceat(self.replica, gpus.firsts, axis=2)  # [W, P, G]
        self.gpu = self.totals.max(axis=0).argmax(axis=1)

    def make_best(self, max_moves: int | None) -> Bools:
        """Changes the slots of every layer for which something helps, and says which those are."""
        self._look()
        kinds = self._swap(), self._spread(), self._renew()
        gain = np.concatenate([gain.reshape(len(gain), -1) for gain, _ in kinds], axis=1)
        moved = np.concatenate([moved.reshape(len(moved), -1) for _, moved in kinds], axis=1)
        excess = self._excess(self.totals).sum(axis=(0, 2))
        allowed = gain > _WORTHWHILE * excess[:, None]
        if max_moves is not None:
            so_far = (self.has & ~self.batch.had).sum(axis=(1, 2))
            allowed &= so_far[:, None] + moved <= max_moves
        worth = np.where(allowed, gain / np.maximum(moved, _LEAST_COST), -1.0)
        best = worth.argmax(axis=1)
        found = np.asarray(worth[self.rows, best] > 0)
        self._change(best, found, kinds[0][0].shape[2])
        return found

    def _change(self, best: Ints, found: Bools, num_slots: int) -> None:
        slots, num_swaps = self.batch.slots, self.own.shape[1] * num_slots
        p = np.flatnonzero(found & (best < num_swaps))
        mine, other = self.own[p, best[p] // num_slots], best[p] % num_slots
        slots[p, mine], slots[p, other] = slots[p, other], slots[p, mine]
        p = np.flatnonzero(found & (best >= num_swaps) & (best < 2 * num_swaps))
        which, slot = np.divmod(best[p] - num_swaps, num_slots)
        slots[p, slot] = self.experts[p, which]
        p = np.flatnonzero(found & (best >= 2 * num_swaps))
        which, expert = np.divmod(best[p] - 2 * num_swaps, self.empty + 1)
        slots[p, self.own[p, which]] = expert

    def _excess(self, loads: Floats) -> Floats:
        """What loads [W, P, ...] are above the target."""
        target = self.batch.target.reshape(-1, *[1] * (loads.ndim - 2))
        return np.asarray(np.maximum(loads - target, 0.0))

    def _look(self) -> None:
        """What several kinds of change need to know; s is a slot of the heaviest GPU, r any."""
        rows, column, gpus, slots = self.rows, self.column, self.gpus, self.batch.slots
        had = self.batch.had
        self.own = gpus.slots_of[self.gpu]  # [P, S]
        self.experts = slots[column, self.own]  # [P, S]
        self.peak = self.totals[:, rows, self.gpu]  # [W, P]
        self.others = self.totals[:, :, gpus.gpu_of]  # [W, P, R] the load of r's GPU
        self.excess = self._excess(self.others)  # [W, P, R]
        self.mine = self.replica[:, column, self.own]  # [W, P, S]
        away = gpus.node_of[gpus.gpu_of] != gpus.node_of[self.gpu][:, None]
        expert_there = self.has.transpose(0, 2, 1)[column, self.experts][:, :, gpus.gpu_of]
        # [P, S, R] whether r may not get the expert of s
        self.barred = expert_there | away[:, None] | (self.experts == self.empty)[:, :, None]
        # Moves that experts make: [P, S, R] from s to r's GPU; [P, R] those that r's expert made
        # to get where it is; [P, E + 1] to the heaviest GPU.
        self.to_other = ~had.transpose(0, 2, 1)[column, self.experts][:, :, gpus.gpu_of] * 1.0
        self.made = ~had[column, gpus.gpu_of, slots] * 1.0
        self.to_here = ~had[rows, self.gpu] * 1.0
        self._look_at_counts()

    def _look_at_counts(self) -> None:
        """What a replica more or less changes on the GPUs with the others of that expert."""
        column, slots, loads = self.column, self.batch.slots, self.batch.loads
        counts = self.counts[column, slots]
        is_empty = slots == self.empty
        self.spare = (counts > 1) | is_empty  # [P, R]
        more = np.where(counts > 1, self.replica / np.maximum(counts - 1, 1), 0.0)
        harm = (self._excess(self.others + more) - self.excess).sum(axis=0)
        self.new = loads / (self.counts + 1)  # [W, P, E + 1] a replica of one more
        lighter = self.others - self.replica + self.new[:, column, slots]
        relief = (self.excess - self._excess(lighter)).sum(axis=0)
        # [P, R] if r gives up its replica; [P, E + 1] if an expert gets one more
        self.harm = np.where(is_empty, 0.0, self._per_expert(harm)[column, slots] - harm)
        self.relief = self._per_expert(np.where(is_empty, 0.0, relief))

    def _per_expert(self, values: Floats) -> Floats:
        """[P, E + 1]: sums of values [P, R] over the slots of an expert."""
        size = self.empty + 1
        keys = (self.column * size + self.batch.slots).ravel()
        sums = np.bincount(keys, values.ravel(), minlength=len(values) * size)
        return np.asarray(sums, dtype=np.float64).reshape(-1, size)

    def _swap(self) -> tuple[Floats, Floats]:
        """[P, S, R]: slot s with slot r."""
        shift = self.mine[..., None] - self.replica[:, :, None]
        before = self._excess(self.peak)[..., None, None] + self.excess[:, :, None]
        here = self._excess(self.peak[..., None, None] - shift)
        there = self._excess(self.others[:, :, None] + shift)
        gain = (before - here - there).sum(axis=0)
        known = self.has[self.rows, self.gpu][self.column, self.batch.slots]
        gain[self.barred | known[:, None]] = -1.0
        comes = self.to_here[self.column, self.batch.slots] - self.made
        return gain, self.to_other - self.made[self.column, self.own][..., None] + comes[:, None]

    def _spread(self) -> tuple[Floats, Floats]:
        """[P, S, R]: slot r gets a further replica of the expert of slot s."""
        gets = self.new[:, self.column, self.experts]
        there = self._excess((self.others - self.replica)[:, :, None] + gets[..., None])
        relief = self.relief[self.column, self.experts][..., None] - self.harm[:, None]
        gain = relief - (there - self.excess[:, :, None]).sum(axis=0)
        gain[self.barred | ~self.spare[:, None]] = -1.0
        return gain, self.to_other - self.made[:, None]

    def _renew(self) -> tuple[Floats, Floats]:
        """[P, S, E + 1]: slot s gets a further replica of any expert."""
        here = self._excess((self.peak[..., None] - self.mine)[..., None] + self.new[:, :, None])
        harm = self.harm[self.column, self.own][..., None]
        before = self._excess(self.peak)[..., None, None]
        gain = self.relief[:, None] - harm - (here - before).sum(axis=0)
        same_node = self.gpus.node_of == self.gpus.node_of[self.gpu][:, None]
        near = (self.has & same_node[..., None]).any(axis=1) & ~self.has[self.rows, self.gpu]
        spare = self.spare[self.column, self.own]
        gain[~(near[:, None] & spare[..., None])] = -1.0
        return gain, self.to_here[:, None] - self.made[self.column, self.own][..., None]
