"""What the GEMMs refuse, and in which words."""

from typing import Any

import pytest
import torch

import deepgemm
from deepgemm import fp8_gemm_nt, m_grouped_fp8_gemm_nt_contiguous

E4M3 = torch.float8_e4m3fn


def dense_call() -> dict[str, Any]:
    return {
        "a": (torch.zeros(128, 256, dtype=E4M3), torch.ones(128, 2)),
        "b": (torch.zeros(136, 256, dtype=E4M3), torch.ones(2, 2)),
        "d": torch.zeros(128, 136, dtype=torch.bfloat16),
    }


def grouped_call() -> dict[str, Any]:
    return dense_call() | {
        "b": (torch.zeros(3, 136, 256, dtype=E4M3), torch.ones(3, 2, 2)),
        "grouped_layout": torch.zeros(128, dtype=torch.int32),
    }


def row_map(**values: int) -> torch.Tensor:
    """Group 0 everywhere but in the rows named `row<index>`."""
    layout = torch.zeros(128, dtype=torch.int32)
    for row, group in values.items():
        layout[int(row.removeprefix("row"))] = group
    return layout


def ends(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


A_SCALE = torch.ones(128, 2)
ONE_GROUP = "hold one group, or -1, in each block of 128 rows"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": A_SCALE}, TypeError, "a must be a pair (data, scale), got Tensor"),
        ({"a": (A_SCALE, A_SCALE)}, TypeError, "a[0] must have dtype float8_e4m3fn, got float32"),
        (
            {"a": (torch.zeros(128, 100, dtype=E4M3), A_SCALE)},
            ValueError,
            "k must be a multiple of 16, got 100 (pad a and b with zero columns)",
        ),
        (
            {"a": (torch.zeros(256, 128, dtype=E4M3).T, A_SCALE)},
            ValueError,
            "a[0] must have stride 1 in its last dim, got strides [1, 128]",
        ),
        (
            {"a": (torch.zeros(128, 256, dtype=E4M3), torch.ones(128, 1))},
            ValueError,
            "a[1] must have shape [128, 2], got [128, 1]",
        ),
        (
            {"a": (torch.zeros(128, 256, dtype=E4M3), A_SCALE.bfloat16())},
            TypeError,
            "a[1] must have dtype float32, got bfloat16",
        ),
        (
            {"d": torch.zeros(128, 128, dtype=torch.bfloat16)},
            ValueError,
            "d must have shape [m, n] with n=136, got [128, 128] (n was set by b[0])",
        ),
        ({"d": torch.zeros(128, 136)}, TypeError, "d must have dtype bfloat16, got float32"),
        (
            {"d": torch.zeros(128, 140, dtype=torch.bfloat16)[:, :136]},
            ValueError,
            "d must have outer strides that are multiples of 8 elements, got strides [140, 1]",
        ),
        (
            {"d": torch.zeros(128 * 136 + 1, dtype=torch.bfloat16)[1:].view(128, 136)},
            ValueError,
            "d must start at a multiple of 16 bytes, got one 2 bytes off (clone it)",
        ),
        (
            {"d": torch.zeros(128, 136, dtype=torch.bfloat16, device="meta")},
            ValueError,
            "d must be on cpu like a[0], got meta (move it with .to())",
        ),
        ({"recipe": (1, 128, 64)}, NotImplementedError, "recipe must be (1, 128, 128)"),
        (
            {"recipe_a": (1, 64), "recipe_b": (128, 128)},
            NotImplementedError,
            "recipe_a must be (1, 128), got (1, 64) (no other scale blocks are built)",
        ),
        (
            {"recipe_a": (1, 128), "recipe_b": (64, 128)},
            NotImplementedError,
            "recipe_b must be (128, 128)",
        ),
        ({"recipe_a": (1, 128)}, ValueError, "recipe_b must be given with the other one, got None"),
        (
            {"recipe": (1, 128, 128), "recipe_a": (1, 128), "recipe_b": (128, 128)},
            ValueError,
            "recipe must be left out when recipe_a and recipe_b are given, got (1, 128, 128)",
        ),
    ],
)
@pytest.mark.parametrize("grouped", [False, True], ids=["dense", "grouped"])
def test_refuses(
    grouped: bool, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    op = m_grouped_fp8_gemm_nt_contiguous if grouped else fp8_gemm_nt
    call = grouped_call() if grouped else dense_call()
    with pytest.raises(error) as caught:
        op(**call | change)
    assert str(caught.value).startswith(f"{op.__name__}: {message}")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"b": (torch.zeros(100, 256, dtype=E4M3), torch.ones(1, 2))},
            ValueError,
            "n must be a multiple of 8, got 100 (pad b with zero rows)",
        ),
        (
            {"b": (torch.zeros(136, 128, dtype=E4M3), torch.ones(2, 1))},
            ValueError,
            "b[0] must have shape [n, k] with k=256, got [136, 128] (k was set by a[0])",
        ),
        (
            {"c": torch.zeros(128, 136, dtype=torch.bfloat16)},
            NotImplementedError,
            (
                "c must be None where the scales of b are (128, 128), got Tensor"
                " (recipe=(1, 1, 128) accumulates)"
            ),
        ),
        (
            {"recipe": (1, 1, 128), "d": torch.zeros(128, 136)},
            NotImplementedError,
            (
                "c must be given where the scales of b are (1, 128), got None"
                " (pass d as c too, filled with zeros)"
            ),
        ),
        (
            {"recipe": (1, 1, 128), "d": torch.zeros(128, 136), "c": torch.zeros(128, 136)},
            ValueError,
            "b[1] must have shape [136, 2], got [2, 2] (check its sizes)",
        ),
    ],
)
def test_dense_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        fp8_gemm_nt(**dense_call() | change)
    assert str(caught.value) == f"fp8_gemm_nt: {message}"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"recipe": (1, 1, 128)},
            NotImplementedError,
            "recipe must be (1, 128, 128), got (1, 1, 128) (no other scale blocks are built)",
        ),
        (
            {"use_psum_layout": True},
            ValueError,
            (
                "grouped_layout must have shape [num_groups] with num_groups=3, got [128]"
                " (num_groups was set by b[0])"
            ),
        ),
        (
            {"use_psum_layout": True, "grouped_layout": ends(5, 3, 128)},
            ValueError,
            "grouped_layout[1] must be between 5 and 128, got 3 (ends grow, up to the rows of a)",
        ),
        (
            {"use_psum_layout": True, "grouped_layout": ends(5, 100, 129)},
            ValueError,
            (
                "grouped_layout[2] must be between 100 and 128, got 129"
                " (ends grow, up to the rows of a)"
            ),
        ),
        (
            {"grouped_layout": row_map(row0=1, row1=-1, **{f"row{i}": 1 for i in range(2, 128)})},
            ValueError,
            (
                "grouped_layout must have padding behind the rows of a group in each block of 128"
                " rows, got -1 in row 1 (move it to the end)"
            ),
        ),
        (
            {"grouped_layout": None},
            TypeError,
            "grouped_layout must be given once, got neither (m_indices is its other name)",
        ),
        (
            {"m_indices": row_map()},
            TypeError,
            "grouped_layout must be given once, got both (m_indices is its other name)",
        ),
        (
            {"grouped_layout": row_map().long()},
            TypeError,
            "grouped_layout must have dtype int32, got int64 (convert it)",
        ),
        (
            {"grouped_layout": row_map(row127=3)},
            ValueError,
            "grouped_layout must be between -1 and 2, got 3 (use -1 for padding)",
        ),
        (
            {"grouped_layout": row_map(row0=-2)},
            ValueError,
            "grouped_layout must be between -1 and 2, got -2 (use -1 for padding)",
        ),
        (
            {"grouped_layout": row_map(row5=-1, row9=2)},
            ValueError,
            f"grouped_layout must {ONE_GROUP}, got groups 0 and 2 in one (pad each group)",
        ),
    ],
)
def test_grouped_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        m_grouped_fp8_gemm_nt_contiguous(**grouped_call() | change)
    assert str(caught.value) == f"m_grouped_fp8_gemm_nt_contiguous: {message}"


