"""The CPU path: one request after the other, over the tokens it has."""

import torch

_HEAD_DIM_V = 512


@torch.no_grad()
def dense_decode(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    block_table: torch.Tensor,
    cache_seqlens: torch.Tensor,
    softmax_scale: float,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return out [b, s_q, h_q, 512] and lse [b, h_q, s_q]."""
    batch, num_queries, num_heads_q, _ = q.shape
    page_size = k_cache.shape[1]
    out = q.new_zeros(batch, num_queries, num_heads_q, _HEAD_DIM_V)
    lse = q.new_full((batch, num_heads_q, num_queries), torch.inf, dtype=torch.float32)
    scaled_q = q.float() * softmax_scale
    for request, length in enumerate(cache_seqlens.tolist()):
        if length == 0:
            continue
        pages = block_table[request, : -(-length // page_size)]
        tokens = k_cache.index_select(0, pages).flatten(0, 1)[:length].float()
        # With more queries than tokens, the first queries stand before the first token.
        first = max(0, num_queries - length) if causal else 0
        part = slice(first, num_queries)
        out[request, part], lse[request, :, part] = _attend(
            scaled_q[request, part], tokens, causal=causal
        )
    return out, lse


def _attend(
    q: torch.Tensor, tokens: torch.Tensor, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from q [s_q, h_q, 576] to tokens [length, h_kv, 576], both float32."""
    num_queries, num_heads_q, head_dim = q.shape
    length, num_heads_kv, _ = tokens.shape
    num_sharing = num_heads_q // num_heads_kv
    # [h_kv, s_q * num_sharing, 576]: all that meets the same keys makes one product.
    rows = q.view(num_queries, num_heads_kv, num_sharing, head_dim).transpose(0, 1)
    rows = rows.reshape(num_heads_kv, num_queries * num_sharing, head_dim)
    keys = tokens.transpose(0, 1)
    scores = rows @ keys.mT
    if causal and num_queries > 1:
        unseen = torch.ones(num_queries, length, dtype=torch.bool).triu(length - num_queries + 1)
        scores.masked_fill_(unseen.repeat_interleave(num_sharing, dim=0), -torch.inf)
    peak = scores.amax(-1, keepdim=True)
    weights = scores.sub_(peak).exp_()
    total = weights.sum(-1, keepdim=True)
    out = weights @ keys[..., :_HEAD_DIM_V] / total
    lse = peak + total.log()
    out = out.view(num_heads_kv, num_queries, num_sharing, _HEAD_DIM_V)
    lse = lse.view(num_heads_kv, num_queries, num_sharing)
    return out.transpose(0, 1).flatten(1, 2), lse.transpose(1, 2).flatten(0, 1)
