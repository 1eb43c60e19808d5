"""bf16_gemm_nt against float64, at the edges of its tiles and with poison around its operands."""

import re
from typing import Any

import pytest
import torch

from deepgemm import bf16_gemm_nt
from tests.comparison import assert_matches
from tests.conftest import Backend
from tests.deepgemm.cases import (
    assert_untouched_around,
    bf16_operand,
    float32_sums,
    nan_output,
    surrounded,
)

HAS_KERNEL = True


@pytest.mark.parametrize("output", ["bf16", "fp32", "added-to-c", "added-to-d"])
@pytest.mark.parametrize("majors", ["kk", "mk", "kn", "mn"])
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
        pytest.param(64, 2112, 1024, id="down-projection"),
    ],
)
def test_matches_oracle(
    backend: Backend, seed: int, m: int, n: int, k: int, majors: str, output: str
) -> None:
    a, b, before = bf16_operand(m, k), bf16_operand(n, k), torch.randn(m, n)
    dtype = torch.bfloat16 if output == "bf16" else torch.float32
    d = nan_output(m, n, dtype=dtype, device=backend.device)
    c = {"added-to-c": surrounded(before.to(backend.device)), "added-to-d": d}.get(output)
    if output == "added-to-d":
        d.copy_(before)
    operands = [
        surrounded(operand.T.contiguous()).T if major != "k" else surrounded(operand)
        for operand, major in zip((a, b), majors, strict=True)
    ]
    with backend.run():
        bf16_gemm_nt(*(operand.to(backend.device) for operand in operands), d, c)
    expected = a.double() @ b.double().T
    start = None if c is None else before
    baseline = float32_sums(a, b, start)
    if start is not None:
        expected += start.double()
    assert_matches(d, expected, baseline.to(dtype))
    assert_untouched_around(d)


A, D = torch.ones(4, 64).bfloat16(), torch.ones(4, 16).bfloat16()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"c": D}, TypeError, "d must have dtype float32, got bfloat16 (convert it)"),
        ({"c": D, "d": D.float()}, TypeError, "c must have dtype float32, got bfloat16"),
        (
            {"c": D.float()[:3], "d": D.float()},
            ValueError,
            "c must have shape [m, n] with m=4, got [3, 16] (m was set by a)",
        ),
        ({"a": A.float()}, TypeError, "a must have dtype bfloat16, got float32 (convert it)"),
        ({"a": A[:, :56]}, ValueError, "b must have shape [n, k] with k=56, got [16, 64]"),
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
        ({"d": D.half()}, TypeError, "d must have dtype float32 or bfloat16, got float16"),
        (
            {"a": torch.ones(4, 128).bfloat16()[:, ::2]},
            ValueError,
            "a must have stride 1 in its last dim, got strides [128, 2]",
        ),
        (
            {"a": torch.ones(64, 12).bfloat16().T[:4]},
            ValueError,
            "a must have outer strides that are multiples of 8 elements, got strides",
        ),
        ({"d": D.T.contiguous().T}, ValueError, "d must have stride 1 in its last dim"),
        ({"d": torch.ones(4, 20).bfloat16()[:, 4:]}, ValueError, "d must have outer strides that"),
        ({"d": D.to("meta")}, ValueError, "d must be on cpu like a, got meta"),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"a": A, "b": A.repeat(4, 1), "d": D.clone()} | change
    with pytest.raises(error, match=f"^bf16_gemm_nt: {re.escape(message)}"):
        bf16_gemm_nt(**given)
