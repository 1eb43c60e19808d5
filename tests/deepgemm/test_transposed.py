"""nn, tn and tt are nt on transposed views, for FP8, BF16 and their grouped forms."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import deepgemm
from tests.comparison import assert_matches
from tests.deepgemm.cases import aligned, bf16_operand, fp8_operand
from tests.oracles import fp8_gemm as oracle

M, N, K = 24, 40, 272
LAYOUTS = pytest.mark.parametrize("layout", ["nt", "nn", "tn", "tt"])


def flip_both(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0].transpose(-1, -2), pair[1].transpose(-1, -2)


@LAYOUTS
@pytest.mark.parametrize("accumulate", [False, True])
def test_fp8(layout: str, accumulate: bool, seed: int) -> None:
    block_rows = 1 if accumulate else 128
    a, b = fp8_operand(M, K, 1), fp8_operand(N, K, block_rows)
    d = torch.full((M, N), 3.0, dtype=torch.float32 if accumulate else torch.bfloat16)
    given = {
        "a": flip_both(a) if layout[0] == "t" else a,
        "b": flip_both(b) if layout[1] == "n" else b,
        "d": d,
    }
    if accumulate:
        given |= {"c": d, "recipe": (1, 1, 128)}
    getattr(deepgemm, f"fp8_gemm_{layout}")(**given)
    expected = oracle.gemm_nt(a, b, block_rows) + (3 if accumulate else 0)
    assert_matches(d, expected, expected.float() if accumulate else None, dtype=d.dtype, rtol=0.01)


@LAYOUTS
@pytest.mark.parametrize("contiguous", [False, True], ids=["k-major", "mn-major"])
def test_bf16(layout: str, contiguous: bool, seed: int) -> None:
    a, b = bf16_operand(M, K), bf16_operand(N, K)
    d = torch.full((M, N), torch.nan, dtype=torch.bfloat16)
    given = [a.T if layout[0] == "t" else a, b.T if layout[1] == "n" else b]
    if contiguous:
        given = [operand.contiguous() for operand in given]
    getattr(deepgemm, f"bf16_gemm_{layout}")(*given, d)
    assert_matches(d, a.double() @ b.double().T, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("kind", "operand"), [("fp8", lambda: fp8_operand(N, K, 128, 2)), ("bf16", None)]
)
def test_grouped(kind: str, operand: Callable[[], Any] | None, seed: int) -> None:
    groups = aligned((1, 5), (0, 2))
    row_map = torch.tensor(groups, dtype=torch.int32)
    d = torch.full((256, N), torch.nan, dtype=torch.bfloat16)
    if operand:
        a, b = fp8_operand(256, K, 1), operand()
        deepgemm.m_grouped_fp8_gemm_nn_contiguous(a, flip_both(b), d, m_indices=row_map)
        assert_matches(d, oracle.m_grouped_gemm_nt(a, b, groups), dtype=torch.bfloat16)
    else:
        x, w = bf16_operand(256, K), bf16_operand(2, K, N)
        deepgemm.m_grouped_bf16_gemm_nn_contiguous(x, w, d, row_map)
        weights = [weight.double().T for weight in w]
        assert_matches(d, oracle.grouped(x.double(), weights, groups), dtype=torch.bfloat16)
    assert kind in ("fp8", "bf16")


@pytest.mark.parametrize("layout", ["nn", "tn", "tt"])
def test_fp8_must_run_along_k(layout: str) -> None:
    a, b = fp8_operand(M, K, 1), fp8_operand(N, K, 128)
    given = [flip_both(a) if layout[0] == "t" else a, flip_both(b) if layout[1] == "n" else b]
    name = "a" if layout == "tt" else "b"
    index = 0 if name == "a" else 1
    given[index] = (given[index][0].contiguous(), given[index][1])
    d = torch.zeros(M, N, dtype=torch.bfloat16)
    op = f"fp8_gemm_{layout}"
    with pytest.raises(ValueError, match=rf"{op}: {name}\[0\]\.T must have stride 1 in its last"):
        getattr(deepgemm, op)(*given, d)
