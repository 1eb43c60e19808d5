"""Shares of replicas: against a linear program, and what every split has to keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eplb.plan import EMPTY, even_shares, imbalance_of, loads_of_gpus
from eplb.routing import best_shares
from eplb.start import place, replicate
from eplb.topology import Topology
from tests.oracles.routing_shares import lowest_imbalance
from tests.strategies import placements, topologies

Array = NDArray[np.float64]


def imbalance(slots: NDArray[np.int64], shares: Array, loads: Array, topology: Topology) -> Array:
    return imbalance_of(topology, loads_of_gpus(topology, slots, shares, loads))


def lowest(slots: NDArray[np.int64], loads: Array, topology: Topology) -> list[float]:
    return [
        lowest_imbalance(row.tolist(), topology.gpu_of_slot, loads[:, layer].tolist())
        for layer, row in enumerate(slots)
    ]


def check_split(slots: NDArray[np.int64], shares: Array, num_experts: int) -> None:
    assert (shares >= 0).all()
    assert (shares[slots == EMPTY] == 0).all()
    for row, split in zip(slots, shares, strict=True):
        sums = np.bincount(row[row != EMPTY], split[row != EMPTY], num_experts)
        np.testing.assert_allclose(sums, 1.0, rtol=1e-9)


@st.composite
def problems(
    draw: st.DrawFn, max_windows: int = 1
) -> tuple[Topology, NDArray[np.int64], NDArray[np.float64]]:
    topology = draw(topologies())
    num_experts = draw(st.integers(1, min(8, topology.num_slots)))
    slots = draw(placements(topology, num_experts, num_layers=draw(st.integers(1, 3))))
    shape = draw(st.integers(1, max_windows)), len(slots), num_experts
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    loads = random.lognormal(0, draw(st.sampled_from([0.0, 1.0, 3.0])), shape)
    loads *= random.random(shape) < draw(st.sampled_from([0.5, 1.0]))  # some experts are idle
    loads[..., 0] += loads.sum(axis=2) == 0
    return topology, slots, loads


@settings(max_examples=200)
@given(problems())
def test_no_split_has_a_lighter_heaviest_gpu(
    problem: tuple[Topology, NDArray[np.int64], Array],
) -> None:
    topology, slots, loads = problem
    shares = best_shares(slots, loads, topology)
    check_split(slots, shares, loads.shape[2])
    even = even_shares(slots, loads.shape[2])
    before, after = (imbalance(slots, split, loads, topology) for split in (even, shares))
    for layer, best in enumerate(lowest(slots, loads, topology)):
        if before[layer] * (1 - 1e-3) > best * (1 + 1e-5):  # else even tokens are good enough
            assert after[layer] == pytest.approx(best, rel=1e-5)
        elif before[layer] * (1 - 1e-3) < best * (1 - 1e-5):
            assert (shares[layer] == even[layer]).all()


@settings(max_examples=60)
@given(problems(max_windows=3))
def test_several_windows_are_never_worse_than_with_an_even_split(
    problem: tuple[Topology, NDArray[np.int64], Array],
) -> None:
    topology, slots, loads = problem
    shares = best_shares(slots, loads, topology)
    check_split(slots, shares, loads.shape[2])
    even = even_shares(slots, loads.shape[2])
    before, after = (imbalance(slots, split, loads, topology) for split in (even, shares))
    changed = (shares != even).any(axis=1)
    assert (after[changed] < before[changed] * (1 - 1e-3)).all()
    assert (after >= np.array(lowest(slots, loads, topology)) * (1 - 1e-6)).all()


@pytest.mark.parametrize("num_gpus", [2, 3, 64], ids=lambda number: f"{number} GPUs")
def test_load_goes_all_along_a_chain_of_replicas(num_gpus: int) -> None:
    """Expert e is on GPUs e and e + 1: every split but the last GPU's depends on all others."""
    topology = Topology((1, *[2] * (num_gpus - 2), 1), (0,) * num_gpus)
    slots = np.repeat(np.arange(num_gpus - 1), 2)[None]
    loads = np.ones((1, 1, num_gpus - 1))
    shares = best_shares(slots, loads, topology)
    best = lowest(slots, loads, topology)
    np.testing.assert_allclose(imbalance(slots, shares, loads, topology), best, rtol=1e-5)


@pytest.mark.parametrize(
    ("num_gpus", "num_replicas", "sigma"),
    [(128, 384, 1.0), (32, 288, 1.0), (320, 320, 1.0), (64, 96, 2.0), (1, 64, 1.0)],
)
def test_the_sizes_of_deployments(num_gpus: int, num_replicas: int, sigma: float) -> None:
    topology = Topology.regular(num_gpus, num_replicas)
    num_experts = min(256, num_replicas * 2 // 3)
    loads = np.random.default_rng(num_gpus).lognormal(0, sigma, (1, 3, num_experts))
    counts = replicate(loads, num_replicas, num_gpus)
    slots = place(loads, counts, np.array(topology.slots))
    shares = best_shares(slots, loads, topology)
    check_split(slots, shares, num_experts)
    after = imbalance(slots, shares, loads, topology)
    np.testing.assert_allclose(after, lowest(slots, loads, topology), rtol=1.1e-3)


@pytest.mark.parametrize(
    ("num_gpus", "num_replicas", "num_windows"), [(32, 96, 2), (8, 80, 4), (32, 96, 5)]
)
def test_of_several_windows_the_worst_gets_nearly_as_little_as_possible(
    num_gpus: int, num_replicas: int, num_windows: int
) -> None:
    topology = Topology.regular(num_gpus, num_replicas)
    random = np.random.default_rng(num_gpus + num_windows)
    loads = random.lognormal(0, 1, (1, 4, 64)) * random.lognormal(0, 0.5, (num_windows, 4, 64))
    counts = replicate(loads, num_replicas, num_gpus)
    slots = place(loads, counts, np.array(topology.slots))
    shares = best_shares(slots, loads, topology)
    check_split(slots, shares, 64)
    after = imbalance(slots, shares, loads, topology)
    assert (after <= np.array(lowest(slots, loads, topology)) * 1.01).all()


def test_two_replicas_on_one_gpu_count_once() -> None:
    """Such plans come from `rebalance_experts`; what the two get makes no difference."""
    topology = Topology((3, 1), (0, 0))
    slots = np.array([[0, 0, 1, 0]])
    loads = np.array([[[3.0, 1.0]]])
    shares = best_shares(slots, loads, topology)
    check_split(slots, shares, 2)
    np.testing.assert_allclose(imbalance(slots, shares, loads, topology), 1.0, rtol=1e-5)


def test_layers_and_experts_without_load_keep_an_even_split() -> None:
    topology = Topology((2, 2), (0, 0))
    slots = np.array([[0, 1, 1, 0], [0, 1, 1, 0]])
    loads = np.array([[[0.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_array_equal(best_shares(slots, loads, topology), np.full((2, 4), 0.5))
    assert best_shares(slots[:0], loads[:, :0], topology).shape == (0, 4)
