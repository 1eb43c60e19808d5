"""Bugs at the edge of the asynchronous engines are found by name, and their repairs are clean."""

import pytest

from tests.simulator.planted_memory import Planted, assert_clean, assert_found, names

pytestmark = pytest.mark.compile

_UNWRITTEN = Planted("uninitialised")
_UNFENCED = Planted("missing proxy fence")
_OVERWRITTEN = Planted("overwrite in flight")
_FILLING = Planted("still filling")

_GIVEN = {
    "unwritten_word": _UNWRITTEN,
    "unwritten_byte": _UNWRITTEN,
    "unwritten_sum": _UNWRITTEN,
    "unwritten_box": _UNWRITTEN,
    "unwritten_operand": _UNWRITTEN,
    "unwritten_matrix": _UNWRITTEN,
    "unfenced_tma_store": _UNFENCED,
    "fence_before_the_write": _UNFENCED,
    "fence_by_one_thread": _UNFENCED,
    "fence_by_a_bystander": _UNFENCED,
    "unfenced_bulk_store": _UNFENCED,
    "unfenced_send": Planted("missing proxy fence", grid=2, cluster=2),
    "unfenced_a": _UNFENCED,
    "unfenced_b": _UNFENCED,
    "unfenced_load_over_writes": _UNFENCED,
    "unfenced_load_over_reads": _UNFENCED,
    "handshake_over_reads": _UNFENCED,
    "unfenced_global": _UNFENCED,
}
_IN_FLIGHT = {
    "store_not_waited_for": _OVERWRITTEN,
    "store_waited_for_by_one": _OVERWRITTEN,
    "one_store_too_few": _OVERWRITTEN,
    "store_not_committed": _OVERWRITTEN,
    "bulk_store_not_waited_for": _OVERWRITTEN,
    "send_not_waited_for": Planted("overwrite in flight", grid=2, cluster=2),
    "store_refilled_too_soon": _OVERWRITTEN,
    "product_not_waited_for": _OVERWRITTEN,
    "one_product_too_few": _OVERWRITTEN,
    "released_too_soon": Planted("overwrite in flight", block=256),
    "empty_barrier_skipped": Planted("mbarrier misuse", block=256),
    "full_barrier_skipped": _FILLING,
    "full_barrier_for_one_warp": _FILLING,
    "other_barrier": _FILLING,
    "operand_still_filling": _FILLING,
    "box_still_filling": _FILLING,
    "overwritten_while_filling": _OVERWRITTEN,
    "multicast_not_waited_for": Planted("still filling", grid=2, cluster=2),
    "bulk_load_not_waited_for": _FILLING,
    "copy_not_waited_for": _FILLING,
    "one_copy_too_few": _FILLING,
    "copy_of_another_warp": _FILLING,
}


_PLANTED = {"proxy_hazards.cu": _GIVEN, "flight_hazards.cu": _IN_FLIGHT}
_ALL = [(source, name) for source, planted in _PLANTED.items() for name in planted]


@pytest.mark.parametrize("source", _PLANTED)
def test_every_planted_bug_has_a_test(source: str) -> None:
    assert names(source) == set(_PLANTED[source])


@pytest.mark.parametrize(("source", "name"), _ALL)
def test_is_found(source: str, name: str) -> None:
    assert_found(source, name, _PLANTED[source][name])


@pytest.mark.parametrize(("source", "name"), _ALL)
def test_repaired_is_clean(source: str, name: str) -> None:
    assert_clean(source, name, _PLANTED[source][name])
