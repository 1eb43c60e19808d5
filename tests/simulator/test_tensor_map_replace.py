"""Tensor maps that kernels make and change, and the fences that go between a map and its use."""

import dataclasses
import random
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from csrc import simulator
from csrc.tensor_map import TensorMap
from tests.simulator.running import run, source

_MODULE = """
.extern .shared .align 128 .b8 buffer[];
.shared .align 128 .b8 map[128];
.shared .align 8 .b64 barrier;
"""
_CPU = torch.device("cpu")
_DTYPES = {
    torch.uint8: 0, torch.uint16: 1, torch.uint32: 2, torch.int32: 3, torch.uint64: 4,
    torch.int64: 5, torch.float16: 6, torch.float32: 7, torch.float64: 9, torch.bfloat16: 10,
}  # fmt: skip
_SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}


def _replacements(described: TensorMap, space: str, address: str) -> list[str]:
    """One instruction for each field of a map."""

    def one(field: str, value: int, *, dim: int | None = None, bits: int = 32) -> str:
        where = f"[{address}]" if dim is None else f"[{address}], {dim}"
        return f"tensormap.replace.tile.{field}.{space}.b1024.b{bits} {where}, {value};"

    lines = [
        one("global_address", described.address, bits=64),
        one("rank", described.rank - 1),
        one("elemtype", _DTYPES[described.dtype]),
        one("interleave_layout", 0),
        one("swizzle_mode", _SWIZZLES[described.swizzle_bytes]),
        one("fill_mode", int(described.fill == "nan")),
    ]
    for dim in range(described.rank):
        lines.append(one("box_dim", described.box[dim], dim=dim))
        lines.append(one("global_dim", described.sizes[dim], dim=dim))
        lines.append(one("element_stride", described.element_strides[dim], dim=dim))
    for dim, stride in enumerate(described.strides):
        lines.append(one("global_stride", stride, dim=dim, bits=64))
    return lines


def _within_rank(encoded: bytes) -> bytes:
    """A map with zeros where its rank says that nobody reads."""
    rank, fields = encoded[16], bytearray(encoded)
    for first, size, count in ((24, 8, 5), (64, 8, 4), (96, 2, 5), (106, 1, 5)):
        used = rank - 1 if first == 64 else rank
        fields[first + used * size : first + count * size] = bytes((count - used) * size)
    return bytes(fields)


def _any_map(generator: random.Random) -> TensorMap:
    dtype = generator.choice(list(_DTYPES))
    rank = generator.randint(1, 5)
    swizzle = generator.choice(list(_SWIZZLES))
    inner = (swizzle or 16 * generator.randint(1, 4)) // dtype.itemsize
    return TensorMap(
        dtype=dtype,
        address=16 * generator.randint(1, 2**40),
        sizes=tuple(generator.randint(1, 2**31 - 1) for _ in range(rank)),
        strides=tuple(16 * generator.randint(0, 2**36 - 1) for _ in range(rank - 1)),
        box=(inner, *(generator.randint(1, 256) for _ in range(rank - 1))),
        element_strides=tuple(generator.randint(1, 8) for _ in range(rank)),
        swizzle_bytes=swizzle,
        l2_promotion_bytes=0,
        fill="nan" if dtype.is_floating_point and generator.random() < 0.5 else "zero",
        device=_CPU,
    )


_CLEAR = "\n".join(f"st.shared.b64 [map+{8 * i}], 0;" for i in range(16))
_PUBLISH = (
    "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned"
    " [%rd0], [map], 128;"
)


def _map_memory() -> Tensor:
    """128 bytes, aligned as a map has to be."""
    room = torch.zeros(256, dtype=torch.uint8)
    return room[-room.data_ptr() % 128 :][:128]


