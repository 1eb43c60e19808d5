"""What callers may pass to dispatch and combine: every rule is checked before anything is sent."""

import torch

from csrc import Checker
from deepep.config import topk_idx_t
from deepep.handle import Handle
from deepep.layout import MAX_LOCAL_EXPERTS, Plan
from deepep.rows import Rows

TensorOrPair = torch.Tensor | tuple[torch.Tensor, torch.Tensor]

_ROW_ALIGNMENT = 16


def check_experts(check: Checker, num_experts: int, num_ranks: int) -> None:
    """Require experts that divide evenly over the ranks."""
    if num_experts < 1:
        check.invalid("num_experts", "be positive", num_experts, "count the whole group's experts")
    check.multiple("num_experts", num_experts, num_ranks, "give every rank as many experts")
    most = MAX_LOCAL_EXPERTS * num_ranks
    check.between("num_experts", num_experts, 1, most, "spread them over more ranks")


def check_topk_idx(check: Checker, topk_idx: torch.Tensor, num_experts: int) -> None:
    """Require ids in -1 .. num_experts - 1."""
    check.tensor("topk_idx", topk_idx, ("num_tokens", "topk"), topk_idx_t)
    check.backend()
    if topk_idx.numel():
        low, high = (int(bound) for bound in topk_idx.aminmax())
        outside = low if low < -1 else high
        check.between("topk_idx", outside, -1, num_experts - 1, "-1 means no expert")


def x_rows(check: Checker, x: TensorOrPair) -> Rows:
    """Check x, a bf16 tensor or an (fp8, scales) pair."""
    if not isinstance(x, tuple | list):
        check.tensor("x", x, ("num_tokens", "hidden"), torch.bfloat16)
        rows = {"x": x}
    elif len(x) != 2:
        check.invalid("x", "be a tensor or a pair (fp8, scales)", f"{len(x)} items", "pass two")
    else:
        rows = {"x": x[0], "scales": x[1]}
        check.tensor("x", x[0], ("num_tokens", "hidden"), torch.float8_e4m3fn)
        dtypes = (torch.float32, torch.int32)
        check.tensor("scales", x[1], ("num_tokens", "num_scales"), *dtypes, layout="any")
        check.between("num_scales", check.dims["num_scales"], 1, check.dims["hidden"], "fit x")
    x_bytes = check.dims["hidden"] * rows["x"].element_size()
    if not x_bytes or x_bytes % _ROW_ALIGNMENT:
        rule = f"have rows of a positive multiple of {_ROW_ALIGNMENT} bytes"
        check.invalid("x", rule, f"{x_bytes} bytes", "pad hidden")
    return rows


def dispatch_rows(
    check: Checker,
    x: TensorOrPair,
    topk_idx: torch.Tensor | None,
    topk_weights: torch.Tensor | None,
    num_experts: int,
) -> Rows:
    """Check all that travels in an uncached dispatch."""
    rows = x_rows(check, x)
    if (topk_idx is None) != (topk_weights is None):
        actual = "topk_idx alone" if topk_weights is None else "topk_weights alone"
        check.invalid("topk_idx and topk_weights", "come together", actual, "pass both or none")
    if topk_idx is not None and topk_weights is not None:
        check_topk_idx(check, topk_idx, num_experts)
        check.tensor("topk_weights", topk_weights, ("num_tokens", "topk"), torch.float32)
        rows |= {"topk_idx": topk_idx, "topk_weights": topk_weights}
    return rows


