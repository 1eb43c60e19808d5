"""`Buffer`: the public face of expert-parallel communication."""

from typing import ClassVar

import torch
import torch.distributed as dist

from csrc import Checker
from deepep import arguments, cpu
from deepep.arguments import TensorOrPair
from deepep.config import Config, check_num_sms, combine_config, dispatch_config
from deepep.cpu import Finish
from deepep.events import EventHandle, EventOverlap
from deepep.handle import Handle
from deepep.layout import dispatch_layout

Tensor = torch.Tensor


class Buffer:
    """Dispatch and combine over one process group.

    Every rank of the group makes one, and all ranks then make the same calls in the same order.
    Expert e lives on group rank `e // (num_experts / group_size)`.

    Args:
        group: the process group; CPU tensors need gloo in it.
        num_nvl_bytes: bytes of the NVLink buffer, a multiple of 128; a hint on CPU.
        num_rdma_bytes: bytes of the RDMA buffer, a multiple of 128; a hint on CPU.
        low_latency_mode: must be False: the low-latency calls are not built yet.
        num_qps_per_rank: RDMA queue pairs; a hint on CPU.
        allow_nvlink_for_low_latency_mode: a hint on CPU.
        allow_mnnvl: a hint on CPU.
        explicitly_destroy: the owner calls `destroy()`.
        enable_shrink: must be False: masking of lost ranks is not built yet.
        comm: must be None: an mpi4py communicator in place of `group` is not supported yet.

    Attributes:
        num_sms: streaming multiprocessors that kernels may take, for all buffers.

    Raises:
        TypeError: `group` is not a process group that this rank belongs to.
        ValueError: a byte count is negative or not a multiple of 128.
        NotImplementedError: an argument asks for what is not built yet.

    Example:
        >>> import tempfile
        >>> store = dist.FileStore(tempfile.mktemp(), 1)
        >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        >>> buffer = Buffer(dist.group.WORLD)
        >>> topk_idx = torch.tensor([[0, 1], [-1, 1]])
        >>> per_rank, _, per_expert, is_in_rank, _ = buffer.get_dispatch_layout(topk_idx, 2)
        >>> x = torch.ones(2, 8, dtype=torch.bfloat16)
        >>> recv_x, recv_idx, weights, counts, handle, _ = buffer.dispatch(
        ...     x, num_tokens_per_rank=per_rank, is_token_in_rank=is_in_rank,
        ...     num_tokens_per_expert=per_expert, topk_idx=topk_idx, topk_weights=torch.rand(2, 2))
        >>> counts
        [1, 2]
        >>> combined_x, _, _ = buffer.combine(recv_x, handle)
        >>> torch.equal(combined_x, x)
        True
        >>> dist.destroy_process_group()
    """

    num_sms: ClassVar[int] = 20

    def __init__(
        self,
        group: dist.ProcessGroup | None,
        num_nvl_bytes: int = 0,
        num_rdma_bytes: int = 0,
        low_latency_mode: bool = False,
        num_qps_per_rank: int = 24,
        allow_nvlink_for_low_latency_mode: bool = True,  # noqa: ARG002 - a hint on CPU
        allow_mnnvl: bool = False,  # noqa: ARG002 - a hint on CPU
        explicitly_destroy: bool = False,
        enable_shrink: bool = False,
        comm: object = None,
    ) -> None:
        check = Checker("Buffer")
        for name, asked in (
            ("low_latency_mode", low_latency_mode),
            ("enable_shrink", enable_shrink),
        ):
            if asked:
                check.not_built(name, "be False", asked, "it is not built yet; leave it out")
        if comm is not None:
            check.not_built("comm", "be None", type(comm).__name__, "pass a torch group instead")
        if not isinstance(group, dist.ProcessGroup):
            rule = "be a process group that this rank belongs to"
            check.wrong_type("group", rule, type(group).__name__, "dist.new_group on all ranks")
        for name, size in (("num_nvl_bytes", num_nvl_bytes), ("num_rdma_bytes", num_rdma_bytes)):
            check.between(name, size, 0, 2**63 - 1, "see Config.get_nvl_buffer_size_hint")
            check.multiple(name, size, 128, "round it up")
        self.group = group
        self.rank = group.rank()
        self.group_size = group.size()
        self.num_nvl_bytes = num_nvl_bytes
        self.num_rdma_bytes = num_rdma_bytes
        self.low_latency_mode = low_latency_mode
        self.num_qps_per_rank = num_qps_per_rank
        self.explicitly_destroy = explicitly_destroy
        self._destroyed = False

    @classmethod
    def set_num_sms(cls, new_num_sms: int) -> None:
        """Set how many streaming multiprocessors the kernels may take: a positive even number."""
        check_num_sms(Checker("set_num_sms"), new_num_sms)
        Buffer.num_sms = new_num_sms

    @staticmethod
    def capture() -> EventOverlap:
        """Make an event of what has been started so far; on CPU that has happened already."""
        return EventOverlap(EventHandle())

    @staticmethod
    def get_dispatch_config(num_ranks: int) -> Config:
        """The default `Config` of dispatch for a group of 1 to 160 ranks."""
        return dispatch_config(num_ranks, Buffer.num_sms)

    @staticmethod
    def get_combine_config(num_ranks: int) -> Config:
        """The default `Config` of combine for a group of 1 to 160 ranks."""
        return combine_config(num_ranks, Buffer.num_sms)

    def destroy(self) -> None:
        """End the buffer; any later call raises ValueError.

        Raises:
            ValueError: the buffer was not made with `explicitly_destroy=True`.
        """
        if not self.explicitly_destroy:
            rule, remedy = "be True to destroy", "pass it to Buffer"
            Checker("destroy").invalid("explicitly_destroy", rule, False, remedy)
        self._destroyed = True

    def get_dispatch_layout(
        self,
        topk_idx: Tensor,
        num_experts: int,
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor, EventOverlap]:
        """Count where the tokens go. Nothing is sent.

        Args:
            topk_idx: [num_tokens, topk] i64, contiguous — selected experts, -1 for none.
            num_experts: experts of the whole group, a multiple of the group size.
            previous_event: waited for first.
            async_finish: return an event to wait for; the CPU results are valid at once.
            allocate_on_comm_stream: needs `previous_event` and `async_finish`.

        Returns:
            num_tokens_per_rank: [group_size] i32 — a token counts once per rank.
            num_tokens_per_rdma_rank: None: no ranks are reached by RDMA.
            num_tokens_per_expert: [num_experts] i32 — every selection counts.
            is_token_in_rank: [num_tokens, group_size] bool.
            event: `EventOverlap`.

        Raises:
            TypeError: wrong dtype.
            ValueError: an id out of range, or a number of experts that does not fit the group.
            NotImplementedError: tensors that are not on CPU.
        """
        check = self._begin(
            "get_dispatch_layout", None, previous_event, async_finish, allocate_on_comm_stream
        )
        arguments.check_experts(check, num_experts, self.group_size)
        arguments.check_topk_idx(check, topk_idx, num_experts)
        per_rank, per_expert, in_rank = dispatch_layout(topk_idx, num_experts, self.group_size)
        event = EventOverlap(EventHandle() if async_finish else None)
        return per_rank, None, per_expert, in_rank, event

    @torch.no_grad()
    def dispatch(
        self,
        x: TensorOrPair,
        handle: Handle | None = None,
        num_tokens_per_rank: Tensor | None = None,
        num_tokens_per_rdma_rank: Tensor | None = None,  # noqa: ARG002 - no RDMA ranks on CPU
        is_token_in_rank: Tensor | None = None,
        num_tokens_per_expert: Tensor | None = None,
        topk_idx: Tensor | None = None,
        topk_weights: Tensor | None = None,
        expert_alignment: int = 1,
        num_worst_tokens: int = 0,
        config: Config | None = None,
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[
        TensorOrPair, Tensor | None, Tensor | None, list[int] | None, Handle | None, EventOverlap
    ]:
        """Send every token to the ranks of its experts, once per rank.

        Received rows are ordered by source rank, then by source token. No gradient is recorded:
        the gradient of a dispatch is a combine with its handle.

        Args:
            x: [num_tokens, hidden] bf16, or a pair of [num_tokens, hidden] fp8 e4m3 and scales
                [num_tokens, num_scales] f32 or i32 of any strides; rows of k * 16 bytes.
            handle: of an earlier dispatch: takes its routes instead of a layout (cached mode).
            num_tokens_per_rank: [group_size] i32, from `get_dispatch_layout`.
            num_tokens_per_rdma_rank: as returned by `get_dispatch_layout`.
            is_token_in_rank: [num_tokens, group_size] bool, from `get_dispatch_layout`.
            num_tokens_per_expert: [num_experts] i32, from `get_dispatch_layout`; at most 512
                experts per rank.
            topk_idx: [num_tokens, topk] i64 — selected experts; travels along.
            topk_weights: [num_tokens, topk] f32 — travels along.
            expert_alignment: the returned counts are rounded up to multiples of it; data is not
                padded.
            num_worst_tokens: rows of every result, at least what arrives; 0: as many as arrive.
            config: tuning hints.
            previous_event: waited for before anything is read.
            async_finish: return while the rows travel; results, and the handle's, are valid after
                `event.current_stream_wait()`, which also raises what went wrong. The arguments may
                be overwritten at once.
            allocate_on_comm_stream: needs `previous_event` and `async_finish`.

        Returns:
            recv_x: like x, [num_recv_tokens, hidden], with row-major scales.
            recv_topk_idx: [num_recv_tokens, topk] i64 — id among this rank's experts, -1 for
                others and in unused rows; None without topk_idx.
            recv_topk_weights: [num_recv_tokens, topk] f32 — 0 where recv_topk_idx is -1; or None.
            num_recv_tokens_per_expert_list: aligned count of every local expert; [] with
                `num_worst_tokens`.
            handle: for `combine` and cached dispatches.
            event: `EventOverlap`.
            In cached mode all but the first and the last are None.

        Raises:
            TypeError, ValueError: before anything is sent when this rank's arguments are wrong;
                on every rank when they do not agree between ranks.
            NotImplementedError: tensors that are not on CPU.
            RuntimeError: a peer died, or was not there within the group's timeout.
        """
        check = self._begin(
            "dispatch", config, previous_event, async_finish, allocate_on_comm_stream
        )
        if handle is not None:
            for name, value in (("topk_idx", topk_idx), ("topk_weights", topk_weights)):
                if value is not None:
                    check.invalid(name, "be None with a handle", "a tensor", "it stays the same")
            handle = arguments.check_handle(check, handle, self.group_size)
            rows = arguments.cached_rows(check, x, handle)
            self._choose_backend(check)
            received, finish = cpu.cached_dispatch(self.group, rows, handle)
            return _x_of(received), None, None, None, None, _event(finish, async_finish)
        plan = arguments.dispatch_plan(
            check,
            self.group_size,
            num_tokens_per_rank,
            is_token_in_rank,
            num_tokens_per_expert,
            expert_alignment,
            num_worst_tokens,
        )
        rows = arguments.dispatch_rows(check, x, topk_idx, topk_weights, check.dims["num_experts"])
        self._choose_backend(check)
        received, per_expert, handle, finish = cpu.dispatch(self.group, rows, plan)
        event = _event(finish, async_finish)
        recv_idx, recv_weights = received.get("topk_idx"), received.get("topk_weights")
        return _x_of(received), recv_idx, recv_weights, per_expert, handle, event

    @torch.no_grad()
    def combine(
        self,
        x: Tensor,
        handle: Handle,
        topk_weights: Tensor | None = None,
        bias: TensorOrPair | None = None,
        config: Config | None = None,
        previous_event: EventOverlap | None = None,
        async_finish: bool = False,
        allocate_on_comm_stream: bool = False,
    ) -> tuple[Tensor, Tensor | None, EventOverlap]:
        """Send rows back to where they were dispatched from, and add up what belongs together.

        The sum is float32, in the order of the ranks, with no weights applied; it is rounded to
        bf16 once. No gradient is recorded: the gradient of a combine is a cached dispatch.

        Args:
            x: [num_recv_tokens, hidden] bf16 — one row per row received in the dispatch.
            handle: of the dispatch; hidden is the same as there.
            topk_weights: [num_recv_tokens, topk] f32 — summed per slot at the source token.
            bias: [num_tokens, hidden] bf16, or two of them, added in float32.
            config: tuning hints.
            previous_event: waited for before anything is read.
            async_finish: as in `dispatch`.
            allocate_on_comm_stream: needs `previous_event` and `async_finish`.

        Returns:
            combined_x: [num_tokens, hidden] bf16 — a token that went nowhere gets its biases.
            combined_topk_weights: [num_tokens, topk] f32, or None without topk_weights.
            event: `EventOverlap`.

        Raises:
            TypeError, ValueError: before anything is sent when this rank's arguments are wrong;
                on every rank when they do not agree between ranks.
            NotImplementedError: tensors that are not on CPU.
            RuntimeError: a peer died, or was not there within the group's timeout.
        """
        check = self._begin(
            "combine", config, previous_event, async_finish, allocate_on_comm_stream
        )
        handle = arguments.check_handle(check, handle, self.group_size)
        rows = arguments.combine_rows(check, x, topk_weights, handle)
        biases = arguments.bias_list(check, bias, handle)
        self._choose_backend(check)
        combined, finish = cpu.combine(self.group, rows, handle, biases)
        return combined["x"], combined.get("topk_weights"), _event(finish, async_finish)

    def _begin(
        self,
        op: str,
        config: Config | None,
        previous_event: EventOverlap | None,
        async_finish: bool,
        allocate_on_comm_stream: bool,
    ) -> Checker:
        """Check what all calls have in common, and wait for the previous event."""
        check = Checker(op)
        if self._destroyed:
            check.invalid("buffer", "be alive", "one that was destroyed", "make a new one")
        if config is not None and not isinstance(config, Config):
            check.wrong_type("config", "be a Config", type(config).__name__, "leave it out")
        if allocate_on_comm_stream and (previous_event is None or not async_finish):
            rule = "come with previous_event and async_finish"
            check.invalid("allocate_on_comm_stream", rule, "it without them", "leave it out")
        if previous_event is not None:
            previous_event.current_stream_wait()
        return check

    def _choose_backend(self, check: Checker) -> None:
        """Require tensors that something serves, and a group that can carry them."""
        check.backend()
        config = dist.get_backend_config(self.group)
        if "cpu:" not in config:
            remedy = 'make the group with backend="cpu:gloo,cuda:nccl"'
            check.invalid("group", "have a backend for CPU tensors", config, remedy)


def _x_of(rows: dict[str, Tensor]) -> TensorOrPair:
    return (rows["x"], rows["scales"]) if "scales" in rows else rows["x"]


def _event(finish: Finish, async_finish: bool) -> EventOverlap:
    if async_finish:
        return EventOverlap(EventHandle(finish))
    finish()
    return EventOverlap(None)
