"""What is still going on when a CTA ends, and what reaches it after its end, is found."""

import pytest
import torch

from tests.simulator.planted import SEEDS, Launch, assert_clean, assert_found, names
from tests.simulator.running import run as run_ptx

pytestmark = pytest.mark.compile

_SOURCE = "exit.cu"
_CLUSTER = Launch(grid=2, cluster=2)


def _in_flight(name: str, opcode: str, cta: str = "0") -> str:
    return (
        rf"in flight at exit: CTA \({cta}, 0, 0\) of {name}_bug ends, and nobody in it has waited "
        rf"for {opcode}\S* at line \d+ of the PTX, "
    )


def _exited(opcode: str) -> str:
    """Whether CTA 1 has ended or only may have, at that time."""
    at = rf"{opcode}\S* at line \d+ of the PTX, .*"
    return (
        rf"exited CTA: (thread \(0, 0, 0\) of CTA \(0, 0, 0\) at {at} touches shared memory of CTA "
        rf"\(1, 0, 0\), which has ended$|warp 0 of CTA \(0, 0, 0\) touches shared memory of CTA "
        rf"\(1, 0, 0\) by {at}, and nothing keeps that one from ending before$)"
    )


def _copied(opcode: str, does: str) -> str:
    return (
        rf"exited CTA: thread \(0, 0, 0\) of CTA \(0, 0, 0\) at {opcode}.* {does} shared memory of "
        r"CTA \(1, 0, 0\), which has ended$"
    )


_BYTES = r"cp\.async\.bulk\.shared"
_LOAD = r"cp\.async\.bulk\.tensor\.2d\.shared"
_STORE = r"cp\.async\.bulk\.tensor\.2d\.global"
_FOUND = {
    "load_in_flight": (Launch(), _in_flight("load_in_flight", _LOAD)),
    "second_load_in_flight": (Launch(), _in_flight("second_load_in_flight", _LOAD)),
    "bulk_load_in_flight": (Launch(), _in_flight("bulk_load_in_flight", _BYTES)),
    "store_in_flight": (Launch(), _in_flight("store_in_flight", _STORE)),
    "store_not_committed": (Launch(), _in_flight("store_not_committed", _STORE)),
    "last_store_in_flight": (Launch(), _in_flight("last_store_in_flight", _STORE)),
    "store_waited_by_another": (Launch(), _in_flight("store_waited_by_another", _STORE)),
    "bulk_store_in_flight": (Launch(), _in_flight("bulk_store_in_flight", r"cp\.async\.bulk\.g")),
    "copy_in_flight": (Launch(), _in_flight("copy_in_flight", r"cp\.async\.cg")),
    "wgmma_in_flight": (Launch(block=128), _in_flight("wgmma_in_flight", r"wgmma\.mma_async")),
    "remote_arrival": (_CLUSTER, _exited(r"mbarrier\.arrive")),
    "remote_store": (_CLUSTER, _exited(r"st\.shared::cluster")),
    "remote_load": (_CLUSTER, _exited(r"ld\.shared::cluster")),
    # Whether a CTA has ended or may end too soon depends on who is first.
    "multicast_to_the_gone": (
        _CLUSTER,
        f"{_in_flight('multicast_to_the_gone', _LOAD, '1')}|{_copied(_LOAD, 'copies into')}",
    ),
    "bytes_to_the_gone": (
        _CLUSTER,
        f"{_in_flight('bytes_to_the_gone', _BYTES, '[01]')}|{_copied(_BYTES, 'touches')}",
    ),
}


def test_each_pair_has_its_finding() -> None:
    assert sorted(_FOUND) == sorted(names(_SOURCE))


@pytest.mark.parametrize("name", _FOUND)
def test_found(name: str) -> None:
    launch, pattern = _FOUND[name]
    assert_found(_SOURCE, name, launch, pattern)


@pytest.mark.parametrize("name", _FOUND)
def test_clean(name: str) -> None:
    assert_clean(_SOURCE, name, _FOUND[name][0])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_arrival_at_the_clusters_barrier_ends_with_its_thread(seed: int) -> None:
    """CTA 1 arrives and ends; in CTA 0, warp 1 still has to come before warp 0 reads."""
    body = """
    .shared .b32 number;
    mov.u32 %r1, %cluster_ctarank;
    setp.eq.u32 %p1, %r1, 1;
    setp.eq.u32 %p2, %r0, 32;
    setp.eq.u32 %p3, %r0, 0;
    mov.u32 %r2, number;
    @%p2 st.shared.u32 [%r2], 9;
    barrier.cluster.arrive.release.aligned;
    @%p1 exit;
    barrier.cluster.wait.acquire.aligned;
    @%p3 ld.shared.u32 %r3, [%r2];
    @%p3 st.global.u32 [%rd0], %r3;
    """
    memory = torch.zeros(1, dtype=torch.int32)
    run_ptx(body, [memory], grid=2, cluster=2, block=64, seed=seed)
    assert memory.item() == 9
