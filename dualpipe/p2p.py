"""What travels between stages, and how: tensor formats, buffers, batched sends and receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dualpipe.communication import Batch, Transfer

Shapes = Sequence[Sequence[int]]
Dtypes = torch.dtype | Sequence[torch.dtype]


@dataclass(frozen=True, slots=True)
class TensorFormat:
    """Shape and dtype of one tensor that crosses from a stage to the next."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"

    @property
    def has_gradient(self) -> bool:
        """Whether a gradient of this tensor travels back."""
        return self.dtype.is_floating_point or self.dtype.is_complex


def tensor_formats(shapes: Shapes, dtypes: Dtypes) -> tuple[TensorFormat, ...]:
    """One format per tensor; a single dtype serves all of them."""
    if isinstance(dtypes, torch.dtype):
        dtypes = [dtypes] * len(shapes)
    if len(dtypes) != len(shapes):
        raise ValueError(
            f"dualpipe: dtypes must be one or one per shape, got {len(dtypes)} "
            f"for {len(shapes)} shapes"
        )
    return tuple(
        TensorFormat(tuple(shape), dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    )


class _Defaults:
    """What the two setters below set, for pipelines without formats of their own."""

    shapes: Shapes | None = None
    dtypes: Dtypes | None = None


def set_p2p_tensor_shapes(shapes: Shapes) -> None:
    """Sets the shapes of the tensors that a stage hands to the next, for one micro-batch.

    They hold for every pipeline of this process that was built without `p2p_tensor_shapes`.
    """
    _Defaults.shapes = shapes


def set_p2p_tensor_dtype(dtype: Dtypes) -> None:
    """Sets the dtype of those tensors: one for all, or a list with one for each."""
    _Defaults.dtypes = dtype


def resolve_formats(shapes: Shapes | None, dtypes: Dtypes | None) -> tuple[TensorFormat, ...]:
    """A pipeline's own formats, or the process's defaults."""
    shapes = _Defaults.shapes if shapes is None else shapes
    dtypes = _Defaults.dtypes if dtypes is None else dtypes
    for value, name in ((shapes, "shapes"), (dtypes, "dtype")):
        if value is None:
            raise ValueError(
                f"step: the {name} of tensors between stages must be known, got none "
                f"(call set_p2p_tensor_{name} before the first step)"
            )
    assert shapes is not None  # noqa: S101
    assert dtypes is not None  # noqa: S101
    return tensor_formats(shapes, dtypes)


@dataclass(frozen=True, slots=True)
class _InFlight:
    transfer: Transfer
    tensors: list[Tensor]  # alive until the works are done
    works: list[dist.Work]

    def wait(self) -> None:
        try:
            for work in self.works:
                work.wait()
        except RuntimeError as error:
            raise RuntimeError(
                f"dualpipe: a peer was lost during transfer {self.transfer} (another rank has "
                f"failed or timed out; look at its own message): {error}"
            ) from error
        self.works.clear()  # gloo waits for ever if a work is waited for twice

    @property
    def is_done(self) -> bool:
        return all(work.is_completed() for work in self.works)


class Exchange:
    """The transfers of one step on one rank."""

    def __init__(
        self,
        group: dist.ProcessGroup,
        rank: int,
        global_ranks: Sequence[int],
        formats: tuple[TensorFormat, ...],
        device: torch.device,
    ) -> None:
        """Args:
        group: the process group of the pipeline.
        rank: this rank's place in the pipeline.
        global_ranks: the global rank of every place in the pipeline.
        formats: of the tensors between stages.
        device: of the receive buffers.
        """
        self._group, self._rank, self._global_ranks = group, rank, global_ranks
        self._formats, self._device = formats, device
        self._in_flight: list[_InFlight] = []
        self._arriving: dict[Transfer, _InFlight] = {}

    def start(self, batch: Batch, outgoing: dict[Transfer, list[Tensor]]) -> None:
        """Starts a batch; takes the tensors that it sends out of `outgoing`."""
        ops: list[dist.P2POp] = []
        moving: dict[Transfer, list[Tensor]] = {}
        for transfer in batch.transfers:
            if transfer.source == self._rank:
                moving[transfer] = tensors = outgoing.pop(transfer)
                ops += [self._op(dist.isend, tensor, transfer.destination) for tensor in tensors]
            else:
                moving[transfer] = tensors = self._buffers(transfer)
                ops += [self._op(dist.irecv, tensor, transfer.source) for tensor in tensors]
        works = dist.batch_isend_irecv(ops) if ops else []  # integers alone have no gradients
        one_each = len(works) == len(ops)  # gloo's; NCCL has one work for all
        self._in_flight = [other for other in self._in_flight if not other.is_done]
        for transfer, tensors in moving.items():
            own = [works.pop(0) for _ in tensors] if one_each else works
            self._in_flight.append(_InFlight(transfer, tensors, own))
            if transfer.destination == self._rank:
                self._arriving[transfer] = self._in_flight[-1]

    def _op(self, call: Callable[..., Any], tensor: Tensor, peer: int) -> dist.P2POp:
        return dist.P2POp(call, tensor, self._global_ranks[peer], self._group)

    def _buffers(self, transfer: Transfer) -> list[Tensor]:
        formats = self._formats
        if transfer.kind != "F":
            formats = tuple(each for each in formats if each.has_gradient)
        return [torch.empty(f.shape, dtype=f.dtype, device=self._device) for f in formats]

    def receive(self, transfer: Transfer) -> list[Tensor]:
        """The tensors of a transfer, waiting for them if need be."""
        in_flight = self._arriving.pop(transfer)
        in_flight.wait()
        return in_flight.tensors

    def finish(self) -> None:
        """Waits for everything that was started."""
        for in_flight in self._in_flight:
            in_flight.wait()
        self._in_flight = []
