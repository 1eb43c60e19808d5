"""The schedule of a decode call, as the caller carries it from layer to layer."""

from dataclasses import dataclass

import torch

from csrc import Checker

# What must not change while one object is reused.
_SHAPE = ("b", "s_q", "h_q", "h_kv", "page_size")


@dataclass(slots=True)
class FlashMLASchedMeta:
    """How the decode calls of one step share out their work.

    The first call fills it and the others of the same step reuse it: make one per step with
    `get_mla_metadata`, and pass it to every layer. It depends on `cache_seqlens`, so it must not
    outlive the step. The CPU path needs no schedule and leaves the tensors None.

    Attributes:
        have_initialized: whether a call has filled it.
        config: the shape of that call.
        tile_scheduler_metadata: [num_sm_parts, 8] int32, or None.
        num_splits: [b + 1] int32, cumulative, or None.
    """

    have_initialized: bool = False
    config: dict[str, int] | None = None
    tile_scheduler_metadata: torch.Tensor | None = None
    num_splits: torch.Tensor | None = None


def get_mla_metadata(
    cache_seqlens: torch.Tensor | None = None,
    num_q_tokens_per_head_k: int | None = None,
    num_heads_k: int | None = None,
    num_heads_q: int | None = None,
    is_fp8_kvcache: bool = False,
    topk: int | None = None,
) -> tuple[FlashMLASchedMeta, None]:
    """Return an empty schedule, which the first decode call of the step fills.

    Args:
        cache_seqlens: accepted and not needed, like all the others: the decode call knows them.
        num_q_tokens_per_head_k: see cache_seqlens.
        num_heads_k: see cache_seqlens.
        num_heads_q: see cache_seqlens.
        is_fp8_kvcache: see cache_seqlens.
        topk: see cache_seqlens.

    Returns:
        `(metadata, None)`, to be passed as `tile_scheduler_metadata` and `num_splits`.
    """
    del cache_seqlens, num_q_tokens_per_head_k, num_heads_k, num_heads_q, is_fp8_kvcache, topk
    return FlashMLASchedMeta(), None


def check_metadata(
    check: Checker,
    metadata: FlashMLASchedMeta | torch.Tensor,
    num_splits: torch.Tensor | None,
) -> None:
    """Require a schedule for the shape of this call, or the pair of tensors of the older API.

    Remembers the shape in an empty schedule, so it comes after all other checks.
    """
    if not isinstance(metadata, FlashMLASchedMeta):
        check.tensor("tile_scheduler_metadata", metadata, ("num_sm_parts", 8), torch.int32)
        check.tensor("num_splits", num_splits, (check.dims["b"] + 1,), torch.int32)
        return
    if num_splits is not None:
        remedy = "the metadata object holds the splits"
        check.invalid("num_splits", "be None", type(num_splits).__name__, remedy)
    config = {name: check.dims[name] for name in _SHAPE}
    if metadata.config is None:
        metadata.config, metadata.have_initialized = config, True
    elif metadata.config != config:
        rule = f"serve calls of one shape, {metadata.config}"
        remedy = "call get_mla_metadata() once per decode step"
        check.invalid("tile_scheduler_metadata", rule, config, remedy)