@pytest.mark.parametrize("space", ["shared::cta", "global"])
def test_a_map_made_field_by_field_is_that_of_the_host(space: str, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(10):
        described, found = _any_map(generator), _map_memory()
        lines = _replacements(described, space, "map" if space == "shared::cta" else "%rd0")
        generator.shuffle(lines)  # in any order
        made = "\n".join(lines)
        body = f"setp.eq.u32 %p1, %r0, 0; @!%p1 bra SENT; {{}} {made} SENT: bar.warp.sync -1; {{}}"
        shared = space == "shared::cta"
        run(body.format(_CLEAR if shared else "", _PUBLISH if shared else ""), [found],
            module=_MODULE)  # fmt: skip
        assert bytes(found.tolist()) == _within_rank(described.encode_for_simulator())


_BASE = TensorMap(
    dtype=torch.float16, address=1 << 20, sizes=(64, 32, 16), strides=(128, 4096), box=(32, 4, 2),
    element_strides=(1, 2, 1), swizzle_bytes=64, l2_promotion_bytes=0, device=_CPU,
)  # fmt: skip
_CHANGES: dict[str, dict[str, Any]] = {
    "global_address": {"address": 1 << 21},
    "rank": {"sizes": (64, 32), "strides": (128,), "box": (32, 4), "element_strides": (1, 2)},
    "box_dim": {"box": (32, 9, 2)},
    "global_dim": {"sizes": (64, 33, 16)},
    "global_stride": {"strides": (128, 8192)},
    "element_stride": {"element_strides": (1, 2, 3)},
    "elemtype": {"dtype": torch.bfloat16},
    "swizzle_mode": {"swizzle_bytes": 128},
    "fill_mode": {"fill": "nan"},
}


@pytest.mark.parametrize("space", ["shared::cta", "global"])
@pytest.mark.parametrize("field", _CHANGES)
def test_one_field_of_a_host_made_map_changes(field: str, space: str) -> None:
    changed = dataclasses.replace(_BASE, **_CHANGES[field])
    found = _map_memory()
    encoded = _BASE.encode_for_simulator()
    found.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
    new = set(_replacements(changed, space, "map" if space == "shared::cta" else "%rd0"))
    lines = new - set(_replacements(_BASE, space, "map" if space == "shared::cta" else "%rd0"))
    body = "\n".join(f"@%p1 {line}" for line in lines if f".{field}." in line)
    assert body.count("@%p1") == 1
    if space == "shared::cta":
        copy = "\n".join(f"ld.global.b64 %rd9, [%rd0+{8 * i}]; st.shared.b64 [map+{8 * i}], %rd9;"
                         for i in range(16))  # fmt: skip
        body = f"{copy} bar.warp.sync -1; {body} bar.warp.sync -1; {_PUBLISH}"
    run(f"setp.eq.u32 %p1, %r0, 0; {body}", [found], module=_MODULE)
    assert _within_rank(bytes(found.tolist())) == _within_rank(changed.encode_for_simulator())


# A map of %rd1, 8 rows of 16 floats, is made in %rd0, and the box at row 3 is copied to %rd2.
_MAKE = f"""
setp.eq.u32 %p1, %r0, 0;
@!%p1 bra MADE;
{_CLEAR}
tensormap.replace.tile.global_address.shared::cta.b1024.b64 [map], %rd1;
tensormap.replace.tile.rank.shared::cta.b1024.b32 [map], 1;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [map], 0, 16;
tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [map], 1, 4;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [map], 0, 16;
tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [map], 1, 8;
tensormap.replace.tile.global_stride.shared::cta.b1024.b64 [map], 0, 64;
tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [map], 0, 1;
tensormap.replace.tile.element_stride.shared::cta.b1024.b32 [map], 1, 1;
tensormap.replace.tile.elemtype.shared::cta.b1024.b32 [map], 7;
MADE: bar.warp.sync -1;
"""
_ACQUIRE = "fence.proxy.tensormap::generic.acquire.gpu [%rd0], 128;"
_RELEASE = "fence.proxy.tensormap::generic.release.gpu;"
_PLAIN_COPY = "\n".join(
    f"ld.shared.b64 %rd9, [map+{8 * i}]; @%p1 st.global.b64 [%rd0+{8 * i}], %rd9;"
    for i in range(16)
)
_USE = """
setp.ne.u32 %p2, %r0, 0;
@%p2 bra LOADED;
mbarrier.init.shared::cta.b64 [barrier], 1;
fence.mbarrier_init.release.cluster;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 256;
cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes
  [buffer], [{map}, {{0, 3}}], [barrier];
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [barrier], 0;
@!%p3 bra WAIT;
LOADED: bar.warp.sync -1;
mov.u32 %r1, buffer;
mad.lo.u32 %r1, %r0, 8, %r1;
ld.shared.b64 %rd10, [%r1];
mad.wide.u32 %rd11, %r0, 8, %rd2;
st.global.b64 [%rd11], %rd10;
"""
_USE_MADE = _USE.format(map="%rd0")


def _rows() -> tuple[Tensor, Tensor, Tensor]:
    return _map_memory(), torch.arange(128).float().view(8, 16), torch.zeros(4, 16)


def _copied(body: str, seed: int = 0) -> None:
    made, rows, found = _rows()
    run(body, [made, rows, found], module=_MODULE, smem_bytes=256, seed=seed)
    assert torch.equal(found, rows[3:7])


def test_a_map_is_used_behind_its_fences() -> None:
    for seed in range(20):
        _copied(_MAKE + _PUBLISH + _ACQUIRE + _USE_MADE, seed)
        _copied(_MAKE + _PLAIN_COPY + _RELEASE + "bar.warp.sync -1;" + _ACQUIRE + _USE_MADE, seed)


_MISSING = {
    "no acquire": (_PUBLISH, "acquire of it"),
    "acquire before the copy": (_ACQUIRE + _PUBLISH, "acquire of it"),
    "an ordinary fence": (_PUBLISH + "fence.acq_rel.sys; fence.proxy.async;", "acquire of it"),
    "acquire of another map": (
        _PUBLISH + "fence.proxy.tensormap::generic.acquire.gpu [%rd2], 128;", "acquire of it"),
    "changed behind the fences": (
        _PUBLISH + _ACQUIRE + "@%p1 tensormap.replace.tile.fill_mode.global.b1024.b32 [%rd0], 1;",
        "acquire of it"),
    "no release": (_PLAIN_COPY + _ACQUIRE, "release followed"),
    "release before the copy": (_RELEASE + _PLAIN_COPY + _ACQUIRE, "release followed"),
}  # fmt: skip


@pytest.mark.parametrize("name", _MISSING)
def test_a_map_without_its_fences_is_found(name: str) -> None:
    between, message = _MISSING[name]
    for seed in range(3):
        made, rows, found = _rows()
        with pytest.raises(RuntimeError) as raised:
            run(_MAKE + between + _USE_MADE, [made, rows, found], module=_MODULE,
                smem_bytes=256, seed=seed)  # fmt: skip
        assert re.search(rf"^missing tensormap fence: thread \(0, 0, 0\) .*{message}",
                         str(raised.value))  # fmt: skip


# CTA 0 makes the map and tells CTA 1, which uses it.
_TWO = """
mov.u32 %r9, %ctaid.x;
setp.ne.u32 %p4, %r9, 0;
@%p4 bra USER;
{make}
@%p1 st.release.gpu.global.u32 [%rd3], 1;
bra DONE;
USER: ld.{load}.gpu.global.u32 %r8, [%rd3];
setp.ne.u32 %p5, %r8, 1;
@%p5 bra USER;
bar.warp.sync -1;
{acquire}
{use}
DONE:
"""


def _handed_over(load: str, acquire: str, seed: int) -> None:
    made, rows, found = _rows()
    body = _TWO.format(make=_MAKE + _PUBLISH, load=load, acquire=acquire, use=_USE_MADE)
    flag = torch.zeros(1, dtype=torch.int32)
    run(body, [made, rows, found, flag], module=_MODULE, grid=2, smem_bytes=256, seed=seed)
    assert torch.equal(found, rows[3:7])


def test_another_cta_uses_a_map() -> None:
    for seed in range(20):
        _handed_over("acquire", _ACQUIRE, seed)
        # The fence acquires what a relaxed load has found, too.
        _handed_over("relaxed", _ACQUIRE, seed)
    for seed in range(4):
        with pytest.raises(RuntimeError, match=r"missing tensormap fence: .* of CTA \(1, 0, 0\)"):
            _handed_over("acquire", "", seed)
        with pytest.raises(RuntimeError, match="data race"):
            _handed_over("relaxed", "", seed)


def test_a_release_of_other_maps_keeps_what_others_released() -> None:
    for seed in range(20):
        _handed_over("acquire", _RELEASE + _ACQUIRE, seed)


@pytest.mark.parametrize("acquire", [_ACQUIRE, ""])
def test_a_later_launch_needs_the_acquire_alone(acquire: str) -> None:
    made, rows, found = _rows()
    make = simulator.load(source(_MAKE + _PLAIN_COPY, 3, _MODULE))["kernel"]
    use = simulator.load(source(acquire + _USE_MADE, 3, _MODULE))["kernel"]
    with simulator.Machine() as machine:
        for kernel in (make, use):
            machine.launch(kernel, 1, 32, args=[made, rows, found], smem_bytes=256)
        if acquire:
            machine.run()
            assert torch.equal(found, rows[3:7])
        else:
            with pytest.raises(RuntimeError, match="missing tensormap fence"):
                machine.run()


_NOT_THERE = {
    "an .f32.ftz": ("elemtype.shared::cta.b1024.b32 [map], 8", r"thread \(0, 0, 0\) .*f32.ftz"),
    "no magic": ("rank.global.b1024.b32 [%rd2], 1", "begin as 128 zeros or as another one"),
    "too large": ("box_dim.shared::cta.b1024.b32 [map], 0, 65536", "fields within their ranges"),
    "another dim": ("box_dim.shared::cta.b1024.b32 [map], 5, 1", "constant below 5"),
    "another stride": ("global_stride.shared::cta.b1024.b64 [map], 4, 16", "constant below 4"),
    "a narrow stride": ("global_stride.shared::cta.b1024.b32 [map], 0, 16", "another type"),
    "no dim": ("box_dim.shared::cta.b1024.b32 [map], 1", "too few"),
    "another field": ("swizzle_atomicity.shared::cta.b1024.b32 [map], 0", "this field"),
}


@pytest.mark.parametrize("name", _NOT_THERE)
def test_what_no_map_has_is_refused(name: str) -> None:
    line, message = _NOT_THERE[name]
    made, rows, found = _rows()
    found += 1
    with pytest.raises(NotImplementedError, match=message):
        run(f"{_MAKE} @%p1 tensormap.replace.tile.{line};", [made, rows, found], module=_MODULE,
            smem_bytes=256)  # fmt: skip


def test_a_map_that_cannot_be_used_says_where() -> None:
    made, rows, found = _rows()
    broken = "@%p1 tensormap.replace.tile.swizzle_mode.shared::cta.b1024.b32 [map], 7;"
    with pytest.raises(NotImplementedError, match=r"thread \(0, 0, 0\) .*cp.async.bulk.tensor.2d"):
        run(_MAKE + broken + _PUBLISH + _ACQUIRE + _USE_MADE, [made, rows, found],
            module=_MODULE, smem_bytes=256)  # fmt: skip
    in_shared = "cvta.shared.u64 %rd8, map;" + _USE.format(map="%rd8")
    with pytest.raises(RuntimeError, match=r"wrong tensor map: .* from shared or local memory"):
        run("mov.u32 %r1, map; cvt.u64.u32 %rd7, %r1;" + _MAKE + in_shared, [made, rows, found],
            module=_MODULE, smem_bytes=256)  # fmt: skip
    uninitialised = "tensormap.replace.tile.rank.shared::cta.b1024.b32 [map], 1;"
    with pytest.raises(RuntimeError, match=r"uninitialised: .*tensormap.replace.tile.rank"):
        run(uninitialised, [made], module=_MODULE)
