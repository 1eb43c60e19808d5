"""Runs a schedule: this rank's list of actions, on real modules and tensors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from dualpipe.actions import Action, Kind, Overlap, Schedule, Step, actions_of, phase_name
from dualpipe.communication import Batch, Program, Transfer, transfer_between
from dualpipe.p2p import Exchange, TensorFormat
from dualpipe.weight_grad import DeferredGrads, WeightGradFn, run_backward, run_weight_grads

if TYPE_CHECKING:
    from dualpipe.pipeline import Pipeline

Criterion = Callable[..., Tensor]
StepResult = tuple[Tensor | None, Tensor | tuple[Tensor, ...] | None]


class StepRun:
    """The state of one step on one rank; it ends with the step."""

    def __init__(
        self,
        pipeline: Pipeline,
        schedule: Schedule,
        criterion: Criterion | None,
        *,
        return_outputs: bool,
    ) -> None:
        self.deferred = DeferredGrads()
        self._pipeline, self._schedule, self._criterion = pipeline, schedule, criterion
        self._op = f"{type(pipeline).__name__}.step"
        self._training = torch.is_grad_enabled()
        self._return_outputs = return_outputs
        self._formats = pipeline.formats()
        self._exchange = Exchange(
            pipeline.group,
            pipeline.rank,
            pipeline.global_ranks,
            self._formats,
            pipeline.device,
        )
        self._labels: dict[int, list[Tensor]] = {}
        self._inputs: dict[tuple[int, int], list[Tensor]] = {}  # by stage and micro-batch, as below
        self._roots: dict[tuple[int, int], list[GradientEdge | None]] = {}
        self._grads: dict[tuple[int, int], list[Tensor]] = {}
        self._weight_grads: dict[tuple[int, int], list[WeightGradFn]] = {}
        self._losses: dict[int, Tensor] = {}
        self._loss_values: dict[int, Tensor] = {}
        self._outputs: dict[int, list[Tensor]] = {}
        self._outgoing: dict[Transfer, list[Tensor]] = {}

    # What goes in

    def feed(self, inputs: Sequence[Tensor | None], labels: Sequence[Tensor | None]) -> None:
        """Checks and cuts the tensors of this rank."""
        last_stage = self._schedule.num_stages - 1
        entering, leaving = self._microbatches(0), self._microbatches(last_stage)
        for microbatch, tensors in self._cut("inputs", inputs, entering).items():
            self._inputs[0, microbatch] = tensors
        given = [label for label in labels if label is not None]
        self._labels = self._cut("labels", given, leaving) if given else {m: [] for m in leaving}
        if leaving and self._training and self._criterion is None:
            raise ValueError(
                f"{self._op}: criterion must be given on rank {self._pipeline.rank}, "
                "which holds the last stage (pass criterion=)"
            )

    def _microbatches(self, stage: int) -> list[int]:
        """The micro-batches that meet a stage on this rank."""
        rank, schedule = self._pipeline.rank, self._schedule
        every = range(schedule.num_microbatches)
        return [m for m in every if schedule.rank_of(stage, m) == rank]

    def _cut(
        self, name: str, tensors: Sequence[Tensor | None], microbatches: list[int]
    ) -> dict[int, list[Tensor]]:
        if not microbatches:
            return {}
        dim, count = self._pipeline.batch_dim, len(microbatches)
        if not tensors:
            raise ValueError(
                f"{self._op}: {name} must be given on rank {self._pipeline.rank}, got none"
            )
        pieces = []
        for position, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise TypeError(
                    f"{self._op}: {name}[{position}] must be a tensor on rank "
                    f"{self._pipeline.rank}, got {type(tensor).__name__}"
                )
            size = tensor.shape[dim] if -tensor.dim() <= dim < tensor.dim() else 0
            if size == 0 or size % count:
                raise ValueError(
                    f"{self._op}: {name}[{position}] must divide evenly into {count} micro-batches "
                    f"along dim {dim}, got shape {list(tensor.shape)} (pad it or change num_chunks)"
                )
            pieces.append(tensor.tensor_split(count, dim=dim))
        return {
            m: list(cut) for m, cut in zip(microbatches, zip(*pieces, strict=True), strict=True)
        }

    # The loop

    def run(self, program: Program) -> None:
        """Executes this rank's list."""
        for item in program:
            if isinstance(item, Batch):
                self._exchange.start(item, self._outgoing)
                continue
            self._await(item)
            with torch.profiler.record_function(phase_name(item)):
                if self._pipeline.record_times:
                    self._execute_timed(item)
                else:
                    self._execute(item)
        self._exchange.finish()

    def _await(self, step: Step) -> None:
        """Waits for what a step needs from other ranks."""
        for action in actions_of(step):
            forward = action.kind is Kind.FORWARD
            transfer = None
            if forward:
                transfer = self._transfer(action, Kind.FORWARD, action.stage - 1, action.stage)
            elif action.kind is not Kind.WEIGHT_GRAD:
                transfer = self._transfer(action, Kind.INPUT_GRAD, action.stage + 1, action.stage)
            if transfer:
                arrived = self._inputs if forward else self._grads
                arrived[action.stage, action.microbatch] = self._exchange.receive(transfer)

    def _transfer(self, action: Action, kind: Kind, sender: int, receiver: int) -> Transfer | None:
        return transfer_between(self._schedule, kind, action.microbatch, sender, receiver)

    def _execute_timed(self, step: Step) -> None:
        started = time.perf_counter()
        self._execute(step)
        if self._pipeline.device.type == "cuda":
            torch.cuda.synchronize()
        self._pipeline.recorded.append((step, (time.perf_counter() - started) * 1e3))

    def _execute(self, step: Step) -> None:
        if isinstance(step, Overlap):
            self._overlap(step)
        elif step.kind is Kind.FORWARD:
            self._forward(step)
        elif step.kind is Kind.WEIGHT_GRAD:
            run_weight_grads(self._weight_grads.pop((step.stage, step.microbatch)))
        else:
            self._backward(step)

    def _overlap(self, step: Overlap) -> None:
        overlapped = self._pipeline.overlapped
        if overlapped is None:
            self._forward(step.forward)
            self._backward(step.backward)
            return
        inputs = self._take_inputs(step.forward)
        loss1, roots, grads = self._take_roots(step.backward)
        outputs, loss = overlapped(
            self._module(step.forward),
            inputs,
            self._criterion if self._is_last(step.forward) else None,
            self._labels.pop(step.forward.microbatch) if self._is_last(step.forward) else [],
            self._module(step.backward),
            loss1,
            roots,
            grads,
        )
        self._keep_outputs(step.forward, list(outputs), loss)
        self._hand_back(step.backward)

    # Forward

    def _forward(self, action: Action) -> None:
        inputs = self._take_inputs(action)
        outputs = self._module(action)(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        loss = None
        if self._is_last(action) and self._criterion is not None:
            loss = self._criterion(*outputs, *self._labels.pop(action.microbatch))
        self._keep_outputs(action, outputs, loss)

    def _take_inputs(self, action: Action) -> list[Tensor]:
        """The forward's inputs; in training they stay until the backward has their gradients."""
        key = action.stage, action.microbatch
        if action.stage > 0 and self._training:
            for tensor, each in zip(self._inputs[key], self._formats, strict=True):
                tensor.requires_grad_(each.has_gradient)
        return self._inputs[key] if self._training else self._inputs.pop(key)

    def _keep_outputs(self, action: Action, outputs: list[Tensor], loss: Tensor | None) -> None:
        key = action.stage, action.microbatch
        if self._is_last(action):
            if loss is not None:
                self._loss_values[action.microbatch] = loss.detach()
                self._losses[action.microbatch] = loss
            if self._return_outputs:
                self._outputs[action.microbatch] = [output.detach() for output in outputs]
            return
        self._check_outputs(action, outputs)
        if self._training:
            # The gradient edge is all that the backward needs: the tensor itself may go.
            self._roots[key] = [
                get_gradient_edge(output) if output.requires_grad else None
                for output, each in zip(outputs, self._formats, strict=True)
                if each.has_gradient
            ]
        handed_on = [output.detach() for output in outputs]
        self._send_or_keep(action, Kind.FORWARD, 1, handed_on, self._inputs)

    def _check_outputs(self, action: Action, outputs: list[Tensor]) -> None:
        found = [TensorFormat(tuple(output.shape), output.dtype) for output in outputs]
        if found != list(self._formats):
            raise ValueError(
                f"{self._op}: stage {action.stage} must hand on "
                f"{', '.join(map(str, self._formats))}, got {', '.join(map(str, found))} "
                "(set the shapes and dtypes of one micro-batch)"
            )

    # Backward

    def _take_roots(self, action: Action) -> tuple[Tensor | None, list[GradientEdge], list[Tensor]]:
        """Where the backward starts: at the loss, or at the outputs that have a graph."""
        key = action.stage, action.microbatch
        if self._is_last(action):
            return self._losses.pop(action.microbatch), [], []
        known = zip(self._roots.pop(key), self._grads.pop(key), strict=True)
        pairs = [(root, grad) for root, grad in known if root is not None]
        return None, [root for root, _ in pairs], [grad for _, grad in pairs]

    def _backward(self, action: Action) -> None:
        loss, roots, grads = self._take_roots(action)
        self.deferred.enabled = action.kind is Kind.INPUT_GRAD
        try:
            if loss is not None:
                loss.backward()  # type: ignore[no-untyped-call]
            else:
                run_backward(roots, grads)
        finally:
            self.deferred.enabled = False
        if action.kind is Kind.INPUT_GRAD:
            self._weight_grads[action.stage, action.microbatch] = self.deferred.cache
            self.deferred.cache = []
        self._hand_back(action)

    def _hand_back(self, action: Action) -> None:
        inputs = self._inputs.pop((action.stage, action.microbatch))
        if action.stage == 0:
            return
        floating = [tensor for tensor in inputs if tensor.requires_grad]
        grads = [torch.zeros_like(t) if t.grad is None else t.grad for t in floating]
        self._send_or_keep(action, Kind.INPUT_GRAD, -1, grads, self._grads)

    def _send_or_keep(
        self,
        action: Action,
        kind: Kind,
        towards: int,
        tensors: list[Tensor],
        local: dict[tuple[int, int], list[Tensor]],
    ) -> None:
        receiver = action.stage + towards
        transfer = self._transfer(action, kind, action.stage, receiver)
        if transfer is None:  # the next stage is on this rank too
            local[receiver, action.microbatch] = tensors
        else:
            self._outgoing[transfer] = [tensor.contiguous() for tensor in tensors]

    # What comes out

    def results(self) -> StepResult:
        """(losses, outputs) of this rank."""
        losses = [loss for _, loss in sorted(self._loss_values.items())]
        pieces = [outputs for _, outputs in sorted(self._outputs.items())]
        joined = [torch.cat(parts, self._pipeline.batch_dim) for parts in zip(*pieces, strict=True)]
        outputs = None if not joined else joined[0] if len(joined) == 1 else tuple(joined)
        return torch.stack(losses) if losses else None, outputs

    def _module(self, action: Action) -> nn.Module:
        return self._pipeline.module[self._schedule.chunk_of(action.stage, action.microbatch)]

    def _is_last(self, action: Action) -> bool:
        return action.stage == self._schedule.num_stages - 1
