"""What special registers hold, and clocks that go on."""

import itertools

import pytest
import torch

from csrc import simulator
from tests.simulator.running import run, source

_MASKS = {
    "%laneid": lambda i: i,
    "%lanemask_eq": lambda i: 1 << i,
    "%lanemask_lt": lambda i: (1 << i) - 1,
    "%lanemask_le": lambda i: (2 << i) - 1,
    "%lanemask_gt": lambda i: 2**32 - (2 << i),
    "%lanemask_ge": lambda i: 2**32 - (1 << i),
    "WARP_SZ": lambda _: 32,
}


@pytest.mark.parametrize("name", _MASKS)
def test_lanes(name: str) -> None:
    found = torch.zeros(64, dtype=torch.int32)
    body = f"mov.u32 %r1, {name}; mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.b32 [%rd5], %r1;"
    run(body, [found], block=64)
    assert [v % 2**32 for v in found.tolist()] == [_MASKS[name](i % 32) for i in range(64)]


_GRID, _BLOCK, _CLUSTER, _SMS = (4, 6, 2), (5, 3, 2), (2, 3, 1), 7
_NAMES = [f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"]
_NAMES += [
    f"%{name}.{axis}"
    for name in ("clusterid", "nclusterid", "cluster_ctaid", "cluster_nctaid")
    for axis in "xyz"
]
_NAMES += ["%cluster_ctarank", "%cluster_nctarank", "%warpid", "%nwarpid", "%smid", "%nsmid"]
_NAMES += ["%gridid", "%total_smem_size", "%aggr_smem_size", "%dynamic_smem_size"]
_NAMES += ["%current_graph_exec"]


def _expected(cta: tuple[int, int, int], thread: tuple[int, int, int]) -> list[int]:
    cluster = [c // s for c, s in zip(cta, _CLUSTER, strict=True)]
    clusters = [g // s for g, s in zip(_GRID, _CLUSTER, strict=True)]
    inside = [c % s for c, s in zip(cta, _CLUSTER, strict=True)]
    rank = inside[0] + inside[1] * _CLUSTER[0]
    number = (cluster[2] * clusters[1] + cluster[1]) * clusters[0] + cluster[0]
    flat = thread[0] + _BLOCK[0] * (thread[1] + _BLOCK[1] * thread[2])
    values = [*thread, *_BLOCK, *cta, *_GRID, *cluster, *clusters, *inside, *_CLUSTER, rank, 6]
    # 100 bytes of a variable and 300 of the launch, in steps of 128; a kilobyte is the system's.
    return [*values, flat // 32, 64, (6 * number + rank) % _SMS, _SMS, 1, 512, 512 + 1024, 300, 0]


def test_places_sizes_and_the_machine() -> None:
    count = len(_NAMES)
    threads = 30
    found = torch.full((4 * 6 * 2 * threads, count), -1, dtype=torch.int64)
    body = (
        """.shared .align 4 .b8 room[100]; mov.u32 %r1, %ctaid.z; mov.u32 %r2, %ctaid.y;
    mad.lo.u32 %r1, %r1, 6, %r2; mov.u32 %r2, %ctaid.x; mad.lo.u32 %r1, %r1, 4, %r2;
    mov.u32 %r2, %tid.z; mad.lo.u32 %r1, %r1, 2, %r2; mov.u32 %r2, %tid.y;
    mad.lo.u32 %r1, %r1, 3, %r2; mov.u32 %r2, %tid.x; mad.lo.u32 %r1, %r1, 5, %r2;
    """
        f"mad.wide.u32 %rd5, %r1, {8 * count}, %rd0;"
    )
    for i, name in enumerate(_NAMES):
        width = 64 if name in {"%gridid", "%current_graph_exec"} else 32
        register = "%rd7" if width == 64 else "%r3"
        body += f"mov.u{width} {register}, {name}; cvt.u64.u{width} %rd6, {register};"
        body += f"st.global.b64 [%rd5+{8 * i}], %rd6;"
    kernel = simulator.load(source(body, 1))["kernel"]
    with simulator.Machine(sms=_SMS) as machine:
        machine.launch(kernel, _GRID, _BLOCK, cluster=_CLUSTER, smem_bytes=300, args=[found])
        machine.run()
    rows = iter(found.tolist())
    for z, y, x, c, b, a in itertools.product(*map(range, (2, 6, 4, 2, 3, 5))):
        assert next(rows) == _expected((x, y, z), (a, b, c)), (x, y, z, a, b, c)


def test_every_launch_has_a_number() -> None:
    found = [torch.zeros(1, dtype=torch.int64) for _ in range(3)]
    kernel = simulator.load(source("mov.u64 %rd5, %gridid; st.global.b64 [%rd0], %rd5;", 1))
    with simulator.Machine() as machine:
        for tensor in found:
            machine.launch(kernel["kernel"], 1, 1, args=[tensor])
        machine.run()
    assert [tensor.item() for tensor in found] == [1, 2, 3]


@pytest.mark.parametrize("cluster", [1, 2])
def test_whether_a_launch_has_clusters(cluster: int) -> None:
    found = torch.zeros(1, dtype=torch.int32)
    body = "mov.pred %p1, %is_explicit_cluster; selp.b32 %r1, 1, 0, %p1; st.global.b32 [%rd0], %r1;"
    body = "mov.u32 %r2, %ctaid.x; setp.ne.u32 %p2, %r2, 0; @%p2 exit;" + body
    run(body, [found], grid=2, block=1, cluster=cluster)
    assert found.item() == (cluster > 1)


_CLOCKS = {"%clock": 32, "%clock64": 64, "%globaltimer": 64, "%globaltimer_lo": 32}


@pytest.mark.parametrize("name", _CLOCKS)
def test_a_loop_that_waits_for_a_time_ends(name: str, seed: int) -> None:
    """And does so alike in every run with one seed."""
    bits = _CLOCKS[name]
    body = f"""mov.u{bits} %rd5, {name}; AGAIN: mov.u{bits} %rd6, {name};
    sub.u64 %rd7, %rd6, %rd5; setp.lt.u64 %p1, %rd7, 3000; @%p1 bra AGAIN;
    st.global.b64 [%rd0], %rd7;"""
    if bits == 32:
        body = f"""mov.u32 %r5, {name}; AGAIN: mov.u32 %r6, {name}; sub.u32 %r7, %r6, %r5;
        setp.lt.u32 %p1, %r7, 3000; @%p1 bra AGAIN; cvt.u64.u32 %rd7, %r7;
        st.global.b64 [%rd0], %rd7;"""
    found = []
    for _ in range(2):
        elapsed = torch.zeros(1, dtype=torch.int64)
        run(body, [elapsed], block=1, seed=seed)
        found.append(elapsed.item())
    assert found[0] == found[1]
    assert 3000 <= found[0] < 3010


def test_the_halves_of_a_clock_are_one_time() -> None:
    found = torch.zeros(3, dtype=torch.int64)
    body = """mov.u64 %rd5, %globaltimer; mov.u32 %r5, %globaltimer_lo;
    mov.u32 %r6, %globaltimer_hi; mov.b64 %rd6, {%r5, %r6}; mov.u32 %r7, %clock_hi;
    cvt.u64.u32 %rd7, %r7;
    st.global.b64 [%rd0], %rd5; st.global.b64 [%rd0+8], %rd6; st.global.b64 [%rd0+16], %rd7;"""
    run(body, [found], block=1)
    whole, halves, high = found.tolist()
    assert halves - whole in range(1, 5)
    assert whole > 10**18  # nanoseconds since 1970
    assert high == 0


def test_registers_that_are_not_there() -> None:
    with pytest.raises(NotImplementedError, match=r"^line \d+: %reserved_smem_offset_begin: "):
        run("mov.u32 %r1, %reserved_smem_offset_begin;")
    with pytest.raises(ValueError, match="unknown name '%pm0'"):
        run("mov.u32 %r1, %pm0;")
