"""Accesses outside of memory and misaligned ones are found, and those within it pass."""

import pytest
import torch

from csrc import simulator
from csrc.tensor_map import TensorMap
from tests.simulator.planted import (
    SEEDS,
    Launch,
    Memory,
    assert_clean,
    assert_found,
    kernel,
    names,
)
from tests.simulator.running import run as run_ptx
from tests.simulator.running import source

pytestmark = pytest.mark.compile

_SOURCE = "bounds.cu"
_DYNAMIC = Launch(smem_bytes=4096)
_WGMMA = Launch(smem_bytes=16384, block=128)


def _beyond(thread: int, opcode: str, num_bytes: int, why: str) -> str:
    return (
        rf"out of bounds: thread \({thread}, 0, 0\) of CTA \(0, 0, 0\) at {opcode}\S* at line \d+ "
        rf"of the PTX, .* touches {num_bytes} bytes at 0x[0-9a-f]+: {why}"
    )


def _misaligned(thread: int, opcode: str, align: int) -> str:
    return (
        rf"misaligned: thread \({thread}, 0, 0\) of CTA \(0, 0, 0\) at {opcode}\S* at line \d+ of "
        rf"the PTX, .* touches 0x[0-9a-f]+, which must be a multiple of {align}$"
    )


_DATA = r"memory\[0\] \[0x[0-9a-f]+, 256 bytes\]$"
_OTHER = r"memory\[1\] \[0x[0-9a-f]+, 256 bytes\]$"
_ANY = r"\d+ bytes (before|behind) \S+ \[0x[0-9a-f]+, \d+ bytes\]$"
_SHARED = r"the CTA has 4\d\d\d bytes of shared memory$"  # 4096, and a barrier if there is one
_LOAD = r"cp\.async\.bulk\.tensor\.2d\.shared"
_BULK = r"cp\.async\.bulk\.shared"

_FOUND = {
    "global_behind": _beyond(31, "st.global", 4, "0 bytes behind " + _DATA),
    "global_before": _beyond(0, "ld.global", 4, "4 bytes before " + _DATA),
    "global_between": _beyond(0, "st.global", 4, "64 bytes before " + _OTHER),
    "global_freed": _beyond(0, "st.global", 4, _ANY),
    "global_null": _beyond(0, "st.global", 4, "a null pointer, " + _ANY),
    "global_null_with_offset": _beyond(0, "st.global", 4, "a null pointer, " + _ANY),
    "generic_null_minus": _beyond(0, "st.volatile", 4, _ANY),
    "global_atomic": _beyond(0, "atom.global.add", 4, "0 bytes behind " + _DATA),
    "shared_static": _beyond(31, "st.shared", 4, "the CTA has 256 bytes of shared memory$"),
    "shared_dynamic": _beyond(31, "st.shared", 4, "the CTA has 4096 bytes of shared memory$"),
    "local_index": _beyond(0, r"ld\S*local", 4, "the thread has 32 bytes of local memory$"),
    "parameter_index": _beyond(0, "ld.param", 4, "the kernel has 384 bytes of parameters$"),
    "tma_box_too_large": _beyond(0, _LOAD, 1024, r"the CTA has \d+ bytes of shared memory$"),
    "tma_strange_tensor": _beyond(0, _LOAD, 1024, _ANY),
    "tma_destination": _misaligned(0, _LOAD, 128),
    "tma_source": _misaligned(0, r"cp\.async\.bulk\.tensor\.2d\.global", 128),
    "tma_store_to_strange": _beyond(0, r"cp\.async\.bulk\.tensor\.2d\.global", 1024, _ANY),
    "tma_map_of_another_rank": (
        r"wrong tensor map: thread \(0, 0, 0\) of CTA \(0, 0, 0\) at cp\.async\.bulk\.tensor\.3d.* "
        r"has coordinates of rank 3, the map has rank 2$"
    ),
    "bulk_size": r"misaligned: thread \(0, 0, 0\) of .* copies 40 bytes, which must be a multiple",
    "bulk_size_negative": _beyond(0, _BULK, 2**32 - 16, r"the CTA has \d+ bytes of shared memory$"),
    "bulk_source_behind": _beyond(0, _BULK, 32, r"up to 16 bytes behind memory\[2\]"),
    "bulk_source_misaligned": _misaligned(0, _BULK, 16),
    "bulk_store_behind": _beyond(0, "cp.async.bulk.global", 80, "up to 16 bytes behind " + _DATA),
    "copy_source_behind": _beyond(15, "cp.async.cg", 16, "0 bytes behind " + _DATA),
    "copy_target_behind": _beyond(31, "cp.async.cg", 16, _SHARED),
    "copy_reads_more": r"out of bounds: thread \(0, 0, 0\) of .* reads 20 bytes to copy 16$",
    "copy_misaligned": _misaligned(0, "cp.async.cg", 16),
    "vector_load": _misaligned(0, "ld.global.v4", 16),
    "vector_store": _misaligned(0, "st.shared.v2", 8),
    "mbarrier_misaligned": _misaligned(0, "mbarrier.init", 8),
    "matrix_row": _misaligned(5, "stmatrix", 16),
    "matrix_load_row": _misaligned(0, "ldmatrix", 16),
    "wgmma_operand": (
        r"out of bounds: wgmma reads 16 bytes at shared address 16384 of 16384, "
        r"CTA \(0, 0, 0\) warp [0-3]: 32 lanes at wgmma.mma_async"
    ),
}


def _launch(name: str) -> Launch:
    return {"wgmma_operand": _WGMMA, "shared_static": Launch()}.get(name, _DYNAMIC)


