"""Multi-head latent attention in its two forms, over one set of weights.

A token's keys and values are stored as one row of kv_lora_rank + rope_dim numbers: a latent from
which every head's key and value are linear maps, and a rotary key that the heads share. Training
expands the latents to keys and values. Serving instead moves the two maps to the query's and the
output's side ("absorbs" them), so that attention runs on the latents themselves, on flashmla's
paged cache. Source: DeepSeek-V2 (2024), section 2.1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

import flashmla
from benchmarks.end_to_end.config import ModelConfig


@dataclass(slots=True)
class DecodeBatch:
    """Where the requests of one decode step stand.

    Attributes:
        positions: [batch] int64, position of the token being decoded.
        block_table: [batch, max_pages] int32, the pages of each request.
        cache_seqlens: [batch] int32, tokens in the cache, the one being decoded included.
        schedule: flashmla's, made by the first layer for all of them.
    """

    positions: Tensor
    block_table: Tensor
    cache_seqlens: Tensor
    schedule: flashmla.FlashMLASchedMeta

    @classmethod
    def of(cls, lengths: list[int], pages: list[list[int]], num_heads: int) -> "DecodeBatch":
        """From the number of tokens that each request has in the cache, and its pages."""
        block_table = torch.zeros(len(pages), max(map(len, pages), default=1), dtype=torch.int32)
        for row, numbers in enumerate(pages):
            block_table[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.int32)
        positions = torch.tensor(lengths, dtype=torch.int64)
        cache_seqlens = (positions + 1).to(torch.int32)
        schedule, _ = flashmla.get_mla_metadata(cache_seqlens, num_heads, 1)
        return cls(positions, block_table, cache_seqlens, schedule)


class Attention(nn.Module):
    """MLA over [batch, seq, hidden] float32."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.queries = nn.Linear(c.hidden, c.num_heads * (c.nope_dim + c.rope_dim), bias=False)
        self.compress_kv = nn.Linear(c.hidden, c.kv_lora_rank + c.rope_dim, bias=False)
        self.expand_keys = nn.Linear(c.kv_lora_rank, c.num_heads * c.nope_dim, bias=False)
        self.expand_values = nn.Linear(c.kv_lora_rank, c.num_heads * c.v_dim, bias=False)
        self.output = nn.Linear(c.num_heads * c.v_dim, c.hidden, bias=False)
        nn.init.zeros_(self.output.weight)
        self.scale = 1 / math.sqrt(c.nope_dim + c.rope_dim)
        cos, sin = _rotations(c.max_positions, c.rope_dim)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The training form: causal attention of whole sequences."""
        return self.attend(x, self.latents(x, torch.arange(x.shape[1])))

    def latents(self, x: Tensor, positions: Tensor) -> Tensor:
        """The rows that a cache keeps: [batch, seq, kv_lora_rank + rope_dim]."""
        c = self.config
        latent, key = self.compress_kv(x).split([c.kv_lora_rank, c.rope_dim], dim=-1)
        latent = functional.rms_norm(latent, (c.kv_lora_rank,))
        return torch.cat([latent, self._rotate(key, positions)], dim=-1)

    def attend(self, x: Tensor, latents: Tensor) -> Tensor:
        """Causal attention of x to the keys and values that the latents of its tokens stand for."""
        c = self.config
        batch, seq, _ = x.shape
        latent, shared_key = torch.split(latents, [c.kv_lora_rank, c.rope_dim], dim=-1)
        keys = self.expand_keys(latent).view(batch, seq, c.num_heads, c.nope_dim)
        values = self.expand_values(latent).view(batch, seq, c.num_heads, c.v_dim)
        shared_keys = shared_key.unsqueeze(2).expand(-1, -1, c.num_heads, -1)
        mixed = functional.scaled_dot_product_attention(
            torch.cat(self._queries(x, torch.arange(seq)), dim=-1).transpose(1, 2),
            torch.cat([keys, shared_keys], dim=-1).transpose(1, 2),
            values.transpose(1, 2),
            is_causal=True,
            scale=self.scale,
        )
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, seq, -1))
        return out

    def decode(self, x: Tensor, cache: Tensor, step: DecodeBatch) -> Tensor:
        """The serving form: writes each request's row to its page, then attends to all its pages.

        Args:
            x: [batch, 1, hidden] float32, one token of each request.
            cache: [num_pages, page_size, 1, kv_lora_rank + rope_dim] bf16, changed in place.
            step: where the requests stand.
        """
        c = self.config
        positions = step.positions.unsqueeze(1)
        page_idx, row_idx = positions // c.page_size, positions % c.page_size
        pages = step.block_table.gather(1, page_idx).long()
        cache[pages, row_idx, 0] = self.latents(x, positions).to(cache.dtype)

        q_nope, q_rope = self._queries(x, positions)
        key_maps = self.expand_keys.weight.view(c.num_heads, c.nope_dim, c.kv_lora_rank)
        q = torch.cat([torch.einsum("bshd,hdl->bshl", q_nope, key_maps), q_rope], dim=-1)
        latent_out, _ = flashmla.flash_mla_with_kvcache(
            q.to(cache.dtype),
            cache,
            step.block_table,
            step.cache_seqlens,
            c.kv_lora_rank,
            step.schedule,
            None,
            softmax_scale=self.scale,
            causal=True,
        )
        value_maps = self.expand_values.weight.view(c.num_heads, c.v_dim, c.kv_lora_rank)
        mixed = torch.einsum("bshl,hvl->bshv", latent_out.float(), value_maps)
        out: Tensor = self.output(mixed.flatten(2))
        return out

    def _queries(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        q = self.queries(x).unflatten(-1, (c.num_heads, -1))
        q_nope, q_rope = q.split([c.nope_dim, c.rope_dim], dim=-1)
        return q_nope, self._rotate(q_rope.transpose(1, 2), positions.unsqueeze(-2)).transpose(1, 2)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turns pairs (i, i + rope_dim/2) of [..., seq, rope_dim] by their position's angles."""
        cos, sin = self.cos[positions], self.sin[positions]
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _rotations(max_positions: int, rope_dim: int) -> tuple[Tensor, Tensor]:
    frequencies = 10000.0 ** (-torch.arange(0, rope_dim, 2) / rope_dim)
    angles = torch.arange(max_positions).unsqueeze(1) * frequencies
    return angles.cos(), angles.sin()
