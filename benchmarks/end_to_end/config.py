"""The sizes of the model and of a run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A small DeepSeek-style language model over bytes.

    Its latent cache has the row that the Hopper kernels are made for, 512 + 64, and everything an
    FP8 GEMM sees is a multiple of 128.
    """

    hidden: int = 128
    num_stages: int = 4
    num_heads: int = 4
    nope_dim: int = 32
    rope_dim: int = 64
    v_dim: int = 32
    kv_lora_rank: int = 512
    num_experts: int = 8
    topk: int = 2
    expert_hidden: int = 128
    page_size: int = 64
    max_positions: int = 512

    @property
    def latent_dim(self) -> int:
        """Numbers per token and layer in the cache."""
        return self.kv_lora_rank + self.rope_dim


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How the model is trained; the ranks are pipeline stages times expert-parallel ranks."""

    steps: int
    seed: int
    seq_len: int = 128
    # The fewest: at this length of training, more steps teach more than larger ones.
    sequences_per_microbatch: int = 1
    # DualPipe needs at least two micro-batches per stage.
    num_microbatches: int = 8
    expert_parallel: int = 2

    @property
    def sequences_per_step(self) -> int:
        """Over all micro-batches and expert-parallel ranks."""
        return self.sequences_per_microbatch * self.num_microbatches * self.expert_parallel


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What is served, and how; max_batch is per expert-parallel rank."""

    seed: int
    expert_parallel: int = 2
    max_batch: int = 2
    # Of different lengths, so that requests end one by one and the next ones join the batch.
    prompt_lens: tuple[int, ...] = (40, 64, 88, 56, 72, 48)
    max_len: int = 128
    temperature: float = 0.6
    # Against the training forward, root mean square. Serving rounds what attention reads and writes
    # to bf16 (2^-9 each); that moves a few FP8 roundings (2^-4 each) and, for near ties, the choice
    # of an expert. About one per cent comes of it. Planted errors make more than four: one row too
    # few 4.5, keys turned by one position 5.8, half a page lost 8, a wrong scale 10, a wrong page
    # order 13.
    max_logit_error: float = 0.03
