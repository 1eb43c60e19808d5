"""fp8_gemm_nt against float64, at the edges of its tiles and with poison around its operands."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepgemm import fp8_gemm_nt
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import E4M3, E4M3_NAN, fp8_operand, to
from tests.oracles import fp8_gemm as oracle
from tests.strategies import gemm_shapes

HAS_KERNEL = True


def poisoned_output(m: int, n: int, device: torch.device) -> Tensor:
    return torch.full((m, n), torch.nan, dtype=torch.bfloat16, device=device)


def check_random_case(backend: Backend, m: int, n: int, k: int) -> None:
    a, b = fp8_operand(m, k, 1), fp8_operand(n, k, 128)
    d = poisoned_output(m, n, backend.device)
    with backend.run():
        fp8_gemm_nt(to(backend.device, a), to(backend.device, b), d)
    assert_matches(d, oracle.gemm_nt(a, b), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        pytest.param(0, 128, 128, id="no-rows"),
        pytest.param(1, 0, 128, id="no-columns"),
        pytest.param(2, 8, 0, id="nothing-to-sum"),
        pytest.param(1, 8, 16, id="smallest"),
        pytest.param(127, 120, 112, id="below-one-tile"),
        pytest.param(128, 128, 128, id="one-tile"),
        pytest.param(129, 136, 144, id="above-one-tile"),
        pytest.param(3, 1032, 576, id="more-than-one-chunk-of-weights"),
        pytest.param(64, 1536, 7168, id="query-down-projection"),
    ],
)
def test_matches_oracle(backend: Backend, seed: int, m: int, n: int, k: int) -> None:
    check_random_case(backend, m, n, k)


@settings(max_examples=30)
@given(shape=gemm_shapes(), seed=st.integers(0, 2**32 - 1))
def test_matches_oracle_for_any_shape(
    backend: Backend, shape: tuple[int, int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    check_random_case(backend, *shape)


def test_every_code(backend: Backend) -> None:
    """256 codes times one: NaN stays NaN, in its own rows, and subnormals are kept."""
    codes = torch.zeros(256, 128, dtype=torch.uint8)
    codes[:, 0] = torch.arange(256)
    ones = torch.zeros(8, 128)
    ones[:, 0] = 1
    expected = codes[:, :1].view(E4M3).double().expand(256, 8)
    a = codes.view(E4M3), torch.ones(256, 1)
    b = ones.to(E4M3), torch.ones(1, 1)
    # With both NaN codes, with one of them, with none.
    for rows in map(slice, (0, 0, 128, 0, 128), (256, 128, 256, 127, 255)):
        d = poisoned_output(len(expected[rows]), 8, backend.device)
        with backend.run():
            pair = to(backend.device, (a[0][rows], a[1][rows]))
            fp8_gemm_nt(pair, to(backend.device, b), d)
        assert_matches(d, expected[rows], dtype=torch.bfloat16)


@pytest.mark.parametrize("exponent", [-140, -120, 110, 121])
def test_scales_of_any_size(backend: Backend, exponent: int) -> None:
    """The data's own exponent makes up for the scale's; neither overflows on the way."""
    a = torch.full((16, 16), 2.0**-9).to(E4M3), torch.full((16, 1), 2.0**exponent)
    b = torch.ones(8, 16).to(E4M3), torch.ones(1, 1)
    if exponent < 0:
        a, b = (a[0], torch.full((16, 1), 2.0**30)), (b[0], torch.full((1, 1), 2.0**exponent))
    d = poisoned_output(16, 8, backend.device)
    with backend.run():
        fp8_gemm_nt(to(backend.device, a), to(backend.device, b), d)
    assert_matches(d, oracle.gemm_nt(a, b), dtype=torch.bfloat16)


def mn_major_scale_a(a: Tensor, sa: Tensor, b: Tensor, sb: Tensor) -> tuple[Tensor, ...]:
    return a, sa.T.contiguous().T, b, sb


def transposed_scale_b(a: Tensor, sa: Tensor, b: Tensor, sb: Tensor) -> tuple[Tensor, ...]:
    return a, sa, b, sb.T.contiguous().T


def rows_apart(a: Tensor, sa: Tensor, b: Tensor, sb: Tensor) -> tuple[Tensor, ...]:
    def padded(data: Tensor) -> Tensor:
        rows, k = data.shape
        wide = torch.full((rows, k + 32), E4M3_NAN, dtype=torch.uint8, device=data.device)
        wide[:, :k] = data.view(torch.uint8)
        return wide.view(E4M3)[:, :k]

    return padded(a), sa, padded(b), sb


@pytest.mark.parametrize("relaid", [mn_major_scale_a, transposed_scale_b, rows_apart])
def test_layouts(
    backend: Backend, seed: int, relaid: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
) -> None:
    a, b = fp8_operand(130, 272, 1), fp8_operand(264, 272, 128)
    d = poisoned_output(130, 264, backend.device)
    a_data, a_scale, b_data, b_scale = relaid(*to(backend.device, a), *to(backend.device, b))
    with backend.run():
        fp8_gemm_nt((a_data, a_scale), (b_data, b_scale), d)
    assert_matches(d, oracle.gemm_nt(a, b), dtype=torch.bfloat16)


def test_writes_inside_d_only(backend: Backend, seed: int) -> None:
    a, b = fp8_operand(130, 128, 1), fp8_operand(136, 128, 128)
    around = poisoned_output(134, 152, backend.device)
    d = around[2:132, 8:144]
    with backend.run():
        fp8_gemm_nt(to(backend.device, a), to(backend.device, b), d)
    assert_matches(d.clone(), oracle.gemm_nt(a, b), dtype=torch.bfloat16)
    d.fill_(torch.nan)
    assert around.isnan().all()


@pytest.mark.parametrize(
    "keywords",
    [
        {"recipe": (1, 128, 128), "compiled_dims": "mnk", "disable_ue8m0_cast": True},
        {"recipe_a": (1, 128), "recipe_b": (128, 128), "c": None},
    ],
)
def test_accepts_every_keyword(backend: Backend, seed: int, keywords: dict[str, Any]) -> None:
    a, b = fp8_operand(2, 128, 1), fp8_operand(8, 128, 128)
    d = poisoned_output(2, 8, backend.device)
    with backend.run():
        fp8_gemm_nt(a=to(backend.device, a), b=to(backend.device, b), d=d, **keywords)
    assert_matches(d, oracle.gemm_nt(a, b), dtype=torch.bfloat16)
