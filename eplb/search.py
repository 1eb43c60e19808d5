"""Tabu search over replica counts and placement together, for many problems in lock-step.

A problem is a set of experts and a set of GPUs with slots. In every step every problem makes one
move at its heaviest GPU: the best of

- swapping one of its replicas with a replica of another GPU,
- giving one of its experts one more replica, in the slot of an expert with replicas to spare,
- putting another expert's new replica in the place of one of its own spare replicas,

also when all of them make things worse, and the slots that took part then rest for some steps; so
the search leaves local optima, and the best placement seen is kept. (Tabu search: F. Glover, 1989.)
When that brings nothing better for a while, some random moves follow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from eplb.moves import Batch, Layout, Moves
from eplb.plan import EMPTY, Floats, Ints

_RESTS = (10, 21)  # a slot that took part rests for at least, and for fewer than so many steps
_RESTING = 1e6  # added to a move of a resting slot: chosen only if there is no other
_PATIENCE = 400  # steps without a better placement after which a problem is given up
_KICKS = 4  # random moves when a quarter as many steps as there are slots brought nothing better
_KICK_EVERY = (20, 80)  # ... but at least, and at most, after so many
_COMPACT_EVERY = 16  # steps between two looks at which problems are finished
# Tells equally good moves apart, at random, so that the search does not go in circles.
_NOISE = 1e-7 * np.random.default_rng(0).random(997)


@dataclass(slots=True)
class _Progress:
    """How far each problem has come; all arrays have an entry per problem.

    Attributes:
        number: which of the given problems it is.
        target: the load of the heaviest GPU that is good enough.
        best: the least one so far, in best_slots.
        improved_at: in which step that was found.
        rests_until: [P, R] the step from which a slot may take part again.
    """

    number: Ints
    target: Floats
    best: Floats
    best_slots: Ints
    improved_at: Ints
    rests_until: Ints

    def note(self, peak: Floats, slots: Ints, step: int) -> None:
        """Remembers placements that are better than any before."""
        better = peak < self.best * (1 - 1e-9)
        self.best = np.where(better, peak, self.best)
        self.best_slots[better] = slots[better]
        self.improved_at[better] = step

    def keep(self, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        """Drops all problems but `chosen`."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name)[chosen])


def search(
    loads: Floats, slots: Ints, gpu_slots: Ints, target: Floats, deadline: float, seed: int = 0
) -> Ints:
    """[num_problems, num_slots]: better placements than the given ones, or the same.

    Args:
        loads: [num_windows, num_problems, num_experts] — the worst window of the heaviest GPU is
            made as light as possible.
        slots: [num_problems, num_slots] — no GPU holds an expert twice, every expert is somewhere.
        gpu_slots: [num_gpus] the slots of each GPU, at least 1.
        target: [num_problems] the load of the heaviest GPU that is good enough.
        deadline: when to stop, on the clock of `time.perf_counter`.
        seed: of what is random in the search.
    """
    result = slots.copy()
    if len(slots) == 0 or len(gpu_slots) == 1:
        return result
    layout = Layout(gpu_slots)
    batch = Batch.start(loads, slots, layout)
    progress = _Progress(
        number=np.arange(len(slots)),
        target=target,
        best=np.full(len(slots), np.inf),
        best_slots=batch.slots.copy(),
        improved_at=np.zeros(len(slots), dtype=np.int64),
        rests_until=np.zeros(slots.shape, dtype=np.int64),
    )
    random = np.random.default_rng(seed)
    step = 0
    while len(progress.number):
        totals, replica = batch.weigh(layout)
        heaviest = totals.max(axis=0)
        gpu = heaviest.argmax(axis=1)
        progress.note(heaviest.max(axis=1), batch.slots, step)
        over = time.perf_counter() >= deadline
        if step % _COMPACT_EVERY == 0 or over:
            stuck = step - progress.improved_at > _PATIENCE
            done = (progress.best <= progress.target) | stuck | over
            result[progress.number[done]] = progress.best_slots[done]
            progress.keep(~done)
            batch.keep(~done)
            totals, replica, gpu = totals[:, ~done], replica[:, ~done], gpu[~done]
        if len(progress.number):
            moves = Moves(batch, layout, totals, replica, gpu)
            _move(batch, moves, progress, step, random)
        step += 1
    result[result == loads.shape[2]] = EMPTY
    return result


def _move(
    batch: Batch, moves: Moves, progress: _Progress, step: int, random: np.random.Generator
) -> None:
    """Makes the move of every problem after which the GPUs that it touches are lightest."""
    layout, own = moves.layout, moves.own
    num_problems, num_slots = batch.slots.shape
    resting = _RESTING * (progress.rests_until > step)  # [P, R]
    own_resting = resting[moves.column, own][:, :, None]
    swap = moves.swap() + np.maximum(resting[:, None, :], own_resting)
    spread = moves.spread() + resting[:, None, :]
    renew = moves.renew() + own_resting
    kinds = [kind.reshape(num_problems, -1) for kind in (swap, spread, renew)]
    best = _choose(np.concatenate(kinds, axis=1), progress, step, random)
    until = step + random.integers(*_RESTS, size=(2, num_problems))

    num_swaps = kinds[0].shape[1]
    p = np.flatnonzero((best >= 0) & (best < num_swaps))
    which, other = np.divmod(best[p], num_slots)
    mine = own[p, which]
    leaves, comes = batch.slots[p, mine], batch.slots[p, other]
    batch.put(p, mine, comes, layout)
    batch.put(p, other, leaves, layout)
    progress.rests_until[p, mine], progress.rests_until[p, other] = until[0, p], until[1, p]

    p = np.flatnonzero((best >= num_swaps) & (best < 2 * num_swaps))
    which, slot = np.divmod(best[p] - num_swaps, num_slots)
    batch.put(p, slot, moves.experts[p, which], layout)
    progress.rests_until[p, slot] = until[0, p]

    p = np.flatnonzero(best >= 2 * num_swaps)
    which, expert = np.divmod(best[p] - 2 * num_swaps, batch.nobody + 1)
    batch.put(p, own[p, which], expert, layout)
    progress.rests_until[p, own[p, which]] = until[0, p]


def _choose(values: Floats, progress: _Progress, step: int, random: np.random.Generator) -> Ints:
    """[P]: the move with the least value, now and then a random one; -1 if none is allowed."""
    values += np.resize(np.roll(_NOISE, random.integers(len(_NOISE))), values.shape[1])
    every = int(np.clip(progress.rests_until.shape[1] // 4, *_KICK_EVERY))
    kicked = (step - progress.improved_at) % every >= every - _KICKS
    if kicked.any():
        wild = values[kicked]
        values[kicked] = np.where(np.isfinite(wild), random.random(wild.shape), np.inf)
    best = values.argmin(axis=1)
    return np.where(np.isfinite(values[np.arange(len(values)), best]), best, -1)
