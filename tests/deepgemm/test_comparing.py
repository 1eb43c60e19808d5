"""deepgemm.testing: differences, bytes, conditions, and that timing calls what it times."""

import math
import os
import re
from pathlib import Path

import pytest
import torch

from deepgemm import testing


def test_difference() -> None:
    x = torch.randn(64, generator=torch.Generator().manual_seed(1))
    assert testing.calc_diff(x, x) == pytest.approx(0, abs=1e-15)
    assert testing.calc_diff(x, -x) == pytest.approx(2)
    assert testing.calc_diff(torch.zeros(3), torch.zeros(3)) == 0
    # One side is c times the other: 1 - 2c / (1 + c²).
    assert testing.calc_diff(x, 3 * x) == pytest.approx(1 - 6 / 10)
    # Half the square of a relative error that float32 sums would bury.
    assert testing.calc_diff(x, x * (1 + 2**-12)) == pytest.approx(2**-25, rel=1e-3)


def test_bytes() -> None:
    pair = torch.zeros(2, 3, dtype=torch.float8_e4m3fn), torch.zeros(5)
    assert testing.count_bytes(pair, None, [torch.zeros(1).double(), pair]) == 2 * (6 + 20) + 8
    assert testing.count_bytes() == 0


def test_bitwise_equal() -> None:
    nan = torch.tensor([math.nan, 0.0])
    testing.assert_bitwise_equal(nan, nan.clone())
    testing.assert_bitwise_equal(torch.empty(0), torch.empty(0))
    with pytest.raises(AssertionError, match=re.escape("1 of 2 elements differ, the first is")):
        testing.assert_bitwise_equal(nan, torch.tensor([math.nan, -0.0]))
    with pytest.raises(AssertionError, match=r"dtype: torch.float32 is not torch.float64"):
        testing.assert_bitwise_equal(nan, nan.double())
    with pytest.raises(AssertionError, match="shape"):
        testing.assert_bitwise_equal(nan, nan[:1])


def test_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWEEK_TEST_ONLY", "here")
    calls: list[str | None] = []

    def record() -> str:
        calls.append(os.environ.get("OPENWEEK_TEST_ONLY"))
        return "ran"

    assert testing.test_filter(lambda: False)(record)() is None
    assert testing.test_filter(lambda: True)(record)() == "ran"
    assert testing.ignore_env("OPENWEEK_TEST_ONLY", lambda: True)(record)() == "ran"
    assert testing.ignore_env("OPENWEEK_TEST_ONLY", lambda: False)(record)() == "ran"
    assert calls == ["here", None, "here"]
    assert os.environ["OPENWEEK_TEST_ONLY"] == "here"


def test_bench_counts_its_calls() -> None:
    calls: list[int] = []
    assert testing.bench(lambda: calls.append(1), num_warmups=2, num_tests=3) > 0
    assert len(calls) == 5
    with pytest.raises(ValueError, match="num_tests must be between 1 and"):
        testing.bench(lambda: None, num_tests=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="names of operators (this machine has a GPU)")
def test_bench_by_name(tmp_path: Path) -> None:
    x = torch.ones(8, 8)
    trace = tmp_path / "trace.json"
    single = testing.bench_kineto(lambda: x @ x, "aten::mm", 3, trace_path=str(trace))
    assert isinstance(single, float)
    assert single > 0
    assert trace.stat().st_size > 0
    several = testing.bench_kineto(lambda: x @ x, ("aten::mm", "no such kernel"), 3)
    assert isinstance(several, tuple)
    assert several[0] > 0
    assert several[1] == 0
    with pytest.raises(ValueError, match="kernel_names must each fit one kernel, got aten::"):
        testing.bench_kineto(lambda: x @ x, "aten::", 3)
    both = testing.bench_kineto(lambda: x @ x, "aten::", 3, with_multiple_kernels=True)
    assert isinstance(both, float)
    assert both > 0


def test_architecture() -> None:
    assert testing.get_arch_major() == (
        torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 9
    )
