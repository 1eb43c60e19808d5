"""Races on global memory are found with both of their places, and ordered twins are clean."""

import pytest

from tests.simulator.planted_memory import Planted, assert_clean, assert_found, names

pytestmark = pytest.mark.compile

_SOURCE = "global_races.cu"
_OF_TWO = Planted("data race", grid=2)
_OF_THREE = Planted("data race", grid=3)
_OF_ONE = Planted("data race")
_OF_A_WARP = Planted("data race", block=32)

_PLANTED = {
    "relaxed_flag": _OF_TWO,
    "volatile_flag": _OF_TWO,
    "release_missing": _OF_TWO,
    "acquire_missing": _OF_TWO,
    "fence_of_the_writer_missing": _OF_TWO,
    "fence_of_the_reader_missing": _OF_TWO,
    "plain_flag": _OF_TWO,
    "written_after_the_release": _OF_TWO,
    "block_barrier_before_the_flag": _OF_TWO,
    "block_barrier_behind_the_flag": _OF_TWO,
    "three_parties": _OF_THREE,
    "last_one_sums": _OF_THREE,
    "counts_before_zero": _OF_TWO,
    "barrier_of_the_grid": _OF_THREE,
    "overwritten_before_its_turn": _OF_TWO,
    "overwritten_by_good_luck": _OF_TWO,
    "one_of_two_readers": _OF_THREE,
    "copied_by_good_luck": _OF_TWO,
    "warps_write_after_read": _OF_ONE,
    "warps_read_after_write": _OF_ONE,
    "lanes_read_after_write": _OF_A_WARP,
    "both_write": Planted("data race", grid=2, block=32),
    "both_write_the_same": _OF_TWO,
    "one_reads_what_the_other_writes": _OF_TWO,
    "one_writes_what_the_other_reads": _OF_TWO,
    "store_only_read": _OF_TWO,
    "unfenced_for_the_copy": Planted("missing proxy fence", grid=2),
}


def test_every_planted_race_has_a_test() -> None:
    assert names(_SOURCE) == set(_PLANTED)


@pytest.mark.parametrize("name", _PLANTED)
def test_is_found(name: str) -> None:
    assert_found(_SOURCE, name, _PLANTED[name])


@pytest.mark.parametrize("name", _PLANTED)
def test_ordered_is_clean(name: str) -> None:
    assert_clean(_SOURCE, name, _PLANTED[name])
