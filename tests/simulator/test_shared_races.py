"""Races on shared memory are found with both of their places, and ordered twins are clean."""

import pytest

from tests.simulator.planted_memory import Planted, assert_clean, assert_found, names

pytestmark = pytest.mark.compile

_SOURCE = "shared_races.cu"
_RACE = Planted("data race")
_OF_A_WARP = Planted("data race", block=32)
_OF_A_CLUSTER = Planted("data race", grid=2, cluster=2)

_PLANTED = {
    "read_after_write": _RACE,
    "write_after_read": _RACE,
    "write_after_write": _RACE,
    "same_value": _RACE,
    "disjoint_named_barriers": _RACE,
    "chain_of_barriers": _RACE,
    "arrives_too_soon": _RACE,
    "only_arrives": _RACE,
    "lanes_read_after_write": _OF_A_WARP,
    "lanes_write_after_read": _OF_A_WARP,
    "lanes_broadcast": _OF_A_WARP,
    "lanes_only_vote": _OF_A_WARP,
    "read_among_atomics": _RACE,
    "counts_before_zero": _RACE,
    "neighbouring_bytes": _RACE,
    "volatile_flag": _RACE,
    "flag_not_released": _RACE,
    "flag_not_acquired": _RACE,
    "arrives_before_it_writes": _RACE,
    "mbarrier_not_waited_for": _RACE,
    "remote_write": _OF_A_CLUSTER,
    "block_barrier_for_a_cluster": _OF_A_CLUSTER,
    "relaxed_cluster_barrier": _OF_A_CLUSTER,
    "remote_arrival_too_soon": _OF_A_CLUSTER,
}


def test_every_planted_race_has_a_test() -> None:
    assert names(_SOURCE) == set(_PLANTED)


@pytest.mark.parametrize("name", _PLANTED)
def test_is_found(name: str) -> None:
    assert_found(_SOURCE, name, _PLANTED[name])


@pytest.mark.parametrize("name", _PLANTED)
def test_ordered_is_clean(name: str) -> None:
    assert_clean(_SOURCE, name, _PLANTED[name])
