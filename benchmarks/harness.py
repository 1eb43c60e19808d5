"""Runs a case: check first, then time it beside its peers, then rate it against the device."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from benchmarks.case import Case, Measurement, Peer, label, one_line
from benchmarks.environment import clocks
from benchmarks.roofline import Peaks, geomean

# A larger call takes, with its check and all repetitions, more than some ten seconds on two cores.
CPU_FLOP_LIMIT = 16e9
CPU_BYTE_LIMIT = 1e9

Status = Literal["ok", "wrong", "failed", "not available", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One shape of one case: what the table shows and the JSON holds."""

    case: str
    shape: str
    status: Status
    reason: str = ""
    error: float | None = None
    tolerance: float | None = None
    p20_us: float | None = None
    p50_us: float | None = None
    p80_us: float | None = None
    tflops: float | None = None
    gbytes_per_s: float | None = None
    roofline: float | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    peers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    method: str = ""
    num_samples: int = 0
    clocks: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_case(
    case: Case[Any],
    shape_set: str,
    device: torch.device,
    peaks: Peaks,
    *,
    only_peer: str | None = None,
    budget_s: float = 1.0,
    deadline: float = math.inf,
) -> Iterator[Row]:
    """Yields one row per shape as it is finished.

    Args:
        case: What to run.
        shape_set: "tiny", "real" or "sweep".
        device: Where to run it.
        peaks: Ceilings that the rows are rated against.
        only_peer: The one peer to compare with; all of them if None.
        budget_s: Seconds of timing per shape, the check not counted.
        deadline: `time.monotonic()` after which the remaining shapes are only listed.
    """
    missing = why_not(case, device)
    if missing:
        yield Row(case=case.name, shape="all", status="not available", reason=missing)
        return
    peers = {
        name: peer
        for name, peer in case.peers.items()
        if device.type in peer.devices and only_peer in {None, name}
    }
    for shape in shapes_for(case, shape_set, device):
        if time.monotonic() > deadline:
            yield Row(case=case.name, shape=label(shape), status="not run", reason="out of time")
            continue
        yield _run_shape(case, shape, device, peaks, peers, budget_s)


def shapes_for(case: Case[Any], shape_set: str, device: torch.device) -> list[Any]:
    """Returns the shapes of a set, on a CPU without those too large for it.

    A case for CPUs alone has chosen its shapes for them.
    """
    shapes = case.shapes[shape_set]
    if device.type != "cpu" or case.devices == ("cpu",):
        return list(shapes)
    works = map(case.work, shapes)
    fits = (work.flops <= CPU_FLOP_LIMIT and work.bytes <= CPU_BYTE_LIMIT for work in works)
    return list(itertools.compress(shapes, fits))


def why_not(case: Case[Any], device: torch.device) -> str | None:
    """Returns why a case cannot run here, or None if it can."""
    if device.type not in case.devices:
        return f"runs on {' and '.join(case.devices)} only"
    for needed in case.needs:
        module, _, name = needed.rpartition(".")
        try:
            found = hasattr(importlib.import_module(module), name)
        except ImportError as error:
            return one_line(error)
        if not found:
            return f"{needed} does not exist yet"
    return None


def geomeans(rows: Sequence[Row]) -> dict[str, float]:
    """Returns, per peer, the geometric mean over rows of t_peer / t_ours."""
    means = {
        peer: geomean(row.ratios[peer] for row in rows if peer in row.ratios)
        for peer in sorted({name for row in rows for name in row.ratios})
    }
    return {peer: mean for peer, mean in means.items() if mean is not None}


def _run_shape(
    case: Case[Any],
    shape: Any,
    device: torch.device,
    peaks: Peaks,
    peers: Mapping[str, Peer],
    budget_s: float,
) -> Row:
    name = label(shape)
    try:
        measured = case.measure(shape, device, peers, budget_s)
    except NotImplementedError as error:
        return Row(case=case.name, shape=name, status="not available", reason=str(error))
    except Exception as error:  # noqa: BLE001 (one broken shape must not take the others with it)
        return Row(case=case.name, shape=name, status="failed", reason=one_line(error))
    if measured.error <= case.tolerance:
        return dataclasses.replace(rate(case, shape, measured, peaks), clocks=clocks(device))
    return Row(
        case=case.name,
        shape=name,
        status="wrong",
        reason=f"error {measured.error:.1e} is above {case.tolerance:.1e}, so it was not timed",
        error=measured.error,
        tolerance=case.tolerance,
    )


def rate(case: Case[Any], shape: Any, measured: Measurement, peaks: Peaks) -> Row:
    """Turns timings into rates: of the work's least flops and bytes, not of those really spent."""
    ours, work = measured.timings["ours"], case.work(shape)
    p20, p50, p80 = (ours.percentile(percent) for percent in (20, 50, 80))
    others = {name: timing for name, timing in measured.timings.items() if name != "ours"}
    return Row(
        case=case.name,
        shape=label(shape),
        status="ok",
        error=measured.error,
        tolerance=case.tolerance,
        p20_us=p20,
        p50_us=p50,
        p80_us=p80,
        tflops=work.flops / p50 / 1e6,
        gbytes_per_s=work.bytes / p50 / 1e3,
        roofline=peaks.floor_us(work) / p50,
        ratios={name: timing.percentile(50) / p50 for name, timing in others.items()},
        peers={
            name: {f"p{percent}_us": timing.percentile(percent) for percent in (20, 50, 80)}
            for name, timing in others.items()
        },
        method=ours.method,
        num_samples=len(ours.samples_us),
        notes=measured.notes,
    )
