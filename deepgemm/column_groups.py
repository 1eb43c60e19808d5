"""Which columns are of which group, in products with a sum per group."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from csrc import Checker
from deepgemm.operands import given_once


def sizes_and_layout(
    op: str,
    ks_cpu: Sequence[int] | None,
    ks: Sequence[int] | None,
    grouped_layout: torch.Tensor | None,
    ks_tensor: torch.Tensor | None,
    *,
    use_psum_layout: bool,
) -> tuple[list[int], torch.Tensor]:
    """Return the groups' sizes, on the host and on the device; each argument has two names."""
    if use_psum_layout:
        remedy = "end offsets of columns are not built"
        Checker(op).not_built("use_psum_layout", "be False", True, remedy)
    sizes = given_once(op, ("ks_cpu", ks_cpu), ("ks", ks))
    layout = given_once(op, ("grouped_layout", grouped_layout), ("ks_tensor", ks_tensor))
    return list(sizes), layout


def check_columns(
    check: Checker, ks: list[int], layout: torch.Tensor | None, unit: int, name: str
) -> None:
    """Require sizes of `num_groups` groups, multiples of `unit`, and the same on the device.

    A layout's values are read on the CPU only: a GPU would have to be waited for.
    """
    num_groups = check.dims["num_groups"]
    if len(ks) != num_groups:
        check.invalid(name, f"have one size for each of {num_groups} groups", len(ks), "check d")
    for group, size in enumerate(ks):
        if size < 0 or size % unit:
            rule = f"be a multiple of {unit}, 0 or more"
            check.invalid(f"{name}[{group}]", rule, size, "pad each group with zeros")
    if layout is None:
        return
    check.tensor("grouped_layout", layout, ("num_groups",), torch.int32)
    if layout.device.type == "cpu" and layout.tolist() != ks:
        check.invalid("grouped_layout", f"be {name} = {ks}", layout.tolist(), "copy it from there")
