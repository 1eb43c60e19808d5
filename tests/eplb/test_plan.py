"""What a plan says of itself, against loops over its slots."""

import numpy as np
import pytest
import torch

from eplb.plan import EMPTY, Plan, even_shares, num_moved
from eplb.topology import Topology

_TOPOLOGY = Topology(slots=(2, 0, 3, 1), node_of=(0, 0, 1, 1))
_SLOTS = np.array([[2, 0, 1, 3, 0, 2], [3, 1, 0, 2, EMPTY, 1]])
_LOADS = np.array([[[4.0, 2.0, 6.0, 1.0], [0.0, 0.0, 0.0, 0.0]]])


def _plan(shares: np.ndarray | None = None) -> Plan:
    given = even_shares(_SLOTS, 4) if shares is None else shares
    nothing = np.zeros(2, dtype=np.int64)
    return Plan(_TOPOLOGY, "global", _LOADS, _SLOTS, given, np.ones(2), nothing)


def test_maps_between_slots_and_experts() -> None:
    plan = _plan()
    assert plan.phy2log.tolist() == _SLOTS.tolist()
    assert plan.log2phy.tolist() == [
        [[1, 4], [2, -1], [0, 5], [3, -1]],
        [[2, -1], [1, 5], [3, -1], [0, -1]],
    ]
    assert plan.logcnt.tolist() == [[2, 1, 2, 1], [1, 2, 1, 1]]
    assert {plan.phy2log.dtype, plan.log2phy.dtype, plan.logcnt.dtype} == {torch.int64}


def test_loads_of_gpus_and_imbalance() -> None:
    plan = _plan()
    # Layer 0: GPU 0 has half of 6 and half of 4, GPU 2 has 2 + 1 + half of 4, GPU 3 half of 6.
    assert plan.gpu_loads()[0].tolist() == [[5.0, 0.0, 5.0, 3.0], [0.0] * 4]
    assert plan.imbalance == pytest.approx([5 / (13 / 3), 1.0])
    assert plan.gap == pytest.approx([5 / (13 / 3) - 1, 0.0])
    other = np.array([[0.0, 0.0, 0.0, 8.0], [1.0, 1.0, 1.0, 1.0]])
    assert plan.gpu_loads(other)[0].tolist() == [[0.0, 0.0, 8.0, 0.0], [1.5, 0.0, 2.0, 0.5]]


def test_shares_become_routing_weights() -> None:
    shares = even_shares(_SLOTS, 4)
    shares[0, [0, 5]] = [0.25, 0.75]  # expert 2
    plan = _plan(shares)
    assert plan.routing_weights[0].tolist() == [[0.5, 0.5], [1.0, 0.0], [0.25, 0.75], [1.0, 0.0]]
    assert plan.routing_weights.sum(dim=2).tolist() == [[1.0] * 4] * 2
    assert plan.gpu_loads(even=False)[0, 0].tolist() == [3.5, 0.0, 5.0, 4.5]
    assert plan.weighted_imbalance[0] == pytest.approx(5 / (13 / 3))


def test_the_worst_window_counts() -> None:
    windows = np.concatenate([_LOADS, np.roll(_LOADS, 1, axis=2)])
    nothing = np.zeros(2, dtype=np.int64)
    plan = Plan(_TOPOLOGY, "global", windows, _SLOTS, even_shares(_SLOTS, 4), np.ones(2), nothing)
    single = [
        Plan(_TOPOLOGY, "global", w[None], _SLOTS, plan.shares, np.ones(2), nothing).imbalance
        for w in windows
    ]
    assert plan.imbalance.tolist() == np.maximum(*single).tolist()


def test_moves_are_replicas_new_on_their_gpu() -> None:
    within = _SLOTS.copy()
    within[0, [2, 3]] = within[0, [3, 2]]  # on one GPU: nothing has moved
    across = _SLOTS.copy()
    across[1, [1, 3]] = across[1, [3, 1]]  # between GPU 0 and GPU 2
    assert num_moved(within, _TOPOLOGY, _SLOTS, _TOPOLOGY).tolist() == [0, 0]
    assert num_moved(across, _TOPOLOGY, _SLOTS, _TOPOLOGY).tolist() == [0, 2]