def test_names_what_a_device_lacks() -> None:
    call = {
        name: tuple(part.to("meta") for part in value)
        if isinstance(value, tuple)
        else value.to("meta")
        for name, value in grouped_call().items()
    }
    with pytest.raises(NotImplementedError, match="the kernel of this op for meta is not built"):
        m_grouped_fp8_gemm_nt_contiguous(**call)
    del call["grouped_layout"]
    call["b"] = tuple(part[0] for part in call["b"])
    with pytest.raises(NotImplementedError, match="the kernel of this op for meta is not built"):
        fp8_gemm_nt(**call)


def masked_call() -> dict[str, Any]:
    return {
        "a": (torch.zeros(3, 20, 256, dtype=E4M3), torch.ones(3, 20, 2)),
        "b": (torch.zeros(3, 136, 256, dtype=E4M3), torch.ones(3, 2, 2)),
        "d": torch.zeros(3, 20, 136, dtype=torch.bfloat16),
        "masked_m": ends(0, 20, 7),
        "expected_m": 9,
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"masked_m": ends(0, 21, 7)},
            ValueError,
            "masked_m must be between 0 and 20, got 21 (count the rows of each group)",
        ),
        (
            {"masked_m": ends(0, 20, -1)},
            ValueError,
            "masked_m must be between 0 and 20, got -1 (count the rows of each group)",
        ),
        (
            {"masked_m": ends(0, 20)},
            ValueError,
            (
                "masked_m must have shape [num_groups] with num_groups=3, got [2]"
                " (num_groups was set by a[0])"
            ),
        ),
        (
            {"masked_m": ends(0, 20, 7).long()},
            TypeError,
            "masked_m must have dtype int32, got int64 (convert it)",
        ),
        (
            {"a": (torch.zeros(20, 256, dtype=E4M3), torch.ones(20, 2))},
            ValueError,
            "a[0] must have shape [num_groups, m, k], got [20, 256] (reshape it)",
        ),
    ],
)
def test_masked_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        deepgemm.m_grouped_fp8_gemm_nt_masked(**masked_call() | change)
    assert str(caught.value) == f"m_grouped_fp8_gemm_nt_masked: {message}"