def dispatch_plan(
    check: Checker,
    num_ranks: int,
    num_tokens_per_rank: torch.Tensor | None,
    is_token_in_rank: torch.Tensor | None,
    num_tokens_per_expert: torch.Tensor | None,
    expert_alignment: int,
    num_worst_tokens: int,
) -> Plan:
    """Check the layout of an uncached dispatch."""
    if num_tokens_per_rank is None or is_token_in_rank is None or num_tokens_per_expert is None:
        names = "num_tokens_per_rank, is_token_in_rank and num_tokens_per_expert"
        check.invalid(names, "be given without a handle", None, "call get_dispatch_layout")
    check.tensor("is_token_in_rank", is_token_in_rank, ("num_tokens", num_ranks), torch.bool)
    check.tensor("num_tokens_per_rank", num_tokens_per_rank, (num_ranks,), torch.int32)
    check.tensor("num_tokens_per_expert", num_tokens_per_expert, ("num_experts",), torch.int32)
    check_experts(check, check.dims["num_experts"], num_ranks)
    check.between("expert_alignment", expert_alignment, 1, 2**31 - 1, "1 means no rounding")
    check.between("num_worst_tokens", num_worst_tokens, 0, 2**31 - 1, "0 means as many as arrive")
    return Plan(
        num_tokens_per_rank,
        is_token_in_rank,
        num_tokens_per_expert,
        expert_alignment,
        num_worst_tokens,
    )


def check_handle(check: Checker, handle: object, num_ranks: int) -> Handle:
    """Require a handle that dispatch made on a group of this size."""
    if not isinstance(handle, Handle):
        remedy = "keep the object, not a copy of its tensors"
        check.wrong_type("handle", "come from dispatch", type(handle).__name__, remedy)
    if len(handle.routes.sent.counts) != num_ranks:
        rule = f"be made on this group of {num_ranks} ranks"
        actual = f"one of {len(handle.routes.sent.counts)} ranks"
        check.invalid("handle", rule, actual, "use the buffer that dispatched")
    return handle


def check_hidden(check: Checker, handle: Handle) -> None:
    """Require the hidden size that the ranks agreed on."""
    hidden = check.dims["hidden"]
    if hidden != handle.routes.hidden:
        rule = f"have {handle.routes.hidden} columns as in the dispatch of the handle"
        check.invalid("x", rule, hidden, "dispatch again for another hidden size")


def cached_rows(check: Checker, x: TensorOrPair, handle: Handle) -> Rows:
    """Check all that travels in a cached dispatch."""
    rows = x_rows(check, x)
    check_hidden(check, handle)
    num_tokens = handle[4].shape[0]
    if check.dims["num_tokens"] != num_tokens:
        rule = f"have {num_tokens} rows as in the dispatch of the handle"
        check.invalid("x", rule, check.dims["num_tokens"], "pass one row per dispatched token")
    if "scales" in rows and check.dims["num_scales"] * 4 > check.dims["hidden"]:
        rule = "take no more bytes than x"
        check.invalid("scales", rule, list(rows["scales"].shape), "use one scale per 128 columns")
    return rows


def combine_rows(
    check: Checker, x: torch.Tensor, topk_weights: torch.Tensor | None, handle: Handle
) -> Rows:
    """Check all that travels in a combine."""
    num_rows = handle[3].shape[0]
    check.tensor("x", x, (num_rows, "hidden"), torch.bfloat16)
    check_hidden(check, handle)
    if topk_weights is None:
        return {"x": x}
    topk = handle.routes.topk
    if not topk:
        remedy = "pass topk_idx and topk_weights to dispatch"
        check.invalid("topk_weights", "be None as in the dispatch", "a tensor", remedy)
    check.tensor("topk_weights", topk_weights, (num_rows, topk), torch.float32)
    return {"x": x, "topk_weights": topk_weights}


def bias_list(
    check: Checker,
    bias: torch.Tensor | tuple[torch.Tensor, torch.Tensor] | None,
    handle: Handle,
) -> list[torch.Tensor]:
    """Check zero, one or two biases of a combine."""
    biases = [] if bias is None else [bias] if isinstance(bias, torch.Tensor) else list(bias)
    if len(biases) > 2:
        check.invalid("bias", "be one tensor or two", f"{len(biases)} tensors", "add them up")
    for item in biases:
        check.tensor("bias", item, (handle[4].shape[0], handle.routes.hidden), torch.bfloat16)
    return biases
