"""Casting to FP8 e4m3 with one FP32 scale per 1 × 128 or 128 × 128 elements.

The scheme is that of the DeepSeek-V3 technical report (arXiv 2412.19437), section 3.3.2.
"""

import torch
from torch.nn import functional

from csrc import Checker

_E4M3_MAX = 448.0
# An all-zero block would otherwise have scale 0, and dividing by it would make NaN.
_SMALLEST_AMAX = 1e-4
_FLOATS = (torch.bfloat16, torch.float16, torch.float32)


def per_token_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise activations: one scale per row and `gran_k` columns.

    Runs as plain torch operations on the device and stream of `x`.

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
    return _cast_blocks(x, 1, gran_k, use_ue8m0=use_ue8m0)


def per_block_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool = False, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise weights: one scale per block of `gran_k` × `gran_k` elements.

    Runs as plain torch operations on the device and stream of `x`. Weights of a grouped GEMM are
    cast one group at a time and stacked.

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
    return _cast_blocks(x, gran_k, gran_k, use_ue8m0=use_ue8m0)


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
    scale = blocks.abs().amax((1, 3), keepdim=True).clamp(min=_SMALLEST_AMAX) / _E4M3_MAX
    if use_ue8m0:
        scale = _ceil_to_power_of_two(scale)
    data = (blocks / scale).view(padded.shape)[:rows, :columns].to(torch.float8_e4m3fn)
    return data.contiguous(), scale[:, 0, :, 0].contiguous()


def _ceil_to_power_of_two(x: torch.Tensor) -> torch.Tensor:
    # Exact, which ceil(log2(x)) is not: a logarithm rounded up makes 2 out of 1.
    mantissa, exponent = torch.frexp(x)
    power = torch.ldexp(torch.ones_like(x), exponent - (mantissa == 0.5).to(exponent.dtype))
    return power.where(x.isfinite(), x)  # frexp makes any number out of infinity and NaN
