"""m_grouped_fp8_gemm_nt_contiguous against float64, with NaN in every padding row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepgemm import m_grouped_fp8_gemm_nt_contiguous
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.oracles import fp8_gemm as oracle

E4M3 = torch.float8_e4m3fn
PADDING = -1

Groups = list[int]


def aligned(*group_sizes: tuple[int, int]) -> Groups:
    """The row map of groups of so many tokens, each padded to whole blocks of 128 rows."""
    row_map = []
    for group, size in group_sizes:
        row_map += [group] * size + [PADDING] * (-size % 128)
    return row_map


def random_case(
    groups: Groups, num_groups: int, n: int, k: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    k_blocks = -(-k // 128)
    a = torch.randn(len(groups), k).to(E4M3)
    a_scale = torch.exp2(torch.rand(len(groups), k_blocks) * 12 - 8)
    padding = torch.tensor(groups, dtype=torch.int64) == PADDING
    a.view(torch.uint8)[padding] = 0xFF
    a_scale[padding] = torch.nan
    b = torch.randn(num_groups, n, k).to(E4M3)
    b_scale = torch.exp2(torch.rand(num_groups, -(-n // 128), k_blocks) * 12 - 8)
    return (a, a_scale), (b, b_scale)


def check_random_case(backend: Backend, groups: Groups, num_groups: int, n: int, k: int) -> None:
    a, b = random_case(groups, num_groups, n, k)
    d = torch.full((len(groups), n), torch.nan, dtype=torch.bfloat16, device=backend.device)
    row_map = torch.tensor(groups, dtype=torch.int32, device=backend.device)
    with backend.run():
        m_grouped_fp8_gemm_nt_contiguous(
            (a[0].to(backend.device), a[1].to(backend.device)),
            (b[0].to(backend.device), b[1].to(backend.device)),
            d,
            row_map,
        )
    assert_matches(d, oracle.m_grouped_gemm_nt(a, b, groups), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("groups", "num_groups", "n", "k"),
    [
        pytest.param([], 2, 128, 128, id="no-rows"),
        pytest.param([], 0, 128, 128, id="no-groups"),
        pytest.param([PADDING] * 128, 2, 128, 128, id="padding-only"),
        pytest.param([0], 1, 8, 16, id="smallest"),
        pytest.param(aligned((0, 127), (1, 128), (2, 129)), 3, 136, 144, id="tile-edges"),
        pytest.param(aligned((2, 5), (0, 1), (2, 3)), 3, 64, 128, id="a-group-twice"),
        pytest.param(aligned((1, 200), (3, 56))[:-40], 4, 120, 112, id="rows-end-inside-a-tile"),
        pytest.param([PADDING, 1, PADDING, 1] + [PADDING] * 124, 2, 64, 128, id="padding-between"),
        pytest.param(aligned((0, 100), (1, 30)), 2, 2816, 2048, id="expert-up-projection"),
    ],
)
def test_matches_oracle(
    backend: Backend, seed: int, groups: Groups, num_groups: int, n: int, k: int
) -> None:
    check_random_case(backend, groups, num_groups, n, k)


@settings(max_examples=30)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 64, 127, 128, 129, 256]), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_matches_oracle_for_any_load(backend: Backend, sizes: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    check_random_case(backend, aligned(*enumerate(sizes)), len(sizes), 64, 128)


def test_accepts_every_keyword(backend: Backend, seed: int) -> None:
    groups = aligned((1, 3))
    a, b = random_case(groups, 2, 8, 16)
    d = torch.empty(128, 8, dtype=torch.bfloat16)
    m_grouped_fp8_gemm_nt_contiguous(
        a=a,
        b=b,
        d=d,
        m_indices=torch.tensor(groups, dtype=torch.int32),
        recipe=(1, 128, 128),
        compiled_dims="nk",
        disable_ue8m0_cast=True,
        use_psum_layout=False,
        ensure_zero_padding=False,
        expected_m_for_psum_layout=None,
    )
    assert_matches(d, oracle.m_grouped_gemm_nt(a, b, groups), dtype=torch.bfloat16)
