"""Multi-head latent attention of a few new tokens over a paged cache."""

import torch

from csrc import Checker
from flashmla import cpu
from flashmla.metadata import FlashMLASchedMeta, check_metadata

_HEAD_DIM = 576
_HEAD_DIM_V = 512


def flash_mla_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    block_table: torch.Tensor | None,
    cache_seqlens: torch.Tensor | None,
    head_dim_v: int,
    tile_scheduler_metadata: FlashMLASchedMeta | torch.Tensor,
    num_splits: torch.Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    is_fp8_kvcache: bool = False,
    indices: torch.Tensor | None = None,
    attn_sink: torch.Tensor | None = None,
    extra_k_cache: torch.Tensor | None = None,
    extra_indices_in_kvcache: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
    extra_topk_length: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from q to the cached tokens of each request: softmax(q @ k.T * softmax_scale) @ v.

    Keys and values are the same rows: a value is the first 512 elements of its key (multi-head
    latent attention with absorbed projections, DeepSeek-V2, arXiv 2405.04434, section 2.1). Scores
    and sums are FP32. CPU tensors are computed before the call returns. No gradient is recorded.

    Args:
        q: [b, s_q, h_q, 576] bf16 or fp16, the new tokens of each request; last dim contiguous,
            other strides multiples of 8.
        k_cache: [num_blocks, page_size, h_kv, 576], dtype and strides as q. Each h_q / h_kv query
            heads in a row share a head of the cache. Rows no request reaches may hold anything.
        block_table: [b, max_blocks] int32, last dim contiguous: the pages of each request in
            order. Entries behind its last page may hold anything.
        cache_seqlens: [b] int32, tokens in the cache of each request, the new ones included; may
            be 0.
        head_dim_v: 512.
        tile_scheduler_metadata: the first result of `get_mla_metadata`, one per decode step; or
            [num_sm_parts, 8] int32, together with num_splits.
        num_splits: None, or [b + 1] int32 with a tensor schedule.
        softmax_scale: by default 576 ** -0.5.
        causal: new token i of s_q does not see the last s_q - 1 - i tokens of the cache.
        is_fp8_kvcache: must be False.
        indices: must be None, like all below.
        attn_sink: see indices.
        extra_k_cache: see indices.
        extra_indices_in_kvcache: see indices.
        topk_length: see indices.
        extra_topk_length: see indices.

    Returns:
        `(out, lse)`: out [b, s_q, h_q, 512] of q's dtype; lse [b, h_q, s_q] float32, the natural
        logarithm of the sum of exp(scores). Where a token sees nothing, out is 0 and lse +inf.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above, or (CPU tensors only,
            a GPU would have to wait for the answer) a length or a page number does.
        NotImplementedError: FP8 caches, sparse decoding, or a device without a kernel.

    Example:
        >>> from flashmla import get_mla_metadata
        >>> q = torch.ones(1, 1, 16, 576, dtype=torch.bfloat16)
        >>> k_cache = torch.ones(4, 64, 1, 576, dtype=torch.bfloat16)
        >>> block_table = torch.tensor([[2, 3]], dtype=torch.int32)
        >>> cache_seqlens = torch.tensor([100], dtype=torch.int32)
        >>> metadata, _ = get_mla_metadata()
        >>> out, lse = flash_mla_with_kvcache(
        ...     q, k_cache, block_table, cache_seqlens, 512, metadata
        ... )
        >>> out.shape, round(lse[0, 0, 0].item(), 3)
        (torch.Size([1, 1, 16, 512]), 28.605)
    """
    check = Checker("flash_mla_with_kvcache")
    for name, value in (
        ("indices", indices),
        ("attn_sink", attn_sink),
        ("extra_k_cache", extra_k_cache),
        ("extra_indices_in_kvcache", extra_indices_in_kvcache),
        ("topk_length", topk_length),
        ("extra_topk_length", extra_topk_length),
    ):
        if value is not None:
            remedy = "sparse decoding is not built yet"
            check.not_built(name, "be None", type(value).__name__, remedy)
    if is_fp8_kvcache:
        check.not_built("is_fp8_kvcache", "be False", True, "FP8 caches are not built yet")
    if head_dim_v != _HEAD_DIM_V:
        check.invalid("head_dim_v", f"be {_HEAD_DIM_V}", head_dim_v, "values are part of the keys")
    if block_table is None or cache_seqlens is None:
        remedy = "dense decoding needs both"
        check.wrong_type("block_table and cache_seqlens", "be tensors", None, remedy)
    _check_tensors(check, q, k_cache, block_table, cache_seqlens)
    check.backend()
    _check_pages(check, block_table, cache_seqlens)
    check_metadata(check, tile_scheduler_metadata, num_splits)
    scale = _HEAD_DIM**-0.5 if softmax_scale is None else softmax_scale
    return cpu.dense_decode(q, k_cache, block_table, cache_seqlens, scale, causal=causal)


def _check_tensors(
    check: Checker,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    block_table: torch.Tensor,
    cache_seqlens: torch.Tensor,
) -> None:
    q_shape = ("b", "s_q", "h_q", _HEAD_DIM)
    cache_shape = ("num_blocks", "page_size", "h_kv", _HEAD_DIM)
    check.tensor("q", q, q_shape, torch.bfloat16, torch.float16, layout="tma")
    check.tensor("k_cache", k_cache, cache_shape, q.dtype, layout="tma")
    check.tensor("block_table", block_table, ("b", "max_blocks"), torch.int32, layout="rows")
    check.tensor("cache_seqlens", cache_seqlens, ("b",), torch.int32)
    page_size, num_heads_kv = check.dims["page_size"], check.dims["h_kv"]
    if page_size == 0 or num_heads_kv == 0:
        actual = f"page_size={page_size}, h_kv={num_heads_kv}"
        check.invalid("k_cache", "have heads and tokens", actual, "check its shape")
    check.multiple("h_q", check.dims["h_q"], num_heads_kv, "pad q with more heads")


def _check_pages(check: Checker, block_table: torch.Tensor, cache_seqlens: torch.Tensor) -> None:
    if cache_seqlens.numel() == 0:
        return
    dims = check.dims
    low, high = (int(bound) for bound in cache_seqlens.aminmax())
    for length in (low, high):
        tokens = dims["max_blocks"] * dims["page_size"]
        check.between("cache_seqlens", length, 0, tokens, "give block_table more columns")
    first_tokens = torch.arange(dims["max_blocks"]) * dims["page_size"]
    pages = block_table[first_tokens < cache_seqlens.unsqueeze(1)]
    if pages.numel():
        low, high = (int(bound) for bound in pages.aminmax())
        for page in (low, high):
            last = dims["num_blocks"] - 1
            check.between("block_table", page, 0, last, "each page is an index into k_cache")
