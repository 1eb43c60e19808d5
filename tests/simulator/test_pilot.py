"""The warp-specialised BF16 GEMM, TMA and wgmma and all, in the simulator."""

import pytest
import torch
from torch import Tensor

import csrc
from deepgemm import bf16_kernels
from deepgemm.plan_bf16 import Bf16Tiles

pytestmark = pytest.mark.compile


# 128 x 128 x 64 in four stages, of which two CTAs of a cluster load B for both.
_TILES = Bf16Tiles(block_m=128, block_n=128, num_stages=4, share="b")


def gemm(a: Tensor, b: Tensor, seed: int, num_sms: int) -> Tensor:
    """The product a [m, k] @ b [n, k].T by the kernel; what it does not write stays NaN."""
    d = torch.full((len(a), len(b)), float("nan"), dtype=torch.bfloat16)
    with csrc.simulate(seed=seed, num_sms=num_sms):
        bf16_kernels.gemm(a, b, None, d, tiles=_TILES)
    return d


def operands(m: int, n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(m, k, generator=generator).bfloat16(),
        torch.randn(n, k, generator=generator).bfloat16(),
    )


def is_product(d: Tensor, a: Tensor, b: Tensor) -> bool:
    """Whether d [m, n] is a [m, k] @ b [n, k].T, rounded once."""
    expected = a.double() @ b.double().T
    # bf16 rounds to 2^-9; sums of k products in FP32 in any order add little.
    bound = 2.0**-8 * expected.abs() + 1e-6 * a.double().abs() @ b.double().abs().T
    return bool(((d.double() - expected).abs() <= bound).all())


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 8, 8), (128, 128, 64), (129, 136, 72), (256, 128, 256), (300, 264, 520), (64, 2112, 448)],
)
@pytest.mark.parametrize("num_sms", [2, 4])
def test_shapes(m: int, n: int, k: int, num_sms: int, seed: int) -> None:
    a, b = operands(m, n, k, seed)
    assert is_product(gemm(a, b, seed, num_sms), a, b)


def test_any_order_of_events_gives_the_same_bits() -> None:
    a, b = operands(200, 136, 328, 0)
    first = gemm(a, b, seed=0, num_sms=2)
    assert is_product(first, a, b)
    for seed in range(1, 200):
        assert torch.equal(gemm(a, b, seed, num_sms=2).view(torch.int16), first.view(torch.int16))
