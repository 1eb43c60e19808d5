"""The BF16 Hopper kernel: how it is compiled, and the grid and tensor maps of a launch."""

from __future__ import annotations

import functools
from typing import Any

import torch

from csrc import (
    Launcher,
    Map,
    Number,
    Pointer,
    Signature,
    Struct,
    TensorMap,
    compile_kernel,
)
from deepgemm.kernel_terms import (
    NAMESPACE,
    PROBLEM,
    grouping_name,
    map_of_d,
    share_name,
    with_groups,
)
from deepgemm.layout import ceil_div
from deepgemm.plan import Grouping, Output, Problem
from deepgemm.plan_bf16 import Bf16Tiles, Major, plan
from deepgemm.settings import get_pdl, num_sms_of

_MAJORS: dict[Major, str] = {"k": "kK", "mn": "kMn"}
_OUTPUTS: dict[Output, str] = {"bf16": "kBf16", "fp32": "kFp32"}
_STEP = 64  # of k, in elements
_PANEL_ROWS = 64  # of an operand that does not run along k


def _fp32(name: str) -> tuple[Pointer | Number, ...]:
    strides = (Number(f"{name}.{dim}_stride", "i64") for dim in ("row", "group"))
    return (Pointer(name, torch.float32, contiguous=False, optional=name == "c"), *strides)


def _signature(*written: Map | Pointer | Number) -> Signature:
    return Signature(Struct("params", (Map("a"), Map("b"), *written, *PROBLEM)))


_SIGNATURES: dict[Output, Signature] = {
    "bf16": _signature(Map("d")),
    "fp32": _signature(*_fp32("c"), *_fp32("d")),
}


def gemm(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor | None,
    d: torch.Tensor,
    *,
    grouping: Grouping = "dense",
    layout: torch.Tensor | None = None,
    expected_m: int | None = None,
    tiles: Bf16Tiles | None = None,
) -> None:
    """Launch `d = c + a @ b.T`, once or for every group. No size is 0.

    a and b may run along either of their last two dims: one has stride 1, the other a multiple of
    8. Groups along k each begin where the one before them ends, and are multiples of 64.

    Args:
        a: [m, k], or [num_groups, m, k] if masked, bf16.
        b: [n, k] if dense or along k, else [num_groups, n, k], bf16.
        c: like d, float32, or d itself; None for zeros, and if d is bf16.
        d: like a with n columns, or [num_groups, m, n] along k. Its last dim has stride 1. bf16
            has other strides that are multiples of 8; float32 even ones, and an even n.
        grouping: what layout says.
        layout: int32, see csrc/deepgemm/scheduler.cuh; None if dense.
        expected_m: rows of a masked group that are likely to count.
        tiles: by default what the planner chooses.
    """
    output: Output = "bf16" if d.dtype == torch.bfloat16 else "fp32"
    num_groups = {"dense": 1, "along_k": len(d)}.get(grouping, len(b))
    a, b, d = map(with_groups, (a, b, d))
    (_, m, k), n = a.shape, b.shape[1]
    problem = Problem(
        grouping=grouping,
        m=m,
        n=n,
        k=ceil_div(k, num_groups) if grouping == "along_k" else k,
        num_groups=num_groups,
        expected_m=expected_m,
        output=output,
    )
    sms = num_sms_of(a.device)
    tiles = tiles or plan(problem, sms, _major(a), _major(b))
    clusters = min(tiles.num_clusters(problem), max(1, sms // tiles.cluster))
    rows_a, rows_b = tiles.loaded_rows
    _launcher(tiles, grouping, get_pdl())(
        _operand(a, tiles.major_a, rows_a),
        _operand(b, tiles.major_b, rows_b),
        *((map_of_d(d, tiles.block_n),) if output == "bf16" else (*_matrix(c), *_matrix(d))),
        *(layout, m, n, k, num_groups),
        grid=(clusters * tiles.cluster, 1, 1),
    )


def expression(tiles: Bf16Tiles, grouping: Grouping) -> str:
    """The kernel of a configuration, as C++ names it."""
    arguments = (
        *(tiles.block_m, tiles.block_n, tiles.num_stages),
        grouping_name(grouping),
        share_name(tiles.share),
        f"openweek::primitives::Major::{_MAJORS[tiles.major_a]}",
        f"openweek::primitives::Major::{_MAJORS[tiles.major_b]}",
        f"{NAMESPACE}::Output::{_OUTPUTS[tiles.output]}",
    )
    return f"{NAMESPACE}::bf16_gemm_sm90_kernel<{', '.join(map(str, arguments))}>"


@functools.cache
def _launcher(tiles: Bf16Tiles, grouping: Grouping, pdl: bool) -> Launcher:
    return Launcher(
        compile_kernel("deepgemm/bf16_gemm.cu", expression(tiles, grouping)),
        _SIGNATURES[tiles.output],
        op="bf16_gemm",
        block=(tiles.num_threads, 1, 1),
        cluster=(tiles.cluster, 1, 1),
        smem_bytes=tiles.smem_bytes,
        programmatic=pdl,
    )


def _major(operand: torch.Tensor) -> Major:
    """Which dim has no gaps; k, if a dim of one element leaves both open."""
    return "k" if operand.stride(2) == 1 else "mn"


def _operand(operand: torch.Tensor, major: Major, rows: int) -> TensorMap:
    if major == "k":
        return TensorMap.of(operand, (1, rows, _STEP), swizzle_bytes=128)
    return TensorMap.of(operand.mT, (1, _STEP, _PANEL_ROWS), swizzle_bytes=128)


def _matrix(tensor: torch.Tensor | None) -> tuple[Any, int, int]:
    if tensor is None:
        return None, 0, 0
    tensor = with_groups(tensor)
    return tensor, tensor.stride(1), tensor.stride(0)
