"""Layouts of scales against plain Python: by columns, and four exponents in a number."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepgemm
from tests.oracles import fp8_gemm as row_groups
from tests.oracles import packed_scales as oracle


def powers(*shape: int) -> torch.Tensor:
    return torch.exp2(torch.randint(-126, 128, shape).float())


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((5, 3), (1, 8)),
        ((8, 1), (1, 8)),
        ((0, 2), (1, 0)),
        ((3, 0), (1, 4)),
        ((2, 129, 7), (132 * 7, 1, 132)),
    ],
)
def test_by_columns(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    sf = torch.randn(shape)
    made = deepgemm.get_mn_major_tma_aligned_tensor(sf)
    assert made.stride() == strides
    assert torch.equal(made, sf)
    assert deepgemm.get_mn_major_tma_aligned_tensor(made) is made
    assert torch.equal(deepgemm.get_mn_major_tma_aligned_tensor(sf.mT.contiguous().mT), sf)


@settings(max_examples=20)
@given(
    groups=st.none() | st.integers(0, 3),
    mn=st.integers(0, 9),
    k=st.integers(0, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_packed(groups: int | None, mn: int, k: int, seed: int) -> None:
    torch.manual_seed(seed)
    sf = powers(*(() if groups is None else (groups,)), mn, k)
    made = deepgemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(sf)
    assert made.dtype == torch.int32
    assert made.shape == (*sf.shape[:-1], -(-k // 4))
    assert made.stride()[-2:] == (1, -(-mn // 4) * 4)
    if groups is None:
        sf, made = sf[None], made[None]
    for one, packed in zip(sf, made, strict=True):
        assert packed.tolist() == oracle.packed(one.tolist())


def test_packing_clears_rows_between_groups() -> None:
    sf, ends = powers(400, 5), [3, 128, 131]
    padding = torch.tensor(row_groups.row_map_of_ends(ends, 400)) == -1
    sf[padding] = torch.nan
    layout = torch.tensor(ends, dtype=torch.int32)
    made = deepgemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(sf, psum_layout=layout)
    sf[padding] = 0
    assert made.tolist() == oracle.packed(sf.tolist())


@pytest.mark.parametrize("ks", [[], [0], [128], [512, 0, 640, 128]])
def test_packing_groups_of_columns(ks: list[int]) -> None:
    groups = [powers(k // 128, 6) for k in ks]
    sf = torch.cat([torch.empty(0, 6), *groups])
    layout = torch.tensor(ks, dtype=torch.int32)
    made = deepgemm.get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
        sf, layout, ks, gran_k=128, k_alignment=128
    )
    expected = []
    for group in groups:
        columns = oracle.packed(group.T.tolist())
        expected += [list(row) for row in zip(*columns, strict=True)]
    assert made.dtype == torch.int32
    assert made.shape == (len(expected), 6)
    assert made.tolist() == expected


def test_packing_refuses_other_numbers() -> None:
    for wrong in (3.0, -1.0, math.nan):
        for pack in (
            deepgemm.pack_ue8m0_to_int,
            deepgemm.get_mn_major_tma_aligned_packed_ue8m0_tensor,
        ):
            with pytest.raises(ValueError, match=f"must hold powers of two or 0, got {wrong}"):
                pack(torch.tensor([[1.0, 2.0, wrong, 4.0]]))
    with pytest.raises(ValueError, match="columns must be a multiple of 4, got 3"):
        deepgemm.pack_ue8m0_to_int(torch.ones(2, 3))


def test_rounding_up_to_powers_of_two() -> None:
    values = [1.0, 1.0000001, 1.5, 2.0, 448.0, 2.0**-149, 2.0**-130 * 1.5, -0.3, 3e38, 0.0]
    made = deepgemm.ceil_to_ue8m0(torch.tensor(values, dtype=torch.float32)).tolist()
    for value, power in zip(values, made, strict=True):
        size = abs(torch.tensor(value, dtype=torch.float32).item())
        if size == 0 or size > 2.0**127:
            assert power in (0, math.inf)
            continue
        assert math.frexp(power)[0] == 0.5
        assert size <= power < 2 * size
    rest = deepgemm.ceil_to_ue8m0(torch.tensor([math.inf, -math.inf, math.nan])).tolist()
    assert rest[:2] == [math.inf, math.inf]
    assert math.isnan(rest[2])


@pytest.mark.parametrize(
    ("shape", "mn", "recipe", "is_sfa", "strides"),
    [
        ((5, 3), 5, (1, 128), None, (1, 8)),
        ((5, 3), 5, (1, 128, 128), True, (1, 8)),
        ((1, 3), 5, (1, 128, 128), False, (3, 1)),
        ((5, 3), 5, (1, 1, 128), False, (1, 8)),
        ((2, 3), 130, (128, 128), None, (3, 1)),
    ],
)
def test_layout_for_hopper(
    shape: tuple[int, int],
    mn: int,
    recipe: tuple[int, ...],
    is_sfa: bool | None,
    strides: tuple[int, int],
) -> None:
    sf = torch.randn(shape)
    for groups in (None, 4):
        given = sf if groups is None else sf.repeat(4, 1, 1)
        made = deepgemm.transform_sf_into_required_layout(
            given, mn, 300, recipe, num_groups=groups, is_sfa=is_sfa, disable_ue8m0_cast=True
        )
        assert torch.equal(made, given)
        assert made.stride()[-2:] == strides


def test_layout_for_hopper_refuses() -> None:
    transform = deepgemm.transform_sf_into_required_layout
    with pytest.raises(ValueError, match=r"sf must have shape \[5, 3\], got \[5, 2\]"):
        transform(torch.ones(5, 2), 5, 300, (1, 128))
    with pytest.raises(ValueError, match="is_sfa must be given with a recipe of three, got None"):
        transform(torch.ones(5, 3), 5, 300, (1, 128, 128))
    with pytest.raises(NotImplementedError, match=r"recipe must have blocks of \(1, 128\) or"):
        transform(torch.ones(5, 10), 5, 300, (1, 32))
    with pytest.raises(TypeError, match="sf must have dtype float32, got int32"):
        transform(torch.ones(5, 3, dtype=torch.int32), 5, 300, (1, 128))
