"""BF16 products of groups, of rows and of columns, against float64, with NaN in all padding."""

import pytest
import torch
from torch import Tensor

import deepgemm
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import PADDING, bf16_operand, float32_sums
from tests.oracles import fp8_gemm as oracle

HAS_KERNEL = True


@pytest.mark.parametrize("by_column", [False, True], ids=["k-major", "n-major"])
@pytest.mark.parametrize("use_psum_layout", [False, True], ids=["row-map", "end-offsets"])
@pytest.mark.parametrize(
    ("ends", "num_rows", "n", "k"),
    [
        pytest.param([], 0, 16, 64, id="no-groups"),
        pytest.param([3], 130, 16, 0, id="nothing-to-sum"),
        pytest.param([0, 0], 128, 16, 64, id="padding-only"),
        pytest.param([127, 256, 385, 513], 600, 136, 72, id="tile-edges"),
    ],
)
def test_contiguous(
    backend: Backend,
    seed: int,
    ends: list[int],
    num_rows: int,
    n: int,
    k: int,
    use_psum_layout: bool,
    by_column: bool,
) -> None:
    groups = oracle.row_map_of_ends(ends, num_rows)
    a, b = bf16_operand(num_rows, k), bf16_operand(len(ends), n, k)
    a[torch.tensor(groups, dtype=torch.int64) == PADDING] = torch.nan
    d = torch.full((num_rows, n), torch.nan, dtype=torch.bfloat16, device=backend.device)
    layout = torch.tensor(ends if use_psum_layout else groups, dtype=torch.int32)
    weights = b.mT.contiguous().mT if by_column else b
    with backend.run():
        deepgemm.m_grouped_bf16_gemm_nt_contiguous(
            a.to(backend.device),
            weights.to(backend.device),
            d,
            layout.to(backend.device),
            use_psum_layout=use_psum_layout,
        )
    rows: list[Tensor] = [weight.double() for weight in b]
    expected = oracle.grouped(a.double(), rows, groups) if rows else d.cpu().double()
    assert_matches(d, expected, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("counts", "m", "n", "k"),
    [
        pytest.param([], 16, 16, 64, id="no-groups"),
        pytest.param([0, 2], 4, 16, 0, id="nothing-to-sum"),
        pytest.param([0, 1, 127, 128, 129, 130], 130, 136, 72, id="tile-edges"),
        pytest.param([0, 0], 8, 16, 64, id="all-empty"),
    ],
)
@pytest.mark.parametrize("by_column", [False, True], ids=["k-major", "n-major"])
def test_masked(
    backend: Backend, seed: int, counts: list[int], m: int, n: int, k: int, by_column: bool
) -> None:
    groups = len(counts)
    a, b = bf16_operand(groups, m, k), bf16_operand(groups, n, k)
    for group, count in enumerate(counts):
        a[group, count:] = torch.nan
    weights = b.mT.contiguous().mT if by_column else b
    d = torch.full((groups, m, n), torch.nan, dtype=torch.bfloat16, device=backend.device)
    masked_m = torch.tensor(counts, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.m_grouped_bf16_gemm_nt_masked(
            a.to(backend.device), weights.to(backend.device), d, masked_m, expected_m=8
        )
    for group, count in enumerate(counts):
        expected = a[group, :count].double() @ b[group].double().T
        assert_matches(d[group, :count], expected, dtype=torch.bfloat16)


@pytest.mark.parametrize("output", ["bf16", "fp32", "added-to-c", "added-to-d"])
@pytest.mark.parametrize(
    ("ks", "m", "n"),
    [
        pytest.param([], 16, 16, id="no-groups"),
        pytest.param([64], 0, 16, id="no-rows"),
        pytest.param([0, 0], 16, 16, id="nothing-to-sum"),
        pytest.param([64], 8, 8, id="smallest"),
        pytest.param([64, 0, 320, 128, 0], 136, 120, id="around-one-tile"),
    ],
)
def test_groups_of_columns(
    backend: Backend, seed: int, ks: list[int], m: int, n: int, output: str
) -> None:
    dtype = torch.bfloat16 if output == "bf16" else torch.float32
    a, b = bf16_operand(sum(ks), m), bf16_operand(sum(ks), n)
    before = torch.randn(len(ks), m, n)
    shape = (len(ks), m, n)
    d = torch.full(shape, torch.nan, dtype=dtype, device=backend.device)
    c = {"added-to-c": before.to(backend.device, copy=True), "added-to-d": d}.get(output)
    if output == "added-to-d":
        d.copy_(before)
    layout = torch.tensor(ks, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.k_grouped_bf16_gemm_tn_contiguous(
            a.to(backend.device), b.to(backend.device), d, ks, layout, c
        )
    expected = torch.zeros(shape, dtype=torch.float64) if c is None else before.double()
    baseline = expected.float()
    for group, (left, right) in enumerate(zip(a.split(ks), b.split(ks), strict=True)):
        expected[group] += left.double().T @ right.double()
        baseline[group] = float32_sums(left.T, right.T, baseline[group])
    assert_matches(d, expected, baseline.to(dtype))
