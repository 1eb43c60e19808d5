"""Tuning hints: how a dispatch or combine splits its work, and the buffer bytes it suggests."""

from dataclasses import dataclass

import torch

from csrc import Checker

# The dtype of `topk_idx`.
topk_idx_t = torch.int64

NVL_PEERS = 8
_BUFFER_ALIGNMENT = 128
# A ring slot has room for the largest topk and the most scales a row may carry.
_MAX_TOPK = 128
_MAX_SCALES = 128


@dataclass(frozen=True, slots=True)
class Config:
    """Tuning hints of one operation. Transport over gloo needs none of them.

    Args:
        num_sms: streaming multiprocessors the kernels may take; two of them make one channel.
        num_max_nvl_chunked_send_tokens: tokens that go over NVLink at once.
        num_max_nvl_chunked_recv_tokens: slots of an NVLink ring, more than go at once.
        num_max_rdma_chunked_send_tokens: tokens that go over RDMA at once, at most half the ring.
        num_max_rdma_chunked_recv_tokens: slots of an RDMA ring, rounded up to a multiple of the
            tokens that go at once.

    Raises:
        ValueError: a ring is too small for what is sent at once, or `num_sms` is odd.
    """

    num_sms: int = 20
    num_max_nvl_chunked_send_tokens: int = 6
    num_max_nvl_chunked_recv_tokens: int = 256
    num_max_rdma_chunked_send_tokens: int = 6
    num_max_rdma_chunked_recv_tokens: int = 256

    def __post_init__(self) -> None:
        check = Checker("Config")
        check_num_sms(check, self.num_sms)
        remedy = "enlarge the ring or send less at once"
        most = self.num_max_nvl_chunked_recv_tokens - 1
        send = self.num_max_nvl_chunked_send_tokens
        check.between("num_max_nvl_chunked_send_tokens", send, 1, most, remedy)
        send = self.num_max_rdma_chunked_send_tokens
        rdma_recv = _align_up(self.num_max_rdma_chunked_recv_tokens, max(send, 1))
        check.between("num_max_rdma_chunked_send_tokens", send, 1, rdma_recv // 2, remedy)
        # Frozen for everybody else.
        object.__setattr__(self, "num_max_rdma_chunked_recv_tokens", rdma_recv)

    def get_nvl_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes of the NVLink rings of one rank, for `Buffer(num_nvl_bytes=...)`.

        Args:
            hidden_bytes: bytes of one token's x.
            num_ranks: size of the group.
        """
        rings = self.num_sms // 2 * min(num_ranks, NVL_PEERS)
        slots = rings * self.num_max_nvl_chunked_recv_tokens
        return _align_up(slots * _slot_bytes(hidden_bytes), _BUFFER_ALIGNMENT)

    def get_rdma_buffer_size_hint(self, hidden_bytes: int, num_ranks: int) -> int:
        """Bytes of the RDMA rings of one rank, for sending and receiving; 0 within one node.

        Args:
            hidden_bytes: bytes of one token's x.
            num_ranks: size of the group.
        """
        if num_ranks <= NVL_PEERS:
            return 0
        rings = self.num_sms // 2 * -(-num_ranks // NVL_PEERS) * 2
        slots = rings * self.num_max_rdma_chunked_recv_tokens
        return _align_up(slots * _slot_bytes(hidden_bytes), _BUFFER_ALIGNMENT)


def check_num_sms(check: Checker, num_sms: int) -> None:
    """Require an even, positive number of SMs: a channel is one sender and one receiver."""
    if num_sms < 2 or num_sms % 2:
        check.invalid("num_sms", "be a positive even number", num_sms, "two SMs make a channel")


# Up to this many ranks: (nvl send, nvl recv, rdma send, rdma recv).
_DISPATCH = {
    2: (24, 256, 6, 128),
    8: (6, 256, 6, 128),
    16: (36, 288, 20, 128),
    64: (32, 288, 8, 128),
    96: (20, 480, 12, 128),
    128: (20, 560, 12, 128),
    144: (32, 720, 12, 128),
    160: (28, 720, 12, 128),
}
_COMBINE = {
    2: (10, 256, 6, 128),
    4: (9, 256, 6, 128),
    8: (4, 256, 6, 128),
    16: (4, 288, 12, 128),
    64: (1, 288, 8, 128),
    96: (1, 480, 8, 128),
    128: (1, 560, 8, 128),
    160: (2, 720, 8, 128),
}


def dispatch_config(num_ranks: int, num_sms: int) -> Config:
    """The default configuration of dispatch on this many ranks."""
    return _nearest("get_dispatch_config", _DISPATCH, num_ranks, num_sms)


def combine_config(num_ranks: int, num_sms: int) -> Config:
    """The default configuration of combine on this many ranks."""
    return _nearest("get_combine_config", _COMBINE, num_ranks, num_sms)


def _nearest(
    op: str, table: dict[int, tuple[int, int, int, int]], num_ranks: int, num_sms: int
) -> Config:
    Checker(op).between("num_ranks", num_ranks, 1, max(table), "split the group")
    return Config(num_sms, *table[min(size for size in table if size >= num_ranks)])


def _slot_bytes(hidden_bytes: int) -> int:
    """One row in a ring: x, source index i32, topk ids i64 and weights f32, scales f32."""
    return hidden_bytes + 4 + _MAX_TOPK * (8 + 4) + _MAX_SCALES * 4


def _align_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
