"""Which kernel a call asks for, and with what: kernels are replaced by recorders."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import csrc
import deepgemm
from deepgemm import bf16_kernels, fp8_kernels
from tests.deepgemm.cases import bf16_operand, fp8_operand

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Names, positions and keywords of the kernels that were asked for."""
    made: Calls = []

    def recorder(name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: made.append((name, args, kwargs))

    for name in ("gemm_nt", "accumulate_nt", "k_grouped_accumulate_nt"):
        monkeypatch.setattr(fp8_kernels, name, recorder(name))
    monkeypatch.setattr(bf16_kernels, "gemm", recorder("gemm"), raising=False)
    return made


def only_call(calls: Calls, name: str, *operands: Any, **keywords: Any) -> None:
    """Raises unless this one kernel got views of this memory, and these keywords."""
    assert [call[0] for call in calls] == [name]
    _, args, kwargs = calls[0]
    assert len(args) == len(operands)
    for got, expected in zip(args, operands, strict=True):
        if isinstance(expected, Tensor):
            assert got.data_ptr() == expected.data_ptr()
            assert got.shape == expected.shape
            assert got.stride() == expected.stride()
        else:
            assert got == expected
    assert kwargs.keys() == keywords.keys()
    for key, expected in keywords.items():
        assert kwargs[key] is expected if isinstance(expected, Tensor) else kwargs[key] == expected


def test_dense(calls: Calls) -> None:
    a, b = fp8_operand(8, 128, 1), fp8_operand(16, 128, 128)
    d = torch.zeros(8, 16).bfloat16()
    with csrc.simulate():
        deepgemm.fp8_gemm_tn((a[0].T, a[1].T), (b[0].T, b[1].T), d)
    only_call(calls, "gemm_nt", *a, *b, d)


def test_accumulate(calls: Calls) -> None:
    a, b = fp8_operand(8, 128, 1), fp8_operand(16, 128, 1)
    c, d = torch.ones(8, 16), torch.zeros(8, 16)
    with csrc.simulate():
        deepgemm.fp8_gemm_nt(a, b, d, c, recipe=(1, 1, 128))
    only_call(calls, "accumulate_nt", *a, *b, c, d)


@pytest.mark.parametrize("use_psum_layout", [False, True])
def test_contiguous(calls: Calls, use_psum_layout: bool) -> None:
    a, b = fp8_operand(128, 128, 1), fp8_operand(16, 128, 128, 2)
    layout = torch.tensor([5, 128] if use_psum_layout else [1] * 128, dtype=torch.int32)
    d = torch.zeros(128, 16).bfloat16()
    with csrc.simulate():
        deepgemm.m_grouped_fp8_gemm_nt_contiguous(
            a, b, d, layout, use_psum_layout=use_psum_layout, expected_m_for_psum_layout=7
        )
    grouping = "prefix_sum" if use_psum_layout else "row_map"
    only_call(calls, "gemm_nt", *a, *b, d, grouping=grouping, layout=layout, expected_m=7)


def test_masked(calls: Calls) -> None:
    a, b = fp8_operand(8, 128, 1, 2), fp8_operand(16, 128, 128, 2)
    layout, d = torch.tensor([5, 8], dtype=torch.int32), torch.zeros(2, 8, 16).bfloat16()
    with csrc.simulate():
        deepgemm.fp8_m_grouped_gemm_nt_masked(a, b, d, layout, 6)
    only_call(calls, "gemm_nt", *a, *b, d, grouping="masked", layout=layout, expected_m=6)


def test_k_grouped(calls: Calls) -> None:
    a, b = (
        torch.zeros(8 * 256, dtype=torch.float8_e4m3fn),
        torch.zeros(16 * 256).to(torch.float8_e4m3fn),
    )
    scales = torch.ones(8, 2), torch.ones(16, 2)
    c, d = torch.ones(3, 8, 16), torch.zeros(3, 8, 16)
    layout = torch.tensor([128, 0, 128], dtype=torch.int32)
    with csrc.simulate():
        deepgemm.k_grouped_fp8_gemm_nt_contiguous(
            (a, scales[0]), (b, scales[1]), d, [128, 0, 128], layout, c
        )
    only_call(calls, "k_grouped_accumulate_nt", a, scales[0], b, scales[1], c, d, [128, 0, 128])
    # What has nothing to sum is not the kernel's.
    assert (d[1] == 1).all()


def test_bf16(calls: Calls) -> None:
    a, b, d = bf16_operand(64, 8), bf16_operand(64, 16), torch.zeros(8, 16)
    with csrc.simulate():
        deepgemm.bf16_gemm_tn(a, b, d, d)
    only_call(calls, "gemm", a.T, b.T, d, d)


def test_grouped_bf16(calls: Calls) -> None:
    a, b = bf16_operand(2, 8, 64), bf16_operand(2, 16, 64)
    layout, d = torch.tensor([5, 8], dtype=torch.int32), torch.zeros(2, 8, 16).bfloat16()
    with csrc.simulate():
        deepgemm.bf16_m_grouped_gemm_nt_masked(a, b, d, layout, 6)
    only_call(calls, "gemm", a, b, None, d, grouping="masked", layout=layout, expected_m=6)


def test_bf16_columns(calls: Calls) -> None:
    a, b, d = bf16_operand(192, 8), bf16_operand(192, 16), torch.full((3, 8, 16), torch.nan)
    layout = torch.tensor([64, 0, 128], dtype=torch.int32)
    with csrc.simulate():
        deepgemm.k_grouped_bf16_gemm_tn_contiguous(a, b, d, [64, 0, 128], layout)
    only_call(calls, "gemm", a.T, b.T, None, d, grouping="along_k", layout=layout)
    assert (d[1] == 0).all()


def test_nothing_to_do_launches_nothing(calls: Calls) -> None:
    a, b = fp8_operand(8, 0, 1), fp8_operand(16, 0, 128)
    d = torch.ones(8, 16).bfloat16()
    total = torch.ones(8, 16)
    with csrc.simulate():
        deepgemm.fp8_gemm_nt(a, b, d)
        deepgemm.fp8_gemm_nt(a, fp8_operand(16, 0, 1), total, total, recipe=(1, 1, 128))
        deepgemm.fp8_gemm_nt(fp8_operand(0, 128, 1), fp8_operand(16, 128, 128), d[:0])
        deepgemm.bf16_gemm_nt(bf16_operand(8, 0), bf16_operand(16, 0), d)
    assert calls == []
    assert (d == 0).all()
    assert (total == 1).all()


@pytest.mark.parametrize("name", ["gemm_nt", "gemm"])
def test_outside_of_a_simulation_kernels_are_left_alone(calls: Calls, name: str) -> None:
    d = torch.zeros(8, 16).bfloat16()
    if name == "gemm":
        deepgemm.bf16_gemm_nt(torch.ones(8, 64).bfloat16(), torch.ones(16, 64).bfloat16(), d)
    else:
        ones = torch.ones(16, 128).to(torch.float8_e4m3fn)
        deepgemm.fp8_gemm_nt((ones[:8], torch.ones(8, 1) / 2), (ones, torch.ones(1, 1)), d)
    assert calls == []
    assert (d == 64).all()
