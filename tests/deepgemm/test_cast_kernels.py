"""The casting kernels in the simulator give the bits of the CPU path."""

from collections.abc import Callable

import pytest
import torch

import csrc
from deepgemm import per_block_cast_to_fp8, per_channel_cast_to_fp8, per_token_cast_to_fp8
from deepgemm.cast_kernels import Granularity, can_cast, cast

pytestmark = pytest.mark.compile

_TYPES = [torch.bfloat16, torch.float16, torch.float32]


def numbers(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows of sizes far apart, with zeros, infinities and NaN in some of them."""
    x = torch.randn(rows, columns) * torch.exp2(torch.rand(rows, 1) * 20 - 12)
    x[rows // 2] = 0
    x = x.to(dtype)
    x[rows // 3, columns // 2] = torch.nan
    x[-1, 0] = torch.inf
    return x


def expected(
    x: torch.Tensor, granularity: Granularity, *, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    if granularity == "row":
        return per_token_cast_to_fp8(x, use_ue8m0)
    if granularity == "block":
        return per_block_cast_to_fp8(x, use_ue8m0)
    data, scale = per_token_cast_to_fp8(x.T, use_ue8m0)
    return data.T, scale.T


def assert_same_bits(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert torch.equal(found.isnan(), wanted.isnan())
    as_bits = torch.uint8 if found.element_size() == 1 else torch.int32
    real = ~wanted.isnan()
    assert torch.equal(
        found.contiguous().view(as_bits)[real], wanted.contiguous().view(as_bits)[real]
    )


@pytest.mark.parametrize("granularity", ["row", "column", "block"])
@pytest.mark.parametrize("dtype", _TYPES, ids=str)
@pytest.mark.parametrize("use_ue8m0", [False, True])
@pytest.mark.parametrize("shape", [(1, 4), (3, 128), (128, 128), (129, 132), (200, 400)], ids=str)
def test_bits(
    granularity: Granularity,
    dtype: torch.dtype,
    use_ue8m0: bool,
    shape: tuple[int, int],
    seed: int,
) -> None:
    around = torch.full((shape[0], shape[1] + 8), torch.nan, dtype=dtype)
    x = around[:, 4 : shape[1] + 4]
    x.copy_(numbers(*shape, dtype))
    with csrc.simulate(seed=seed):
        data, scale = cast(x, granularity, use_ue8m0=use_ue8m0)
    wanted = expected(x, granularity, use_ue8m0=use_ue8m0)
    assert_same_bits(scale, wanted[1])
    assert_same_bits(data, wanted[0])


@pytest.mark.parametrize(
    "cast_to_fp8", [per_token_cast_to_fp8, per_block_cast_to_fp8, per_channel_cast_to_fp8]
)
def test_public_functions_take_a_kernel_where_one_serves(
    cast_to_fp8: Callable[..., tuple[torch.Tensor, torch.Tensor]], seed: int
) -> None:
    x = torch.randn(256, 136)
    wanted = cast_to_fp8(x)
    with csrc.simulate(seed=seed) as simulation:
        found = cast_to_fp8(x)
        assert simulation.report["num_launches"] == 1
        # Not these, which plain torch casts.
        cast_to_fp8(x, gran_k=64)
        cast_to_fp8(x[:, :134])
        assert simulation.report["num_launches"] == 1
    assert_same_bits(found[1], wanted[1])
    assert_same_bits(found[0], wanted[0])


@pytest.mark.parametrize(
    ("x", "can"),
    [
        (torch.zeros(2, 8), True),
        (torch.zeros(2, 6), False),
        (torch.zeros(2, 9)[:, :8], False),
        (torch.zeros(1, 9)[:, :8], True),
        (torch.zeros(2, 12)[:, 2:10], False),
        (torch.zeros(8, 2).T, False),
        (torch.zeros(0, 8), False),
    ],
)
def test_what_the_kernels_take(x: torch.Tensor, can: bool) -> None:
    assert can_cast(x) == can
