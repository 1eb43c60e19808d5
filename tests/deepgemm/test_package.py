"""The names of the package, its examples, and standing in for deep_gemm."""

import doctest
import importlib
import sys

import pytest

import deepgemm


def test_every_name_is_there() -> None:
    assert all(hasattr(deepgemm, name) for name in deepgemm.__all__)


@pytest.mark.parametrize("module", ["bf16", "dense", "layout", "quantization"])
def test_docstring_examples(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"deepgemm.{module}"))
    assert results.attempted > 0
    assert results.failed == 0


def test_sizes() -> None:
    assert [deepgemm.ceil_div(x, 128) for x in (0, 1, 128, 129)] == [0, 1, 1, 2]
    assert deepgemm.get_m_alignment_for_contiguous_layout() == 128
    assert deepgemm.get_mk_alignment_for_contiguous_layout() == 128


def test_stands_in_for_deep_gemm(monkeypatch: pytest.MonkeyPatch) -> None:
    # What install writes, monkeypatch has seen before, and takes back after.
    monkeypatch.setitem(sys.modules, "deep_gemm", deepgemm)
    monkeypatch.setitem(sys.modules, "deep_gemm.utils", deepgemm)
    monkeypatch.setattr(deepgemm, "utils", None, raising=False)
    for name in ("deep_gemm", "deep_gemm.utils"):
        del sys.modules[name]

    deepgemm.install_as_deep_gemm()
    assert importlib.import_module("deep_gemm").fp8_gemm_nt is deepgemm.fp8_gemm_nt
    utils = importlib.import_module("deep_gemm.utils")
    assert utils.per_token_cast_to_fp8 is deepgemm.per_token_cast_to_fp8
    assert importlib.import_module("deep_gemm").utils is utils
