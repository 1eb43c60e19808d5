"""Casting to FP8 e4m3 with one FP32 scale per 1 × 128 or 128 × 128 elements.

The scheme is that of the DeepSeek-V3 technical report (arXiv 2412.19437), section 3.3.2.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from csrc import Checker
from deepgemm import cast_kernels
from deepgemm.scales import ceil_to_ue8m0

_GRAN = 128  # of the kernels
_E4M3_MAX = 448.0
# An all-zero block would otherwise have scale 0, and dividing by it would make NaN.
_SMALLEST_AMAX = 1e-4
_FLOATS = (torch.bfloat16, torch.float16, torch.float32)


def per_token_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise activations: one scale per row and `gran_k` columns.

    Runs on the device and stream of `x`: one kernel on Hopper where `gran_k` is 128 and rows are
    aligned to four elements, else plain torch operations. The bits are the same.

    Args:
        x: [m, k] bf16, fp16 or fp32, any strides; k may be ragged.
        use_ue8m0: round the scales up to powers of two.
        gran_k: columns that share a scale.

    Returns:
        `(data, scale)`: data [m, k] float8_e4m3fn, scale [m, ceil(k / gran_k)] float32, with
        `x ≈ data * scale` and scale = max(amax, 1e-4) / 448; both row-major.

    Raises:
        TypeError, ValueError: a wrong dtype, number of dims or `gran_k`.

    Example:
        >>> data, scale = per_token_cast_to_fp8(torch.full((2, 256), 896.0))
        >>> data.shape, scale.tolist()
        (torch.Size([2, 256]), [[2.0, 2.0], [2.0, 2.0]])
    """
    check = Checker("per_token_cast_to_fp8")
    check.tensor("x", x, ("m", "k"), *_FLOATS, layout="any")
    _check_granularity(check, gran_k)
    if gran_k == _GRAN and cast_kernels.serve(x):
        return cast_kernels.cast(x, "row", use_ue8m0=use_ue8m0)
    return _cast_blocks(x, 1, gran_k, use_ue8m0=use_ue8m0)


def per_block_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise weights: one scale per block of `gran_k` × `gran_k` elements.

    Runs on the device and stream of `x`: one kernel on Hopper where `gran_k` is 128 and rows are
    aligned to four elements, else plain torch operations. The bits are the same. Weights of a
    grouped GEMM are cast one group at a time and stacked.

    Args:
        x: [n, k] bf16, fp16 or fp32, any strides; n and k may be ragged.
        use_ue8m0: round the scales up to powers of two.
        gran_k: rows, and columns, that share a scale.

    Returns:
        `(data, scale)`: data [n, k] float8_e4m3fn, scale [ceil(n / gran_k), ceil(k / gran_k)]
        float32, with `x ≈ data * scale` and scale = max(amax, 1e-4) / 448; both row-major.

    Raises:
        TypeError, ValueError: a wrong dtype, number of dims or `gran_k`.
    """
    check = Checker("per_block_cast_to_fp8")
    check.tensor("x", x, ("n", "k"), *_FLOATS, layout="any")
    _check_granularity(check, gran_k)
    if gran_k == _GRAN and cast_kernels.serve(x):
        return cast_kernels.cast(x, "block", use_ue8m0=use_ue8m0)
    return _cast_blocks(x, gran_k, gran_k, use_ue8m0=use_ue8m0)


def per_channel_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise along rows: one scale per column and `gran_k` rows, as for gradients of weights.

    Runs on the device and stream of `x`: one kernel on Hopper where `gran_k` is 128 and rows are
    aligned to four elements, else plain torch operations. The bits are the same.

    Args:
        x: [k, mn] bf16, fp16 or fp32, any strides; k a multiple of `gran_k`.
        use_ue8m0: round the scales up to powers of two.
        gran_k: rows that share a scale.

    Returns:
        `(data, scale)`: data [k, mn] float8_e4m3fn, scale [k / gran_k, mn] float32; both
        row-major.

    Raises:
        TypeError, ValueError: a wrong dtype, number of dims or `gran_k`.
    """
    check = Checker("per_channel_cast_to_fp8")
    check.tensor("x", x, ("k", "mn"), *_FLOATS, layout="any")
    _check_granularity(check, gran_k)
    check.multiple("k", check.dims["k"], gran_k, "pad x with zero rows")
    if gran_k == _GRAN and cast_kernels.serve(x):
        return cast_kernels.cast(x, "column", use_ue8m0=use_ue8m0)
    return _cast_blocks(x, gran_k, 1, use_ue8m0=use_ue8m0)


def per_custom_dims_cast_to_fp8(
    x: torch.Tensor, dims: Sequence[int], use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise with one scale per index of some dims, over all elements of the others.

    Runs as plain torch operations on the device and stream of `x`.

    Args:
        x: bf16, fp16 or fp32, any shape and strides.
        dims: the dims that have scales of their own; may be negative.
        use_ue8m0: round the scales up to powers of two.

    Returns:
        `(data, scale)`: data float8_e4m3fn with the shape of x, scale float32 with the shape of x
        without the other dims.

    Raises:
        TypeError, ValueError: a wrong dtype, or a dim that x does not have.

    Example:
        >>> x = torch.tensor([[448.0, -896.0], [0.0, 224.0]])
        >>> data, scale = per_custom_dims_cast_to_fp8(x, (0,), use_ue8m0=False)
        >>> scale.tolist()
        [2.0, 0.5]
    """
    check = Checker("per_custom_dims_cast_to_fp8")
    names = tuple(f"dim{dim}" for dim in range(getattr(x, "dim", int)()))
    check.tensor("x", x, names, *_FLOATS, layout="any")
    for dim in dims:
        check.between("dims", dim, -x.dim(), x.dim() - 1, "count the dims of x")
    kept = {dim % x.dim() for dim in dims}
    others = tuple(dim for dim in range(x.dim()) if dim not in kept)
    amax = _amax(x, others)
    scale = _scale_of(amax, use_ue8m0=use_ue8m0)
    data = (x.float() / scale).to(torch.float8_e4m3fn).contiguous()
    return data, scale.squeeze(others) if others else scale


def _check_granularity(check: Checker, gran_k: int) -> None:
    if gran_k < 1:
        check.invalid("gran_k", "be at least 1", gran_k, "use 128")


def _cast_blocks(
    x: torch.Tensor, block_rows: int, block_columns: int, *, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = x.shape
    # Zeros change no amax, and what they become is cut off again.
    padded = functional.pad(x.float(), (0, -columns % block_columns, 0, -rows % block_rows))
    shape = (
        padded.shape[0] // block_rows,
        block_rows,
        padded.shape[1] // block_columns,
        block_columns,
    )
    blocks = padded.view(shape)
    scale = _scale_of(blocks.abs().amax((1, 3), keepdim=True), use_ue8m0=use_ue8m0)
    data = (blocks / scale).view(padded.shape)[:rows, :columns].to(torch.float8_e4m3fn)
    return data.contiguous(), scale[:, 0, :, 0].contiguous()


def _scale_of(amax: torch.Tensor, *, use_ue8m0: bool) -> torch.Tensor:
    scale = amax.clamp(min=_SMALLEST_AMAX) / _E4M3_MAX
    return ceil_to_ue8m0(scale) if use_ue8m0 else scale


def _amax(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    if x.numel() == 0:
        return x.new_zeros([1 if dim in dims else x.shape[dim] for dim in range(x.dim())]).float()
    return x.abs().float().amax(dims, keepdim=True) if dims else x.abs().float()
