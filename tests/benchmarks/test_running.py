"""Running a case: correctness comes first, and rates follow from known times."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.case import Measurement, label, worst_row_error
from benchmarks.harness import Row, geomeans, rate, run_case, shapes_for, why_not
from benchmarks.roofline import Work
from benchmarks.timing import Timing
from tests.benchmarks.made_up import CPU, PEAKS, Rows, double_case


def _run(case: Any, **settings: Any) -> list[Row]:
    return list(run_case(case, "tiny", CPU, PEAKS, budget_s=0.002, **settings))


def test_right_result_is_timed_beside_the_peers_that_are_right() -> None:
    rows = _run(double_case())
    assert [(row.shape, row.status) for row in rows] == [("rows=1", "ok"), ("rows=3", "ok")]
    for row in rows:
        assert row.error == 0
        assert row.ratios.keys() == row.peers.keys() == {"adding"}
        assert row.notes[:2] == (
            "tripling left out: its error is 5.0e-01",
            "broken left out: RuntimeError: no such engine",
        )


def _off_by_one_element(inputs: dict[str, Any]) -> torch.Tensor:
    out: torch.Tensor = inputs["x"] * 2
    out[-1, -1] *= 1.01
    return out


def _one_nan(inputs: dict[str, Any]) -> torch.Tensor:
    out: torch.Tensor = inputs["x"] * 2
    out[0, 0] = math.nan
    return out


@pytest.mark.parametrize(
    "planted",
    [
        pytest.param(_off_by_one_element, id="one element off by 1%"),
        pytest.param(_one_nan, id="one NaN"),
        pytest.param(lambda inputs: inputs["x"], id="not doubled"),
        pytest.param(lambda inputs: inputs["x"][:-1] * 2, id="a row short"),
        pytest.param(lambda inputs: torch.zeros_like(inputs["x"]), id="zeros"),
    ],
)
def test_wrong_result_is_refused_and_not_timed(planted: Callable[..., torch.Tensor]) -> None:
    calls = 0

    def ours(inputs: dict[str, Any]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return planted(inputs)

    rows = _run(double_case(ours=ours))
    assert calls == len(rows) == 2
    for row in rows:
        assert row.status == "wrong"
        assert "above 1.0e-03, so it was not timed" in row.reason
        assert row.p50_us is None
        assert not row.ratios


def test_a_shape_that_raises_fails_alone() -> None:
    def ours(inputs: dict[str, Any]) -> Any:
        if len(inputs["x"]) == 1:
            raise ZeroDivisionError("first line\nsecond")
        return inputs["x"] * 2

    first, second = _run(double_case(ours=ours))
    assert (first.status, first.reason) == ("failed", "ZeroDivisionError: first line")
    assert second.status == "ok"


def test_what_is_not_built_yet_is_not_available() -> None:
    def ours(_: dict[str, Any]) -> Any:
        raise NotImplementedError("double: no kernel for CUDA tensors yet")

    assert {(row.status, row.reason) for row in _run(double_case(ours=ours))} == {
        ("not available", "double: no kernel for CUDA tensors yet")
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"needs": ("torch.no_such_name",)}, "torch.no_such_name does not exist yet"),
        ({"needs": ("no_such_package.f",)}, "ModuleNotFoundError: No module named 'no_such_packag"),
        ({"devices": ("cuda",)}, "runs on cuda only"),
    ],
)
def test_missing_parts_make_a_case_not_available(changes: dict[str, Any], reason: str) -> None:
    case = double_case(**changes)
    (row,) = _run(case)
    assert (row.status, row.shape) == ("not available", "all")
    assert row.reason.startswith(reason)
    assert why_not(case, CPU) == row.reason
    assert why_not(double_case(), CPU) is None


def test_only_the_peer_asked_for_is_compared() -> None:
    for row in _run(double_case(), only_peer="adding"):
        assert row.ratios.keys() == {"adding"}
        assert not any("left out" in note for note in row.notes)


def test_after_the_deadline_shapes_are_only_listed() -> None:
    rows = _run(double_case(), deadline=0.0)
    assert [(row.status, row.reason) for row in rows] == [("not run", "out of time")] * 2


@pytest.mark.parametrize(
    ("work", "kept"),
    [
        (Work(16e9, 0, "fp8"), True),
        (Work(16.1e9, 0, "fp8"), False),
        (Work(0, 1e9, "fp8"), True),
        (Work(0, 1.1e9, "fp8"), False),
    ],
)
def test_a_cpu_is_spared_the_largest_shapes(work: Work, kept: bool) -> None:
    case = double_case(work=lambda _: work)
    assert shapes_for(case, "real", CPU) == ([Rows(8)] if kept else [])
    assert shapes_for(case, "real", torch.device("cuda")) == [Rows(8)]
    # Made for CPUs alone, it has chosen its shapes for them.
    assert shapes_for(double_case(work=lambda _: work, devices=("cpu",)), "real", CPU) == [Rows(8)]


def test_rates_follow_from_times() -> None:
    # 1e6 flops in 2 us are 0.5 TFLOP/s; 1e5 bytes in 2 us are 50 GB/s; the floors are 1 us each.
    case = double_case(work=lambda _: Work(1e6, 1e5, "fp32"))
    timings = {"ours": Timing((1.0, 2.0, 3.0), "by hand"), "adding": Timing((5.0,) * 3, "")}
    row = rate(case, Rows(3), Measurement(1e-4, timings, ("a note",)), PEAKS)
    assert (row.p20_us, row.p50_us, row.p80_us) == pytest.approx((1.4, 2.0, 2.6))
    assert row.tflops == pytest.approx(0.5)
    assert row.gbytes_per_s == pytest.approx(50)
    assert row.roofline == pytest.approx(0.5)
    assert row.ratios == {"adding": pytest.approx(2.5)}
    assert row.peers == {"adding": {"p20_us": 5.0, "p50_us": 5.0, "p80_us": 5.0}}
    assert (row.error, row.tolerance) == (1e-4, 1e-3)
    assert (row.method, row.num_samples) == ("by hand", 3)
    assert row.notes == ("a note",)


def test_geomeans_are_per_peer_over_the_rows_that_have_it() -> None:
    ratios = ({"a": 2.0, "b": 5.0}, {"a": 8.0}, {})
    rows = [Row(case="c", shape="s", status="ok", ratios=ratio) for ratio in ratios]
    assert geomeans(rows) == {"a": pytest.approx(4.0), "b": pytest.approx(5.0)}


def test_label_names_the_fields_in_order() -> None:
    assert label(Rows(8)) == "rows=8"


def test_worst_row_error_of_known_rows() -> None:
    truth = torch.tensor([[3.0, 4.0], [30.0, 40.0]], dtype=torch.float64)
    off = truth.clone()
    off[0, 0] += 0.5  # |0.5| / |(3, 4)|
    assert worst_row_error(off, truth) == pytest.approx(0.1)
    assert worst_row_error(truth.float(), truth) == 0


def test_worst_row_error_finds_one_bad_row_among_thousands() -> None:
    truth = torch.randn(4096, 8, dtype=torch.float64)
    bad = truth.clone()
    bad[1234] *= 1.5
    assert worst_row_error(bad, truth) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_worst_row_error_of_a_value_that_is_no_number_is_infinite(value: float) -> None:
    truth = torch.ones(2, 2, dtype=torch.float64)
    bad = truth.clone()
    bad[1, 1] = value
    assert worst_row_error(bad, truth) == math.inf


def test_worst_row_error_at_the_edges() -> None:
    truth = torch.ones(3, 2, dtype=torch.float64)
    assert worst_row_error(truth[:2], truth) == math.inf
    assert worst_row_error(torch.empty(0, 4), torch.empty(0, 4, dtype=torch.float64)) == 0
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    assert worst_row_error(zeros, zeros) == 0
    assert worst_row_error(zeros + 1, zeros) > 1
    # A row of zeros is held to a thousandth of the mean row, not to exactness.
    truth[0] = 0
    assert worst_row_error(truth + 1e-9, truth) < 1e-5
