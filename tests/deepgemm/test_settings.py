"""Settings keep what they are given, and refuse what makes no sense."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import csrc
import deepgemm
from csrc import simulation
from deepgemm import bf16_kernels, fp8_kernels, settings


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    deepgemm.set_num_sms(0)
    deepgemm.set_tc_util(100)
    deepgemm.set_pdl(False)


def test_num_sms() -> None:
    everything = deepgemm.get_num_sms()
    deepgemm.set_num_sms(20)
    assert deepgemm.get_num_sms() == 20
    deepgemm.set_num_sms(0)
    assert deepgemm.get_num_sms() == everything
    with pytest.raises(ValueError, match=f"num_sms must be between 0 and {everything}, got 9999"):
        deepgemm.set_num_sms(9999)


def test_num_sms_of_a_simulated_gpu() -> None:
    with csrc.simulate(num_sms=6):
        assert settings.num_sms_of(torch.device("cpu")) == 6
        deepgemm.set_num_sms(4)
        assert settings.num_sms_of(torch.device("cpu")) == 4
        deepgemm.set_num_sms(20)
        assert settings.num_sms_of(torch.device("cpu")) == 6


@pytest.mark.compile
@pytest.mark.parametrize("enabled", [False, True])
def test_pdl_is_a_property_of_the_launch(enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Recorder(csrc.Launcher):
        def __init__(self, *args: Any, programmatic: bool = False, **settings: Any) -> None:
            asked.append(programmatic)
            super().__init__(*args, programmatic=programmatic, **settings)

    deepgemm.set_pdl(enabled)
    a, d = torch.ones(8, 64).bfloat16(), torch.empty(8, 8).bfloat16()
    rows, block = deepgemm.per_token_cast_to_fp8(a), deepgemm.per_block_cast_to_fp8(a)
    for module in (bf16_kernels, fp8_kernels):
        monkeypatch.setattr(module, "Launcher", Recorder)
        monkeypatch.setattr(module, "_launcher", module._launcher.__wrapped__)
    with csrc.simulate():
        deepgemm.bf16_gemm_nt(a, a, d)
        deepgemm.fp8_gemm_nt(rows, block, d)
    assert asked == [enabled, enabled]
    assert d.unique().tolist() == [64.0]


def test_hints() -> None:
    deepgemm.set_tc_util(80)
    deepgemm.set_pdl(True)
    assert (deepgemm.get_tc_util(), deepgemm.get_pdl()) == (80, True)
    deepgemm.set_ignore_compile_dims(True)
    deepgemm.set_block_size_multiple_of(16)
    deepgemm.set_block_size_multiple_of((64, 128))
    with pytest.raises(ValueError, match="tc_util must be between 0 and 100, got 101"):
        deepgemm.set_tc_util(101)
    with pytest.raises(ValueError, match=r"multiple must be powers of two up to 128, got \(64, 3"):
        deepgemm.set_block_size_multiple_of((64, 3))


def test_compile_mode() -> None:
    deepgemm.set_compile_mode(0)
    assert deepgemm.get_compile_mode() == 0
    with pytest.raises(NotImplementedError, match="mode must be 0, got 1"):
        deepgemm.set_compile_mode(1)


def test_alignments() -> None:
    assert deepgemm.get_theoretical_mk_alignment_for_contiguous_layout(expected_m=5) == 128
    assert deepgemm.get_k_alignment_for_contiguous_layout() == 128
    deepgemm.set_mk_alignment_for_contiguous_layout(128)
    with pytest.raises(NotImplementedError, match="new_value must be 128, got 64"):
        deepgemm.set_mk_alignment_for_contiguous_layout(64)
    sizes = [(1, 4, 4), (4, 4, 4), (5, 4, 8), (17, 1, 32), (0, 2, 0)]
    assert all(deepgemm.get_tma_aligned_size(x, size) == made for x, size, made in sizes)
    with pytest.raises(ValueError, match="element_size must divide 16, got 3"):
        deepgemm.get_tma_aligned_size(5, 3)
    assert [deepgemm.align(x, 8) for x in (0, 1, 8, 9)] == [0, 8, 8, 16]


@pytest.mark.parametrize("product", ["fp8", "bf16"])
@pytest.mark.compile
def test_launches_keep_to_the_sms(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    grids: list[int] = []
    monkeypatch.setattr(
        simulation.Simulation, "launch", lambda _, launch: grids.append(math.prod(launch.grid))
    )
    deepgemm.set_num_sms(4)
    d = torch.zeros(1024, 1024, dtype=torch.bfloat16)
    with csrc.simulate(num_sms=8):
        if product == "bf16":
            deepgemm.bf16_gemm_nt(d, d, d.clone())
        else:
            codes = torch.zeros(1024, 128, dtype=torch.float8_e4m3fn)
            deepgemm.fp8_gemm_nt((codes, torch.ones(1024, 1)), (codes, torch.ones(8, 1)), d)
    assert grids == [4]
