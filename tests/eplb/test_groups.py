"""Groups onto nodes, against trying every assignment."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from eplb import groups
from eplb.groups import assign_groups, nodes_of, room
from eplb.start import replicate
from eplb.topology import Topology

_TOPOLOGIES = {
    "even": Topology.regular(8, 24, num_nodes=2, num_groups=4),
    "spare": Topology.regular(6, 36, num_nodes=3, num_groups=4),
    "failed": Topology.regular(8, 32, num_nodes=2, num_groups=4).without([5]),
    "uneven": Topology((6, 6, 10, 4, 4), (0, 0, 1, 2, 2), num_groups=5),
    "one node dead": Topology.regular(6, 60, num_nodes=3, num_groups=4).without([2, 3]),
}


def _cost(loads: np.ndarray, topology: Topology, choice: Sequence[int]) -> float:
    """The cost of the costliest node if each group goes where `choice` says, for loads [W, E]."""
    size = loads.shape[1] // topology.num_groups
    costs = [1.0]
    for number, node in enumerate(nodes_of(topology)):
        experts = np.flatnonzero(np.repeat(np.array(choice) == number, size))
        if len(experts) > sum(node.slots):
            return np.inf
        if len(experts):
            mine = loads[:, experts]
            counts = replicate(mine[:, None], sum(node.slots), len(node.gpus))[0]
            costs.append(mine.sum(axis=1).max() / len(node.gpus))
            costs.append((mine.max(axis=0) / counts).max())
    return float(max(costs))


def _best(loads: np.ndarray, topology: Topology) -> float:
    """The least cost of the costliest node over all assignments, for loads [W, E]."""
    choices = product(range(len(nodes_of(topology))), repeat=topology.num_groups)
    return min(_cost(loads, topology, choice) for choice in choices)


@pytest.mark.parametrize("name", _TOPOLOGIES)
@pytest.mark.parametrize("num_windows", [1, 2])
def test_the_best_assignment_is_found(name: str, num_windows: int, seed: int) -> None:
    topology = _TOPOLOGIES[name]
    num_experts = 5 * topology.num_groups
    loads = np.random.default_rng(seed).lognormal(0, 1.5, (num_windows, 3, num_experts))
    loads *= len(topology.alive) / loads.sum(axis=2, keepdims=True)
    node_of, bound = assign_groups(loads, topology)
    for layer in range(3):
        assert bound[layer] == pytest.approx(_best(loads[:, layer], topology))
        cost = _cost(loads[:, layer], topology, node_of[layer].tolist())
        assert cost == pytest.approx(bound[layer])
        held = np.bincount(node_of[layer], minlength=len(nodes_of(topology)))
        assert (held <= room(topology, num_experts)).all()


@pytest.mark.parametrize("name", ["even", "spare"])
def test_many_groups_go_heavy_first(name: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = _TOPOLOGIES[name]
    loads = np.random.default_rng(seed).lognormal(0, 1.5, (1, 4, 20))
    loads *= topology.num_gpus / loads.sum(axis=2, keepdims=True)
    _, exact = assign_groups(loads, topology)
    monkeypatch.setattr(groups, "_MAX_CHOICES", 0)
    node_of, bound = assign_groups(loads, topology)
    assert (bound <= exact * (1 + 1e-12)).all()
    group_loads = loads.reshape(4, 4, 5).sum(axis=2)
    for layer in range(4):
        heaviest = group_loads[layer].argmax()
        assert node_of[layer, heaviest] == 0  # all nodes are empty and alike: the first
        assert (
            np.bincount(node_of[layer], minlength=topology.num_nodes) <= room(topology, 20)
        ).all()