def test_each_pair_has_its_finding() -> None:
    assert sorted(_FOUND) == sorted(names(_SOURCE))


@pytest.mark.parametrize("name", _FOUND)
def test_found(name: str) -> None:
    assert_found(_SOURCE, name, _launch(name), _FOUND[name])


@pytest.mark.parametrize("name", _FOUND)
def test_clean(name: str) -> None:
    assert_clean(_SOURCE, name, _launch(name))


def test_the_address_is_that_of_the_access() -> None:
    memory = Memory()
    with simulator.Machine() as machine:
        machine.launch(
            kernel(_SOURCE, "global_behind_bug"),
            1,
            32,
            args=[memory.params()],
            memory=[memory.data, memory.other, memory.box_rows],
        )
        with pytest.raises(RuntimeError) as raised:
            machine.run()
    begin = memory.data.data_ptr()
    assert f"4 bytes at {begin + 256:#x}: " in str(raised.value)
    assert f"memory[0] [{begin:#x}, 256 bytes]" in str(raised.value)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("body", "bad", "good", "message"),
    [
        (
            ".local .b8 mine[8]; mov.u32 %r1, mine; st.local.u32 [%r1+{}], %r0;",
            8,
            4,
            r"st\.local\.u32 .* touches 4 bytes at 0x8: the thread has 8 bytes of local",
        ),
        (
            ".shared .b8 mine[64]; mov.u32 %r1, mine; st.shared.u32 [%r1+{}], 1;",
            64,
            60,
            r"st\.shared\.u32 .* at 0x40: the CTA has 64 bytes of shared memory",
        ),
        (
            ".shared .b8 mine[64]; mov.u32 %r1, mine; st.shared.u32 [%r1+{}], 1;",
            1 << 24,
            0,
            r"st\.shared\.u32 .* the cluster has no CTA of rank 1",
        ),
    ],
    ids=["local", "shared", "a CTA that is not there"],
)
def test_bounds_are_exact(body: str, bad: int, good: int, message: str, seed: int) -> None:
    with pytest.raises(RuntimeError, match="out of bounds: thread .*" + message):
        run_ptx(body.format(bad), seed=seed, block=1)
    run_ptx(body.format(good), seed=seed, block=1)


@pytest.mark.parametrize("seed", SEEDS)
def test_thread_and_cta_are_named_by_their_coordinates(seed: int) -> None:
    body = """
    mov.u32 %r1, %tid.y;
    mov.u32 %r2, %tid.z;
    mov.u32 %r3, %ctaid.y;
    setp.eq.u32 %p1, %r0, 3;
    setp.eq.and.u32 %p1, %r1, 2, %p1;
    setp.eq.and.u32 %p1, %r2, 1, %p1;
    setp.eq.and.u32 %p1, %r3, 1, %p1;
    @%p1 st.global.u32 [%rd0+64], %r0;
    """
    memory = torch.zeros(16, dtype=torch.int32)
    loaded = simulator.load(source(body, 1))["kernel"]
    with simulator.Machine(seed=seed) as machine:
        machine.launch(loaded, (2, 2), (4, 4, 3), args=[memory])
        with pytest.raises(RuntimeError, match=r"thread \(3, 2, 1\) of CTA \([01], 1, 0\) at st"):
            machine.run()


_SWIZZLED_STORE = """.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 box[];
.visible .entry kernel(.param .align 64 .b8 map[128], .param .u32 at) {
.reg .b64 %rd<3>; .reg .b32 %r<5>; .reg .pred %p<2>;
mov.b64 %rd0, map; cvta.param.u64 %rd1, %rd0;
mov.u32 %r0, box; ld.param.u32 %r1, [at]; add.u32 %r1, %r0, %r1;
mov.u32 %r2, 0;
FILL: add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %r2;
add.u32 %r2, %r2, 4; setp.lt.u32 %p1, %r2, 64; @%p1 bra FILL;
fence.proxy.async.shared::cta;
cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%rd1, {0, 0}], [%r1];
cp.async.bulk.commit_group;
cp.async.bulk.wait_group 0;
ret; }"""


def _store_swizzled(at: int, seed: int) -> list[list[int]]:
    """Two rows of 32 bytes, in a swizzle that permutes them, from 4032 bytes of memory."""
    rows = torch.zeros(2, 8, dtype=torch.int32)
    packed = TensorMap.of(rows, (2, 8), swizzle_bytes=32).encode_for_simulator()
    with simulator.Machine(seed=seed) as machine:
        loaded = simulator.load(_SWIZZLED_STORE)["kernel"]
        machine.launch(loaded, 1, 1, args=[packed, at], smem_bytes=4032, memory=[rows])
        machine.run()
    return rows.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_swizzled_box_may_end_where_shared_memory_ends(seed: int) -> None:
    # From an odd multiple of 128 on, the two granules of each row change places.
    rows = [[16, 20, 24, 28, 0, 4, 8, 12], [48, 52, 56, 60, 32, 36, 40, 44]]
    assert _store_swizzled(3968, seed) == rows


def test_parameters_cannot_be_written() -> None:
    text = """.version 8.0
.target sm_90a
.address_size 64
.visible .entry kernel(.param .u32 number) {
.reg .b64 %rd<3>; .reg .b32 %r<3>;
mov.b64 %rd0, number; cvta.param.u64 %rd1, %rd0;
ld.u32 %r0, [%rd1];
st.u32 [%rd1], %r0;
ret; }"""
    with simulator.Machine() as machine:
        machine.launch(simulator.load(text)["kernel"], 1, 1, args=[7])
        with pytest.raises(RuntimeError, match=r"st\.u32 at line 8 .* parameters can only be read"):
            machine.run()
