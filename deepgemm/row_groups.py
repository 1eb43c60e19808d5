"""Which rows are of which group: the three layouts of grouped products, checked and read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch.nn import functional

from csrc import Checker
from deepgemm.layout import align, get_mk_alignment_for_contiguous_layout
from deepgemm.operands import names_of

RowGrouping = Literal["row_map", "prefix_sum", "masked"]


def check_grouping(name: str) -> RowGrouping:
    """Read the layout's name, which a torch op can only pass as text."""
    return cast("RowGrouping", name)


def check_rows(
    check: Checker, layout: torch.Tensor, grouping: RowGrouping
) -> Literal["cpu", "kernel"]:
    """Require a layout of the rows, and say what computes the product.

    Its values are read on the CPU only: a GPU would have to be waited for.
    """
    name = "masked_m" if grouping == "masked" else "grouped_layout"
    if grouping == "row_map" and names_of(check.op).d == "out":
        name = "m_indices"
    extent = "m" if grouping == "row_map" else "num_groups"
    check.tensor(name, layout, (extent,), torch.int32)
    backend = check.backend(has_kernel=True)
    if layout.device.type == "cpu" and layout.numel() > 0:
        _CHECKS[grouping](check, name, layout)
    return backend


def slices(layout: torch.Tensor, grouping: RowGrouping) -> Iterator[tuple[int, slice]]:
    """Yield (group, its rows): every row of a checked layout of a CPU, -1 for padding.

    If masked, rows are those within a group, and there is no padding.
    """
    if grouping == "masked":
        yield from ((group, slice(0, rows)) for group, rows in enumerate(layout.tolist()))
    elif grouping == "row_map":
        groups, lengths = torch.unique_consecutive(layout, return_counts=True)
        begin = 0
        for group, length in zip(groups.tolist(), lengths.tolist(), strict=True):
            yield group, slice(begin, begin + length)
            begin += length
    else:
        begin = 0
        for group, end in enumerate(layout.tolist()):
            yield group, slice(begin, max(begin, end))
            begin = align(end, get_mk_alignment_for_contiguous_layout())
            yield -1, slice(end, begin)
        yield -1, slice(begin, None)


def _check_row_map(check: Checker, name: str, row_map: torch.Tensor) -> None:
    low, high = (int(bound) for bound in row_map.aminmax())
    last = check.dims["num_groups"] - 1
    for group in (low, high):
        check.between(name, group, -1, last, "use -1 for padding")
    tile = get_mk_alignment_for_contiguous_layout()
    tiles = functional.pad(row_map, (0, -len(row_map) % tile), value=-1).view(-1, tile)
    mixed = ((tiles != tiles.amax(1, keepdim=True)) & (tiles != -1)).any(1)
    if mixed.any():
        groups = sorted(set(tiles[mixed][0].tolist()) - {-1})
        rule = f"hold one group, or -1, in each block of {tile} rows"
        actual = f"groups {' and '.join(map(str, groups))} in one"
        check.invalid(name, rule, actual, "pad each group")
    rows = ((tiles[:, :-1] == -1) & (tiles[:, 1:] != -1)).nonzero()
    if len(rows):
        block, row = rows[0].tolist()
        rule = f"have padding behind the rows of a group in each block of {tile} rows"
        check.invalid(name, rule, f"-1 in row {block * tile + row}", "move it to the end")


def _check_ends(check: Checker, name: str, ends: torch.Tensor) -> None:
    rows = check.dims["m"]
    before = 0
    for group, end in enumerate(ends.tolist()):
        check.between(f"{name}[{group}]", end, before, rows, "ends grow, up to the rows of a")
        before = end


def _check_counts(check: Checker, name: str, counts: torch.Tensor) -> None:
    for count in (int(bound) for bound in counts.aminmax()):
        check.between(name, count, 0, check.dims["m"], "count the rows of each group")


_CHECKS = {"row_map": _check_row_map, "prefix_sum": _check_ends, "masked": _check_counts}
