"""What decoding refuses, and in which words."""

from typing import Any

import pytest
import torch

from flashmla import FlashMLASchedMeta, flash_mla_with_kvcache


def valid_call() -> dict[str, Any]:
    return {
        "q": torch.zeros(2, 1, 6, 576, dtype=torch.bfloat16),
        "k_cache": torch.zeros(4, 64, 3, 576, dtype=torch.bfloat16),
        "block_table": torch.tensor([[0, 1], [2, 3]], dtype=torch.int32),
        "cache_seqlens": torch.tensor([128, 65], dtype=torch.int32),
        "head_dim_v": 512,
        "tile_scheduler_metadata": FlashMLASchedMeta(),
    }


INT = torch.tensor([0], dtype=torch.int32)
SPARSE = [
    "indices",
    "attn_sink",
    "extra_k_cache",
    "extra_indices_in_kvcache",
    "topk_length",
    "extra_topk_length",
]


def test_the_call_is_valid() -> None:
    flash_mla_with_kvcache(**valid_call())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        *(
            (
                {name: INT},
                NotImplementedError,
                f"{name} must be None, got Tensor (sparse decoding is not built yet)",
            )
            for name in SPARSE
        ),
        (
            {"is_fp8_kvcache": True},
            NotImplementedError,
            "is_fp8_kvcache must be False, got True (FP8 caches are not built yet)",
        ),
        (
            {"head_dim_v": 576},
            ValueError,
            "head_dim_v must be 512, got 576 (values are part of the keys)",
        ),
        (
            {"block_table": None},
            TypeError,
            "block_table and cache_seqlens must be tensors, got None (dense decoding needs both)",
        ),
        (
            {"q": torch.zeros(2, 1, 6, 576)},
            TypeError,
            "q must have dtype bfloat16 or float16, got float32 (convert it)",
        ),
        (
            {"q": torch.zeros(2, 1, 6, 512, dtype=torch.bfloat16)},
            ValueError,
            "q must have shape [b, s_q, h_q, 576], got [2, 1, 6, 512] (check its sizes)",
        ),
        (
            {"k_cache": torch.zeros(4, 64, 3, 576, dtype=torch.float16)},
            TypeError,
            "k_cache must have dtype bfloat16, got float16 (convert it)",
        ),
        (
            {"k_cache": torch.zeros(4, 64, 4, 576, dtype=torch.bfloat16)},
            ValueError,
            "h_q must be a multiple of 4, got 6 (pad q with more heads)",
        ),
        (
            {"k_cache": torch.zeros(4, 0, 3, 576, dtype=torch.bfloat16)},
            ValueError,
            "k_cache must have heads and tokens, got page_size=0, h_kv=3 (check its shape)",
        ),
        (
            {"cache_seqlens": torch.tensor([1], dtype=torch.int32)},
            ValueError,
            "cache_seqlens must have shape [b] with b=2, got [1] (b was set by q)",
        ),
        (
            {"cache_seqlens": torch.tensor([1, 129], dtype=torch.int32)},
            ValueError,
            "cache_seqlens must be between 0 and 128, got 129 (give block_table more columns)",
        ),
        (
            {"cache_seqlens": torch.tensor([-1, 1], dtype=torch.int32)},
            ValueError,
            "cache_seqlens must be between 0 and 128, got -1 (give block_table more columns)",
        ),
        (
            {"block_table": torch.tensor([[0, 1], [2, 4]], dtype=torch.int32)},
            ValueError,
            "block_table must be between 0 and 3, got 4 (each page is an index into k_cache)",
        ),
        (
            {"block_table": torch.tensor([[0, -1], [2, 3]], dtype=torch.int32)},
            ValueError,
            "block_table must be between 0 and 3, got -1 (each page is an index into k_cache)",
        ),
        (
            {"tile_scheduler_metadata": None},
            TypeError,
            "tile_scheduler_metadata must be a tensor, got NoneType (wrap it)",
        ),
        (
            {"tile_scheduler_metadata": torch.zeros(4, 8, dtype=torch.int32), "num_splits": INT},
            ValueError,
            "num_splits must have shape [3], got [1] (check its sizes)",
        ),
        (
            {"num_splits": INT},
            ValueError,
            "num_splits must be None, got Tensor (the metadata object holds the splits)",
        ),
    ],
)
def test_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        flash_mla_with_kvcache(**valid_call() | change)
    assert str(caught.value) == f"flash_mla_with_kvcache: {message}"


def test_a_refused_call_leaves_the_schedule_empty() -> None:
    call = valid_call() | {"cache_seqlens": torch.tensor([1, 129], dtype=torch.int32)}
    with pytest.raises(ValueError, match="cache_seqlens must"):
        flash_mla_with_kvcache(**call)
    assert call["tile_scheduler_metadata"] == FlashMLASchedMeta()


def test_names_what_a_device_lacks() -> None:
    call = {
        name: value.to("meta") if isinstance(value, torch.Tensor) else value
        for name, value in valid_call().items()
    }
    with pytest.raises(NotImplementedError, match="the kernel of this op for meta is not built"):
        flash_mla_with_kvcache(**call)
