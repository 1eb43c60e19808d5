"""DualPipe and DualPipeV: a pipeline of modules that trains by its schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dualpipe import schedules
from dualpipe.actions import Schedule
from dualpipe.communication import Program, add_communication
from dualpipe.measure import Record, gather, half_stage_times, medians
from dualpipe.p2p import Dtypes, Shapes, TensorFormat, resolve_formats
from dualpipe.runtime import Criterion, StepResult, StepRun
from dualpipe.simulate import Times
from dualpipe.weight_grad import running, split_linears


@cache
def _programs(
    name: str, num_ranks: int, num_microbatches: int, *, training: bool
) -> tuple[Schedule, tuple[Program, ...]]:
    schedule = schedules.SCHEDULES[name](num_ranks, num_microbatches)
    if not training:
        schedule = schedules.forward_only(schedule)
    return schedule, add_communication(schedule)


class Pipeline(nn.Module):
    """What DualPipe and DualPipeV share: everything but the schedule."""

    schedule_name: ClassVar[str]

    def __init__(
        self,
        modules: tuple[nn.Module, nn.Module],
        batch_dim: int = 0,
        process_group: dist.ProcessGroup | None = None,
        rank_mapping: list[int] | None = None,
        *,
        p2p_tensor_shapes: Shapes | None = None,
        p2p_tensor_dtypes: Dtypes | None = None,
    ) -> None:
        """Args:
        modules: this rank's two stages; which ones the class says.
        batch_dim: the dimension along which inputs and labels are cut into micro-batches.
        process_group: the ranks of this pipeline; default: all.
        rank_mapping: `rank_mapping[i]` is the place in the pipeline of the group's rank i; default:
            the same order.
        p2p_tensor_shapes: shape of each tensor that a stage hands to the next, for one micro-batch;
            default: what `set_p2p_tensor_shapes` set.
        p2p_tensor_dtypes: one dtype, or one per tensor; default: `set_p2p_tensor_dtype`.

        Raises:
            ValueError: if not two modules are given, or the mapping is no permutation.
        """
        super().__init__()
        op = type(self).__name__
        if len(modules) != 2 or not all(isinstance(module, nn.Module) for module in modules):
            raise ValueError(f"{op}: modules must be two nn.Modules, got {len(modules)} objects")
        self.module = nn.ModuleList(modules)
        self.batch_dim = batch_dim
        group = process_group or dist.group.WORLD
        if group is None:
            raise ValueError(
                f"{op}: process_group must be an initialised group, got none "
                "(call torch.distributed.init_process_group first)"
            )
        self.group = group
        self.num_ranks = group.size()
        mapping = list(range(self.num_ranks)) if rank_mapping is None else list(rank_mapping)
        if sorted(mapping) != list(range(self.num_ranks)):
            raise ValueError(
                f"{op}: rank_mapping must be a permutation of 0..{self.num_ranks - 1}, "
                f"got {mapping}"
            )
        self.rank = mapping[group.rank()]
        self.global_ranks = [
            dist.get_global_rank(group, mapping.index(place)) for place in range(self.num_ranks)
        ]
        self._shapes, self._dtypes = p2p_tensor_shapes, p2p_tensor_dtypes
        first, second = modules
        self.overlapped: Callable[..., tuple[list[Tensor], Tensor | None]] | None = None
        if type(first) is type(second):
            self.overlapped = getattr(type(first), "overlapped_forward_backward", None)
        self.record_times = False
        self.recorded: list[Record] = []

    def step(
        self,
        *inputs: Tensor | None,
        num_chunks: int = 0,
        criterion: Criterion | None = None,
        labels: Sequence[Tensor | None] = (),
        return_outputs: bool = False,
    ) -> StepResult:
        """One training step, or with gradients disabled one evaluation step, of the whole pipeline.

        Every rank of the group calls it. Gradients are added up over micro-batches, neither
        averaged nor scaled. Weights' gradients are complete on return, on the current stream.

        Args:
            inputs: tensors for the first stage, on the ranks that feed one; None elsewhere.
            num_chunks: number of micro-batches.
            criterion: `criterion(*outputs, *labels)` -> loss of one micro-batch, a scalar; on the
                ranks with a last stage, needed for training.
            labels: tensors for the criterion, on the ranks with a last stage.
            return_outputs: whether to return the last stage's outputs.

        Returns:
            (loss, outputs): the losses of the micro-batches, [num_chunks of this rank], and the
            outputs, concatenated along `batch_dim` (one tensor, or a tuple if there are several);
            None where there are none.

        Raises:
            ValueError: before anything is sent, for impossible sizes, uneven micro-batches, missing
                inputs or criterion.
            RuntimeError: when another rank of the pipeline is lost.
        """
        training = torch.is_grad_enabled()
        schedule, programs = _programs(
            self.schedule_name, self.num_ranks, num_chunks, training=training
        )
        run = StepRun(self, schedule, criterion, return_outputs=return_outputs)
        run.feed(inputs, labels)
        if not training:
            run.run(programs[self.rank])
        else:
            with running(run.deferred), split_linears(self.module, run.deferred):
                run.run(programs[self.rank])
        return run.results()

    def measured_times(self) -> Times:
        """Medians of the steps that ran while `record_times` was set, in milliseconds.

        Every rank of the group calls it. Recording waits for the device after every step of the
        schedule, so it is for measuring, not for training.

        Returns:
            Times of half stages, the model cut into twice as many parts as there are ranks: what
            `compare` and `python -m dualpipe --times` take.
        """
        two_per_rank = self.schedule_name == "dualpipev"
        table = medians(self.recorded, self.num_ranks * (2 if two_per_rank else 1))
        return half_stage_times(gather(table, self.group, self.device), two_per_rank=two_per_rank)

    def formats(self) -> tuple[TensorFormat, ...]:
        """Of the tensors between stages."""
        return resolve_formats(self._shapes, self._dtypes)

    @property
    def device(self) -> torch.device:
        """Where the stages live."""
        parameter = next(self.module.parameters(), None)
        if parameter is not None:
            return parameter.device
        on_gpu = dist.get_backend(self.group) == "nccl"
        return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


class DualPipe(Pipeline):
    """Bidirectional pipeline: rank r of N holds stage r and a copy of stage N-1-r.

    Micro-batches enter at both ends: half of `num_chunks` from the inputs of the first rank, half
    from those of the last. **Labels are crossed**: the first rank holds the last stage for what
    entered at the last rank, so it takes the labels of the last rank's inputs and returns their
    loss, and the other way round.

    N must be even; `num_chunks` even and at least 2N. After the step every stage's gradient is in
    two parts, one on each of its two ranks: `sync_mirrored_gradients` adds them up.

    A class method `overlapped_forward_backward(module0, inputs0, criterion0, labels0, module1,
    loss1, outputs1, output_grads1) -> (outputs0, loss0)` on the stages' class is called for a
    forward and a backward that may overlap; it must do the forward of `module0` (and of
    `criterion0` if that is not None) and the backward of `loss1` if that is not None, else
    `run_backward(outputs1, output_grads1)`. The outputs themselves are gone by then: `outputs1`
    holds their gradient edges, which `run_backward` and `torch.autograd.backward` take in their
    place, and is empty where there is a loss.

    Source: DeepSeek-V3 Technical Report, section 3.2.1.
    """

    schedule_name = "dualpipe"

    def sync_mirrored_gradients(self) -> None:
        """Adds up the gradients of each stage's two copies; afterwards both copies hold the sum.

        Every rank of the group calls it, between `step` and the optimizer's step. A parameter
        without a gradient counts as zero.
        """
        peer = self.global_ranks[self.num_ranks - 1 - self.rank]
        own = [_flat_gradients(module) for module in self.module]
        # My copy 0 is the peer's copy 1: it receives in the order in which I send.
        received = [[torch.empty_like(flat) for flat in copy] for copy in own]
        ops = [dist.P2POp(dist.isend, flat, peer, self.group) for copy in own for flat in copy]
        ops += [
            dist.P2POp(dist.irecv, flat, peer, self.group)
            for copy in reversed(received)
            for flat in copy
        ]
        for work in dist.batch_isend_irecv(ops) if ops else []:
            work.wait()
        for module, flats, others in zip(self.module, own, received, strict=True):
            sums = [flat + other for flat, other in zip(flats, others, strict=True)]
            _set_flat_gradients(module, sums)


class DualPipeV(Pipeline):
    """DualPipe folded into a V: rank r of N holds stages r and 2N-1-r of a model cut into 2N.

    Inputs, labels, loss and outputs are rank 0's. `num_chunks` must be at least 2N. Stages may
    define `overlapped_forward_backward` as for `DualPipe`.

    Source: "cut in half" variant of DualPipe, published with the DualPipe project.
    """

    schedule_name = "dualpipev"


def _by_dtype(module: nn.Module) -> list[list[nn.Parameter]]:
    groups: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            groups.setdefault(parameter.dtype, []).append(parameter)
    return list(groups.values())


def _flat_gradients(module: nn.Module) -> list[Tensor]:
    return [
        torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
        for group in _by_dtype(module)
    ]


def _set_flat_gradients(module: nn.Module, flats: list[Tensor]) -> None:
    for group, flat in zip(_by_dtype(module), flats, strict=True):
        pieces = torch.split(flat, [parameter.numel() for parameter in group])
        for parameter, grad in zip(group, pieces, strict=True):
            parameter.grad = grad.view_as(parameter)
