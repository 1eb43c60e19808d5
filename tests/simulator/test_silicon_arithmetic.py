"""Rounding, overflow and approximation, asked of the simulator and of silicon.

As in test_silicon_probes.py, the simulator's answer is the one expected.
"""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.simulator.silicon_probes import Ask, Box, Probe, Record

pytestmark = pytest.mark.compile

Floats = NDArray[np.float64]


def _probe(kernel: str, **given: Any) -> Probe:
    return Probe(kernel=kernel, source="silicon_arithmetic.cu", **given)


def _bits(values: torch.Tensor) -> list[int]:
    bits: list[int] = values.view(torch.uint32).tolist()
    return bits


def _summands(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """256 bytes of each: ties, sums that overflow, subnormal numbers, zeros, and random ones."""
    info = torch.finfo(dtype)
    half_step, tiny, most = info.eps / 2, info.smallest_normal, info.max
    least = tiny * info.eps
    pairs = [
        *((1.0, half_step), (1 + info.eps, half_step), (1.0, 1.5 * half_step)),
        *((most, most), (-most, -most), (tiny, -tiny), (tiny, least), (tiny, -least)),
        *((least, least), (tiny / 2, tiny / 2), (0.0, -least), (-0.0, -0.0), (1.0, -1.0)),
    ]
    random = torch.randn(2, 256 // dtype.itemsize - len(pairs), generator=_generator())
    both = torch.cat([torch.tensor(pairs, dtype=torch.float64).T, random * 3], 1).to(dtype)
    return both[0], both[1]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _sum(old: torch.Tensor, added: torch.Tensor, *, flush: bool) -> torch.Tensor:
    def flushed(values: torch.Tensor) -> torch.Tensor:
        tiny = torch.finfo(values.dtype).smallest_normal
        return torch.where(values.abs() < tiny, values * 0, values) if flush else values

    wide = flushed(old).double() + flushed(added).double()  # exact enough to be rounded once
    return flushed(wide.to(old.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_tma_sums_round_to_nearest_even_and_flush_f32(dtype: torch.dtype, ask: Ask) -> None:
    old, added = _summands(dtype)
    per_row = 64 // dtype.itemsize
    probe = Probe(
        kernel="add_box",
        words=_bits(added),
        data=_bits(old),
        box=Box(dtype, (per_row, 4), 64, (per_row, 4)),
        smem_bytes=1024,
    )
    assert ask(probe).data == _bits(_sum(old, added, flush=dtype == torch.float32))


def test_atomic_sums_flush_f32_in_global_memory_alone(ask: Ask) -> None:
    f32, bf16, f16 = (_summands(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16))
    f32 = f32[0][:32], f32[1][:32]
    bf16 = bf16[0][:64], bf16[1][:64]
    f16 = f16[0][:64], f16[1][:64]
    old = [*_bits(f32[0]) * 2, *_bits(bf16[0]), *_bits(f16[0])]
    added = [*_bits(f32[1]), *_bits(bf16[1]), *_bits(f16[1])]
    found = ask(_probe("atomic_sums", words=added, out=old)).out
    assert found[:32] == _bits(_sum(*f32, flush=True))
    assert found[32:64] == _bits(_sum(*f32, flush=False))
    assert found[64:96] == _bits(_sum(*bf16, flush=False))
    assert found[96:] == _bits(_sum(*f16, flush=False))


# ---- conversions ----

_EDGES = [
    *(0.0, -0.0, 1.0, -1.0, 1.0625, 1.1875, -1.3125, 2.0**-9, 2.0**-10, 1.5 * 2.0**-10),
    *(448.0, 463.0, 464.0, 465.0, 480.0, -1e6, 57344.0, 61440.0, 65519.0, 65520.0, 1e30),
    *(2.0**-16, 2.0**-17, 1.5 * 2.0**-17, 2.0**31, -(2.0**31), 3e9, 1 + 2.0**-11, 0.999),
    *(float("inf"), float("-inf"), float("nan")),
]
assert len(_EDGES) == 32


def _saturated(values: NDArray[np.float32], dtype: type) -> NDArray[np.uint8]:
    """Finite, unless NaN, for which there is one pattern."""
    most = float(ml_dtypes.finfo(dtype).max)
    bits = np.clip(values, -most, most).astype(dtype).view(np.uint8)
    return np.where(np.isnan(values), np.uint8(0x7F), bits)


def test_conversions_saturate_and_round(ask: Ask) -> None:
    x = np.array(_EDGES, np.float32)
    words = x.view(np.uint32).tolist()
    found = np.array(ask(_probe("conversions", words=words, out=192)).out, np.uint32)
    e4m3, e5m2, bf16, f16, s32, tf32 = found.reshape(6, 32)
    np.testing.assert_array_equal(e4m3, _saturated(x, ml_dtypes.float8_e4m3fn))
    np.testing.assert_array_equal(e5m2, _saturated(x, ml_dtypes.float8_e5m2))
    numbers = ~np.isnan(x)
    with np.errstate(over="ignore"):
        halves = x.astype(np.float16).view(np.uint16)
    bf16_expected = x.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(bf16, np.where(numbers, bf16_expected, 0x7FFF))
    np.testing.assert_array_equal(f16, np.where(numbers, halves, 0x7FFF))
    clipped = np.nan_to_num(x.astype(np.float64).clip(-(2**31), 2**31 - 1), nan=0)
    assert s32.astype(np.int32).tolist() == np.trunc(clipped).tolist()
    # To the nearest with 10 bits of fraction, ties away from zero.
    rounded = (x.view(np.uint32) + 0x1000) & 0xFFFFE000
    finite = np.isfinite(x)
    np.testing.assert_array_equal(tf32[finite] & 0xFFFFE000, rounded[finite])


def test_every_fp8_number_is_the_f16_that_it_should_be(ask: Ask) -> None:
    found = np.array(ask(_probe("fp8_values", threads=256, out=512)).out, np.uint16)
    patterns = np.arange(256, dtype=np.uint8)
    for bits, dtype in zip(
        found.reshape(2, 256), (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2), strict=True
    ):
        values, expected = bits.view(np.float16), patterns.view(dtype).astype(np.float16)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(values), ~numbers)
        np.testing.assert_array_equal(bits[numbers], expected.view(np.uint16)[numbers])


# ---- approximations ----

# The largest errors that the PTX manual allows, relative to the result; of lg2 near 1, absolute.
_FUNCTIONS = {
    "ex2": (np.exp2, 2.0**-22),
    "ex2.ftz": (np.exp2, 2.0**-22),
    "lg2": (np.log2, 2.0**-22),
    "rcp": (np.reciprocal, 2.0**-23),
    "rcp.ftz": (np.reciprocal, 2.0**-23),
    "rsqrt": (lambda x: 1 / np.sqrt(x), 2.0**-22.9),
    "sqrt": (np.sqrt, 2.0**-23),
    "tanh": (np.tanh, 2.0**-11),
}
_SMALLEST_NORMAL, _SMALLEST = 2.0**-126, 2.0**-149
_SPECIAL = [
    *(0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1.0, 2.0**-130, -(2.0**-127)),
    *(-126.5, -140.25, 127.5, 128.0, -150.0, 2.0**126, 2.0**127, 3e38),
]


def _inputs() -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    around_one = rng.uniform(0.5, 2, 256)
    exponents = rng.uniform(-120, 120, 496)
    anywhere = rng.choice([-1, 1], 256) * np.exp2(rng.uniform(-60, 60, 256))
    return np.concatenate([_SPECIAL, around_one, exponents, anywhere]).astype(np.float32)


def _exact(name: str, x: Floats) -> Floats:
    """In float64; what .ftz flushes is zero."""
    flushes = name.endswith(".ftz")
    x = np.where(flushes & (np.abs(x) < _SMALLEST_NORMAL), np.copysign(0, x), x)
    with np.errstate(all="ignore"):
        y: Floats = _FUNCTIONS[name][0](x)
        overflows = np.abs(y) >= 2.0**128
        y = np.where(overflows, np.copysign(np.inf, y), y)
    return np.where(flushes & (np.abs(y) < _SMALLEST_NORMAL), np.copysign(0, y), y)


def test_approximations_are_as_good_as_the_manual_says(ask: Ask, record_property: Record) -> None:
    x = _inputs()
    words = x.view(np.uint32).tolist()
    probe = _probe("approximations", words=words, threads=128, ctas=len(x) // 128, out=8 * len(x))
    results = np.array(ask(probe).out, np.uint32).view(np.float32).reshape(8, -1)
    for name, y in zip(_FUNCTIONS, results.astype(np.float64), strict=True):
        exact, bound = _exact(name, x.astype(np.float64)), _FUNCTIONS[name][1]
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(y[~finite], exact[~finite], err_msg=name)
        size = np.abs(exact[finite])
        if name == "lg2":
            size = np.where((x[finite] > 0.5) & (x[finite] < 2), 1, size)
        error = np.abs(y[finite] - exact[finite])
        worst = np.max(np.where(size > _SMALLEST_NORMAL, error / np.maximum(size, _SMALLEST), 0))
        record_property(f"error of {name}.approx", f"2^{np.log2(worst):.2f}")
        assert (error <= bound * size + _SMALLEST).all(), name


# ---- clocks and registers ----


def test_clocks_go_forward(ask: Ask) -> None:
    assert ask(_probe("clocks", out=2)).out == [1, 1]


def test_registers_move_from_one_warpgroup_to_others(ask: Ask) -> None:
    assert ask(_probe("registers", threads=384, out=3)).out == [1, 1, 1]