def k_grouped_call() -> dict[str, Any]:
    return {
        "a": (torch.zeros(16 * 384, dtype=E4M3), torch.ones(16, 3)),
        "b": (torch.zeros(24 * 384, dtype=E4M3), torch.ones(24, 3)),
        "d": torch.zeros(2, 16, 24),
        "c": torch.zeros(2, 16, 24),
        "ks_cpu": [128, 256],
        "grouped_layout": ends(128, 256),
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"c": None}, NotImplementedError, "c must be given, got None (pass d as c too, filled"),
        (
            {"recipe": (1, 128, 128)},
            NotImplementedError,
            "recipe must be (1, 1, 128), got (1, 128, 128) (no other scale blocks are built)",
        ),
        (
            {"use_psum_layout": True},
            NotImplementedError,
            "use_psum_layout must be False, got True (end offsets of columns are not built)",
        ),
        (
            {"ks_cpu": None},
            TypeError,
            "ks_cpu must be given once, got neither (ks is its other name)",
        ),
        (
            {"ks_tensor": ends(128, 256)},
            TypeError,
            "grouped_layout must be given once, got both (ks_tensor is its other name)",
        ),
        (
            {"ks_cpu": [128, 250]},
            ValueError,
            "ks_cpu[1] must be a multiple of 128, 0 or more, got 250 (pad each group with zeros)",
        ),
        ({"ks_cpu": [-128, 512]}, ValueError, "ks_cpu[0] must be a multiple of 128, 0 or more"),
        (
            {"ks_cpu": [384]},
            ValueError,
            "ks_cpu must have one size for each of 2 groups, got 1 (check d)",
        ),
        (
            {"grouped_layout": ends(256, 128)},
            ValueError,
            "grouped_layout must be ks_cpu = [128, 256], got [256, 128] (copy it from there)",
        ),
        (
            {"a": (torch.zeros(16, 384, dtype=E4M3), torch.ones(16, 3))},
            ValueError,
            "a[0] must have shape [6144], got [16, 384] (reshape it)",
        ),
        (
            {"b": (torch.zeros(24 * 384, dtype=E4M3), torch.ones(3, 24))},
            ValueError,
            "b[1] must have shape [24, 3], got [3, 24] (check its sizes)",
        ),
        (
            {"d": torch.zeros(2, 16, 24, dtype=torch.bfloat16)},
            TypeError,
            "d must have dtype float32, got bfloat16 (convert it)",
        ),
    ],
)
def test_k_grouped_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        deepgemm.k_grouped_fp8_gemm_nt_contiguous(**k_grouped_call() | change)
    assert str(caught.value).startswith(f"k_grouped_fp8_gemm_nt_contiguous: {message}")


