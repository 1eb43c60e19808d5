"""The register of kernel instantiations: what `python -m csrc build` compiles and tests check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instantiation:
    """One kernel as it is launched: a source file, and the template arguments to compile it with.

    Attributes:
        source: the .cu file, as a path inside csrc: `"deepgemm/gemm.cu"`.
        expression: the kernel as C++ names it from the global namespace, with its template
            arguments: `"openweek::deepgemm::gemm_kernel<128, 4>"`. A kernel that is no template is
            just named.
    """

    source: str
    expression: str


def _bf16_gemm(
    tiles: tuple[int, int, int], grouping: str, share: str, major: str, output: str
) -> Instantiation:
    """The kernel of `tiles` (block_m, block_n, num_stages) for operands of the same major."""
    deepgemm, primitives = "openweek::deepgemm", "openweek::primitives"
    arguments = (
        *map(str, tiles),
        f"{deepgemm}::Grouping::{grouping}",
        f"{deepgemm}::Share::{share}",
        f"{primitives}::Major::{major}",
        f"{primitives}::Major::{major}",
        f"{deepgemm}::Output::{output}",
    )
    name = f"{deepgemm}::bf16_gemm_sm90_kernel<{', '.join(arguments)}>"
    return Instantiation("deepgemm/bf16_gemm.cu", name)


# What the planners choose for common shapes; others are compiled at their first use.
KERNELS: tuple[Instantiation, ...] = (
    _bf16_gemm((128, 256, 3), "kDense", "kB", "kK", "kBf16"),
    _bf16_gemm((64, 16, 12), "kDense", "kA", "kK", "kBf16"),
    _bf16_gemm((128, 256, 3), "kRowMap", "kA", "kK", "kBf16"),
    _bf16_gemm((128, 256, 3), "kMasked", "kB", "kK", "kBf16"),
    _bf16_gemm((256, 192, 4), "kAlongK", "kA", "kMn", "kFp32"),
)
