"""The shared checks of loads: what passes, and what each refusal says."""

from typing import Any

import numpy as np
import pytest
import torch

from eplb.checks import checked_loads


@pytest.mark.parametrize(
    "loads",
    [
        torch.arange(6).view(2, 3),
        torch.arange(6.0).view(3, 2).t().contiguous().view(2, 3).bfloat16(),
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.arange(6, dtype=np.float16).reshape(2, 3),
        torch.arange(6.0).view(2, 3).requires_grad_(),
    ],
    ids=["int64", "bfloat16", "uint8", "float16", "with gradient"],
)
def test_numbers_become_float64_with_a_window(loads: Any) -> None:
    checked = checked_loads("op", loads)
    assert checked.dtype == np.float64
    assert checked.shape == (1, 2, 3)
    assert checked.flags.c_contiguous
    as_lists = loads.tolist()
    assert checked[0].tolist() == as_lists


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (1, 0, 4), (3, 2, 4)])
def test_edges_of_the_shape(shape: tuple[int, ...]) -> None:
    checked = checked_loads("op", np.ones(shape))
    assert checked.shape == (shape if len(shape) == 3 else (1, *shape))


def test_a_transposed_array_is_made_contiguous() -> None:
    loads = np.arange(6.0).reshape(3, 2).T
    checked = checked_loads("op", loads)
    assert checked.flags.c_contiguous
    assert checked[0].tolist() == loads.tolist()


@pytest.mark.parametrize(
    ("loads", "message"),
    [
        ([[1.0]], "op: loads must be a tensor or a numpy array .* got list (use numpy.asarray)"),
        (torch.ones(1, 1, dtype=torch.bool), "got torch.bool (count tokens per expert)"),
        (torch.ones(1, 1, dtype=torch.complex64), "got torch.complex64"),
        (np.array([["1"]]), "got <U1 (count tokens per expert)"),
        (np.array([[None]]), "got object"),
    ],
)
def test_types_that_are_no_numbers(loads: Any, message: str) -> None:
    with pytest.raises(TypeError, match="op: loads must be a tensor or a numpy array") as error:
        checked_loads("op", loads)
    assert message.rpartition(".* ")[2] in str(error.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4,), "op: counts must have 2 dimensions [num_layers, num_experts] or 3 with the windows"),
        ((1, 1, 1, 1), "got shape [1, 1, 1, 1] (add the missing dimension)"),
        ((2, 0), "op: counts must have at least one expert and one window, got shape [2, 0]"),
        ((0, 2, 4), "one window, got shape [0, 2, 4]"),
    ],
)
def test_shapes_without_meaning(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="op: counts must") as error:
        checked_loads("op", np.ones(shape), "counts")
    assert message in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5])
def test_the_first_bad_load_is_named(value: float) -> None:
    loads = np.ones((2, 3, 4))
    loads[1, 2, 0] = loads[1, 2, 3] = value
    with pytest.raises(ValueError, match=f"got {value} at window 1, layer 2, expert 0 \\(replace"):
        checked_loads("op", loads)
    with pytest.raises(ValueError, match=f"got {value} at layer 2, expert 0 \\(replace"):
        checked_loads("op", torch.from_numpy(loads[1]))


def test_a_sum_that_overflows() -> None:
    with pytest.raises(ValueError, match="op: loads must have a finite sum, got inf"):
        checked_loads("op", np.full((1, 4), 1e308))
