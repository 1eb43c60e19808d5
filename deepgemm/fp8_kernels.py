"""The FP8 Hopper kernels: how each is compiled, and the grid and tensor maps of a launch."""

from __future__ import annotations

import functools

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
    num_sms,
)
from deepgemm.plan import Config, FewTokens, Grouping, Problem, plan

_NAMESPACE = "openweek::deepgemm"
_GROUPINGS: dict[Grouping, str] = {
    "dense": "kDense",
    "row_map": "kRowMap",
    "prefix_sum": "kPrefixSum",
    "masked": "kMasked",
    "along_k": "kAlongK",
}
_SHARES = {"nothing": "kNothing", "a": "kA", "b": "kB"}
# Columns of d in a panel, the widest that divides a tile first.
_PANELS = (64, 32, 16)


def _scales(name: str) -> tuple[Pointer | Number, ...]:
    strides = (Number(f"{name}.{dim}_stride", "i64") for dim in ("row", "k", "group"))
    return (Pointer(name, torch.float32, contiguous=False), *strides)


_SIGNATURE = Signature(
    Struct(
        "params",
        (
            *map(Map, "abd"),
            *_scales("scale_a"),
            *_scales("scale_b"),
            Pointer("layout", torch.int32, optional=True),
            *(Number(name, "i32") for name in ("m", "n", "k", "num_groups")),
        ),
    )
)


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
        config: by default what the planner chooses.
    """
    a, scale_a, b, scale_b, d = map(_with_groups, (a, scale_a, b, scale_b, d))
    (_, m, k), (num_groups, n, _) = a.shape, b.shape
    problem = Problem(
        grouping=grouping, m=m, n=n, k=k, num_groups=num_groups, expected_m=expected_m
    )
    sms = num_sms(a.device)
    config = config or plan(problem, sms)
    box_a, box_b, box_d = _boxes(config)
    clusters = min(config.num_clusters(problem), max(1, sms // config.cluster))
    _launcher(config, grouping)(
        TensorMap.of(a, box_a, swizzle_bytes=128),
        TensorMap.of(b, box_b, swizzle_bytes=128),
        TensorMap.of(d, box_d, swizzle_bytes=2 * box_d[2]),
        *(scale_a, scale_a.stride(1), scale_a.stride(2), scale_a.stride(0)),
        *(scale_b, scale_b.stride(1), scale_b.stride(2), scale_b.stride(0)),
        *(layout, m, n, k, num_groups),
        grid=(clusters * config.cluster, 1, 1),
    )


def source_of(config: Config, grouping: Grouping) -> tuple[str, str]:
    """The file of a configuration's kernel, and the kernel as C++ names it."""
    group = f"{_NAMESPACE}::Grouping::{_GROUPINGS[grouping]}"
    if isinstance(config, FewTokens):
        numbers = f"{config.tokens}, {config.num_stages}, {config.split}"
        return "deepgemm/fp8_small_m.cu", (
            f"{_NAMESPACE}::fp8_small_m_gemm_nt_sm90_kernel<{numbers}, {group}>"
        )
    numbers = f"{config.block_m}, {config.block_n}, {config.num_stages}"
    share = f"{_NAMESPACE}::Share::{_SHARES[config.share]}"
    return "deepgemm/fp8_gemm.cu", (
        f"{_NAMESPACE}::fp8_gemm_nt_sm90_kernel<{numbers}, {group}, {share}>"
    )


@functools.cache
def _launcher(config: Config, grouping: Grouping) -> Launcher:
    return Launcher(
        compile_kernel(*source_of(config, grouping)),
        _SIGNATURE,
        op="fp8_gemm_nt",
        block=(config.num_threads, 1, 1),
        cluster=(config.cluster, 1, 1),
        smem_bytes=config.smem_bytes,
    )


def _boxes(config: Config) -> tuple[tuple[int, int, int], ...]:
    """What one TMA instruction moves of a, b and d: (groups, rows, columns)."""
    if isinstance(config, FewTokens):
        return (1, config.tokens, 128), (1, config.block_n, 128), (1, config.tokens, 64)
    rows_a = config.block_m // (2 if config.share == "a" else 1)
    rows_b = config.block_n // (2 if config.share == "b" else 1)
    panel = next(columns for columns in _PANELS if config.block_n % columns == 0)
    return (1, rows_a, 128), (1, rows_b, 128), (1, 64, panel)


def _with_groups(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dim() == 3 else tensor[None]
