"""FP8 products that are added to an FP32 matrix, against float64: fp8_gemm_* with c, and wgrad."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgemm import fp8_gemm_nt, wgrad_gemm_fp8_fp8_fp32_nt
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import (
    Pair,
    assert_untouched_around,
    float32_sums,
    fp8_operand,
    nan_output,
    surrounded,
    to,
)
from tests.oracles import fp8_gemm as oracle
from tests.strategies import extents

HAS_KERNEL = True


def check_random_case(backend: Backend, m: int, n: int, k: int, *, in_place: bool) -> None:
    a, b = fp8_operand(m, k, 1), fp8_operand(n, k, 1)
    c = torch.randn(m, n)
    d = nan_output(m, n, dtype=torch.float32, device=backend.device)
    addend = surrounded(c.to(backend.device))
    if in_place:
        d.copy_(c)
        addend = d
    with backend.run():
        fp8_gemm_nt(to(backend.device, a), to(backend.device, b), d, c=addend, recipe=(1, 1, 128))
    expected = oracle.gemm_nt(a, b, 1) + c.double()
    assert_matches(d, expected, sums_of(a, b, c))
    if not in_place:
        assert torch.equal(addend.cpu(), c)
    assert_untouched_around(d)


def sums_of(a: Pair, b: Pair, c: torch.Tensor) -> torch.Tensor:
    return float32_sums(oracle.dequantised(*a, 1), oracle.dequantised(*b, 1), c)


@pytest.mark.parametrize("in_place", [False, True], ids=["c-apart", "c-is-d"])
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
        pytest.param(5, 1032, 576, id="more-than-one-chunk"),
        pytest.param(576, 512, 1024, id="weight-of-a-projection"),
    ],
)
def test_matches_oracle(
    backend: Backend, seed: int, m: int, n: int, k: int, in_place: bool
) -> None:
    check_random_case(backend, m, n, k, in_place=in_place)


@settings(max_examples=20)
@given(
    m=extents(128),
    n=st.integers(0, 24).map(lambda units: 8 * units),
    k=st.integers(0, 20).map(lambda units: 16 * units),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_matches_oracle_for_any_shape(
    backend: Backend, m: int, n: int, k: int, in_place: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    check_random_case(backend, m, n, k, in_place=in_place)


@pytest.mark.parametrize("by_block", [False, True], ids=["scales-by-row", "scales-by-block"])
@pytest.mark.parametrize(("m", "n", "k"), [(8, 16, 0), (40, 24, 272), (5, 24, 384)])
def test_wgrad_adds_to_its_output(
    backend: Backend, seed: int, by_block: bool, m: int, n: int, k: int
) -> None:
    a, b, before = fp8_operand(m, k, 1), fp8_operand(n, k, 1), torch.randn(m, n)
    out = surrounded(before.to(backend.device))
    pairs = [to(backend.device, pair) for pair in (a, b)]
    if by_block:
        pairs = [(data, scale.T.contiguous()) for data, scale in pairs]
    with backend.run():
        wgrad_gemm_fp8_fp8_fp32_nt(*pairs, out)
    assert_matches(out, oracle.gemm_nt(a, b, 1) + before.double(), sums_of(a, b, before))


def test_a_nan_in_c_stays_where_it_is(backend: Backend, seed: int) -> None:
    a, b, c = fp8_operand(9, 128, 1), fp8_operand(16, 128, 1), torch.randn(9, 16)
    c[4, 7] = torch.nan
    d = torch.zeros(9, 16, device=backend.device)
    recipes = {"recipe_a": (1, 128), "recipe_b": (1, 128)}
    with backend.run():
        fp8_gemm_nt(
            to(backend.device, a), to(backend.device, b), d, c.to(backend.device), **recipes
        )
    assert_matches(d, oracle.gemm_nt(a, b, 1) + c.double(), sums_of(a, b, c))
