"""Topologies: regular ones, uneven ones, failed GPUs, and what is refused."""

import re
from collections.abc import Callable

import pytest

from eplb.topology import Topology


def test_slots_are_spread_and_numbered_gpu_by_gpu() -> None:
    topology = Topology.regular(num_gpus=4, num_replicas=10, num_nodes=2)
    assert topology.slots == (3, 3, 2, 2)
    assert topology.node_of == (0, 0, 1, 1)
    assert topology.first_slots == (0, 3, 6, 8, 10)
    assert topology.gpu_of_slot == (0, 0, 0, 1, 1, 1, 2, 2, 3, 3)
    assert (topology.num_gpus, topology.num_slots, topology.num_nodes) == (4, 10, 2)


def test_a_failed_gpu_keeps_its_number_and_has_no_slots() -> None:
    topology = Topology.regular(3, 6).without([1])
    assert topology.slots == (2, 0, 2)
    assert topology.alive == (0, 2)
    assert topology.gpu_of_slot == (0, 0, 2, 2)
    assert topology.num_gpus == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Topology((1, 1), (0,)), "node_of must have one entry for each of the 2 GPUs"),
        (lambda: Topology((1, -1), (0, 0)), "slots must not be negative, got -1"),
        (lambda: Topology((1, 1), (0, -2)), "node_of must not be negative, got -2"),
        (lambda: Topology((0, 0), (0, 0)), "some GPU must have a slot"),
        (lambda: Topology((), ()), "some GPU must have a slot"),
        (lambda: Topology((1,), (0,), 0), "num_groups must be at least 1, got 0"),
        (lambda: Topology.regular(0, 8), "num_gpus must be at least 1, got 0"),
        (lambda: Topology.regular(4, 8, 3), "multiple of num_nodes, got 4 GPUs on 3 nodes"),
        (lambda: Topology.regular(4, 8).without([4]), "failed must be GPUs from 0 to 3, got 4"),
        (lambda: Topology.regular(1, 8).without([0]), "some GPU must have a slot"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Topology], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
