"""`rebalance`: constraints, quality, plans in force, and what is refused."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eplb import Plan, Topology, baseline, rebalance, rebalance_experts
from eplb.plan import EMPTY, Floats, imbalance_of, loads_of_gpus
from eplb.rebalance import _Task
from eplb.scratch import plan_from_scratch

_NUM_EXPERTS = 256


def _lognormal(seed: int, num_layers: int, num_experts: int = _NUM_EXPERTS) -> Floats:
    return np.random.default_rng(seed).lognormal(0, 1, (num_layers, num_experts))


def _zipf(seed: int, num_layers: int, exponent: float) -> Floats:
    random = np.random.default_rng(seed)
    ranked = np.arange(1, _NUM_EXPERTS + 1) ** -exponent
    return np.stack([random.permutation(ranked) for _ in range(num_layers)])


def assert_valid(plan: Plan) -> None:
    """Every rule that a plan keeps, by loops over its slots."""
    topology = plan.topology
    group_size = plan.num_experts // topology.num_groups
    for layer, row in enumerate(plan.slots):
        assert set(row.tolist()) - {EMPTY} == set(range(plan.num_experts))
        node_of_group: dict[int, int] = {}
        for gpu in range(topology.num_gpus):
            own = row[topology.first_slots[gpu] : topology.first_slots[gpu + 1]]
            held = [int(expert) for expert in own if expert != EMPTY]
            assert len(held) == len(set(held)), "two replicas of an expert on a GPU"
            for expert in held:
                if plan.policy == "hierarchical":
                    node = node_of_group.setdefault(expert // group_size, topology.node_of[gpu])
                    assert node == topology.node_of[gpu], "a group on two nodes"
        for expert in range(plan.num_experts):
            assert plan.shares[layer, row == expert].sum() == pytest.approx(1)
        assert (plan.shares[layer] >= 0).all()
        assert (plan.shares[layer, row == EMPTY] == 0).all()
    assert (plan.lower_bound <= plan.imbalance * (1 + 1e-9)).all()
    assert (plan.weighted_imbalance <= plan.imbalance * (1 + 1e-9)).all()


@st.composite
def _cases(draw: st.DrawFn) -> tuple[Floats, Topology, str]:
    num_nodes = draw(st.integers(1, 3))
    per_node = draw(st.integers(1, 3))
    num_groups = num_nodes * draw(st.integers(1, 2))
    num_experts = num_groups * draw(st.integers(1, 4))
    num_gpus = num_nodes * per_node
    if draw(st.booleans()):
        replicas = num_gpus * draw(st.integers(-(-num_experts // num_gpus), 8))
        topology = Topology.regular(num_gpus, replicas, num_nodes, num_groups)
    else:
        slots = st.lists(st.integers(0, 8), min_size=num_gpus, max_size=num_gpus)
        chosen = draw(slots.filter(lambda slots: sum(slots) >= num_experts))
        nodes = tuple(gpu // per_node for gpu in range(num_gpus))
        topology = Topology(tuple(chosen), nodes, num_groups)
    shape = (draw(st.integers(1, 2)), draw(st.integers(0, 3)), num_experts)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    loads = random.lognormal(0, draw(st.sampled_from([0.0, 1.0, 2.0])), shape)
    if draw(st.booleans()):
        loads *= random.random(shape) < 0.5  # experts, and perhaps layers, without any load
    return loads, topology, draw(st.sampled_from(["auto", "global"]))


@given(_cases())
@settings(max_examples=60)
def test_plans_keep_every_rule(case: tuple[Floats, Topology, str]) -> None:
    loads, topology, policy = case
    plan = rebalance(loads, topology, policy=policy, time_budget_ms=5)
    assert plan.slots.shape == (loads.shape[1], topology.num_slots)
    assert_valid(plan)


@given(_cases(), st.sampled_from([0.0, 5.0]))
@settings(max_examples=60)
def test_never_worse_than_rebalance_experts(
    case: tuple[Floats, Topology, str], time_budget_ms: float
) -> None:
    loads, topology, policy = case
    if len(set(topology.slots)) > 1 or loads.shape[1] == 0:
        return
    plan = rebalance(loads[:1], topology, policy=policy, time_budget_ms=time_budget_ms)
    groups, nodes = topology.num_groups, topology.num_nodes
    if plan.policy == "global":
        groups = nodes = 1
    sizes = (topology.num_slots, groups, nodes, topology.num_gpus)
    slots, _, counts = (part.numpy() for part in rebalance_experts(torch.tensor(loads[0]), *sizes))
    even = 1 / np.take_along_axis(counts, slots, axis=1)
    greedy = imbalance_of(topology, loads_of_gpus(topology, slots, even, plan.loads))
    assert (plan.weighted_imbalance <= greedy * (1 + 1e-6)).all()
    by_gpu = np.sort(slots.reshape(len(slots), topology.num_gpus, -1), axis=2)
    alone = (np.diff(by_gpu, axis=2) > 0).all(axis=(1, 2))  # no expert twice on a GPU
    assert (plan.imbalance[alone] <= greedy[alone] * (1 + 1e-9)).all()


def test_without_time_to_search_the_better_of_two_beginnings_is_taken() -> None:
    topology, loads = Topology.regular(8, 24, 2, 4), _lognormal(2, 200, 16)
    task = _Task(loads[None] * 8 / loads.sum(axis=1, keepdims=True), topology, hierarchical=True)
    greedy = baseline.greedy(topology, task.loads, hierarchical=True)
    assert greedy is not None
    own, _ = plan_from_scratch(task.loads, topology, hierarchical=True, budget_s=0.0)
    theirs, ours = task.imbalance(greedy), task.imbalance(own)
    apart = np.array([[len(set(gpu)) == 3 for gpu in row.reshape(8, 3)] for row in greedy])
    better, alone = theirs < ours * (1 - 1e-9), apart.all(axis=1)
    plan = rebalance(loads, topology, time_budget_ms=0)
    assert_valid(plan)
    assert (better & alone).any(), "the test needs a layer in which the greedy plan is better"
    assert plan.imbalance[better & alone] == pytest.approx(theirs[better & alone])
    assert (better & ~alone).any(), "and one in which it is better by doubling an expert on a GPU"
    assert (plan.weighted_imbalance[better] <= theirs[better] * (1 + 1e-9)).all()
    assert (plan.imbalance[~better] <= ours[~better] * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("name", "topology", "loads", "bound"),
    [
        ("global", Topology.regular(128, 384, 16), _lognormal(1, 8), 1.02),
        ("global", Topology.regular(128, 384, 16), _zipf(1, 8, 1.2), 1.06),
        ("hierarchical", Topology.regular(32, 288, 4, 8), _zipf(1, 8, 1.2), 1.65),
        ("hierarchical", Topology.regular(32, 288, 4, 8), _zipf(1, 8, 0.8), 1.14),
    ],
    ids=["global-lognormal", "global-zipf1.2", "nodes-zipf1.2", "nodes-zipf0.8"],
)
def test_real_sizes_are_balanced(
    name: str, topology: Topology, loads: Floats, bound: float
) -> None:
    # The budget only ends what would never end; a search ends by itself long before.
    plan = rebalance(loads, topology, policy=name, time_budget_ms=5000)
    assert_valid(plan)
    assert plan.imbalance.mean() <= bound


def test_auto_is_hierarchical_where_groups_fit_the_nodes() -> None:
    loads = _lognormal(0, 1, 8)
    policies = {
        Topology.regular(4, 12, num_nodes=2, num_groups=4): "hierarchical",
        Topology.regular(4, 12, num_nodes=4, num_groups=2): "global",
        Topology.regular(4, 12, num_nodes=1, num_groups=4): "global",
        # Nodes with three and five slots have room for three groups of two.
        Topology(slots=(2, 1, 3, 2), node_of=(0, 0, 1, 1), num_groups=4): "global",
    }
    for topology, policy in policies.items():
        assert rebalance(loads, topology, time_budget_ms=1).policy == policy


def test_windows_are_planned_for_together(seed: int) -> None:
    random = np.random.default_rng(seed)
    topology = Topology.regular(8, 40)
    windows = random.lognormal(0, 1, (2, 4, 32))
    both = rebalance(windows, topology, time_budget_ms=500)
    for window in windows:
        one = rebalance(window, topology, time_budget_ms=500)
        worst = imbalance_of(topology, one.gpu_loads(windows))
        assert (both.imbalance <= worst * (1 + 1e-9)).all()
        assert (both.imbalance < worst * 0.99).any()


def test_tensors_and_arrays_of_integers_make_the_same_plan() -> None:
    counts = np.random.default_rng(0).integers(0, 1000, (2, 16))
    topology = Topology.regular(4, 20)
    plans = [
        rebalance(given, topology, time_budget_ms=1000)
        for given in (counts, torch.from_numpy(counts), counts.astype(np.float32))
    ]
    for plan in plans:
        assert (plan.slots == plans[0].slots).all()


@pytest.mark.parametrize(
    ("num_gpus", "replicas", "num_experts"), [(1, 5, 5), (3, 7, 7), (5, 1000, 4), (7, 8, 1)]
)
def test_odd_sizes(num_gpus: int, replicas: int, num_experts: int) -> None:
    topology = Topology.regular(num_gpus, replicas)
    plan = rebalance(_lognormal(0, 2, num_experts), topology, time_budget_ms=20)
    assert_valid(plan)
    full = min(replicas, num_gpus * num_experts)
    assert ((plan.slots != EMPTY).sum(axis=1) == full).all()


def test_a_layer_without_load_is_spread_evenly() -> None:
    plan = rebalance(np.zeros((1, 8)), Topology.regular(4, 12), time_budget_ms=20)
    assert_valid(plan)
    assert plan.imbalance == plan.lower_bound == pytest.approx([1.0])
    # Two equal experts do not go evenly onto three slots, but here there is nothing to spread.
    assert_valid(rebalance(np.zeros((1, 2)), Topology.regular(3, 3), time_budget_ms=20))


def _noisy(loads: Floats, sigma: float, seed: int) -> Floats:
    return np.asarray(loads * np.random.default_rng(seed).lognormal(0, sigma, loads.shape))


def test_a_little_noise_moves_little() -> None:
    topology = Topology.regular(32, 288)
    before = _lognormal(1, 8)
    old = rebalance(before, topology, time_budget_ms=500)
    after = _noisy(before, 0.05, seed=2)
    new = rebalance(after, topology, previous=old, time_budget_ms=500)
    anew = rebalance(after, topology, time_budget_ms=500)
    assert_valid(new)
    assert new.num_moved.sum() < 0.05 * new.slots.size
    assert new.imbalance.mean() <= 1.02 * anew.imbalance.mean()
    assert anew.num_moved.tolist() == [0] * 8


def test_where_small_changes_do_not_help_the_new_plan_is_taken_with_few_moves() -> None:
    topology = Topology.regular(48, 96)
    before = _lognormal(1, 4, 80)
    old = rebalance(before, topology, time_budget_ms=500)
    after = _noisy(before, 1.0, seed=2)
    new = rebalance(after, topology, previous=old, time_budget_ms=500)
    anew = rebalance(after, topology, time_budget_ms=500)
    assert_valid(new)
    assert (new.imbalance <= 1.021 * anew.imbalance).all()


def test_limits_of_change_are_kept() -> None:
    topology = Topology.regular(16, 96)
    before = _lognormal(1, 4, 64)
    old = rebalance(before, topology, time_budget_ms=200)
    after = _noisy(before, 0.5, seed=2)
    kept = rebalance(after, topology, previous=old, max_moves=0, time_budget_ms=200)
    assert (kept.slots == old.slots).all()
    assert kept.num_moved.tolist() == [0] * 4
    few = rebalance(after, topology, previous=old, max_moves=5, time_budget_ms=200)
    assert few.num_moved.max() <= 5
    assert (few.imbalance <= kept.imbalance).all()
    assert (few.imbalance < kept.imbalance).any()
    unmoved = rebalance(after, topology, previous=old, min_gain=0.99, time_budget_ms=200)
    assert (unmoved.slots == old.slots).all()


def test_a_failed_gpu_is_worked_around_and_a_repaired_one_is_used() -> None:
    topology = Topology.regular(16, 96)
    loads = _lognormal(1, 4, 64)
    old = rebalance(loads, topology, time_budget_ms=200)
    degraded = rebalance(loads, topology.without([3]), previous=old, time_budget_ms=200)
    assert_valid(degraded)
    assert degraded.num_moved.sum() < 0.3 * degraded.slots.size
    back = rebalance(loads, topology, previous=degraded, time_budget_ms=200)
    assert_valid(back)
    assert (back.imbalance <= 1.021 * old.imbalance).all()


def test_slots_of_experts_that_stay_do_not_change() -> None:
    topology = Topology.regular(8, 48)
    loads = _lognormal(1, 3, 40)
    old = rebalance(loads, topology, time_budget_ms=100)
    new = rebalance(_noisy(loads, 0.3, 2), topology, previous=old, time_budget_ms=100)
    assert ((new.slots != old.slots).sum(axis=1) == new.num_moved).all()


_OLD = rebalance(np.ones((2, 8)), Topology.regular(4, 12), time_budget_ms=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r, t: r([[1.0]], t), TypeError, "loads must be a tensor or a numpy array"),
        (lambda r, t: r(np.ones(8), t), ValueError, "loads must have 2 dimensions"),
        (lambda r, t: r(np.full((2, 8), np.nan), t), ValueError, "got nan at layer 0, expert 0"),
        (lambda r, t: r(np.full((2, 8), np.inf), t), ValueError, "must be finite"),
        (lambda r, t: r(-np.ones((2, 8)), t), ValueError, "not negative, got -1.0 at layer 0"),
        (lambda r, t: r(np.ones((2, 13)), t), ValueError, "each of the 13 experts, got 12 slots"),
        (lambda r, _: r(np.ones((2, 8)), 12), TypeError, "topology must be a Topology, got int"),
        (
            lambda r, _: r(np.ones((2, 8)), Topology.regular(4, 12, 1, 3)),
            ValueError,
            "num_groups must divide the 8 experts, got 3",
        ),
        (
            lambda r, _: r(np.ones((2, 8)), Topology((9, 0, 1), (0, 1, 2), 2), policy="x"),
            ValueError,
            "policy must be one of auto, hierarchical, global, got 'x'",
        ),
        (
            lambda r, _: r(np.ones((2, 8)), Topology((6, 2), (0, 1), 2), policy="hierarchical"),
            ValueError,
            "room for all 2 groups of 4 experts, got room for 1",
        ),
        (
            lambda r, t: r(np.ones((2, 8)), t, time_budget_ms=-1),
            ValueError,
            "time_budget_ms must be finite and not negative, got -1",
        ),
        (
            lambda r, t: r(np.ones((2, 8)), t, time_budget_ms=float("nan")),
            ValueError,
            "time_budget_ms must be finite",
        ),
        (lambda r, t: r(np.ones((2, 8)), t, max_moves=3), ValueError, "max_moves needs previous"),
        (lambda r, t: r(np.ones((2, 8)), t, min_gain=0.1), ValueError, "min_gain needs previous"),
        (
            lambda r, t: r(np.ones((2, 8)), t, previous=_OLD, max_moves=-1),
            ValueError,
            "max_moves must be finite and not negative, got -1",
        ),
        (
            lambda r, t: r(np.ones((2, 8)), t, previous=[1]),
            TypeError,
            "previous must be a Plan, got list",
        ),
        (
            lambda r, t: r(np.ones((3, 8)), t, previous=_OLD),
            ValueError,
            "previous must have 3 layers like loads and topology, got 2",
        ),
        (
            lambda r, t: r(np.ones((2, 7)), t, previous=_OLD),
            ValueError,
            "previous must have 7 experts",
        ),
        (
            lambda r, _: r(np.ones((2, 8)), Topology.regular(5, 12), previous=_OLD),
            ValueError,
            "previous must have 5 GPUs",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    call: Callable[..., Plan], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call(rebalance, Topology.regular(4, 12))
