"""The warp-specialised BF16 GEMM, TMA and wgmma and all, in the simulator."""

import struct
from functools import cache

import pytest
import torch
from torch import Tensor

from csrc import compiler, simulator
from csrc.kernels import KERNELS
from csrc.tensor_map import TensorMap

pytestmark = pytest.mark.compile

_NUM_THREADS, _CLUSTER, _SHARED_BYTES, _PARAMS_BYTES = 384, 2, 164864, 448


@cache
def _kernel() -> simulator.Kernel:
    pilot = next(kernel for kernel in KERNELS if "bf16_gemm" in str(kernel.source))
    compiled = compiler.compile_kernel(pilot.source, pilot.expression)
    return simulator.load(compiled.ptx)[compiled.name]


def _gemm(a: Tensor, b: Tensor, seed: int, grid: int) -> Tensor:
    """The product a [m, k] @ b [n, k].T by the kernel; what it does not write stays NaN."""
    d = torch.full((len(a), len(b)), float("nan"), dtype=torch.bfloat16)
    maps = [
        TensorMap.of(a, (128, 64), swizzle_bytes=128),
        TensorMap.of(b, (64, 64), swizzle_bytes=128),
        TensorMap.of(d, (64, 64), swizzle_bytes=128),
    ]
    packed = b"".join(tensor_map.encode_for_simulator() for tensor_map in maps)
    packed += struct.pack("<iii", len(a), len(b), a.shape[1])
    with simulator.Machine(sms=grid, seed=seed) as machine:
        machine.launch(
            _kernel(),
            grid,
            _NUM_THREADS,
            args=[packed.ljust(_PARAMS_BYTES, b"\0")],
            cluster=_CLUSTER,
            smem_bytes=_SHARED_BYTES,
            memory=[a, b, d],
        )
        machine.run()
    return d


def _operands(m: int, n: int, k: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(m, k, generator=generator).bfloat16(),
        torch.randn(n, k, generator=generator).bfloat16(),
    )


def _assert_product(d: Tensor, a: Tensor, b: Tensor) -> None:
    expected = a.double() @ b.double().T
    # bf16 rounds to 2^-9; sums of k products in FP32 in any order add little.
    bound = 2.0**-8 * expected.abs() + 1e-6 * a.double().abs() @ b.double().abs().T
    assert ((d.double() - expected).abs() <= bound).all()


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 8, 8), (128, 128, 64), (129, 136, 72), (256, 128, 256), (300, 264, 520), (64, 2112, 448)],
)
@pytest.mark.parametrize("grid", [2, 4])
def test_shapes(m: int, n: int, k: int, grid: int, seed: int) -> None:
    a, b = _operands(m, n, k, seed)
    _assert_product(_gemm(a, b, seed, grid), a, b)


def test_any_order_of_events_gives_the_same_bits() -> None:
    a, b = _operands(200, 136, 328, 0)
    first = _gemm(a, b, seed=0, grid=2)
    _assert_product(first, a, b)
    for seed in range(1, 200):
        assert torch.equal(_gemm(a, b, seed, grid=2).view(torch.int16), first.view(torch.int16))
