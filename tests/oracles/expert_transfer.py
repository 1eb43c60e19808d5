"""Carries out the rounds of a transfer on buffers, in the worst way that the rules allow.

Buffers are lists of tags; a tag is a float, NaN is garbage. No two GPUs wait for each other inside
a round, so every slot that a round writes is garbage from its start and right only at its end.
"""

import math

Buffers = list[list[float]]  # of each GPU: its slots, then the staging slot
Step = tuple[int, int, int, int, int]  # source GPU, its slot, GPU, its slot, expert


def garbage(slots_per_gpu: list[int]) -> Buffers:
    return [[math.nan] * (slots + 1) for slots in slots_per_gpu]


def play(buffers: Buffers, rounds: list[tuple[list[Step], list[Step]]], tags: list[float]) -> None:
    """Changes `buffers`; raises AssertionError where a rule is broken.

    Args:
        buffers: what the slots hold at the start.
        rounds: copies, in order, and simultaneous moves.
        tags: the tag of each expert: what a source must hold.
    """
    for copies, moves in rounds:
        for source_gpu, source_slot, gpu, slot, expert in copies:
            assert source_gpu == gpu, "a copy stays on its GPU"
            assert buffers[gpu][source_slot] == tags[expert], "the source holds the expert"
            buffers[gpu][slot] = buffers[gpu][source_slot]
            if source_slot == -1:
                buffers[gpu][-1] = math.nan  # used up
        assert len({move[0] for move in moves}) == len(moves), "a GPU sends once"
        assert len({move[2] for move in moves}) == len(moves), "a GPU receives once"
        assert all(move[0] != move[2] for move in moves), "a move goes to another GPU"
        for _, _, gpu, slot, _ in moves:
            if slot == -1:
                assert math.isnan(buffers[gpu][-1]), "staging holds nothing that is still needed"
            buffers[gpu][slot] = math.nan
        arriving = [buffers[source_gpu][source_slot] for source_gpu, source_slot, *_ in moves]
        for tag, (_, _, gpu, slot, expert) in zip(arriving, moves, strict=True):
            assert tag == tags[expert], "the source holds the expert, the whole round long"
            buffers[gpu][slot] = tag
