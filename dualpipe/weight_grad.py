"""Backward in two parts: gradients of inputs now, gradients of weights later.

The split of Zero Bubble Pipeline Parallelism (Qi et al. 2023). A layer that can be split computes
its input's gradient when autograd asks for it and leaves a closure that adds the weight's gradient.
`nn.Linear` is split without user code; other layers may ask `WeightGradStore.enabled` in their own
autograd Function and `put` such a closure.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import functional

WeightGradFn = Callable[[], None]


class DeferredGrads:
    """One pipeline's weight gradients that are still owed.

    Attributes:
        enabled: whether a backward should defer weight gradients right now.
        cache: closures put since the last flush.
        funcs_queue: flushed groups of closures, oldest first.
    """

    def __init__(self) -> None:
        self.enabled = False
        self.cache: list[WeightGradFn] = []
        self.funcs_queue: deque[list[WeightGradFn]] = deque()

    def put(self, fn: WeightGradFn) -> None:
        """Adds a closure that adds to some weight's gradient."""
        self.cache.append(fn)

    def flush(self) -> None:
        """Closes the current group."""
        self.funcs_queue.append(self.cache)
        self.cache = []

    def pop(self) -> None:
        """Runs the oldest group."""
        if not self.funcs_queue:
            raise RuntimeError("WeightGradStore.pop: nothing was flushed (call flush first)")
        run_weight_grads(self.funcs_queue.popleft())

    def clear(self) -> None:
        """Forgets everything that was put."""
        self.cache = []
        self.funcs_queue.clear()


@torch.no_grad()
def run_weight_grads(fns: Sequence[WeightGradFn]) -> None:
    """Runs closures as autograd would have: without recording a graph of their own."""
    for fn in fns:
        fn()


_standalone = DeferredGrads()
_running: dict[int, DeferredGrads] = {}  # by thread


@contextmanager
def running(deferred: DeferredGrads) -> Iterator[None]:
    """Makes `WeightGradStore` speak of one pipeline's gradients while its step runs."""
    thread = threading.get_ident()
    if thread in _running:
        raise RuntimeError("dualpipe: a pipeline step must not run inside another one's step")
    _running[thread] = deferred
    try:
        yield
    finally:
        del _running[thread]


def _current() -> DeferredGrads:
    mine = _running.get(threading.get_ident())
    if mine is not None:
        return mine
    # For CUDA tensors autograd calls backward on a thread of its own.
    candidates = list(_running.values())
    if len(candidates) > 1:
        raise RuntimeError(
            "WeightGradStore: several pipelines run in this process and the calling thread belongs "
            "to none of them (run their steps one after the other)"
        )
    return candidates[0] if candidates else _standalone


class _CurrentStore(type):
    @property
    def enabled(cls) -> bool:
        return _current().enabled

    @enabled.setter
    def enabled(cls, value: bool) -> None:
        _current().enabled = value

    @property
    def cache(cls) -> list[WeightGradFn]:
        return _current().cache

    @property
    def funcs_queue(cls) -> deque[list[WeightGradFn]]:
        return _current().funcs_queue


class WeightGradStore(metaclass=_CurrentStore):
    """The weight gradients of whichever pipeline is running, for layers that split themselves.

    Outside a pipeline's step it is a store of its own. Use in a custom autograd Function:

        if WeightGradStore.enabled:
            WeightGradStore.put(accumulate_weight_grad)
        else:
            accumulate_weight_grad()
    """

    @classmethod
    def put(cls, fn: WeightGradFn) -> None:
        """Adds a closure that adds to some weight's gradient."""
        _current().put(fn)

    @classmethod
    def flush(cls) -> None:
        """Closes the current group of closures."""
        _current().flush()

    @classmethod
    def pop(cls) -> None:
        """Runs the oldest group of closures."""
        _current().pop()

    @classmethod
    def clear(cls) -> None:
        """Forgets every closure."""
        _current().clear()


def run_backward(
    tensors: Sequence[Tensor | GradientEdge], grad_tensors: Sequence[Tensor | None]
) -> None:
    """Backward from several outputs at once, accumulating into leaves.

    Args:
        tensors: outputs, or their gradient edges where the outputs themselves are gone.
        grad_tensors: the gradient of each.
    """
    if tensors:
        torch.autograd.backward(tuple(tensors), tuple(grad_tensors))  # type: ignore[arg-type]


@contextmanager
def split_linears(module: nn.Module, deferred: DeferredGrads) -> Iterator[None]:
    """Inside this context, the `nn.Linear` layers of a module can defer their weight gradients.

    Only an instance's own `forward` is replaced, and put back at the end: no other module of the
    process notices, and a call costs no more than before.
    """
    linears = [
        each
        for each in module.modules()
        if isinstance(each, nn.Linear)
        and type(each).forward is nn.Linear.forward
        and "forward" not in vars(each)
    ]
    for linear in linears:
        vars(linear)["forward"] = partial(_split_forward, linear, deferred)
    try:
        yield
    finally:
        for linear in linears:
            del vars(linear)["forward"]


def _split_forward(linear: nn.Linear, deferred: DeferredGrads, input: Tensor) -> Tensor:  # noqa: A002
    weight, bias = linear.weight, linear.bias
    split = torch.is_grad_enabled() and _is_splittable(weight)
    if split and (bias is None or _is_splittable(bias)):
        out: Tensor = _SplitLinear.apply(input, weight, bias, deferred)  # type: ignore[no-untyped-call]
        return out
    return functional.linear(input, weight, bias)


def _is_splittable(parameter: Tensor) -> bool:
    """A plain leaf without hooks: what nobody but autograd watches may be accumulated by us."""
    hooked = parameter._backward_hooks or parameter._post_accumulate_grad_hooks  # noqa: SLF001
    plain = type(parameter) in (Tensor, nn.Parameter)
    return plain and parameter.is_leaf and parameter.requires_grad and not hooked


class _SplitLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, deferred: DeferredGrads
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias, ctx.deferred = bias, deferred
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        bias = ctx.bias
        grad_x = (grad @ weight.to(grad.dtype)).to(x.dtype) if ctx.needs_input_grad[0] else None

        def weight_grad() -> tuple[Tensor, Tensor | None]:
            rows = grad.reshape(-1, grad.shape[-1])
            grad_weight = rows.t() @ x.reshape(-1, x.shape[-1]).to(grad.dtype)
            grad_bias = None if bias is None else rows.sum(0).to(bias.dtype)
            return grad_weight.to(weight.dtype), grad_bias

        if not ctx.deferred.enabled:
            return grad_x, *weight_grad(), None

        def accumulate() -> None:
            grads = weight_grad()
            _add_grad(weight, grads[0])
            if bias is not None and grads[1] is not None:
                _add_grad(bias, grads[1])

        ctx.deferred.put(accumulate)
        return grad_x, None, None, None


def _add_grad(parameter: Tensor, grad: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = grad
    else:
        parameter.grad += grad
