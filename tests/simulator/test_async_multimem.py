"""multimem: one address for the same place in the memory of several devices."""

import re

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrc import simulator
from tests.simulator.running import source

_NUM_DEVICES = 3
_NUMPY = {
    "u32": np.uint32,
    "s32": np.int32,
    "b32": np.uint32,
    "u64": np.uint64,
    "s64": np.int64,
    "b64": np.uint64,
    "f16": np.float16,
    "f16x2": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "bf16x2": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
}
_INTEGERS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
Array = NDArray[np.generic]


def _run(body: str, replicas: list[Array], found: Array, seed: int = 0) -> None:
    """Runs on device 1: the multicast address is in %rd0, `found` in %rd1."""
    tensors = [torch.from_numpy(replica.view(np.uint8)) for replica in replicas]
    result = torch.from_numpy(found.view(np.uint8))
    kernel = simulator.load(source(body, 2))["kernel"]
    with simulator.Machine(devices=_NUM_DEVICES, seed=seed) as machine:
        address = machine.multicast(tensors)
        machine.launch(kernel, 1, 1, args=[address + 16, result], device=1)
        machine.run()


def _values(type_: str, count: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    dtype = _NUMPY[type_]
    if type_[0] in "us":
        info = np.iinfo(dtype)
        return generator.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
    if type_[0] == "b" and type_[1] != "f":
        return generator.integers(0, np.iinfo(dtype).max, count, dtype=dtype)
    return (generator.standard_normal(count) * 4).astype(dtype)


def _replicas(type_: str, total: int, seed: int) -> list[Array]:
    """16 bytes more on both sides."""
    count = (total + 32) // np.dtype(_NUMPY[type_]).itemsize
    return [_values(type_, count, seed + i) for i in range(_NUM_DEVICES)]


def _shape(type_: str, vector: int) -> tuple[int, str, str]:
    """Bytes in all, the registers of a vector, and its modifier."""
    size = np.dtype(_NUMPY[type_]).itemsize * (2 if "x2" in type_ else 1)
    kind = {2: "%h", 4: "%r2", 8: "%rd2"}[size]
    names = [f"{kind}{i}" for i in range(vector)]
    text = names[0] if vector == 1 else "{" + ", ".join(names) + "}"
    return size * vector, text, "" if vector == 1 else f".v{vector}"


def _part(array: Array, total: int) -> slice:
    size = array.dtype.itemsize
    return slice(16 // size, (16 + total) // size)


def _exact_sum(replicas: list[Array], *, wide: bool) -> Array:
    """In the order of the devices, rounded after each sum or, wide, once."""
    if wide:
        total = replicas[0].astype(np.float32)
        for other in replicas[1:]:
            total = (total + other.astype(np.float32)).astype(np.float32)
        return total.astype(replicas[0].dtype)
    total = replicas[0]
    for other in replicas[1:]:
        total = (total.astype(np.float64) + other.astype(np.float64)).astype(total.dtype)
    return total


_INTEGER_FORMS = [
    *((op, t) for op in ("min", "max") for t in ("u32", "s32", "u64", "s64")),
    *(("add", t) for t in ("u32", "s32", "u64")),
    *((op, t) for op in ("and", "or", "xor") for t in ("b32", "b64")),
]
_FLOAT_FORMS = [
    *((t, v) for t in ("f16x2", "bf16x2", "f32") for v in (1, 2, 4)),
    *((t, v) for t in ("f16", "bf16") for v in (2, 4, 8)),
    ("f64", 1),
]


@pytest.mark.parametrize("order", ["", ".weak", ".relaxed.sys", ".acquire.gpu"])
@pytest.mark.parametrize(("op", "type_"), _INTEGER_FORMS)
def test_integers_are_reduced_as_they_are_loaded(
    op: str, type_: str, order: str, seed: int
) -> None:
    total, register, _ = _shape(type_, 1)
    replicas = _replicas(type_, total, seed)
    found = np.zeros(1, _NUMPY[type_])
    body = f"""
    multimem.ld_reduce{order}.global.{op}.{type_} {register}, [%rd0];
    st.global.b{8 * total} [%rd1], {register};
    """
    _run(body, replicas, found)
    with np.errstate(over="ignore"):
        expected = replicas[0]
        for other in replicas[1:]:
            expected = _INTEGERS[op](expected, other)
    assert found[0] == expected[_part(expected, total)][0]


@pytest.mark.parametrize(
    ("type_", "vector", "wide"),
    [
        *((type_, vector, False) for type_, vector in _FLOAT_FORMS),
        *((type_, vector, True) for type_, vector in _FLOAT_FORMS if "16" in type_),
    ],
)
def test_floats_are_added_as_they_are_loaded(
    type_: str, vector: int, wide: bool, seed: int
) -> None:
    total, registers, modifier = _shape(type_, vector)
    replicas = _replicas(type_, total, seed)
    found = np.zeros(total // replicas[0].itemsize, _NUMPY[type_])
    accumulation = ".acc::f32" if wide else ""
    size = total // vector
    body = f"""
    multimem.ld_reduce.relaxed.sys.global.add{accumulation}{modifier}.{type_} {registers}, [%rd0];
    st.global{modifier if vector < 8 else ""}.b{8 * size} [%rd1], {registers};
    """
    if vector == 8:
        stores = [f"st.global.b16 [%rd1+{2 * i}], %h{i};" for i in range(8)]
        body = "\n".join([*body.strip().splitlines()[:1], *stores])
    _run(body, replicas, found)
    expected = _exact_sum([r[_part(r, total)] for r in replicas], wide=wide)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("op", ["min", "max"])
@pytest.mark.parametrize("type_", ["f16x2", "bf16x2"])
def test_extremes_of_halves(type_: str, op: str, seed: int) -> None:
    replicas = _replicas(type_, 16, seed)
    found = np.zeros(8, _NUMPY[type_])
    body = f"""
    multimem.ld_reduce.weak.global.{op}.v4.{type_} {{%r20, %r21, %r22, %r23}}, [%rd0];
    st.global.v4.b32 [%rd1], {{%r20, %r21, %r22, %r23}};
    """
    _run(body, replicas, found)
    stack = np.stack([r[_part(r, 16)].astype(np.float64) for r in replicas])
    expected = stack.min(0) if op == "min" else stack.max(0)
    assert np.array_equal(found.astype(np.float64), expected)


@pytest.mark.parametrize("order", ["", ".weak", ".release.sys"])
@pytest.mark.parametrize(
    ("type_", "vector"),
    [("b32", 1), ("u64", 1), ("f32", 4), ("f16x2", 2), ("bf16x2", 4), ("f16", 8), ("f64", 1)],
)
def test_stores_come_to_every_device(type_: str, vector: int, order: str, seed: int) -> None:
    total, registers, modifier = _shape(type_, vector)
    replicas, given = _replicas(type_, total, seed), _replicas(type_, total, seed + 9)[0]
    expected = [replica.copy() for replica in replicas]
    part = _part(given, total)
    for replica in expected:
        replica[part] = given[: part.stop - part.start]
    names = registers.strip("{}").split(", ")
    size = total // vector
    loads = [f"ld.global.b{8 * size} {name}, [%rd1+{size * i}];" for i, name in enumerate(names)]
    _run(
        "\n".join([*loads, f"multimem.st{order}.global{modifier}.{type_} [%rd0], {registers};"]),
        replicas,
        given,
    )
    for found, wanted in zip(replicas, expected, strict=True):
        assert np.array_equal(found.view(np.uint8), wanted.view(np.uint8))


@pytest.mark.parametrize(
    ("op", "type_", "vector"),
    [
        *((op, type_, 1) for op, type_ in _INTEGER_FORMS),
        *(("add", type_, vector) for type_, vector in _FLOAT_FORMS),
    ],
)
def test_reductions_come_to_every_device(op: str, type_: str, vector: int, seed: int) -> None:
    total, registers, modifier = _shape(type_, vector)
    replicas, given = _replicas(type_, total, seed), _replicas(type_, total, seed + 9)[0]
    expected = [replica.copy() for replica in replicas]
    part = _part(given, total)
    for replica in expected:
        pair = [replica[part], given[: part.stop - part.start]]
        with np.errstate(over="ignore"):
            floats = "f" in type_
            replica[part] = _exact_sum(pair, wide=False) if floats else _INTEGERS[op](*pair)
    names = registers.strip("{}").split(", ")
    size = total // vector
    loads = [f"ld.global.b{8 * size} {name}, [%rd1+{size * i}];" for i, name in enumerate(names)]
    reduction = f"multimem.red.relaxed.sys.global.{op}{modifier}.{type_} [%rd0], {registers};"
    _run("\n".join([*loads, reduction]), replicas, given)
    for found, wanted in zip(replicas, expected, strict=True):
        assert np.array_equal(found.view(np.uint8), wanted.view(np.uint8))


# Every device writes to its replica and reads it back behind the reductions or stores of another.
_RACES = {
    "a load beside a store": (
        "multimem.st.weak.global.b32 [%rd0], 1;",
        "ld.global.u32 %r1, [%rd1];",
    ),
    "a store beside a reduction": (
        "multimem.red.relaxed.sys.global.add.u32 [%rd0], 1;",
        "st.global.u32 [%rd1], 2;",
    ),
    "a reduction for its own GPU": (
        "multimem.red.relaxed.gpu.global.add.u32 [%rd0], 1;",
        "red.relaxed.sys.global.add.u32 [%rd1], 1;",
    ),
    "a weak store beside a load of all": (
        "multimem.st.global.b32 [%rd0], 1;",
        "multimem.ld_reduce.weak.global.add.u32 %r1, [%rd0];",
    ),
}


def _beside(first: str, second: str, seed: int) -> list[Tensor]:
    replicas = [torch.zeros(4, dtype=torch.int32) for _ in range(2)]
    machine = simulator.Machine(devices=2, seed=seed)
    address = machine.multicast(replicas)
    # The second waits, without an order, so that it comes later.
    flag = machine.symmetric(torch.zeros(1, dtype=torch.int32))
    wait = "WAIT: ld.relaxed.sys.global.u32 %r2, [%rd2]; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT;"
    tell = "st.relaxed.sys.global.u32 [%rd2], 1;"
    for device, body in enumerate((first + tell, wait + second)):
        kernel = simulator.load(source(body, 3))["kernel"]
        machine.launch(kernel, 1, 1, args=[address, replicas[device], flag], device=device)
    machine.run()
    return replicas


@pytest.mark.parametrize("name", _RACES)
def test_what_nothing_orders_races(name: str) -> None:
    for seed in range(4):
        with pytest.raises(RuntimeError, match=r"^data race: "):
            _beside(*_RACES[name], seed)


def test_what_is_atomic_for_both_does_not_race() -> None:
    reduction = "multimem.red.global.add.u32 [%rd0], 1;"  # .relaxed.sys
    for seed in range(20):
        replicas = _beside(reduction, "red.relaxed.sys.global.add.u32 [%rd1], 1;", seed)
        assert [int(replica[0]) for replica in replicas] == [1, 2]
        _beside(reduction, "multimem.ld_reduce.relaxed.sys.global.add.u32 %r1, [%rd0];", seed)


def test_two_multicast_ranges_are_apart() -> None:
    replicas = [[torch.zeros(4, dtype=torch.int32) for _ in range(2)] for _ in range(2)]
    machine = simulator.Machine(devices=2)
    addresses = [machine.multicast(tensors) for tensors in replicas]
    body = "multimem.st.global.b32 [%rd0+12], 1; multimem.st.global.b32 [%rd1], 2;"
    kernel = simulator.load(source(body, 2))["kernel"]
    machine.launch(kernel, 1, 1, args=list(addresses))
    machine.run()
    assert [tensor.tolist() for tensor in replicas[0]] == [[0, 0, 0, 1]] * 2
    assert [tensor.tolist() for tensor in replicas[1]] == [[2, 0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("multimem.st.global.b32 [%rd0+16], 1;", "out of bounds: .* not in a multicast range"),
        ("multimem.st.global.b32 [%rd0+-20], 1;", "out of bounds: .* not in a multicast range"),
        ("multimem.st.global.b32 [%rd1], 1;", "out of bounds: .* not in a multicast range"),
        ("multimem.st.global.v4.f32 [%rd0+4], {%f1, %f1, %f1, %f1};", "misaligned: .* 16"),
        ("st.global.b32 [%rd0], 1;", "out of bounds: .* st.global.b32"),
    ],
)
def test_multicast_addresses_are_of_their_own(line: str, message: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        _run(line, _replicas("u32", 0, 0), np.zeros(4, np.uint32))
    assert re.match(message, str(raised.value)), str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "multimem.ld_reduce.global.add.v2.u32 {%r1, %r2}, [%rd0];",
        "multimem.ld_reduce.global.add.v8.f32 {%f1,%f2,%f3,%f4,%f5,%f6,%f7,%f8}, [%rd0];",
        "multimem.ld_reduce.global.add.f16 %h1, [%rd0];",
        "multimem.ld_reduce.global.min.f32 %f1, [%rd0];",
        "multimem.ld_reduce.global.add.acc::f32.f32 %f1, [%rd0];",
        "multimem.red.global.min.f16x2 [%rd0], %r1;",
        "multimem.red.global.inc.s32 [%rd0], %r1;",
        "multimem.st.global.add.u32 [%rd0], %r1;",
        "multimem.cp.global.u32 [%rd0], %r1;",
    ],
)
def test_what_hopper_does_not_have_is_refused(line: str) -> None:
    with pytest.raises(NotImplementedError, match=r"^line \d+: multimem\."):
        _run(line, _replicas("u32", 0, 0), np.zeros(4, np.uint32))


def _told(release: str, acquire: str, seed: int) -> None:
    """Device 0 writes, and adds one to a flag of every device; device 1 sees their sum."""
    flags = [torch.zeros(4, dtype=torch.int32) for _ in range(2)]
    value, result = torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    machine = simulator.Machine(devices=2, seed=seed)
    address = machine.multicast(flags)
    write = f"st.global.u32 [%rd1], 7; multimem.{release}.sys.global.add.u32 [%rd0], 1;"
    read = f"""
    WAIT: multimem.{acquire}.sys.global.add.u32 %r1, [%rd0];
    setp.ne.u32 %p1, %r1, 2;
    @%p1 bra WAIT;
    ld.global.u32 %r2, [%rd1];
    st.global.u32 [%rd2], %r2;
    """
    for device, body in enumerate((write, read)):
        kernel = simulator.load(source(body, 3))["kernel"]
        machine.launch(kernel, 1, 1, args=[address, value, result], device=device)
    machine.run()
    assert result.item() == 7


def test_reductions_release_and_acquire() -> None:
    for seed in range(20):
        _told("red.release", "ld_reduce.acquire", seed)
    for seed in range(4):
        with pytest.raises(RuntimeError, match=r"data race: .* ld.global.u32"):
            _told("red.relaxed", "ld_reduce.acquire", seed)
        with pytest.raises(RuntimeError, match=r"data race: .* ld.global.u32"):
            _told("red.release", "ld_reduce.relaxed", seed)
