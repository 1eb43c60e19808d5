"""Casts to FP8: what the scales must be, and how far data * scale may be from x."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepgemm import (
    ceil_div,
    per_block_cast_to_fp8,
    per_channel_cast_to_fp8,
    per_custom_dims_cast_to_fp8,
    per_token_cast_to_fp8,
)
from tests.oracles import fp8_gemm as oracle
from tests.strategies import extents

Cast = Callable[..., tuple[Tensor, Tensor]]
CASTS = pytest.mark.parametrize(
    ("cast", "block_rows"), [(per_token_cast_to_fp8, 1), (per_block_cast_to_fp8, 128)]
)


def check_cast(cast: Cast, block_rows: int, x: Tensor, *, use_ue8m0: bool) -> None:
    rows, k = x.shape
    data, scale = cast(x, use_ue8m0)
    assert data.dtype == torch.float8_e4m3fn
    assert data.shape == x.shape
    assert data.is_contiguous()
    assert scale.dtype == torch.float32
    assert scale.shape == (ceil_div(rows, block_rows), ceil_div(k, 128))
    assert scale.is_contiguous()

    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            block = x[i * block_rows : (i + 1) * block_rows, j * 128 : (j + 1) * 128].double()
            exact = max(block.abs().max().item(), 1e-4) / 448
            if use_ue8m0:
                assert torch.frexp(scale[i, j])[0] == 0.5, "not a power of two"
                assert exact * (1 - 1e-6) <= scale[i, j] < 2 * exact
            else:
                assert scale[i, j].item() == pytest.approx(exact, rel=1e-6)

    # Half a unit in the last of 3 places, or half of the smallest subnormal, 2 ** -9.
    unit = oracle.dequantised(torch.ones_like(data), scale, block_rows)
    bound = torch.maximum(x.double().abs() * 2**-4, unit * 2**-10) * (1 + 1e-6)
    assert ((oracle.dequantised(data, scale, block_rows) - x.double()).abs() <= bound).all()


@CASTS
@settings(max_examples=30)
@given(
    rows=extents(128),
    columns=extents(128),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    use_ue8m0=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape(
    cast: Cast,
    block_rows: int,
    rows: int,
    columns: int,
    dtype: torch.dtype,
    use_ue8m0: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(rows, columns) * torch.exp2(torch.rand(rows, columns) * 20 - 10)
    check_cast(cast, block_rows, x.to(dtype), use_ue8m0=use_ue8m0)


@CASTS
def test_zeros(cast: Cast, block_rows: int) -> None:
    data, scale = cast(torch.zeros(3, 200))
    assert (data.float() == 0).all()
    assert torch.equal(scale, torch.full_like(scale, 1e-4) / 448)


@CASTS
def test_the_largest_becomes_448(cast: Cast, block_rows: int) -> None:
    data, _ = cast(torch.linspace(-3, 0.1, 128).view(1, 128))
    assert data[0, 0].item() == -448


@CASTS
def test_a_power_of_two_is_not_rounded_up(cast: Cast, block_rows: int) -> None:
    _, scale = cast(torch.full((1, 128), 448.0 * 2**-5), use_ue8m0=True)
    assert scale.item() == 2**-5


@CASTS
def test_any_strides(cast: Cast, block_rows: int) -> None:
    x = torch.randn(200, 130, generator=torch.Generator().manual_seed(0))
    for got, expected in zip(cast(x.T), cast(x.T.contiguous()), strict=True):
        assert torch.equal(got, expected)


def test_granularity() -> None:
    x = torch.ones(64, 64)
    assert per_token_cast_to_fp8(x, gran_k=32)[1].shape == (64, 2)
    assert per_block_cast_to_fp8(x, gran_k=32)[1].shape == (2, 2)


@CASTS
def test_refuses(cast: Cast, block_rows: int) -> None:
    with pytest.raises(TypeError, match="x must have dtype bfloat16 or float16 or float32, got"):
        cast(torch.zeros(2, 2, dtype=torch.int32))
    with pytest.raises(ValueError, match="gran_k must be at least 1, got 0"):
        cast(torch.zeros(2, 2), gran_k=0)


@settings(max_examples=20)
@given(
    blocks=st.integers(0, 3),
    columns=extents(16),
    gran_k=st.sampled_from([32, 128]),
    use_ue8m0=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_along_rows(blocks: int, columns: int, gran_k: int, use_ue8m0: bool, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(blocks * gran_k, columns) * torch.exp2(torch.rand(columns) * 20 - 10)
    data, scale = per_channel_cast_to_fp8(x, use_ue8m0, gran_k)
    assert data.shape == x.shape
    assert scale.shape == (blocks, columns)
    assert data.is_contiguous()
    assert scale.is_contiguous()
    check_each_scale(x, data, scale.repeat_interleave(gran_k, 0), use_ue8m0=use_ue8m0)
    for block, row in enumerate(scale):
        sizes = x[block * gran_k : (block + 1) * gran_k].double().abs().amax(0)
        check_scales(row, sizes, use_ue8m0=use_ue8m0)


def check_scales(scale: Tensor, amax: Tensor, *, use_ue8m0: bool) -> None:
    for made, size in zip(scale.reshape(-1).tolist(), amax.reshape(-1).tolist(), strict=True):
        exact = max(size, 1e-4) / 448
        if use_ue8m0:
            assert math.frexp(made)[0] == 0.5
            assert exact * (1 - 1e-6) <= made < 2 * exact
        else:
            assert made == pytest.approx(exact, rel=1e-6)


def check_each_scale(x: Tensor, data: Tensor, scale: Tensor, *, use_ue8m0: bool) -> None:
    """Of a scale for each element: the data is the nearest code."""
    made = data.double() * scale.double()
    bound = torch.maximum(x.double().abs() * 2**-4, scale.double() * 2**-10) * (1 + 1e-6)
    assert ((made - x.double()).abs() <= bound).all()


@pytest.mark.parametrize("use_ue8m0", [False, True])
@pytest.mark.parametrize(
    ("dims", "kept"),
    [((0,), (True, False, False)), ((0, -1), (True, False, True)), ((), (False,) * 3)],
)
def test_custom_dims(
    seed: int, dims: tuple[int, ...], kept: tuple[bool, ...], use_ue8m0: bool
) -> None:
    x = torch.randn(3, 5, 7) * torch.exp2(torch.rand(3, 1, 7) * 20 - 10)
    data, scale = per_custom_dims_cast_to_fp8(x, dims, use_ue8m0)
    assert scale.shape == tuple(n for n, keep in zip(x.shape, kept, strict=True) if keep)
    others = tuple(dim for dim, keep in enumerate(kept) if not keep)
    amax = x.double().abs().amax(others)
    check_scales(scale, amax, use_ue8m0=use_ue8m0)
    spread = scale.view([n if keep else 1 for n, keep in zip(x.shape, kept, strict=True)])
    check_each_scale(x, data, spread.expand_as(x), use_ue8m0=use_ue8m0)


def test_custom_dims_of_nothing() -> None:
    data, scale = per_custom_dims_cast_to_fp8(torch.zeros(3, 0), (0,), use_ue8m0=False)
    assert data.shape == (3, 0)
    assert torch.equal(scale, torch.full((3,), 1e-4) / 448)


def test_other_casts_refuse() -> None:
    with pytest.raises(ValueError, match="k must be a multiple of 128, got 100"):
        per_channel_cast_to_fp8(torch.zeros(100, 2))
    with pytest.raises(ValueError, match="dims must be between -2 and 1, got 2"):
        per_custom_dims_cast_to_fp8(torch.zeros(2, 2), (2,), use_ue8m0=False)
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        per_custom_dims_cast_to_fp8([1.0], (0,), use_ue8m0=False)  # type: ignore[arg-type]
