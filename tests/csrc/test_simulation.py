"""Who runs kernels on CPU tensors, and when."""

import threading
from pathlib import Path

import pytest
import torch

import csrc
from csrc.compiler import compile_kernel
from csrc.simulation import active
from tests.csrc.test_launcher import AXPY

pytestmark = pytest.mark.compile

_KERNELS = Path(__file__).with_name("launch_kernels.cu")


def _axpy(x: torch.Tensor, y: torch.Tensor, n: int) -> None:
    kernel = compile_kernel(_KERNELS, "openweek::tests::axpy")
    launcher = csrc.Launcher(kernel, AXPY, op="axpy", block=(256, 1, 1))
    launcher(x, y, 2.0, n, grid=(-(-n // 256), 1, 1))


def test_nothing_is_simulated_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENWEEK_SIMULATE", raising=False)
    assert active() is None
    with csrc.simulate() as outer:
        assert active() is outer
        with csrc.simulate(seed=3) as inner:
            assert active() is inner
        assert active() is outer
    assert active() is None


def test_an_error_ends_the_simulation() -> None:
    with pytest.raises(KeyError), csrc.simulate():
        raise KeyError
    assert active() is None


@pytest.mark.parametrize(("value", "asks"), [("1", True), ("0", False), ("", False)])
def test_the_environment_asks_for_the_whole_process(
    monkeypatch: pytest.MonkeyPatch, value: str, asks: bool
) -> None:
    monkeypatch.setenv("OPENWEEK_SIMULATE", value)
    assert (active() is not None) == asks
    seen = []
    thread = threading.Thread(target=lambda: seen.append(active()))
    thread.start()
    thread.join()
    assert seen == [active()]


def test_it_reports_what_has_run() -> None:
    x, y = torch.ones(2, 300)
    with csrc.simulate() as simulation:
        _axpy(x, y, 300)
        once = dict(simulation.report)
        _axpy(x, y, 300)
    assert y.tolist() == [5.0] * 300
    assert (once["num_launches"], once["num_ctas"]) == (1, 2)
    assert once["num_instructions"] > 16
    twice = simulation.report
    assert (twice["num_launches"], twice["num_ctas"]) == (2, 4)
    assert twice["num_instructions"] > once["num_instructions"]


def test_a_hazard_is_an_error_of_the_call() -> None:
    x, y = torch.ones(2, 8)
    with (
        csrc.simulate(),
        pytest.raises(RuntimeError, match=r"out of bounds: .*launch_kernels.cu:\d+ .* behind y "),
    ):
        _axpy(x, y, 9)
