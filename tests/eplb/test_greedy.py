"""`rebalance_experts`: the greedy plan, bit by bit."""

import doctest
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.cases.eplb import per_item
from eplb import greedy
from eplb.greedy import rebalance_experts
from tests.oracles import expert_balance as oracle

# num_experts, num_replicas, num_groups, num_nodes, num_gpus
SIZES = {
    "one expert": (1, 1, 1, 1, 1),
    "one expert everywhere": (1, 6, 1, 1, 3),
    "a replica per GPU": (8, 12, 4, 2, 12),
    "no spare slot": (16, 16, 4, 2, 4),
    "one GPU": (12, 16, 4, 1, 1),
    "a node per group": (24, 32, 4, 4, 8),
    "a GPU per node": (24, 32, 8, 4, 4),
    "groups without meaning": (24, 30, 8, 3, 6),
    "odd sizes": (15, 21, 3, 2, 7),
    "groups do not divide the experts": (10, 14, 3, 2, 7),
    "decode of DeepSeek-V3": (256, 288, 8, 18, 144),
    "prefill of DeepSeek-V3": (256, 288, 8, 4, 32),
    "16 nodes": (256, 384, 8, 16, 128),
}


def loads(num_layers: int, num_experts: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_layers, num_experts, generator=generator).exp()


