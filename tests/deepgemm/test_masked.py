"""m_grouped_fp8_gemm_nt_masked against float64, with NaN in rows that do not count."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepgemm
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import fp8_operand, spoil, to
from tests.oracles import fp8_gemm as oracle

HAS_KERNEL = True


def check_fp8(backend: Backend, counts: list[int], m: int, n: int, k: int) -> None:
    groups = len(counts)
    a, b = fp8_operand(m, k, 1, groups), fp8_operand(n, k, 128, groups)
    for group, count in enumerate(counts):
        spoil(torch.arange(m) >= count, (a[0][group], a[1][group]))
    d = torch.full((groups, m, n), torch.nan, dtype=torch.bfloat16, device=backend.device)
    masked_m = torch.tensor(counts, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.m_grouped_fp8_gemm_nt_masked(
            to(backend.device, a), to(backend.device, b), d, masked_m, max(counts, default=0)
        )
    for group, count in enumerate(counts):
        rows = a[0][group, :count], a[1][group, :count]
        expected = oracle.gemm_nt(rows, (b[0][group], b[1][group]))
        assert_matches(d[group, :count], expected, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("counts", "m", "n", "k"),
    [
        pytest.param([], 16, 16, 128, id="no-groups"),
        pytest.param([0, 0], 0, 16, 128, id="no-rows"),
        pytest.param([3], 4, 0, 128, id="no-columns"),
        pytest.param([0, 2], 4, 16, 0, id="nothing-to-sum"),
        pytest.param([1], 1, 8, 16, id="smallest"),
        pytest.param([0, 0, 0], 130, 136, 144, id="all-empty"),
        pytest.param([0, 1, 127, 128, 129, 130], 130, 136, 144, id="tile-edges"),
        pytest.param([40, 0, 33], 40, 120, 576, id="less-than-a-tile"),
        pytest.param([20, 3], 64, 768, 2048, id="decoding-step"),
    ],
)
def test_fp8_matches_oracle(
    backend: Backend, seed: int, counts: list[int], m: int, n: int, k: int
) -> None:
    check_fp8(backend, counts, m, n, k)


@settings(max_examples=15)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_fp8_matches_oracle_for_any_load(backend: Backend, counts: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    check_fp8(backend, counts, 40, 72, 144)


def test_first_name(backend: Backend, seed: int) -> None:
    a, b = fp8_operand(4, 128, 1, 2), fp8_operand(8, 128, 128, 2)
    d = torch.zeros(2, 4, 8, dtype=torch.bfloat16, device=backend.device)
    masked_m = torch.tensor([4, 1], dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked(
            to(backend.device, a), to(backend.device, b), d, masked_m, 3
        )
    expected = oracle.gemm_nt((a[0][1, :1], a[1][1, :1]), (b[0][1], b[1][1]))
    assert_matches(d[1, :1], expected, dtype=torch.bfloat16)
