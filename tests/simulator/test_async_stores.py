"""What CTAs send to one another's shared memory, where an mbarrier counts it."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.simulator.running import run

_MODULE = """
.shared .align 16 .b8 buffer[1024];
.shared .align 16 .b8 sent[1024];
.shared .align 8 .b64 barrier;
"""
# CTA 1 expects {bytes}; its buffer, and everybody's `sent`, begin with the 32 words of %rd0 and
# %rd1. The other CTAs send; CTA 1 waits, and writes its buffer's words to %rd2.
_EXCHANGE = """
mov.u32 %r1, buffer;
mov.u32 %r2, barrier;
mov.u32 %r3, sent;
mov.u32 %r9, %cluster_ctarank;
setp.eq.u32 %p1, %r0, 0;
setp.eq.u32 %p2, %r9, 1;
@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;
@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], {bytes};
@%p1 fence.mbarrier_init.release.cluster;
mad.lo.u32 %r4, %r0, 8, %r1;
mad.wide.u32 %rd8, %r0, 8, %rd0;
ld.global.u64 %rd9, [%rd8];
st.shared.u64 [%r4], %rd9;
mad.lo.u32 %r5, %r0, 8, %r3;
mad.wide.u32 %rd10, %r0, 8, %rd1;
ld.global.u64 %rd11, [%rd10];
st.shared.u64 [%r5], %rd11;
{fence}
barrier.cluster.arrive.release.aligned;
barrier.cluster.wait.acquire.aligned;
mapa.shared::cluster.u32 %r6, %r4, 1;
mapa.shared::cluster.u32 %r7, %r2, 1;
mapa.shared::cluster.u32 %r8, %r1, 1;
@%p2 bra RECEIVE;
{send}
bra END;
RECEIVE:
{receive}
ld.shared.u64 %rd12, [%r4];
mad.wide.u32 %rd13, %r0, 8, %rd2;
st.global.u64 [%rd13], %rd12;
END:
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
_WAIT = """
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [%r2], 0;
@!%p3 bra WAIT;
"""
_STORE = "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes"
_REDUCE = "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes"
_BULK = "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes"
_PROXY = "fence.proxy.async;"
_ONE = f"{_STORE}.b64 [%r6], %rd11, [%r7];"


def _exchange(
    send: str,
    num_bytes: int,
    before: Tensor,
    values: Tensor,
    *,
    receive: str = _WAIT,
    fence: str = "",
    cluster: int = 2,
    seed: int = 0,
) -> Tensor:
    found = torch.zeros(32, dtype=torch.int64)
    body = _EXCHANGE.format(bytes=num_bytes, send=send, receive=receive, fence=fence)
    run(body, [before, values, found], module=_MODULE, grid=cluster, cluster=cluster, seed=seed)
    return found


def _words(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**62), 2**62, (32,), generator=generator)


_SHAPES = [
    *((type_, vector) for type_ in ("b32", "u32", "s32", "f32") for vector in (1, 2, 4)),
    *((type_, vector) for type_ in ("b64", "u64", "s64", "f64") for vector in (1, 2)),
]


