"""One BF16 matrix product, into BF16 or FP32."""

from __future__ import annotations

import torch

from csrc import Checker
from deepgemm import bf16_kernels, cpu
from deepgemm.operands import check_addend, check_bf16, check_output, names_of, start_from
from deepgemm.ops import torch_op


def bf16_gemm_nt(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "nk",
) -> None:
    """Compute `d = a @ b.T`, or `c + a @ b.T`, accumulated in FP32 and rounded once.

    CUDA tensors are computed on the current stream, which nobody waits for; CPU tensors before the
    call returns. No gradient is recorded.

    Args:
        a: [m, k] bf16; one dim contiguous, the other's stride a multiple of 8.
        b: [n, k] bf16, like a.
        d: [m, n] float32, or bf16 where c is None; overwritten; last dim contiguous, row stride a
            multiple of 16 bytes.
        c: None, or [m, n] float32 with strides like d; may be d itself, which is then added to.
        compiled_dims: tuning hint, changes no value.

    Any size may be 0 (k = 0 makes d zero or c); n and k must be multiples of 8, and neither needs
    whole tiles.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above.
        NotImplementedError: tensors on a device without a kernel.

    Example:
        >>> a, b = torch.ones(2, 64).bfloat16(), torch.ones(8, 64).bfloat16()
        >>> d = torch.empty(2, 8, dtype=torch.bfloat16)
        >>> bf16_gemm_nt(a, b, d)
        >>> d[0, 0].item()
        64.0
    """
    del compiled_dims
    _bf16_gemm("bf16_gemm_nt", a, b, d, c)


def bf16_gemm_nn(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "nk",
) -> None:
    """Compute `d = a @ b` for b [k, n]; else as `bf16_gemm_nt`."""
    del compiled_dims
    _bf16_gemm("bf16_gemm_nn", a, flipped(b), d, c)


def bf16_gemm_tn(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
) -> None:
    """Compute `d = a.T @ b` for a [k, m] and b [k, n]; else as `bf16_gemm_nt`."""
    del compiled_dims
    _bf16_gemm("bf16_gemm_tn", flipped(a), flipped(b), d, c)


def bf16_gemm_tt(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "mn",
) -> None:
    """Compute `d = a.T @ b.T` for a [k, m]; else as `bf16_gemm_nt`."""
    del compiled_dims
    _bf16_gemm("bf16_gemm_tt", flipped(a), b, d, c)


def flipped(operand: torch.Tensor) -> torch.Tensor:
    """View a matrix, or one per group, transposed; what is none comes back as it is."""
    if isinstance(operand, torch.Tensor) and operand.dim() > 1:
        return operand.transpose(-1, -2)
    return operand


@torch_op("bf16_gemm(str op, Tensor a, Tensor b, Tensor(a!) d, Tensor? c)")
def _bf16_gemm(
    op: str, a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, c: torch.Tensor | None
) -> None:
    check, names = Checker(op), names_of(op)
    check_bf16(check, names.a, a, ("m", "k"))
    check_bf16(check, names.b, b, ("n", "k"))
    check_output(check, d, ("m", "n"), torch.float32, *(() if c is not None else (torch.bfloat16,)))
    if c is not None:
        check_addend(check, c, d, ("m", "n"))
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0:
        start_from(c, d)
    elif backend == "cpu":
        cpu.bf16_gemm(a, b, c, d)
    else:
        bf16_kernels.gemm(a, b, c, d)
