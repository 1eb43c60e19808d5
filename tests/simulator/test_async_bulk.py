"""Bulk copies through PTX: every rank, reduction, prefetch and hint of cp.async.bulk."""

import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrc import simulator
from csrc.tensor_map import TensorMap
from tests.simulator.running import run, source

_MODULE = """
.shared .align 128 .b8 buffer[4096];
.shared .align 8 .b64 barrier;
"""
_SIZES = (5, 6, 7, 9)  # outermost first, and a row behind them
_DTYPES = {
    "u32": (torch.uint32, np.uint32),
    "s32": (torch.int32, np.int32),
    "u64": (torch.uint64, np.uint64),
    "s64": (torch.int64, np.int64),
    "f16": (torch.float16, np.float16),
    "bf16": (torch.bfloat16, ml_dtypes.bfloat16),
    "f32": (torch.float32, np.float32),
    "f64": (torch.float64, np.float64),
}
Array = NDArray[np.generic]


class _Boxes:
    """A tensor of some rank with small integers, and a box of it that reaches out of bounds."""

    def __init__(self, rank: int, type_: str, seed: int) -> None:
        self.torch_dtype, self.numpy_dtype = _DTYPES[type_]
        generator = np.random.default_rng(seed)
        per_row = 128 // np.dtype(self.numpy_dtype).itemsize
        self.shape = (*_SIZES[len(_SIZES) - rank + 1 :], per_row)
        low = 0 if type_[0] == "u" else -50
        self.tensor = generator.integers(low, 50, self.shape).astype(self.numpy_dtype)
        self.box = (*(2,) * (rank - 1), per_row)
        self.corner = tuple(
            int(generator.integers(-1, size)) if i < rank - 1 else int(generator.integers(-3, 4))
            for i, size in enumerate(self.shape)
        )

    def encoded(self) -> bytes:
        """The tensor map."""
        strides = tuple(reversed(self.tensor.strides[:-1]))
        return TensorMap(
            dtype=self.torch_dtype,
            address=self.tensor.ctypes.data,
            sizes=self.shape[::-1],
            strides=strides,
            box=self.box[::-1],
            device=torch.device("cpu"),
        ).encode_for_simulator()

    def coordinates(self) -> str:
        """Innermost first, as in PTX."""
        return "{" + ", ".join(str(c) for c in reversed(self.corner)) + "}"

    def cells(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """(index in the box, index in the tensor) of what is in bounds."""
        found = []
        for index in np.ndindex(*self.box):
            place = tuple(i + c for i, c in zip(index, self.corner, strict=True))
            if all(0 <= p < size for p, size in zip(place, self.shape, strict=True)):
                found.append((index, place))
        return found

    def run(self, body: str, others: list[Array], seed: int) -> None:
        """The map's address is in %rd0; the others' addresses follow."""
        text = source(body, 1 + len(others), _MODULE)
        text = text.replace(".param .u64 p0", ".param .align 64 .b8 p0[128]")
        text = text.replace(
            "ld.param.u64 %rd0, [p0];", "mov.b64 %rd0, p0; cvta.param.u64 %rd0, %rd0;"
        )
        memory = [self.tensor, *others]
        tensors = [torch.from_numpy(array.reshape(-1).view(np.uint8)) for array in memory]
        with simulator.Machine(seed=seed) as machine:
            machine.launch(
                simulator.load(text)["kernel"],
                1,
                32,
                args=[self.encoded(), *tensors[1:]],
                memory=tensors,
            )
            machine.run()


_HEAD = "setp.eq.u32 %p1, %r0, 0; mov.u32 %r1, buffer; mov.u32 %r2, barrier;"
_LOAD = """
@%p1 mbarrier.init.shared::cta.b64 [%r2], 1;
@%p1 fence.mbarrier_init.release.cluster;
bar.sync 0;
@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], {bytes};
@%p1 {copy};
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
@!%p2 bra WAIT;
"""
# Between the bytes of shared memory and %rd1, a word a time.
_TO_GLOBAL = """
mov.u32 %r3, %r0;
OUT: mad.lo.u32 %r4, %r3, 4, %r1;
ld.shared.u32 %r5, [%r4];
mad.wide.u32 %rd5, %r3, 4, %rd1;
st.global.u32 [%rd5], %r5;
add.u32 %r3, %r3, 32;
setp.lt.u32 %p3, %r3, {words};
@%p3 bra OUT;
"""
_TO_SHARED = """
mov.u32 %r3, %r0;
IN: mad.lo.u32 %r4, %r3, 4, %r1;
mad.wide.u32 %rd5, %r3, 4, %rd1;
ld.global.u32 %r5, [%rd5];
st.shared.u32 [%r4], %r5;
add.u32 %r3, %r3, 32;
setp.lt.u32 %p3, %r3, {words};
@%p3 bra IN;
fence.proxy.async.shared::cta;
bar.sync 0;
"""
_STORED = """
@%p1 {copy};
@%p1 cp.async.bulk.commit_group;
@%p1 cp.async.bulk.wait_group 0;
"""


@pytest.mark.parametrize("hint", [False, True])
@pytest.mark.parametrize("rank", range(1, 6))
def test_loads_of_every_rank(rank: int, hint: bool) -> None:
    for seed in range(4):
        boxes = _Boxes(rank, "s32", seed)
        size = 4 * int(np.prod(boxes.box))
        copy = (
            f"cp.async.bulk.tensor.{rank}d.shared::cluster.global.tile"
            f".mbarrier::complete_tx::bytes{'.L2::cache_hint' * hint}"
            f" [%r1], [%rd0, {boxes.coordinates()}], [%r2]{', %rd9' * hint}"
        )
        found = np.full(boxes.box, -1, np.int32)
        prefetch = (
            f"@%p1 cp.async.bulk.prefetch.tensor.{rank}d.L2.global.tile"
            f" [%rd0, {boxes.coordinates()}];"
        )
        load = (_LOAD + _TO_GLOBAL).format(bytes=size, copy=copy, words=size // 4)
        boxes.run(_HEAD + prefetch + load, [found], seed)
        expected = np.zeros(boxes.box, np.int32)
        for index, place in boxes.cells():
            expected[index] = boxes.tensor[place]
        assert np.array_equal(found, expected)


def _store(rank: int, type_: str, form: str, op: str, seed: int) -> tuple[_Boxes, Array, Array]:
    boxes = _Boxes(rank, type_, seed)
    low = 0 if type_[0] == "u" else -50
    given = np.random.default_rng(seed + 50).integers(low, 50, boxes.box).astype(boxes.numpy_dtype)
    before = boxes.tensor.copy()
    reduce_, dot_op = ("reduce.", f".{op}") if op else ("", "")
    copy = (
        f"cp.{reduce_}async.bulk.tensor.{rank}d.global.shared::cta{dot_op}.{form}"
        f" [%rd0, {boxes.coordinates()}], [%r1]{', %rd9' if 'hint' in form else ''}"
    )
    body = (_HEAD + _TO_SHARED + _STORED).format(copy=copy, words=given.nbytes // 4)
    boxes.run(body, [given], seed)
    return boxes, before, given


@pytest.mark.parametrize("form", ["tile.bulk_group", "tile.bulk_group.L2::cache_hint"])
@pytest.mark.parametrize("rank", range(1, 6))
def test_stores_of_every_rank(rank: int, form: str) -> None:
    for seed in range(4):
        boxes, expected, given = _store(rank, "bf16", form, "", seed)
        for index, place in boxes.cells():
            expected[place] = given[index]
        assert np.array_equal(boxes.tensor, expected)


def _folded(op: str, old: Any, value: Any) -> Any:
    if op == "inc":
        return 0 if old >= value else old + 1
    if op == "dec":
        return value if old == 0 or old > value else old - 1
    operations = {"add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and,
                  "or": np.bitwise_or, "xor": np.bitwise_xor}  # fmt: skip
    return operations[op](old, value)


_REDUCTIONS = [
    *((op, t) for op in ("add", "min", "max") for t in ("u32", "s32", "u64", "f16", "bf16")),
    *((op, "s64") for op in ("min", "max")),
    *(("add", t) for t in ("f32", "f64")),
    *((op, t) for op in ("and", "or", "xor") for t in ("u32", "u64")),
    ("inc", "u32"),
    ("dec", "u32"),
]


@pytest.mark.parametrize(("op", "type_"), _REDUCTIONS)
def test_tensor_reductions(op: str, type_: str) -> None:
    for seed, rank in ((0, 2), (1, 4)):
        boxes, expected, given = _store(rank, type_, "tile.bulk_group", op, seed)
        for index, place in boxes.cells():
            expected[place] = _folded(op, expected[place], given[index])
        assert np.array_equal(boxes.tensor, expected)


@pytest.mark.parametrize(("op", "type_"), _REDUCTIONS)
def test_plain_reductions_of_two_ctas(op: str, type_: str) -> None:
    dtype = _DTYPES[type_][1]
    generator = np.random.default_rng(0)
    low = 0 if type_[0] == "u" else -50
    before = generator.integers(low, 50, 64).astype(dtype)
    given = generator.integers(low, 50, 64).astype(dtype)
    rounding = ".noftz" if op == "add" and type_ in ("f16", "bf16") else ""
    name = type_.replace("u", "b").replace("s", "b") if op in ("and", "or", "xor") else type_
    copy = (
        f"cp.reduce.async.bulk.global.shared::cta.bulk_group{'.L2::cache_hint'}.{op}{rounding}"
        f".{name} [%rd0], [%r1], {given.nbytes}, %rd9"
    )
    body = (_HEAD + _TO_SHARED + _STORED).format(copy=copy, words=given.nbytes // 4)
    expected = before.copy()
    for _ in range(2):
        for i in range(64):
            expected[i] = _folded(op, expected[i], given[i])
    target = torch.from_numpy(before.view(np.uint8))
    run(body, [target, torch.from_numpy(given.view(np.uint8))], module=_MODULE, grid=2)
    assert np.array_equal(target.numpy().view(dtype), expected)


@pytest.mark.parametrize("mask", [0b11, 0b10, 0b01])
def test_one_load_comes_to_several_ctas(mask: int) -> None:
    values = torch.arange(64, dtype=torch.int32)
    copy = (
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
        f".L2::cache_hint [%r1], [%rd0], 256, [%r2], {mask}, %rd9"
    )
    body = f"""
    {_HEAD}
    mov.u32 %r9, %cluster_ctarank;
    @%p1 mbarrier.init.shared::cta.b64 [%r2], 1;
    @%p1 fence.mbarrier_init.release.cluster;
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 256;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    setp.eq.and.u32 %p4, %r9, 0, %p1;
    @%p4 {copy};
    shr.u32 %r10, {mask}, %r9;
    and.b32 %r10, %r10, 1;
    setp.eq.u32 %p5, %r10, 0;
    @%p5 bra END;
    WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra WAIT;
    mad.wide.u32 %rd1, %r9, 256, %rd1;
    {_TO_GLOBAL.format(words=64)}
    END:
    """
    expected = torch.stack([values if mask >> rank & 1 else values * 0 for rank in range(2)])
    for seed in range(6):
        found = torch.zeros(2, 64, dtype=torch.int32)
        run(body, [values, found], module=_MODULE, grid=2, cluster=2, seed=seed)
        assert torch.equal(found, expected)


def _prefetch(operands: str, memory: Tensor) -> None:
    run(f"cp.async.bulk.prefetch.L2.global.L2::cache_hint {operands}, %rd9;", [memory], block=1)


def test_prefetches_name_memory_that_is_there() -> None:
    memory = torch.zeros(64, dtype=torch.uint8)
    _prefetch("[%rd0], 64", memory)
    with pytest.raises(RuntimeError, match=r"out of bounds: .* cp.async.bulk.prefetch.L2.global"):
        _prefetch("[%rd0+16], 64", memory)
    with pytest.raises(RuntimeError, match=r"misaligned: .* copies 40 bytes"):
        _prefetch("[%rd0], 40", memory)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            """cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes
            [%r1], [%rd0, {0, 0, 0, 0}], [%r2], {%h0, %h1};""",
            "copies tiles, and not .im2col",
        ),
        (
            """cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
            [%r1], [%rd0, {0, 0}], [%r2];""",
            "not as many coordinates as dimensions",
        ),
        (
            """cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
            [%r1], [%rd0], 16, [%r2], 3;""",
            "too many operands",
        ),
        (
            "cp.async.bulk.global.shared::cta.bulk_group [%rd0], [%r1], 16, %rd9;",
            "too many operands",
        ),
        (
            "cp.reduce.async.bulk.global.shared::cta.bulk_group.min.f32 [%rd0], [%r1], 16;",
            "no such reduction of this type",
        ),
        ("cp.async.bulk.prefetch.global [%rd0], 16;", ".L2 is missing"),
    ],
)
def test_what_is_not_there_is_refused(line: str, message: str) -> None:
    with pytest.raises(NotImplementedError) as raised:
        run(line, [torch.zeros(4)], module=_MODULE)
    assert re.match(rf"line \d+: cp\..*({message})", str(raised.value)), str(raised.value)
