"""FP8 sums per group of columns against float64, with any group empty."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import deepgemm
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import Pair, float32_sums, fp8_operand, surrounded, to
from tests.oracles import fp8_gemm as oracle

HAS_KERNEL = True


def per_group(rows: int, ks: list[int]) -> list[Pair]:
    return [fp8_operand(rows, k, 1) for k in ks]


def flattened(groups: list[Pair], rows: int) -> Pair:
    """The groups' data one after another in one dim, their scales side by side."""
    data = [torch.empty(0, dtype=torch.uint8)]
    data += [codes.reshape(-1).view(torch.uint8) for codes, _ in groups]
    scales = [torch.empty(rows, 0), *(scale for _, scale in groups)]
    return torch.cat(data).view(torch.float8_e4m3fn), torch.cat(scales, 1)


def expected_of(a: list[Pair], b: list[Pair], c: Tensor) -> tuple[Tensor, Tensor]:
    """In float64, and in float32."""
    exact, rounded = c.double(), c.clone()
    for group, (left, right) in enumerate(zip(a, b, strict=True)):
        exact[group] += oracle.gemm_nt(left, right, 1)
        pair = [oracle.dequantised(*operand, 1) for operand in (left, right)]
        rounded[group] = float32_sums(*pair, c[group])
    return exact, rounded


def check_nt(backend: Backend, ks: list[int], m: int, n: int, *, in_place: bool) -> None:
    a, b, c = per_group(m, ks), per_group(n, ks), torch.randn(len(ks), m, n)
    addend = surrounded(c.to(backend.device))
    d = addend if in_place else torch.full((len(ks), m, n), torch.nan, device=backend.device)
    layout = torch.tensor(ks, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.k_grouped_fp8_gemm_nt_contiguous(
            to(backend.device, flattened(a, m)),
            to(backend.device, flattened(b, n)),
            d,
            ks,
            layout,
            c=addend,
        )
    assert_matches(d, *expected_of(a, b, c))


@pytest.mark.parametrize("in_place", [False, True], ids=["c-apart", "c-is-d"])
@pytest.mark.parametrize(
    ("ks", "m", "n"),
    [
        pytest.param([], 16, 16, id="no-groups"),
        pytest.param([128], 0, 16, id="no-rows"),
        pytest.param([128], 16, 0, id="no-columns"),
        pytest.param([0, 0], 16, 16, id="nothing-to-sum"),
        pytest.param([128], 1, 8, id="smallest"),
        pytest.param([128, 0, 384, 256, 0], 129, 136, id="above-one-tile"),
        pytest.param([0, 512], 127, 120, id="below-one-tile"),
    ],
)
def test_fp8_nt(backend: Backend, seed: int, ks: list[int], m: int, n: int, in_place: bool) -> None:
    check_nt(backend, ks, m, n, in_place=in_place)


@settings(max_examples=15)
@given(
    ks=st.lists(st.integers(0, 3).map(lambda blocks: 128 * blocks), max_size=4),
    in_place=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fp8_nt_of_any_groups(backend: Backend, ks: list[int], in_place: bool, seed: int) -> None:
    torch.manual_seed(seed)
    check_nt(backend, ks, 20, 24, in_place=in_place)


@pytest.mark.parametrize("ks", [[128, 0, 256], [0, 0], [384]])
def test_fp8_tn(backend: Backend, seed: int, ks: list[int]) -> None:
    m, n = 24, 40
    a, b, c = per_group(m, ks), per_group(n, ks), torch.randn(len(ks), m, n)
    columns = [
        (
            torch.cat([data.view(torch.uint8).T for data, _ in groups]).view(torch.float8_e4m3fn),
            torch.cat([scale.T for _, scale in groups]),
        )
        for groups in (a, b)
    ]
    d = torch.full((len(ks), m, n), torch.nan, device=backend.device)
    layout = torch.tensor(ks, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.k_grouped_fp8_gemm_tn_contiguous(
            *(to(backend.device, pair) for pair in columns),
            d,
            ks=ks,
            ks_tensor=layout,
            c=c.to(backend.device),
        )
    assert_matches(d, *expected_of(a, b, c))


@pytest.mark.parametrize("by_block", [False, True], ids=["scales-by-row", "scales-by-block"])
def test_wgrad_adds_to_its_output(backend: Backend, seed: int, by_block: bool) -> None:
    ks, m, n = [256, 0, 128], 24, 40
    a, b, before = per_group(m, ks), per_group(n, ks), torch.randn(3, m, n)
    out = before.to(backend.device, copy=True)
    pairs = [to(backend.device, flattened(a, m)), to(backend.device, flattened(b, n))]
    if by_block:
        pairs = [(data, scale.T.contiguous()) for data, scale in pairs]
    with backend.run():
        deepgemm.k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(*pairs, out, ks)
    assert_matches(out, *expected_of(a, b, before))
