"""The split of backward into gradients of inputs and of weights."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from dualpipe.utils import WeightGradStore, run_backward
from dualpipe.weight_grad import DeferredGrads, running, split_linears


def gradients(module: nn.Module) -> list[torch.Tensor | None]:
    return [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (0, 8), (8,)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_split_without_user_code(shape: tuple[int, ...], bias: bool, seed: int) -> None:
    layer = nn.Linear(8, 4, bias=bias, dtype=torch.float64)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer(x).sin().sum().backward()
    expected, expected_x = gradients(layer), x.grad
    layer.zero_grad()
    x.grad = None
    deferred = DeferredGrads()
    with split_linears(layer, deferred):
        loss = layer(x).sin().sum()
    deferred.enabled = True
    loss.backward()
    assert torch.allclose(x.grad, expected_x, rtol=1e-14, atol=0)
    assert gradients(layer) == [None] * len(expected)  # not computed yet
    deferred.flush()
    deferred.pop()
    for found, grad in zip(gradients(layer), expected, strict=True):
        assert torch.allclose(found, grad, rtol=1e-13, atol=1e-15)
        assert not found.requires_grad  # a gradient that keeps its graph keeps all activations


def test_undeferred_backward_is_the_ordinary_one(seed: int) -> None:
    layer = nn.Linear(8, 4)
    x = torch.randn(3, 8)
    layer(x).sum().backward()
    expected = gradients(layer)
    layer.zero_grad()
    with split_linears(layer, DeferredGrads()):
        layer(input=x).sum().backward()
    assert all(torch.allclose(a, b) for a, b in zip(gradients(layer), expected, strict=True))


def test_a_weight_used_twice_gets_both_gradients(seed: int) -> None:
    layer = nn.Linear(4, 4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64)
    layer(layer(x).tanh()).sum().backward()
    expected = gradients(layer)
    layer.zero_grad()
    deferred = DeferredGrads()
    with split_linears(layer, deferred):
        loss = layer(layer(x).tanh()).sum()
    deferred.enabled = True
    loss.backward()
    deferred.flush()
    deferred.pop()
    for found, grad in zip(gradients(layer), expected, strict=True):
        assert torch.allclose(found, grad, rtol=1e-13, atol=1e-15)


def test_under_autocast(seed: int) -> None:
    layer = nn.Linear(8, 4)
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    expected, expected_x = gradients(layer), x.grad
    layer.zero_grad()
    x.grad = None
    deferred = DeferredGrads()
    with split_linears(layer, deferred), torch.autocast("cpu", torch.bfloat16):
        loss = layer(x).float().sum()
    deferred.enabled = True
    loss.backward()
    deferred.flush()
    deferred.pop()
    assert x.grad.dtype == torch.float32
    assert torch.allclose(x.grad, expected_x, rtol=2e-2)
    for found, grad in zip(gradients(layer), expected, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("case", ["hook", "accumulate hook", "no leaf", "frozen"])
def test_weights_that_others_watch_keep_the_ordinary_path(case: str, seed: int) -> None:
    layer, seen = nn.Linear(4, 4), []
    weight = layer.weight
    if case == "hook":
        weight.register_hook(seen.append)
    elif case == "accumulate hook":
        weight.register_post_accumulate_grad_hook(seen.append)
    elif case == "no leaf":
        parametrize.register_parametrization(layer, "weight", nn.Tanh())
    else:
        weight.requires_grad_(requires_grad=False)
    deferred = DeferredGrads()
    with split_linears(layer, deferred):
        loss = layer(torch.randn(3, 4, requires_grad=True)).sum()
    deferred.enabled = True
    loss.backward()
    assert deferred.cache == []
    assert (weight.grad is None) == (case == "frozen")
    assert len(seen) == (1 if "hook" in case else 0)


class _OtherLinear(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * 2


def test_only_plain_linears_are_touched_and_all_are_put_back() -> None:
    plain, other, replaced = nn.Linear(4, 4), _OtherLinear(4, 4), nn.Linear(4, 4)
    replaced.forward = replaced.forward  # somebody's own, on the instance
    own = replaced.forward
    stack = nn.Sequential(plain, other, replaced, plain)
    with split_linears(stack, DeferredGrads()):
        assert "forward" in vars(plain)
        assert "forward" not in vars(other)
        assert replaced.forward is own
    assert "forward" not in vars(plain)
    assert replaced.forward is own


def test_store_speaks_of_the_running_pipeline() -> None:
    first, second = DeferredGrads(), DeferredGrads()
    calls = []
    with running(first):
        WeightGradStore.enabled = True
        WeightGradStore.put(lambda: calls.append("first"))
        with (
            pytest.raises(RuntimeError, match="must not run inside another one's step"),
            running(second),
        ):
            pass
    with running(second):
        assert not WeightGradStore.enabled
        assert WeightGradStore.cache == []
    assert first.enabled
    assert len(first.cache) == 1
    first.flush()
    with running(first):
        assert len(WeightGradStore.funcs_queue) == 1
        WeightGradStore.pop()
    assert calls == ["first"]


def test_store_from_a_thread_of_autograd() -> None:
    """For CUDA tensors backward runs on a thread that belongs to no pipeline."""
    deferred, other = DeferredGrads(), DeferredGrads()

    def on_thread(target: Callable[[], object]) -> list[str]:
        caught: list[str] = []

        def work() -> None:
            try:
                target()
            except RuntimeError as error:
                caught.append(str(error))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return caught

    with running(deferred):
        assert on_thread(lambda: WeightGradStore.put(print)) == []
        assert deferred.cache == [print]

        def second_pipeline() -> None:
            with running(other):
                assert on_thread(lambda: WeightGradStore.put(print)) != []

        assert on_thread(second_pipeline) == []
    assert other.cache == []


def test_store_alone() -> None:
    calls = []
    WeightGradStore.clear()
    WeightGradStore.put(lambda: calls.append(1))
    WeightGradStore.flush()
    WeightGradStore.put(lambda: calls.append(2))
    WeightGradStore.flush()
    WeightGradStore.pop()
    assert calls == [1]
    WeightGradStore.clear()
    with pytest.raises(RuntimeError, match="nothing was flushed"):
        WeightGradStore.pop()


def test_run_backward_of_nothing() -> None:
    run_backward([], [])
