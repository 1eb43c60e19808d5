"""Every case at its tiny shapes: a benchmark that is run by the tests cannot rot."""

import dataclasses
import math
from importlib import import_module
from typing import Any

import pytest
import torch

from benchmarks.case import SHAPE_SETS, TensorCase, label
from benchmarks.cases import load_cases
from benchmarks.cases.deepep import Exchange
from benchmarks.cases.deepgemm import Gemm, Grouped
from benchmarks.cases.flashmla import Decode
from benchmarks.harness import run_case, why_not
from benchmarks.roofline import Peaks

CASES = load_cases()
EXCUSES = ("is not installed", "left out: takes a minute")
PEAKS = Peaks({"fp8": 1.0, "bf16": 1.0, "fp32": 1.0}, 100.0, "measured")


def _tiny(device: str) -> list[Any]:
    return [
        pytest.param(name, shape, id=f"{name}: {label(shape)}")
        for name, case in CASES.items()
        if device in case.devices
        for shape in case.shapes["tiny"]
    ]


def _run_tiny(name: str, shape: object, device: str) -> None:
    case = dataclasses.replace(CASES[name], shapes={"tiny": (shape,)})
    (row,) = run_case(case, "tiny", torch.device(device), PEAKS, budget_s=0.01)
    if row.status == "not available":
        pytest.skip(row.reason)
    assert row.status == "ok", row.reason
    assert row.error is not None
    assert row.p20_us is not None
    assert row.p50_us is not None
    assert row.p80_us is not None
    assert 0 < row.p20_us <= row.p50_us <= row.p80_us
    here = {peer for peer, made in case.peers.items() if device in made.devices}
    assert row.ratios.keys() | {note.split()[0] for note in row.notes} >= here
    if device == "cpu":  # here a peer has no other reason to be left out
        excused = {note.split()[0] for note in row.notes if note.endswith(EXCUSES)}
        assert row.ratios.keys() | excused == here


@pytest.mark.parametrize(("name", "shape"), _tiny("cpu"))
def test_tiny_shapes_run_and_are_right(name: str, shape: object) -> None:
    _run_tiny(name, shape, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "shape"), _tiny("cuda"))
def test_tiny_shapes_run_and_are_right_on_a_gpu(name: str, shape: object) -> None:
    _run_tiny(name, shape, "cuda")


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_complete(name: str) -> None:
    case = CASES[name]
    assert case.name == name
    assert case.shapes.keys() == set(SHAPE_SETS)
    for shape in (shape for shapes in case.shapes.values() for shape in shapes):
        work = case.work(shape)
        assert work.bytes > 0
        assert work.flops >= 0
    labels = [label(shape) for shape in case.shapes["real"]]
    assert len(set(labels)) == len(labels)


def test_work_of_a_gemm_is_that_of_the_published_table() -> None:
    # 4096 x 7168 x 16384 at 1979 TFLOP/s: 486 us; 64 x 24576 x 1536 at 3350 GB/s: 12.2 us.
    h800 = Peaks({"fp8": 1979, "bf16": 989, "fp32": 67}, 3350, "datasheet")
    work = CASES["deepgemm"].work
    assert h800.floor_us(work(Gemm(4096, 7168, 16384))) == pytest.approx(486, abs=0.5)
    assert h800.floor_us(work(Gemm(64, 24576, 1536))) == pytest.approx(12.2, abs=0.1)


def test_work_of_a_decode_is_that_of_the_published_table() -> None:
    # 128 requests, 16 heads, 4096 tokens: 182 us at 3350 GB/s, 127 us at 4800 GB/s.
    work = CASES["flashmla"].work(Decode(128, 1, 16, 4096))
    for gbytes_per_s, floor_us in ((3350, 182), (4800, 127)):
        peaks = Peaks({"fp8": 1979, "bf16": 989, "fp32": 67}, gbytes_per_s, "datasheet")
        assert peaks.floor_us(work) == pytest.approx(floor_us, abs=2)


def test_work_of_an_exchange_counts_each_rank_once_per_token() -> None:
    # One rank: every token stays, whatever its topk. 2 ways x (read + write) x bf16.
    assert CASES["deepep"].work(Exchange(1, 4, 128, 3)).bytes == 4 * 2 * 2 * 2 * 128
    # topk 1: one rank per token.
    assert CASES["deepep"].work(Exchange(4, 8, 128, 1)).bytes == pytest.approx(32 * 8 * 128)


@pytest.mark.parametrize("name", ["deepgemm", "deepgemm_grouped", "flashmla"])
def test_the_oracle_agrees_with_that_of_the_tests(name: str) -> None:
    case = CASES[name]
    if missing := why_not(case, torch.device("cpu")):
        pytest.skip(missing)
    assert isinstance(case, TensorCase)
    for shape in case.shapes["tiny"]:
        inputs = case.inputs(shape, torch.device("cpu"), 7)
        truth = case.oracle(inputs)
        if isinstance(shape, Gemm):
            expected = import_module("tests.oracles.fp8_gemm").gemm_nt(inputs["a"], inputs["b"])
        elif isinstance(shape, Grouped):
            expected = import_module("tests.oracles.fp8_gemm").m_grouped_gemm_nt(
                inputs["a"], inputs["b"], inputs["layout"].tolist()
            )
        else:
            expected, _ = import_module("tests.oracles.mla_decode").dense_decode(
                inputs["q"],
                inputs["k_cache"],
                inputs["block_table"],
                inputs["cache_seqlens"],
                576**-0.5,
                causal=True,
            )
        # The dequantised operands of the case are float32.
        torch.testing.assert_close(truth, expected, rtol=1e-5, atol=1e-5)


def test_inputs_leave_the_output_poisoned() -> None:
    if missing := why_not(CASES["deepgemm"], torch.device("cpu")):
        pytest.skip(missing)
    case = CASES["deepgemm"]
    assert isinstance(case, TensorCase)
    inputs = case.inputs(Gemm(3, 64, 128), torch.device("cpu"), 0)
    assert all(math.isnan(value) for value in inputs["d"].flatten().tolist())
