"""Times of a real step, in the form that the simulator and `python -m dualpipe --times` take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor

from dualpipe.actions import Action, Kind, Overlap, Step
from dualpipe.simulate import Times

Record = tuple[Step, float]  # a step and the milliseconds that it took
KINDS = tuple(Kind)
OVERLAP = len(KINDS)  # the column behind those of the kinds


def medians(records: Sequence[Record], num_stages: int) -> Tensor:
    """What one rank has seen: [num_stages, 5] float64, NaN where it has seen nothing.

    Columns are F, B, I and W in milliseconds and, in stage 0's row, the time of overlapped pairs as
    a share of their parts.
    """
    samples: dict[tuple[int, Kind], list[float]] = defaultdict(list)
    for step, milliseconds in records:
        if isinstance(step, Action):
            samples[step.stage, step.kind].append(milliseconds)
    table = torch.full((num_stages, OVERLAP + 1), torch.nan, dtype=torch.float64)
    for (stage, kind), values in samples.items():
        table[stage, KINDS.index(kind)] = median(values)
    factors = []
    for step, milliseconds in records:
        if isinstance(step, Overlap):
            parts = (step.forward, step.backward)
            alone = [float(table[part.stage, KINDS.index(part.kind)]) for part in parts]
            factors.append(milliseconds / sum(alone))
    known = [factor for factor in factors if factor == factor]  # noqa: PLR0124 - not NaN
    if known:
        table[0, OVERLAP] = median(known)
    return table


def half_stage_times(tables: Tensor, *, two_per_rank: bool) -> Times:
    """Times from all ranks' tables, for the model cut into twice as many parts as there are ranks.

    Args:
        tables: [num_ranks, num_stages, 5] float64 as `medians` gives them.
        two_per_rank: whether the stages are such half stages already; if not, each is halved.

    Raises:
        ValueError: if some stage was never seen going forward and backward.
    """
    seen = tables.nanmedian(dim=0).values
    columns = dict(zip(KINDS, seen.unbind(1), strict=False))
    backward, *parts = (columns[k] for k in (Kind.BACKWARD, Kind.INPUT_GRAD, Kind.WEIGHT_GRAD))
    # A stage whose backward was never split gets the others' share.
    share = (parts[0] / (parts[0] + parts[1])).nanmean().nan_to_num(0.5)
    split = {
        Kind.FORWARD: columns[Kind.FORWARD],
        Kind.INPUT_GRAD: parts[0].where(~parts[0].isnan(), backward * share),
        Kind.WEIGHT_GRAD: parts[1].where(~parts[1].isnan(), backward * (1 - share)),
    }
    for kind, column in split.items():
        if column.isnan().any():
            stage = int(column.isnan().nonzero()[0])
            raise ValueError(
                f"measured_times: every stage must have been timed, got no {kind} of stage {stage} "
                "(set record_times and run a training step first)"
            )
    halves = 1 if two_per_rank else 2
    forward, input_grad, weight_grad = (
        tuple((column / halves).repeat_interleave(halves).tolist()) for column in split.values()
    )
    factor = float(seen[0, OVERLAP].nan_to_num(1.0))
    return Times(forward, input_grad, weight_grad, factor)


def gather(table: Tensor, group: dist.ProcessGroup, device: torch.device) -> Tensor:
    """Every rank's table, [num_ranks, num_stages, 5]."""
    tables = [torch.empty_like(table, device=device) for _ in range(group.size())]
    dist.all_gather(tables, table.to(device), group=group)
    return torch.stack(tables).cpu()
