"""What the launches of all GEMM kernels say alike: their enumerators, sizes and boxes of d."""

from __future__ import annotations

import torch

from csrc import Map, Number, Pointer, TensorMap
from deepgemm.plan import Grouping, Share

NAMESPACE = "openweek::deepgemm"

Members = tuple[Map | Pointer | Number, ...]

# The members of csrc/deepgemm/params.h's Problem.
PROBLEM: Members = (
    Pointer("layout", torch.int32, optional=True),
    *(Number(name, "i32") for name in ("m", "n", "k", "num_groups")),
)

_GROUPINGS: dict[Grouping, str] = {
    "dense": "kDense",
    "row_map": "kRowMap",
    "prefix_sum": "kPrefixSum",
    "masked": "kMasked",
    "along_k": "kAlongK",
}
_SHARES: dict[Share, str] = {"nothing": "kNothing", "a": "kA", "b": "kB"}
# Columns of d in a panel, the widest that divides a tile first.
_PANELS = (64, 32, 16)


def grouping_name(grouping: Grouping) -> str:
    """The enumerator of csrc/deepgemm/scheduler.cuh."""
    return f"{NAMESPACE}::Grouping::{_GROUPINGS[grouping]}"


def share_name(share: Share) -> str:
    """The enumerator of csrc/deepgemm/scheduler.cuh."""
    return f"{NAMESPACE}::Share::{_SHARES[share]}"


def map_of_d(d: torch.Tensor, block_n: int) -> TensorMap:
    """The map of a bf16 d [groups, m, n] that is stored in panels of 64 rows."""
    panel = next(columns for columns in _PANELS if block_n % columns == 0)
    return TensorMap.of(d, (1, 64, panel), swizzle_bytes=2 * panel)


def with_groups(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with a first dim of groups, of which a single product has one."""
    return tensor if tensor.dim() == 3 else tensor[None]
