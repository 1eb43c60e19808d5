"""The FP8 Hopper kernels: how each is compiled, and the grid and tensor maps of a launch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

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
    Members,
    grouping_name,
    map_of_d,
    share_name,
    with_groups,
)
from deepgemm.layout import ceil_div
from deepgemm.plan import Config, FewTokens, Grouping, Problem, Tiles, plan
from deepgemm.settings import get_pdl, num_sms_of
from deepgemm.tuned import tuned


def _scales(name: str) -> Members:
    strides = (Number(f"{name}.{dim}_stride", "i64") for dim in ("row", "k", "group"))
    return (Pointer(name, torch.float32, contiguous=False), *strides)


_SIGNATURE = Signature(
    Struct("params", (*map(Map, "abd"), *_scales("scale_a"), *_scales("scale_b"), *PROBLEM))
)
# Groups along k that one kernel has parameters for: each takes two tensor maps.
_MOST_GROUPS = (1, 8, 32, 96)


def gemm_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    *,
    grouping: Grouping = "dense",
    layout: torch.Tensor | None = None,
    expected_m: int | None = None,
    config: Config | None = None,
) -> None:
    """Launch `d = a @ b.T`, once or for every group. No size is 0.

    Args:
        a: [m, k], or [num_groups, m, k] if masked, e4m3.
        scale_a: the same with ceil(k / 128) columns, float32, any strides.
        b: [n, k] if dense, else [num_groups, n, k], e4m3.
        scale_b: the same with blocks of 128 rows and columns, float32, any strides.
        d: like a with n columns, bf16.
        grouping: what layout says: "dense", "row_map", "prefix_sum" or "masked".
        layout: int32, see csrc/deepgemm/scheduler.cuh; None if dense.
        expected_m: rows of a masked group that are likely to count.
        config: by default what was tuned, or else what the planner chooses.
    """
    a, scale_a, b, scale_b, d = map(with_groups, (a, scale_a, b, scale_b, d))
    (_, m, k), (num_groups, n, _) = a.shape, b.shape
    problem = Problem(
        grouping=grouping, m=m, n=n, k=k, num_groups=num_groups, expected_m=expected_m
    )
    sms = num_sms_of(a.device)
    config = config or tuned(problem, a.device) or plan(problem, sms)
    box_a, box_b = _boxes(config)
    clusters = min(config.num_clusters(problem), max(1, sms // config.cluster))
    _launcher(config, grouping, get_pdl())(
        TensorMap.of(a, box_a, swizzle_bytes=128),
        TensorMap.of(b, box_b, swizzle_bytes=128),
        TensorMap.of(d, (1, config.tokens, 64), swizzle_bytes=128)
        if isinstance(config, FewTokens)
        else map_of_d(d, config.block_n),
        *(scale_a, scale_a.stride(1), scale_a.stride(2), scale_a.stride(0)),
        *(scale_b, scale_b.stride(1), scale_b.stride(2), scale_b.stride(0)),
        *(layout, m, n, k, num_groups),
        grid=(clusters * config.cluster, 1, 1),
    )


def accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    *,
    config: Tiles | None = None,
) -> None:
    """Launch `d = c + a @ b.T` in FP32. No size is 0.

    Args:
        a: [m, k] e4m3.
        scale_a: [m, ceil(k / 128)] float32, any strides.
        b: [n, k] e4m3.
        scale_b: [n, ceil(k / 128)] float32, any strides.
        c: [m, n] float32, last dim contiguous.
        d: like c; may be c.
        config: by default what the planner chooses.
    """
    (m, k), n = a.shape, len(b)
    problem = Problem(m=m, n=n, k=k, output="fp32")
    _accumulate(problem, [(a, b)], (scale_a, scale_b), (c[None], d[None]), None, config)


def k_grouped_accumulate_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor,
    ks: Sequence[int],
    *,
    layout: torch.Tensor | None = None,
    config: Tiles | None = None,
) -> None:
    """Launch `d[g] = c[g] + a_g @ b_g.T` in FP32 for groups of columns. Neither m nor n is 0.

    Args:
        a: [m * sum(ks)] e4m3, the groups' [m, ks[g]] one after another.
        scale_a: [m, sum(ks) / 128] float32, any strides.
        b: [n * sum(ks)] e4m3, likewise.
        scale_b: [n, sum(ks) / 128] float32, any strides.
        c: [num_groups, m, n] float32, last dim contiguous.
        d: like c; may be c.
        ks: multiples of 128, not all of them 0.
        layout: [num_groups] int32, ks on the device, if the caller has them there.
        config: by default what the planner chooses.
    """
    num_groups, m, n = d.shape
    if layout is None:
        layout = torch.tensor(ks, dtype=torch.int32).to(d.device, non_blocking=True)
    ends = list(itertools.accumulate(ks))
    # More groups than one kernel takes go to several launches.
    for first in range(0, num_groups, _MOST_GROUPS[-1]):
        groups = range(first, min(num_groups, first + _MOST_GROUPS[-1]))
        begin, end = ends[first] - ks[first], ends[groups[-1]]
        operands = [
            tuple(
                flat[rows * (ends[g] - ks[g]) : rows * ends[g]].view(rows, ks[g])
                for flat, rows in ((a, m), (b, n))
            )
            for g in groups
        ]
        scales = (scale[:, begin // 128 : end // 128] for scale in (scale_a, scale_b))
        mean = ceil_div(end - begin, len(groups))
        problem = Problem(
            grouping="along_k", m=m, n=n, k=max(1, mean), num_groups=len(groups), output="fp32"
        )
        part = slice(first, groups[-1] + 1)
        _accumulate(problem, operands, tuple(scales), (c[part], d[part]), layout[part], config)


def _accumulate(
    problem: Problem,
    operands: Sequence[tuple[torch.Tensor, ...]],
    scales: tuple[torch.Tensor, ...],
    sums: tuple[torch.Tensor, torch.Tensor],
    layout: torch.Tensor | None,
    config: Tiles | None,
) -> None:
    device = sums[1].device
    chosen = config or plan(problem, num_sms_of(device))
    boxes = _boxes(chosen)
    most = next(size for size in _MOST_GROUPS if size >= len(operands))
    maps = []
    for which in (0, 1):
        some = next(pair[which] for pair in operands if pair[which].numel())
        # An empty group has no map, and none is asked for.
        tensors = [pair[which] if pair[which].numel() else some for pair in operands]
        tensors += [some] * (most - len(tensors))
        maps += [TensorMap.of(t[None], boxes[which], swizzle_bytes=128) for t in tensors]
    clusters = min(chosen.num_clusters(problem), max(1, num_sms_of(device) // chosen.cluster))
    _accumulate_launcher(chosen, problem.grouping, most, get_pdl())(
        *maps,
        *(value for scale in scales for value in (scale, scale.stride(0), scale.stride(1), 0)),
        *sums,
        *(stride for tensor in sums for stride in (tensor.stride(1), tensor.stride(0))),
        *(layout, problem.m, problem.n, problem.k, len(operands)),
        grid=(clusters * chosen.cluster, 1, 1),
    )


@functools.cache
def _accumulate_launcher(
    config: Tiles, grouping: Grouping, most_groups: int, pdl: bool
) -> Launcher:
    source, expression = source_of(config, grouping)
    members: Members = (
        *(Map(f"{name}[{group}]") for name in "ab" for group in range(most_groups)),
        *_scales("scale_a"),
        *_scales("scale_b"),
        *(Pointer(name, torch.float32, contiguous=False) for name in "cd"),
        *(Number(f"{name}.{dim}_stride", "i64") for name in "cd" for dim in ("row", "group")),
        *PROBLEM,
    )
    return Launcher(
        compile_kernel(source, f"{expression.removesuffix('>')}, {most_groups}>"),
        Signature(Struct("params", members)),
        op="fp8_accumulate_nt",
        block=(config.num_threads, 1, 1),
        cluster=(config.cluster, 1, 1),
        smem_bytes=config.smem_bytes,
        programmatic=pdl,
    )


def source_of(config: Config, grouping: Grouping) -> tuple[str, str]:
    """The file of a configuration's kernel, and the kernel as C++ names it."""
    group = grouping_name(grouping)
    if isinstance(config, FewTokens):
        numbers = f"{config.tokens}, {config.num_stages}, {config.split}"
        return "deepgemm/fp8_small_m.cu", (
            f"{NAMESPACE}::fp8_small_m_gemm_nt_sm90_kernel<{numbers}, {group}>"
        )
    numbers = f"{config.block_m}, {config.block_n}, {config.num_stages}"
    share = share_name(config.share)
    kernel = "fp8_gemm" if config.output == "bf16" else "fp8_accumulate"
    return f"deepgemm/{kernel}.cu", (
        f"{NAMESPACE}::{kernel}_nt_sm90_kernel<{numbers}, {group}, {share}>"
    )


@functools.cache
def _launcher(config: Config, grouping: Grouping, pdl: bool) -> Launcher:
    return Launcher(
        compile_kernel(*source_of(config, grouping)),
        _SIGNATURE,
        op="fp8_gemm_nt",
        block=(config.num_threads, 1, 1),
        cluster=(config.cluster, 1, 1),
        smem_bytes=config.smem_bytes,
        programmatic=pdl,
    )


def _boxes(config: Config) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """What one TMA instruction loads of a and of b: (groups, rows, columns)."""
    if isinstance(config, FewTokens):
        return (1, config.tokens, 128), (1, config.block_n, 128)
    rows_a = config.block_m // (2 if config.share == "a" else 1)
    rows_b = config.block_n // (2 if config.share == "b" else 1)
    return (1, rows_a, 128), (1, rows_b, 128)
