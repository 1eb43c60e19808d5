"""One BF16 matrix product."""

import torch

from csrc import Checker
from deepgemm import bf16_kernels, cpu


def bf16_gemm_nt(
    a: torch.Tensor,
    b: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    compiled_dims: str = "nk",
) -> None:
    """Compute `d = a @ b.T`, accumulated in FP32 and rounded to BF16 once.

    CUDA tensors are computed on the current stream; CPU tensors before the call returns. No
    gradient is recorded.

    Args:
        a: [m, k] bf16, last dim contiguous, row stride a multiple of 8.
        b: [n, k] bf16, like a.
        d: [m, n] bf16, overwritten; last dim contiguous, row stride a multiple of 8.
        c: must be None.
        compiled_dims: tuning hint, changes no value.

    m may be 0; n and k must be multiples of 8, and neither needs whole tiles.

    Raises:
        TypeError, ValueError: a dtype, shape or stride breaks a rule above.
        NotImplementedError: `c`, or tensors on a device without a kernel.

    Example:
        >>> a, b = torch.ones(2, 64).bfloat16(), torch.ones(8, 64).bfloat16()
        >>> d = torch.empty(2, 8, dtype=torch.bfloat16)
        >>> bf16_gemm_nt(a, b, d)
        >>> d[0, 0].item()
        64.0
    """
    del compiled_dims
    check = Checker("bf16_gemm_nt")
    if c is not None:
        check.not_built("c", "be None", type(c).__name__, "accumulating into FP32 is not built yet")
    check.tensor("a", a, ("m", "k"), torch.bfloat16, layout="tma")
    check.tensor("b", b, ("n", "k"), torch.bfloat16, layout="tma")
    check.multiple("k", check.dims["k"], 8, "pad a and b with zero columns")
    check.multiple("n", check.dims["n"], 8, "pad b with zero rows")
    check.tensor("d", d, ("m", "n"), torch.bfloat16, layout="tma")
    backend = check.backend(has_kernel=True)
    if d.numel() == 0:
        return
    if check.dims["k"] == 0:
        d.zero_()
    elif backend == "cpu":
        cpu.bf16_gemm_nt(a, b, d)
    else:
        bf16_kernels.gemm(a, b, None, d)
