"""bf16_gemm_nt against float64, at the edges of its tiles and with poison around its operands."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

import csrc
from deepgemm import bf16_gemm_nt
from tests.comparison import assert_matches
from tests.conftest import Backend

HAS_KERNEL = True


def poisoned(rows: int, columns: int, device: torch.device) -> Tensor:
    """NaN, with a margin of 8 columns and 2 rows that belongs to nobody."""
    around = torch.full((rows + 4, columns + 16), torch.nan, dtype=torch.bfloat16, device=device)
    return around[2 : rows + 2, 8 : columns + 8]


def operand(rows: int, k: int, device: torch.device) -> Tensor:
    """Random numbers, each row of another size, inside of poison."""
    made = poisoned(rows, k, device)
    made.copy_(torch.randn(rows, k) * torch.exp2(torch.rand(rows, 1) * 12 - 6))
    return made


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        pytest.param(0, 128, 64, id="no-rows"),
        pytest.param(1, 0, 64, id="no-columns"),
        pytest.param(2, 8, 0, id="nothing-to-sum"),
        pytest.param(1, 8, 8, id="smallest"),
        pytest.param(127, 120, 56, id="below-one-tile"),
        pytest.param(128, 128, 64, id="one-tile"),
        pytest.param(129, 136, 72, id="above-one-tile"),
        pytest.param(257, 264, 328, id="two-clusters-and-a-ring-that-turns"),
        pytest.param(64, 2112, 7168, id="down-projection"),
    ],
)
def test_matches_oracle(backend: Backend, seed: int, m: int, n: int, k: int) -> None:
    a, b = operand(m, k, backend.device), operand(n, k, backend.device)
    d = poisoned(m, n, backend.device)
    with backend.run():
        bf16_gemm_nt(a, b, d)
    expected = a.cpu().double() @ b.cpu().double().T
    assert_matches(d, expected, dtype=torch.bfloat16)
    d.fill_(torch.nan)
    around = d._base
    assert around is not None
    assert around.isnan().all()


def test_the_kernel_runs_where_it_is_said_to() -> None:
    a, b = torch.ones(4, 64).bfloat16(), torch.ones(8, 64).bfloat16()
    d = torch.empty(4, 8, dtype=torch.bfloat16)
    with csrc.simulate(seed=5) as simulation:
        bf16_gemm_nt(a, b, d)
    assert simulation.report["num_wgmmas"] > 0


A, D = torch.ones(4, 64).bfloat16(), torch.ones(4, 16).bfloat16()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"c": D}, NotImplementedError, "c must be None, got Tensor (accumulating"),
        ({"a": A.float()}, TypeError, "a must have dtype bfloat16, got float32 (convert it)"),
        ({"a": A[:, :60]}, ValueError, "b must have shape [n, k] with k=60, got [16, 64]"),
        (
            {"a": A[:, :60], "b": A.repeat(4, 1)[:, :60]},
            ValueError,
            "k must be a multiple of 8, got 60 (pad a and b with zero columns)",
        ),
        (
            {"b": A.repeat(4, 1)[:15], "d": D[:, :15]},
            ValueError,
            "n must be a multiple of 8, got 15 (pad b with zero rows)",
        ),
        ({"d": D.float()}, TypeError, "d must have dtype bfloat16, got float32"),
        ({"d": D.T.contiguous().T}, ValueError, "d must have stride 1 in its last dim"),
        ({"d": torch.ones(4, 20).bfloat16()[:, 4:]}, ValueError, "d must have outer strides that"),
        ({"d": D.to("meta")}, ValueError, "d must be on cpu like a, got meta"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"a": A, "b": A.repeat(4, 1), "d": D.clone()} | change
    with pytest.raises(error, match=f"^bf16_gemm_nt: {re.escape(message)}"):
        bf16_gemm_nt(**given)