def test_bf16_columns_must_add_up() -> None:
    a, b = torch.zeros(192, 8).bfloat16(), torch.zeros(192, 16).bfloat16()
    for ks, rule in (
        ([64, 64], "ks_cpu must sum to the 192 rows of a, got 128"),
        ([100, 92], r"ks_cpu\[0\] must be a multiple of 64, 0 or more, got 100"),
    ):
        with pytest.raises(ValueError, match=f"k_grouped_bf16_gemm_tn_contiguous: {rule}"):
            deepgemm.k_grouped_bf16_gemm_tn_contiguous(a, b, torch.zeros(2, 8, 16), ks, ends(*ks))


def test_first_names_speak_of_their_own_arguments() -> None:
    data, scale = torch.zeros(8, 128, dtype=E4M3), torch.ones(8, 1)
    d = torch.zeros(8, 8, dtype=torch.bfloat16)
    with pytest.raises(TypeError, match=r"gemm_fp8_fp8_bf16_nt: lhs must be a pair"):
        deepgemm.gemm_fp8_fp8_bf16_nt(data, (data, scale), d)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"gemm_fp8_fp8_bf16_nt: rhs\[1\] must have shape \[1, 1"):
        deepgemm.gemm_fp8_fp8_bf16_nt((data, scale), (data, scale), d)
    with pytest.raises(TypeError, match="wgrad_gemm_fp8_fp8_fp32_nt: out must have dtype float32"):
        deepgemm.wgrad_gemm_fp8_fp8_fp32_nt((data, scale), (data, scale), d)


def test_sizes_beyond_32_bits() -> None:
    data = torch.zeros(16, dtype=E4M3).expand(2**31, 16)
    scale = torch.ones(1, 1).expand(2**31, 1)
    small = torch.zeros(8, 16, dtype=E4M3), torch.ones(1, 1)
    d = torch.zeros(8, dtype=torch.bfloat16).expand(2**31, 8)
    message = r"m must be between 0 and 2147483647, got 2147483648 \(split the product\)"
    with pytest.raises(ValueError, match=message):
        fp8_gemm_nt((data, scale), small, d)


def test_c_may_be_d_but_not_another_view_of_it() -> None:
    pair = torch.zeros(16, 128, dtype=E4M3), torch.ones(16, 1)
    d = torch.zeros(64, 64)
    fp8_gemm_nt(pair, pair, d[:16, :16], d[:16, :16], recipe=(1, 1, 128))
    with pytest.raises(ValueError, match="c must have the strides of d where it is the same mem"):
        fp8_gemm_nt(pair, pair, d[:16, :16], d[::2][:16, :16], recipe=(1, 1, 128))