def assert_equal(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for name, ours, true in zip(("phy2log", "log2phy", "logcnt"), actual, expected, strict=True):
        assert ours.dtype == torch.int64, name
        assert ours.shape == true.shape, name
        assert ours.tolist() == true.tolist(), name


def test_the_published_example() -> None:
    weight = torch.tensor(
        [
            [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
            [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
        ]
    )
    phy2log, log2phy, logcnt = rebalance_experts(weight, 16, 4, 2, 8)
    assert phy2log.tolist() == [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ]
    assert log2phy.shape == (2, 12, 2)
    assert logcnt.tolist() == [
        [1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1],
        [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1],
    ]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("num_layers", [1, 3])
def test_equals_the_oracle(num_layers: int, sizes: tuple[int, ...]) -> None:
    weight = loads(num_layers, sizes[0])
    expected = oracle.rebalance_experts(weight, *sizes[1:])
    assert_equal(rebalance_experts(weight, *sizes[1:]), expected)
    assert_equal(per_item({"weight": weight, "sizes": sizes[1:]}), expected)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, tuple[int, ...]]:
    """Few different loads, so that ties are the rule; nodes and groups that fit and that do not."""
    num_nodes, gpus_per_node = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    num_gpus = num_nodes * gpus_per_node
    groups = draw(st.sampled_from([num_nodes, 2 * num_nodes, num_nodes + 1]))
    num_experts = groups * draw(st.integers(1, 4))
    slots = -(-num_experts // num_gpus) + draw(st.integers(0, 3))
    values = st.sampled_from([0.0, 1.0, 2.0, 3.0, 0.1]) | st.floats(0, 1e6, width=32)
    rows = draw(
        st.lists(
            st.lists(values, min_size=num_experts, max_size=num_experts), min_size=1, max_size=3
        )
    )
    return torch.tensor(rows), (slots * num_gpus, groups, num_nodes, num_gpus)


@given(problems())
@example((torch.zeros(2, 20), (24, 4, 2, 4)))
@example((torch.tensor([[2.0**24, 2.0**24, 1, 1, 1, 1]]), (6, 1, 1, 2)))  # 2^24 + 1 rounds down
def test_equals_the_oracle_where_loads_are_equal(problem: tuple[Tensor, tuple[int, ...]]) -> None:
    weight, sizes = problem
    expected = oracle.rebalance_experts(weight, *sizes)
    assert_equal(rebalance_experts(weight, *sizes), expected)
    assert_equal(per_item({"weight": weight, "sizes": sizes}), expected)


@given(problems())
def test_the_three_tables_say_the_same(problem: tuple[Tensor, tuple[int, ...]]) -> None:
    weight, sizes = problem
    phy2log, log2phy, logcnt = rebalance_experts(weight, *sizes)
    assert int(logcnt.min()) >= 1
    assert (logcnt.sum(1) == sizes[0]).all()
    assert log2phy.shape[2] == int(logcnt.max())
    for layer, expert, rank in np.ndindex(*log2phy.shape):
        slot = int(log2phy[layer, expert, rank])
        assert (slot == -1) == (rank >= int(logcnt[layer, expert]))
        assert slot == -1 or int(phy2log[layer, slot]) == expert
    placed = log2phy[log2phy >= 0]
    assert sorted(placed.tolist()) == sorted(list(range(sizes[0])) * len(weight))


def test_replicas_are_listed_in_the_order_of_their_making() -> None:
    weight = loads(4, 16, seed=3)
    _, log2phy, _ = rebalance_experts(weight, 32, 1, 1, 4)
    rows = [[slot for slot in row if slot >= 0] for row in log2phy.flatten(0, 1).tolist()]
    assert any(row != sorted(row) for row in rows)


def test_no_layer_gives_empty_tables() -> None:
    phy2log, log2phy, logcnt = rebalance_experts(torch.zeros(0, 8), 12, 4, 2, 4)
    assert (phy2log.shape, log2phy.shape, logcnt.shape) == ((0, 12), (0, 8, 1), (0, 8))
    assert {phy2log.dtype, log2phy.dtype, logcnt.dtype} == {torch.int64}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bfloat16, torch.float64])
def test_any_number_type_counts(dtype: torch.dtype) -> None:
    weight = torch.randperm(96, generator=torch.Generator().manual_seed(0)).view(4, 24)
    expected = rebalance_experts(weight.float(), 32, 4, 2, 8)
    assert_equal(rebalance_experts(weight.to(dtype), 32, 4, 2, 8), expected)


def test_strides_and_gradients_do_not_matter() -> None:
    weight = loads(24, 5).requires_grad_()
    kept = weight.detach().clone()
    expected = rebalance_experts(weight.detach().t().contiguous(), 32, 4, 2, 8)
    assert_equal(rebalance_experts(weight.t(), 32, 4, 2, 8), expected)
    assert torch.equal(weight, kept)


@pytest.mark.gpu
def test_loads_on_a_gpu() -> None:
    weight = loads(3, 64)
    results = rebalance_experts(weight.cuda(), 96, 8, 2, 8)
    assert {result.device.type for result in results} == {"cpu"}
    assert_equal(results, rebalance_experts(weight, 96, 8, 2, 8))


GOOD = {"num_replicas": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_replicas": 8}, "num_replicas must be at least num_experts=12, got 8 (every"),
        ({"num_replicas": 17}, "num_replicas must be a multiple of num_gpus=8, got 17 (eplb.reb"),
        ({"num_gpus": 1, "num_nodes": 2}, "num_gpus must be a multiple of num_nodes=2, got 1 (e"),
        ({"num_groups": 8}, "num_groups must divide num_experts=12, got 8 (num_groups=1 and"),
        ({"num_groups": 0}, "num_groups must be at least 1, got 0"),
        ({"num_nodes": -1}, "num_nodes must be at least 1, got -1"),
        ({"num_gpus": 0}, "num_gpus must be at least 1, got 0"),
        ({"weight": torch.ones(12)}, "weight must have 2 dimensions [num_layers, num_experts]"),
        ({"weight": torch.ones(2, 0)}, "and an expert, got shape [2, 0]"),
    ],
)
def test_sizes_that_do_not_fit(changed: dict[str, Any], message: str) -> None:
    arguments = {"weight": torch.ones(2, 12), **GOOD, **changed}
    with pytest.raises(ValueError, match="rebalance_experts: ") as error:
        rebalance_experts(**arguments)
    assert message in str(error.value)


@pytest.mark.parametrize("bad", [np.ones((2, 12)), [[1.0]], None, torch.ones(2, 12).bool()])
def test_weights_of_the_wrong_type(bad: Any) -> None:
    with pytest.raises(TypeError, match="rebalance_experts: weight must "):
        rebalance_experts(bad, **GOOD)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_bad_weight_is_named(value: float) -> None:
    weight = torch.ones(2, 12)
    weight[1, 7] = value
    with pytest.raises(ValueError, match=rf"weight must be finite .* got {value} at layer 1, expe"):
        rebalance_experts(weight, **GOOD)


def test_a_weight_too_large_for_float32() -> None:
    with pytest.raises(ValueError, match="got inf at layer 0, expert 0"):
        rebalance_experts(torch.full((2, 12), 1e39, dtype=torch.float64), **GOOD)
    with pytest.raises(ValueError, match="weight must have a finite sum"):
        rebalance_experts(torch.full((2, 12), 1e38), **GOOD)


def test_the_example_of_the_documentation() -> None:
    assert doctest.testmod(greedy) == (0, 2)