@pytest.mark.parametrize(("type_", "vector"), _SHAPES)
def test_stores_arrive(type_: str, vector: int) -> None:
    size = int(type_[1:]) // 8
    register = "%rd2{}" if size == 8 else "%r2{}"
    names = [register.format(i) for i in range(vector)]
    loads = [f"ld.shared.b{8 * size} {name}, [%r10+{size * i}];" for i, name in enumerate(names)]
    value = names[0] if vector == 1 else "{" + ", ".join(names) + "}"
    count = "" if vector == 1 else f".v{vector}"
    # Lane i sends to place i; what its registers are later does not matter.
    send = f"""
    mad.lo.u32 %r10, %r0, {size * vector}, %r3;
    mad.lo.u32 %r11, %r0, {size * vector}, %r8;
    setp.lt.u32 %p4, %r0, {256 // 16};
    @!%p4 bra SENT;
    {" ".join(loads)}
    {_STORE}{count}.{type_} [%r11], {value}, [%r7];
    {" ".join(f"mov.b{8 * size} {name}, 0;" for name in names)}
    SENT:
    """
    num_bytes = 16 * size * vector
    for seed in range(6):
        before, values = _words(seed), _words(seed + 100)
        expected = before.numpy().copy()
        expected[: num_bytes // 8] = values.numpy()[: num_bytes // 8]
        found = _exchange(send, num_bytes, before, values, seed=seed)
        assert np.array_equal(found.numpy(), expected)


_Fold = Callable[[int, int], int]
_ARITHMETIC: dict[str, _Fold] = {
    "add": lambda old, value: old + value,
    "min": min,
    "max": max,
    "and": lambda old, value: old & value,
    "or": lambda old, value: old | value,
    "xor": lambda old, value: old ^ value,
    "inc": lambda old, limit: 0 if old >= limit else old + 1,
    "dec": lambda old, limit: limit if old == 0 or old > limit else old - 1,
}
_REDUCTIONS = [
    *((op, "u32") for op in ("add", "min", "max", "inc", "dec")),
    *((op, "s32") for op in ("add", "min", "max")),
    *((op, "b32") for op in ("and", "or", "xor")),
    ("add", "u64"),
]
_NUMPY = {"u32": np.uint32, "s32": np.int32, "b32": np.uint32, "u64": np.uint64}


def _reduced(op: str, old: np.ndarray, value: np.ndarray) -> np.ndarray:
    bits = 8 * old.dtype.itemsize
    made = [_ARITHMETIC[op](int(a), int(b)) % 2**bits for a, b in zip(old, value, strict=True)]
    return np.array(made, dtype=f"uint{bits}").view(old.dtype)


@pytest.mark.parametrize(("op", "type_"), _REDUCTIONS)
def test_reductions_of_many_threads_to_one_word(op: str, type_: str) -> None:
    size = np.dtype(_NUMPY[type_]).itemsize
    register = "%rd11" if size == 8 else "%r20"
    # Two CTAs; all lanes to word 1.
    send = f"""
    mad.lo.u32 %r10, %r0, {size}, %r3;
    ld.shared.b{8 * size} {register}, [%r10];
    {_REDUCE}.{op}.{type_} [%r8+{size}], {register}, [%r7];
    """
    for seed in range(6):
        before, values = _words(seed), _words(seed + 100)
        if op in ("inc", "dec"):  # otherwise their order matters
            values = torch.full((32,), 5 + (5 << 32))
            before = torch.arange(32) + (torch.arange(32) << 32)
        expected = before.numpy().copy().view(_NUMPY[type_])
        for value in values.numpy().view(_NUMPY[type_])[:32].tolist() * 2:
            sent = np.array([value], dtype=_NUMPY[type_])
            expected[1:2] = _reduced(op, expected[1:2], sent)
        found = _exchange(send, 2 * 32 * size, before, values, cluster=3, seed=seed)
        assert np.array_equal(found.numpy().view(_NUMPY[type_]), expected)


@pytest.mark.parametrize(
    ("op", "type_"), [*_REDUCTIONS, ("min", "u64"), ("max", "s64"), ("xor", "b64")]
)
def test_bulk_reductions_into_another_ctas_memory(op: str, type_: str) -> None:
    dtype = {"s64": np.int64, "b64": np.uint64}.get(type_) or _NUMPY[type_]
    send = f"@%p1 {_BULK}.{op}.{type_} [%r8], [%r3], 128, [%r7];"
    for seed in range(6):
        before, values = _words(seed), _words(seed + 100)
        expected = before.numpy().copy()
        for _ in range(2):  # two CTAs send the same
            old, sent = expected[:16].view(dtype), values.numpy()[:16].view(dtype)
            expected[:16] = _reduced(op, old, sent).view(np.int64)
        found = _exchange(send, 256, before, values, fence=_PROXY, cluster=3, seed=seed)
        assert np.array_equal(found.numpy(), expected)


_TWICE = f"{_ONE} {_ONE}"
_FINDINGS = {
    "nobody waits": ({"receive": ""}, r"still filling: .* ld.shared.u64|data race: .* st.async"),
    "the wait is for the wrong phase": (
        {"receive": _WAIT.replace("[%r2], 0", "[%r2], 1")},
        r"still filling: .* ld.shared.u64|data race: .* st.async",
    ),
    "the receiver still reads what was there": (
        {"receive": f"ld.shared.u64 %rd14, [%r4]; {_WAIT}"},
        r"still filling: .* ld.shared|data race: .* st.async.* read at ld.shared",
    ),
    "to the own CTA": (
        {"send": f"{_STORE}.b64 [%r4], %rd11, [%r2];"},
        r"wrong CTA: .* sends to CTA rank 0 and has CTA rank 0 count it",
    ),
    "counted elsewhere": (
        {"send": f"{_STORE}.b64 [%r6], %rd11, [%r2];"},
        r"wrong CTA: .* sends to CTA rank 1 and has CTA rank 0 count it",
    ),
    "more than is expected": ({"num_bytes": 248}, "mbarrier misuse"),
    "less than is expected": ({"num_bytes": 264}, "deadlock: "),
    "two to one place": ({"send": _TWICE, "num_bytes": 512}, "overwrite in flight: .* st.async"),
    "a reduction beside a store": (
        {"send": f"{_ONE} {_REDUCE}.add.u64 [%r6], %rd11, [%r7];", "num_bytes": 512},
        "overwrite in flight: .* red.async",
    ),
    "a reduction beside a plain store": (
        {
            "send": f"""{_REDUCE}.add.u64 [%r6], %rd11, [%r7]; st.shared::cluster.u64 [%r6], 1;""",
        },
        "overwrite in flight: .* st.shared",
    ),
    "a reduction of nothing": (
        {"send": f"{_REDUCE}.add.u64 [%r6+512], %rd11, [%r7];"},
        "uninitialised: .* red.async",
    ),
    "out of bounds": (
        {"send": f"{_STORE}.b64 [%r6+4096], %rd11, [%r7];"},
        "out of bounds: .* st.async",
    ),
    "misaligned": ({"send": f"{_STORE}.b64 [%r6+4], %rd11, [%r7];"}, "misaligned: .* st.async"),
    "no mbarrier": (
        {"send": f"{_STORE}.b64 [%r6], %rd11, [%r7+8];"},
        "mbarrier misuse: .* st.async|out of bounds",
    ),
    "bulk: the source is not fenced": (
        {"send": f"@%p1 {_BULK}.add.u64 [%r8], [%r3], 256, [%r7];"},
        "missing proxy fence: .* cp.reduce",
    ),
    "bulk: the target is not fenced": (
        {
            "send": f"@%p1 {_BULK}.add.u64 [%r8], [%r3], 256, [%r7];",
            "fence": f"@!%p2 {_PROXY}",
        },
        r"missing proxy fence: .* fills shared address \d+ of CTA rank 1",
    ),
    "bulk: the target is read behind the fence": (
        {
            "send": f"@%p1 {_BULK}.add.u64 [%r8], [%r3], 256, [%r7];",
            "fence": f"{_PROXY} ld.shared.u64 %rd14, [%r4];",
        },
        r"missing proxy fence: .* fills shared address \d+ of CTA rank 1.* read at ld.shared",
    ),
    "bulk: not a multiple of 16": (
        {"send": f"@%p1 {_BULK}.add.u64 [%r8], [%r3], 24, [%r7];", "fence": _PROXY},
        "misaligned: .* copies 24 bytes",
    ),
}


@pytest.mark.parametrize("name", _FINDINGS)
def test_what_no_kernel_may_send(name: str) -> None:
    changes, message = _FINDINGS[name]
    for seed in range(3):
        given = {"send": _ONE, "num_bytes": 256, "seed": seed, **changes}
        with pytest.raises(RuntimeError) as raised:
            _exchange(before=_words(0), values=_words(1), **given)  # type: ignore[arg-type]
        assert re.match(message, str(raised.value)), str(raised.value)


def test_two_ctas_that_send_to_one_place_race() -> None:
    for seed in range(20):
        with pytest.raises(RuntimeError, match=r"overwrite in flight: .* st\.async"):
            _exchange(_ONE, 512, _words(0), _words(1), cluster=3, seed=seed)


def test_the_twin_of_all_these_is_clean() -> None:
    for seed in range(20):
        values = _words(1)
        assert torch.equal(_exchange(_ONE, 256, _words(0), values, seed=seed), values)


@pytest.mark.parametrize(
    "line",
    [
        f"{_STORE}.v4.b64 [%r6], {{%rd1, %rd1, %rd1, %rd1}}, [%r7];",
        f"{_STORE}.b16 [%r6], %h1, [%r7];",
        "st.async.release.gpu.global.b32 [%rd1], %r1;",
        f"{_REDUCE}.add.f32 [%r6], %f1, [%r7];",
        f"{_REDUCE}.inc.s32 [%r6], %r1, [%r7];",
        f"{_REDUCE}.exch.b32 [%r6], %r1, [%r7];",
        f"{_REDUCE}.add.v2.u32 [%r6], {{%r1, %r1}}, [%r7];",
        f"{_REDUCE}.add.u32 [%r6], %r1;",
        "red.async.release.gpu.global.add.u32 [%rd1], %r1;",
        f"{_BULK}.min.f32 [%r8], [%r3], 128, [%r7];",
        f"{_BULK}.add.u32 [%r8], [%r3], 128, [%r7], %rd1;",
    ],
)
def test_what_hopper_does_not_have_is_refused(line: str) -> None:
    opcode = line.split(".", maxsplit=1)[0]
    with pytest.raises(NotImplementedError, match=rf"^line \d+: {opcode}\."):
        run(line, [torch.zeros(4), torch.zeros(4)], module=_MODULE)
