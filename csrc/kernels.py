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


_DEEPGEMM, _PRIMITIVES = "openweek::deepgemm", "openweek::primitives"


def _deepgemm(source: str, kernel: str, *arguments: int | str) -> Instantiation:
    """A kernel of deepgemm; words among its arguments are enumerators: "Grouping::kDense"."""
    written = [
        str(argument)
        if isinstance(argument, int)
        else f"{_PRIMITIVES if argument.startswith('Major') else _DEEPGEMM}::{argument}"
        for argument in arguments
    ]
    expression = f"{_DEEPGEMM}::{kernel}_sm90_kernel<{', '.join(written)}>"
    return Instantiation(f"deepgemm/{source}.cu", expression)


def _bf16_gemm(
    tiles: tuple[int, int, int], grouping: str, share: str, major: str, output: str
) -> Instantiation:
    """The kernel of `tiles` (block_m, block_n, num_stages) for operands of the same major."""
    enums = (f"Grouping::{grouping}", f"Share::{share}", *(f"Major::{major}",) * 2)
    return _deepgemm("bf16_gemm", "bf16_gemm", *tiles, *enums, f"Output::{output}")


def _fp8_gemm(tiles: tuple[int, int, int], share: str, *groupings: str) -> list[Instantiation]:
    return [
        _deepgemm("fp8_gemm", "fp8_gemm_nt", *tiles, f"Grouping::{grouping}", f"Share::{share}")
        for grouping in groupings
    ]


def _fp8_few_tokens(
    tokens: int, stages_of_splits: dict[int, int], grouping: str = "kDense"
) -> list[Instantiation]:
    """The kernel for so many tokens, in a number of stages for each split of k."""
    return [
        _deepgemm(
            "fp8_small_m", "fp8_small_m_gemm_nt", tokens, stages, split, f"Grouping::{grouping}"
        )
        for split, stages in stages_of_splits.items()
    ]


def _fp8_accumulate(
    tiles: tuple[int, int, int], share: str, grouping: str, *most_groups: int
) -> list[Instantiation]:
    return [
        _deepgemm(
            "fp8_accumulate",
            "fp8_accumulate_nt",
            *(*tiles, f"Grouping::{grouping}", f"Share::{share}", most),
        )
        for most in most_groups
    ]


_CAST = "cast_fp8::"

# What the planners choose for common shapes; others are compiled at their first use.
KERNELS: tuple[Instantiation, ...] = (
    _bf16_gemm((128, 256, 3), "kDense", "kB", "kK", "kBf16"),
    _bf16_gemm((64, 16, 12), "kDense", "kA", "kK", "kBf16"),
    _bf16_gemm((128, 256, 3), "kRowMap", "kA", "kK", "kBf16"),
    _bf16_gemm((128, 256, 3), "kMasked", "kB", "kK", "kBf16"),
    _bf16_gemm((256, 192, 4), "kAlongK", "kA", "kMn", "kFp32"),
    *_fp8_gemm((256, 128, 3), "kA", "kDense", "kMasked"),
    *_fp8_gemm((256, 112, 3), "kA", "kDense", "kMasked"),
    *_fp8_gemm((128, 192, 4), "kB", "kDense"),
    *_fp8_gemm((128, 192, 4), "kA", "kDense", "kRowMap", "kPrefixSum", "kMasked"),
    *_fp8_gemm((128, 160, 5), "kA", "kRowMap", "kPrefixSum"),
    *_fp8_gemm((128, 144, 5), "kB", "kDense"),
    *_fp8_gemm((128, 128, 6), "kA", "kDense", "kRowMap", "kPrefixSum"),
    *_fp8_gemm((128, 112, 6), "kA", "kDense", "kRowMap", "kPrefixSum"),
    *_fp8_gemm((64, 144, 8), "kB", "kDense"),
    *_fp8_gemm((64, 128, 8), "kB", "kDense"),
    *_fp8_gemm((64, 112, 9), "kB", "kDense"),
    *_fp8_gemm((64, 64, 12), "kB", "kDense"),
    *_fp8_gemm((64, 64, 12), "kA", "kDense"),
    *_fp8_gemm((64, 32, 12), "kA", "kDense"),
    *_fp8_few_tokens(8, {1: 12, 2: 12, 4: 12}),
    *_fp8_few_tokens(16, {1: 12, 2: 11, 4: 11}),
    *_fp8_few_tokens(32, {1: 10, 2: 10, 4: 8}),
    *_fp8_few_tokens(48, {1: 9, 2: 8, 4: 6}),
    *_fp8_few_tokens(64, {1: 8, 2: 7, 4: 4}),
    *_fp8_few_tokens(8, {1: 12}, "kMasked"),
    *_fp8_few_tokens(24, {1: 11}, "kMasked"),
    *_fp8_few_tokens(64, {1: 8}, "kMasked"),
    *_fp8_accumulate((128, 192, 5), "kB", "kDense", 1),
    *_fp8_accumulate((256, 112, 4), "kA", "kDense", 1),
    *_fp8_accumulate((256, 128, 4), "kA", "kDense", 1),
    *_fp8_accumulate((256, 128, 4), "kA", "kAlongK", 8, 32),
    *_fp8_accumulate((128, 192, 5), "kB", "kAlongK", 8),
    *(
        _deepgemm("cast_fp8", "cast_fp8", f"{_CAST}Input::{number}", f"{_CAST}Granularity::{each}")
        for number in ("kBf16", "kFp32")
        for each in ("kRow", "kColumn", "kBlock")
    ),
)
