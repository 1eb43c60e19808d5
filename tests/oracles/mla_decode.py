"""MLA decoding over a paged cache, one query head after the other in float64."""

import math

import torch
from torch import Tensor


def dense_decode(
    q: Tensor,
    k_cache: Tensor,
    block_table: Tensor,
    cache_seqlens: Tensor,
    softmax_scale: float,
    *,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Out [b, s_q, h_q, 512] and lse [b, h_q, s_q]; 0 and +inf where nothing is seen."""
    batch, s_q, h_q, _ = q.shape
    page_size, h_kv = k_cache.shape[1:3]
    out = torch.zeros(batch, s_q, h_q, 512, dtype=torch.float64)
    lse = torch.full((batch, h_q, s_q), math.inf, dtype=torch.float64)
    for b in range(batch):
        for s in range(s_q):
            # The last query sees everything, each one before it one token less.
            num_seen = int(cache_seqlens[b])
            if causal:
                num_seen -= s_q - 1 - s
            if num_seen <= 0:
                continue
            tokens = torch.stack(
                [k_cache[block_table[b, t // page_size], t % page_size] for t in range(num_seen)]
            ).double()
            for h in range(h_q):
                keys = tokens[:, h * h_kv // h_q]
                scores = keys @ q[b, s, h].double() * softmax_scale
                weights = torch.softmax(scores, dim=0)
                out[b, s, h] = weights @ keys[:, :512]
                lse[b, h, s] = torch.logsumexp(scores, dim=0)
    return out, lse
