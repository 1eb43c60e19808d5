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


KERNELS: tuple[Instantiation, ...] = (
    Instantiation("deepgemm/bf16_gemm.cu", "openweek::deepgemm::bf16_gemm_nt_sm90_kernel"),
)
