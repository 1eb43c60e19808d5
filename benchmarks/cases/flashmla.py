"""Dense MLA decode over a paged latent cache: one key/value head, 576 columns, V the first 512."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch.nn import functional as F  # noqa: N812 (the name everybody reads)

from benchmarks.case import Peer, TensorCase
from benchmarks.roofline import Work
from benchmarks.timing import Inputs

_PAGE, _HEAD_DIM, _HEAD_DIM_V = 64, 576, 512


@dataclass(frozen=True, slots=True)
class Decode:
    """b requests with s_q new tokens each, h_q query heads, s_k cached tokens."""

    b: int
    s_q: int
    h_q: int
    s_k: int


def _work(shape: Decode) -> Work:
    rows = shape.b * shape.s_q * shape.h_q
    flops = 2 * rows * shape.s_k * (_HEAD_DIM + _HEAD_DIM_V)
    cache_bytes = 2 * shape.b * shape.s_k * _HEAD_DIM
    return Work(flops, cache_bytes + 2 * rows * (_HEAD_DIM + _HEAD_DIM_V), "bf16")


def _inputs(shape: Decode, device: torch.device, seed: int) -> Inputs:
    generator = torch.Generator(device).manual_seed(seed)
    pages = -(-shape.s_k // _PAGE)
    num_pages = shape.b * pages

    def randn(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, device=device).bfloat16()

    order = torch.randperm(num_pages, generator=generator, device=device).int()
    cache_seqlens = torch.full((shape.b,), shape.s_k, dtype=torch.int32, device=device)
    metadata, num_splits = import_module("flashmla").get_mla_metadata(
        cache_seqlens, shape.s_q * shape.h_q, 1
    )
    return {
        # Logits get standard deviation 1: with much smaller ones softmax is a mean and errors hide.
        "q": randn(shape.b, shape.s_q, shape.h_q, _HEAD_DIM),
        "k_cache": randn(num_pages, _PAGE, 1, _HEAD_DIM),
        "block_table": order.view(shape.b, pages),
        "cache_seqlens": cache_seqlens,
        "s_k": shape.s_k,
        "metadata": metadata,
        "num_splits": num_splits,
    }


def _ours(inputs: Inputs) -> torch.Tensor:
    out: torch.Tensor
    out, _ = import_module("flashmla").flash_mla_with_kvcache(
        inputs["q"],
        inputs["k_cache"],
        inputs["block_table"],
        inputs["cache_seqlens"],
        _HEAD_DIM_V,
        inputs["metadata"],
        inputs["num_splits"],
        causal=True,
    )
    return out


def _mask(s_q: int, h_q: int, s_k: int, device: torch.device) -> torch.Tensor:
    """[s_q * h_q, s_k] true where a query may look: the last one sees all, those before less."""
    seen = s_k - s_q + 1 + torch.arange(s_q, device=device)
    allowed = torch.arange(s_k, device=device) < seen[:, None]
    return allowed.repeat_interleave(h_q, 0)


def _torch_sdpa(inputs: Inputs) -> torch.Tensor:
    """Gathers the pages and lets torch attend; all query heads are rows of the one KV head."""
    q, s_k = inputs["q"], inputs["s_k"]
    b, s_q, h_q, _ = q.shape
    cache = inputs["k_cache"][inputs["block_table"]].view(b, 1, -1, _HEAD_DIM)[:, :, :s_k]
    mask = _mask(s_q, h_q, s_k, q.device) if s_q > 1 else None
    rows = q.view(b, 1, s_q * h_q, _HEAD_DIM)
    out = F.scaled_dot_product_attention(rows, cache, cache[..., :_HEAD_DIM_V], attn_mask=mask)
    return out.view(b, s_q, h_q, _HEAD_DIM_V)


def _oracle(inputs: Inputs) -> torch.Tensor:
    q, s_k = inputs["q"], inputs["s_k"]
    _, s_q, h_q, _ = q.shape
    mask = _mask(s_q, h_q, s_k, q.device)
    outputs = []
    for request, pages in enumerate(inputs["block_table"]):
        cache = inputs["k_cache"][pages].view(-1, _HEAD_DIM)[:s_k].double()
        scores = q[request].double().view(-1, _HEAD_DIM) @ cache.t() * _HEAD_DIM**-0.5
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
        outputs.append((weights @ cache[:, :_HEAD_DIM_V]).view(s_q, h_q, _HEAD_DIM_V))
    return torch.stack(outputs)


CASES = (
    TensorCase(
        name="flashmla",
        title="flash_mla_with_kvcache: dense decode, bf16, pages of 64 tokens",
        needs=("flashmla.get_mla_metadata", "flashmla.flash_mla_with_kvcache"),
        shapes={
            "tiny": (Decode(1, 1, 1, 1), Decode(2, 2, 3, 65)),
            "real": (
                Decode(1, 1, 128, 4096),
                Decode(8, 1, 16, 4096),
                Decode(16, 1, 128, 1024),
                *(
                    Decode(128, s_q, h_q, s_k)
                    for h_q in (16, 64, 128)
                    for s_q in (1, 2)
                    for s_k in (1024, 4096, 8192)
                ),
            ),
            "sweep": tuple(Decode(16, 1, 128, 2**power) for power in range(6, 16)),
        },
        work=_work,
        inputs=_inputs,
        ours=_ours,
        oracle=_oracle,
        tolerance=2e-2,
        # Its time includes gathering the pages: without a paged kernel every step pays for that.
        peers={"torch-sdpa": Peer(_torch_sdpa)},
    ),
)
