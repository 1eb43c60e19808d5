"""The arithmetic of the roofline, and the table of devices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.roofline import DEVICE_PEAKS, Peaks, Work, geomean, measure_cpu_peaks, peaks_of_gpu

# 100 TFLOP/s are 1e8 flops per us; 1000 GB/s are 1e6 bytes per us.
PEAKS = Peaks({"fp8": 400.0, "bf16": 200.0, "fp32": 100.0}, 1000.0, "datasheet")


@pytest.mark.parametrize(
    ("work", "floor_us"),
    [
        pytest.param(Work(1e9, 1e6, "fp32"), 10.0, id="arithmetic is slower"),
        pytest.param(Work(1e9, 1e6, "fp8"), 2.5, id="fp8 has its own rate"),
        pytest.param(Work(1e9, 50e6, "fp32"), 50.0, id="memory is slower"),
        pytest.param(Work(0, 3e6, "bf16"), 3.0, id="a copy"),
        pytest.param(Work(0, 0, "bf16"), 0.0, id="nothing to do"),
    ],
)
def test_floor_is_the_slower_of_both_units(work: Work, floor_us: float) -> None:
    assert PEAKS.floor_us(work) == pytest.approx(floor_us)


def test_unknown_gpu_is_an_error_that_says_how_to_add_it() -> None:
    with pytest.raises(ValueError, match="roofline: device must be one of NVIDIA H200") as raised:
        peaks_of_gpu("NVIDIA H100")  # a prefix of known names is not a known name
    assert "got 'NVIDIA H100' (add its dense TFLOP/s" in str(raised.value)
    assert "DEVICE_PEAKS in benchmarks/roofline.py" in str(raised.value)


def test_known_gpus_have_all_rates() -> None:
    assert peaks_of_gpu("NVIDIA H200").gbytes_per_s == 4800
    for peaks in DEVICE_PEAKS.values():
        assert peaks.tflops["fp8"] > peaks.tflops["bf16"] > peaks.tflops["fp32"] > 0
        assert peaks.source == "datasheet"


@pytest.mark.gpu
def test_this_gpu_is_known() -> None:
    assert peaks_of_gpu(torch.cuda.get_device_name()).gbytes_per_s > 0


def test_ceilings_of_a_cpu_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.roofline.cache_bytes", lambda _: 2**20)
    peaks = measure_cpu_peaks()
    assert peaks.source == "measured"
    assert peaks.gbytes_per_s > 0
    # A narrower type is never rated below a wider one that could stand in for it.
    assert peaks.tflops["fp8"] >= peaks.tflops["bf16"] >= peaks.tflops["fp32"] > 0


def test_geomean_of_known_ratios() -> None:
    assert geomean([2.0, 8.0]) == pytest.approx(4.0)
    assert geomean([0.5, 2.0]) == pytest.approx(1.0)
    assert geomean([3.0]) == pytest.approx(3.0)
    assert geomean([]) is None


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=30))
def test_geomean_of_inverses_is_the_inverse(ratios: list[float]) -> None:
    mean, inverse = geomean(ratios), geomean(1 / ratio for ratio in ratios)
    assert mean is not None
    assert inverse is not None
    assert mean * inverse == pytest.approx(1)
    assert min(ratios) * (1 - 1e-9) <= mean <= max(ratios) * (1 + 1e-9)
