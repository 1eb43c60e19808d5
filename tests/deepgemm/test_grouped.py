"""m_grouped_fp8_gemm_nt_contiguous against float64, NaN in every padding row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepgemm
from deepgemm import m_grouped_fp8_gemm_nt_contiguous
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import PADDING, Pair, aligned, fp8_operand, spoil, to
from tests.oracles import fp8_gemm as oracle

HAS_KERNEL = True


def random_case(groups: list[int], num_groups: int, n: int, k: int) -> tuple[Pair, Pair]:
    a = fp8_operand(len(groups), k, 1)
    spoil(torch.tensor(groups, dtype=torch.int64) == PADDING, a)
    return a, fp8_operand(n, k, 128, num_groups)


def check_case(
    backend: Backend, groups: list[int], num_groups: int, n: int, k: int, ends: list[int] | None
) -> None:
    """Of the groups of all rows; `ends` says the same in the other layout."""
    a, b = random_case(groups, num_groups, n, k)
    d = torch.full((len(groups), n), torch.nan, dtype=torch.bfloat16, device=backend.device)
    layout = torch.tensor(groups if ends is None else ends, dtype=torch.int32)
    with backend.run():
        m_grouped_fp8_gemm_nt_contiguous(
            to(backend.device, a),
            to(backend.device, b),
            d,
            layout.to(backend.device),
            use_psum_layout=ends is not None,
        )
    assert_matches(d, oracle.m_grouped_gemm_nt(a, b, groups), dtype=torch.bfloat16)


def check_random_case(backend: Backend, groups: list[int], num_groups: int, n: int, k: int) -> None:
    check_case(backend, groups, num_groups, n, k, None)


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
        pytest.param(aligned((1, 9)) + [PADDING] * 256, 2, 64, 128, id="blocks-of-padding-only"),
        pytest.param(aligned((0, 3)), 1, 16, 0, id="nothing-to-sum"),
        pytest.param(aligned((0, 3)), 1, 0, 128, id="no-columns"),
        pytest.param(aligned((0, 100), (1, 30)), 2, 2816, 2048, id="expert-up-projection"),
    ],
)
def test_matches_oracle(
    backend: Backend, seed: int, groups: list[int], num_groups: int, n: int, k: int
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


@pytest.mark.parametrize(
    ("ends", "num_rows", "n", "k"),
    [
        pytest.param([], 0, 16, 128, id="no-groups"),
        pytest.param([], 130, 16, 128, id="rows-of-no-group"),
        pytest.param([0, 0], 128, 16, 128, id="empty-groups-only"),
        pytest.param([1], 1, 8, 16, id="smallest"),
        pytest.param([127, 256, 385], 385, 136, 144, id="tile-edges"),
        pytest.param([5, 5, 128, 131], 400, 64, 128, id="gaps-and-empty-groups-between"),
        pytest.param([128, 128, 256, 384], 384, 64, 128, id="no-gaps"),
        pytest.param([200, 256 + 30], 512, 1408, 512, id="expert-down-projection"),
    ],
)
def test_end_offsets(
    backend: Backend, seed: int, ends: list[int], num_rows: int, n: int, k: int
) -> None:
    groups = oracle.row_map_of_ends(ends, num_rows)
    check_case(backend, groups, len(ends), n, k, ends)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 64, 127, 128, 129]), min_size=1, max_size=5),
    behind=st.integers(0, 140),
    seed=st.integers(0, 2**32 - 1),
)
def test_end_offsets_of_any_load(
    backend: Backend, sizes: list[int], behind: int, seed: int
) -> None:
    torch.manual_seed(seed)
    ends = []
    for size in sizes:
        begin = -(-(ends[-1] if ends else 0) // 128) * 128
        ends.append(begin + size)
    groups = oracle.row_map_of_ends(ends, ends[-1] + behind)
    check_case(backend, groups, len(ends), 64, 128, ends)


def test_first_name(backend: Backend, seed: int) -> None:
    groups = aligned((1, 3))
    a, b = random_case(groups, 2, 8, 16)
    d = torch.empty(128, 8, dtype=torch.bfloat16, device=backend.device)
    row_map = torch.tensor(groups, dtype=torch.int32, device=backend.device)
    with backend.run():
        deepgemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
            lhs=to(backend.device, a), rhs=to(backend.device, b), out=d, m_indices=row_map
        )
    assert_matches(d, oracle.m_grouped_gemm_nt(a, b, groups), dtype=torch.bfloat16)


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
