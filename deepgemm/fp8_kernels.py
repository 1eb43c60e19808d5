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
from deepgemm.layout import ceil_div
from deepgemm.plan import Config, Grouping, Problem, smem_bytes

_NAMESPACE = "openweek::deepgemm"
_GROUPINGS = {
    "dense": "kDense",
    "row_map": "kRowMap",
    "prefix_sum": "kPrefixSum",
    "masked": "kMasked",
    "along_k": "kAlongK",
}
_SHARES = {"nothing": "kNothing", "a": "kA", "b": "kB"}


def _scales(name: str) -> tuple[Pointer | Number, ...]:
    strides = (Number(f"{name}.{dim}_stride", "i64") for dim in ("row", "k", "group"))
    return (Pointer(name, torch.float32, contiguous=False), *strides)


_FP8_PARAMS = Struct(
    "params",
    (
        *map(Map, "abd"),
        *_scales("scale_a"),
        *_scales("scale_b"),
        Pointer("layout", torch.int32, optional=True),
        *(Number(name, "i32") for name in ("m", "n", "k", "num_groups")),
    ),
)


def expression(config: Config, grouping: Grouping) -> str:
    """The FP8 kernel of a configuration, as C++ names it."""
    numbers = f"{config.block_m}, {config.block_n}, {config.num_stages}"
    enums = (
        f"{_NAMESPACE}::Grouping::{_GROUPINGS[grouping]}, "
        f"{_NAMESPACE}::Share::{_SHARES[config.share]}"
    )
    return f"{_NAMESPACE}::fp8_gemm_nt_sm90_kernel<{numbers}, {enums}>"


@functools.cache
def _fp8_gemm(config: Config, grouping: Grouping) -> Launcher:
    return Launcher(
        compile_kernel("deepgemm/fp8_gemm.cu", expression(config, grouping)),
        Signature(_FP8_PARAMS),
        op="fp8_gemm_nt",
        block=(config.num_threads, 1, 1),
        cluster=(config.cluster, 1, 1),
        smem_bytes=smem_bytes(config.block_m, config.block_n, config.num_stages),
    )


def fp8_gemm_nt(
    a: torch.Tensor,
    scale_a: torch.Tensor,
    b: torch.Tensor,
    scale_b: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor | None,
    config: Config,
    grouping: Grouping,
) -> None:
    """Launch the kernel for large m. No size is 0.

    Args:
        a: [m, k], or [num_groups, m, k] if masked, e4m3.
        scale_a: the same with ceil(k / 128) columns, float32.
        b: [n, k] if dense, else [num_groups, n, k], e4m3.
        scale_b: the same with blocks of 128 rows and columns, float32.
        d: like a with n columns, bf16.
        layout: int32, see csrc/deepgemm/scheduler.cuh; None if dense.
        config: a tile that fits.
        grouping: what layout says.
    """
    a, scale_a, b, scale_b, d = map(_with_groups, (a, scale_a, b, scale_b, d))
    (_, m, k), (num_groups, n, _) = a.shape, b.shape
    problem = Problem(grouping=grouping, m=m, n=n, k=k, num_groups=num_groups)
    panel = next(columns for columns in (64, 32, 16) if config.block_n % columns == 0)
    rows_a = config.block_m // (2 if config.share == "a" else 1)
    rows_b = config.block_n // (2 if config.share == "b" else 1)
    _fp8_gemm(config, grouping)(
        TensorMap.of(a, (1, rows_a, 128), swizzle_bytes=128),
        TensorMap.of(b, (1, rows_b, 128), swizzle_bytes=128),
        TensorMap.of(d, (1, 64, panel), swizzle_bytes=2 * panel),
        *(scale_a, scale_a.stride(1), scale_a.stride(2), scale_a.stride(0)),
        *(scale_b, scale_b.stride(1), scale_b.stride(2), scale_b.stride(0)),
        *(layout, m, n, k, num_groups),
        grid=(_num_ctas(problem, config, num_sms(a.device)), 1, 1),
    )


def _num_ctas(problem: Problem, config: Config, sms: int) -> int:
    rows, columns = ceil_div(problem.m, config.block_m), ceil_div(problem.n, config.block_n)
    if config.share == "a":
        columns = ceil_div(columns, 2)
    if config.share == "b":
        rows = ceil_div(rows, 2)
    groups = problem.num_groups if problem.grouping in ("masked", "along_k") else 1
    clusters = groups * rows * columns
    return config.cluster * min(clusters, max(1, sms // config.cluster))


def _with_groups(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.dim() == 3 else tensor[None]
