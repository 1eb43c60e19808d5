"""What an FP8 operand pair is, checked in one place for every GEMM."""

import torch

from csrc import Checker
from deepgemm.layout import ceil_div

Pair = tuple[torch.Tensor, torch.Tensor]
Granularity = tuple[int, int]
Recipe = tuple[int, int, int]

# Scale blocks of the DeepSeek-V3 recipe, as (rows, columns) of a and of b.
PER_TOKEN: Granularity = (1, 128)
PER_BLOCK: Granularity = (128, 128)
_RECIPE: Recipe = (1, 128, 128)


def check_recipe(
    check: Checker,
    recipe: Recipe | None,
    recipe_a: Granularity | None,
    recipe_b: Granularity | None,
) -> None:
    """Require the one recipe there is, said in one of its two ways."""
    if recipe is not None and (recipe_a is not None or recipe_b is not None):
        rule = "be left out when recipe_a and recipe_b are given"
        check.invalid("recipe", rule, recipe, "say it one way")
    if (recipe_a is None) != (recipe_b is None):
        missing = "recipe_a" if recipe_a is None else "recipe_b"
        check.invalid(missing, "be given with the other one", None, "give both or neither")
    for name, actual, built in (
        ("recipe", recipe, _RECIPE),
        ("recipe_a", recipe_a, PER_TOKEN),
        ("recipe_b", recipe_b, PER_BLOCK),
    ):
        if actual is not None and tuple(actual) != built:
            check.not_built(name, f"be {built}", actual, "no other scale blocks are built")


def check_operand(
    check: Checker, name: str, pair: Pair, shape: tuple[str, ...], granularity: Granularity
) -> Pair:
    """Require `(data, scale)`, data K-major e4m3 of `shape`, and return it."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        check.wrong_type(name, "be a pair (data, scale)", type(pair).__name__, "cast to FP8 first")
    data, scale = pair
    check.tensor(f"{name}[0]", data, shape, torch.float8_e4m3fn, layout="any")
    *groups, rows, k = data.shape
    check.multiple("k", k, 16, "pad a and b with zero columns")
    check.layout(f"{name}[0]", data, "tma")
    scale_shape = (*groups, ceil_div(rows, granularity[0]), ceil_div(k, granularity[1]))
    check.tensor(f"{name}[1]", scale, scale_shape, torch.float32, layout="any")
    return data, scale


def check_output(check: Checker, d: torch.Tensor) -> None:
    """Require `d` [m, n] bf16 with rows the kernel can store."""
    check.multiple("n", check.dims["n"], 8, "pad b with zero rows")
    check.tensor("d", d, ("m", "n"), torch.bfloat16, layout="tma")
