"""What the operands of a product are, checked in one place for every GEMM."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import torch

from csrc import Checker
from deepgemm.layout import ceil_div

Pair = tuple[torch.Tensor, torch.Tensor]
Granularity = tuple[int, int]
Recipe = tuple[int, int, int]

Given = TypeVar("Given")

# Scale blocks, as (rows, columns).
PER_TOKEN: Granularity = (1, 128)
PER_BLOCK: Granularity = (128, 128)

# The kernels count rows and columns in 32 bits.
_MAX_EXTENT = 2**31 - 1


class OperandName(NamedTuple):
    """What the caller of an op calls an operand, and the data and the scale of a pair."""

    whole: str
    data: str
    scale: str


class Names(NamedTuple):
    """What the caller of an op calls its operands and its output."""

    a: OperandName
    b: OperandName
    d: str


@functools.cache
def names_of(op: str) -> Names:
    """Name the operands of an op; `.T` where the op takes them transposed."""
    if "gemm_fp8_fp8" in op:
        return Names(_operand_name("lhs", ""), _operand_name("rhs", ""), "out")
    layout = next((part for part in ("nn", "tn", "tt") if part in op.split("_")), "nt")
    a = _operand_name("a", ".T" if layout[0] == "t" else "")
    b = _operand_name("b", ".T" if layout[1] == "n" else "")
    return Names(a, b, "d")


def _operand_name(name: str, view: str) -> OperandName:
    return OperandName(f"{name}{view}", f"{name}[0]{view}", f"{name}[1]{view}")


def pair_of(op: str, operand: Literal["a", "b"], pair: object) -> Pair:
    """Return `(data, scale)`, which may come as a list."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        data, scale = pair
        return data, scale
    name, actual = getattr(names_of(op), operand).whole, type(pair).__name__
    return Checker(op).wrong_type(name, "be a pair (data, scale)", actual, "cast to FP8 first")


def given_once(op: str, first: tuple[str, Given | None], second: tuple[str, Given | None]) -> Given:
    """Return the value of an argument that has two names, as (name, value)."""
    (name, value), (other_name, other_value) = first, second
    if value is not None and other_value is None:
        return value
    if other_value is not None and value is None:
        return other_value
    given = "neither" if value is None else "both"
    remedy = f"{other_name} is its other name"
    return Checker(op).wrong_type(name, "be given once", given, remedy)


def transposed(pair: Pair) -> Pair:
    """View data and scale with the last two dims exchanged; what is no pair comes back as it is."""
    if isinstance(pair, tuple | list) and all(isinstance(part, torch.Tensor) for part in pair):
        data, scale = pair
        if data.dim() > 1 and scale.dim() > 1:
            return data.transpose(-1, -2), scale.transpose(-1, -2)
    return pair


def rows_per_scale(
    op: str,
    recipe: Recipe | None,
    recipe_a: Granularity | None,
    recipe_b: Granularity | None,
    built: Sequence[int] = (128, 1),
) -> int:
    """Return the rows of b that share a scale: 128, or 1 where `built` has that.

    A recipe is given as `recipe`, or as both of the others; none at all is (1, 128, 128).
    """
    check = Checker(op)
    if recipe is not None and (recipe_a is not None or recipe_b is not None):
        rule = "be left out when recipe_a and recipe_b are given"
        check.invalid("recipe", rule, recipe, "say it one way")
    if (recipe_a is None) != (recipe_b is None):
        missing = "recipe_a" if recipe_a is None else "recipe_b"
        check.invalid(missing, "be given with the other one", None, "give both or neither")
    for name, given, head in (("recipe", recipe, (1,)), ("recipe_b", recipe_b, ())):
        if given is None:
            continue
        choices = [(*head, rows, 128) for rows in built]
        if tuple(given) not in choices:
            rule = f"be {' or '.join(map(str, choices))}"
            check.not_built(name, rule, given, "no other scale blocks are built")
    if recipe_a is not None and tuple(recipe_a) != PER_TOKEN:
        check.not_built("recipe_a", f"be {PER_TOKEN}", recipe_a, "no other scale blocks are built")
    chosen = recipe or recipe_b
    return chosen[-2] if chosen else 128


def check_fp8(
    check: Checker, name: OperandName, pair: Pair, shape: tuple[str, ...], granularity: Granularity
) -> None:
    """Require `(data, scale)`, data K-major e4m3 of `shape`."""
    data, scale = pair
    check.tensor(name.data, data, shape, torch.float8_e4m3fn, layout="any")
    *groups, rows, k = data.shape
    check_extents(check, rows, k)
    _check_multiple(check, "k", k, 16)
    check.layout(name.data, data, "tma")
    scale_shape = (*groups, ceil_div(rows, granularity[0]), ceil_div(k, granularity[1]))
    check.tensor(name.scale, scale, scale_shape, torch.float32, layout="any")


def check_bf16(
    check: Checker, name: OperandName, value: torch.Tensor, shape: tuple[str, ...]
) -> None:
    """Require a bf16 matrix, or one per group, either of whose dims is contiguous."""
    check.tensor(name.whole, value, shape, torch.bfloat16, layout="any")
    rows, k = value.shape[-2:]
    check_extents(check, rows, k)
    _check_multiple(check, "k", k, 8)
    by_column = value.stride(-2) == 1 and value.stride(-1) != 1
    check.layout(name.whole, value.transpose(-1, -2) if by_column else value, "tma")


def check_output(
    check: Checker, d: torch.Tensor, shape: tuple[str, ...], *dtypes: torch.dtype
) -> None:
    """Require an output with rows that a kernel can store."""
    _check_multiple(check, "n", check.dims["n"], 8)
    check.tensor(names_of(check.op).d, d, shape, *dtypes, layout="tma")


def _check_multiple(check: Checker, dim: str, size: int, factor: int) -> None:
    if size % factor:
        a, b, _ = names_of(check.op)
        remedy = f"pad {b.whole} with zero rows"
        if dim == "k":
            remedy = f"pad {a.whole} and {b.whole} with zero columns"
        check.multiple(dim, size, factor, remedy)


def check_addend(check: Checker, c: torch.Tensor, d: torch.Tensor, shape: tuple[str, ...]) -> None:
    """Require `c` like an FP32 `d`; the two may be one tensor."""
    if c is d:
        return
    check.tensor("c", c, shape, torch.float32, layout="tma")
    if d.numel() > 0 and c.data_ptr() == d.data_ptr() and c.stride() != d.stride():
        rule = f"have the strides of {names_of(check.op).d} where it is the same memory"
        check.invalid("c", rule, list(c.stride()), "clone it")


def check_extents(check: Checker, *sizes: int) -> None:
    """Require sizes that the kernels can count to."""
    for size in sizes:
        if size > _MAX_EXTENT:
            name = next(name for name, bound in check.dims.items() if bound == size)
            check.between(name, size, 0, _MAX_EXTENT, "split the product")


@torch.no_grad()
def start_from(c: torch.Tensor | None, d: torch.Tensor) -> None:
    """Make d hold the sum of no products: c, which may be d itself, or zeros."""
    if c is None:
        d.zero_()
    elif c.data_ptr() != d.data_ptr():
        d.copy_(c)
