"""The names of the package, its example, its schedule object, and standing in for flash_mla."""

import doctest
import importlib
import sys
from typing import Any

import pytest
import torch

import flashmla
from flashmla import FlashMLASchedMeta, get_mla_metadata


def test_every_name_is_there() -> None:
    assert all(hasattr(flashmla, name) for name in flashmla.__all__)


def test_docstring_example() -> None:
    results = doctest.testmod(importlib.import_module("flashmla.decode"))
    assert results.attempted > 0
    assert results.failed == 0


LENGTHS = torch.tensor([3], dtype=torch.int32)


@pytest.mark.parametrize(
    ("positional", "keywords"),
    [
        ((), {}),
        ((LENGTHS, 16, 1), {}),
        (
            (),
            {
                "cache_seqlens": LENGTHS,
                "num_q_tokens_per_head_k": 128,
                "num_heads_k": 1,
                "num_heads_q": 128,
                "is_fp8_kvcache": True,
                "topk": 2048,
            },
        ),
    ],
    ids=["no-arguments", "three-positional", "six-keywords"],
)
def test_get_mla_metadata(positional: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    metadata, num_splits = get_mla_metadata(*positional, **keywords)
    assert metadata == FlashMLASchedMeta()
    assert num_splits is None


def test_engines_may_fill_the_schedule_themselves() -> None:
    metadata, _ = get_mla_metadata()
    metadata.tile_scheduler_metadata = torch.zeros(4, 8, dtype=torch.int32)
    metadata.num_splits = LENGTHS
    assert metadata.num_splits is LENGTHS


def test_stands_in_for_flash_mla(monkeypatch: pytest.MonkeyPatch) -> None:
    # What install writes, monkeypatch has seen before, and takes back after.
    monkeypatch.setitem(sys.modules, "flash_mla", flashmla)
    del sys.modules["flash_mla"]
    flashmla.install_as_flash_mla()
    assert importlib.import_module("flash_mla") is flashmla
