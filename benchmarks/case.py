"""What a benchmark case is: an operation, its shapes and peers, and the least work it could do."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch

from benchmarks.roofline import Work
from benchmarks.timing import Call, Inputs, Timing, rotate, time_interleaved

SEED = 0
SHAPE_SETS = ("tiny", "real", "sweep")

ShapeT = TypeVar("ShapeT")


def worst_row_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Returns the largest relative error of a row, infinity for NaN, Inf or a wrong shape.

    Per row because a norm over the whole hides one wrong row among thousands. A row of zeros is
    measured against the mean row, which keeps the bound meaningful there.

    Args:
        actual: [..., n] result, any dtype.
        expected: [..., n] float64 truth.
    """
    if actual.shape != expected.shape or not bool(actual.isfinite().all()):
        return math.inf
    if expected.numel() == 0:
        return 0.0
    norms = expected.norm(dim=-1)
    scale = torch.maximum(norms, 1e-3 * norms.mean()).clamp_min(torch.finfo(torch.float64).tiny)
    return float(((actual.double() - expected).norm(dim=-1) / scale).max())


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one shape gave: the error of ours, and the timings unless ours was wrong."""

    error: float
    timings: Mapping[str, Timing] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """Another implementation of the same function; `run` takes what ours takes."""

    run: Callable[..., Any]
    devices: tuple[str, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(abc.ABC, Generic[ShapeT]):
    """One operation with its shapes, its peers and the least work that it could do.

    Attributes:
        name: What the command line calls it.
        title: What is timed, in one line.
        devices: Device types that it runs on.
        needs: Dotted names that must exist, such as "deepgemm.fp8_gemm_nt".
        shapes: Shape set -> frozen dataclasses whose fields label the rows. `tiny` runs in pytest.
        work: Least flops and bytes of a shape.
        tolerance: Largest error, relative, that still counts as right.
        peers: By name, what ours is compared with.
    """

    name: str
    title: str
    devices: tuple[str, ...] = ("cpu", "cuda")
    needs: tuple[str, ...] = ()
    shapes: Mapping[str, Sequence[ShapeT]]
    work: Callable[[ShapeT], Work]
    tolerance: float
    peers: Mapping[str, Peer] = field(default_factory=dict)

    @abc.abstractmethod
    def measure(
        self, shape: ShapeT, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        """Checks ours, then times it under the name "ours" beside the given peers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorCase(Case[ShapeT]):
    """A case whose ours and peers are functions of one dict of tensors, in this process.

    Attributes:
        inputs: Builds the dict from shape, device and seed; outputs inside start as NaN.
        ours: The call under test; returns its result.
        oracle: The true result in float64, from the inputs.
        error: Relative error of a result, given result and truth.
    """

    inputs: Callable[[ShapeT, torch.device, int], Inputs]
    ours: Callable[[Inputs], Any]
    oracle: Callable[[Inputs], Any]
    error: Callable[[Any, Any], float] = worst_row_error

    def measure(
        self, shape: ShapeT, device: torch.device, peers: Mapping[str, Peer], budget_s: float
    ) -> Measurement:
        inputs = self.inputs(shape, device, SEED)
        result = self.ours(inputs)
        truth = self.oracle(inputs)
        error = self.error(result, truth)
        if not error <= self.tolerance:
            return Measurement(error)
        calls: dict[str, Call] = {"ours": self.ours}
        notes = []
        for name, peer in peers.items():
            reason = self._unfit(peer, inputs, truth)
            if reason is None:
                calls[name] = peer.run
            else:
                notes.append(f"{name} left out: {reason}")
        rotation, note = rotate(inputs, int(self.work(shape).bytes), device)
        timings = time_interleaved(calls, rotation, device, budget_s)
        return Measurement(error, timings, (*notes, *([note] if note else [])))

    def _unfit(self, peer: Peer, inputs: Inputs, truth: Any) -> str | None:
        try:
            error = self.error(peer.run(inputs), truth)
        except Exception as failure:  # noqa: BLE001 (whatever a peer does, ours is still measured)
            return one_line(failure)
        return None if error <= self.tolerance else f"its error is {error:.1e}"


def label(shape: Any) -> str:
    """Returns the row label of a shape: its fields, in order."""
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(shape).items())


def one_line(error: BaseException) -> str:
    """Returns an exception's type and the first line of its text."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
