"""What the GEMMs refuse, and in which words."""

from typing import Any

import pytest
import torch

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
        ({"recipe": (1, 1, 128)}, NotImplementedError, "recipe must be (1, 128, 128), got (1, 1, "),
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
            "c must be None, got Tensor (accumulating into FP32 is not built yet)",
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
            {"use_psum_layout": True},
            NotImplementedError,
            "use_psum_layout must be False, got True (end offsets are not built yet)",
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
