"""The argument validator: what passes, and the words in which the rest is refused."""

import doctest
from collections.abc import Callable

import pytest
import torch

import csrc
from csrc import Checker, checks


@pytest.fixture
def check() -> Checker:
    return Checker("op")


def refuses(call: Callable[[], None], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_docstring_example() -> None:
    assert doctest.testmod(checks).failed == 0


def test_binds_names_and_sizes(check: Checker) -> None:
    check.tensor("a", torch.zeros(3, 256), ("m", "k"), torch.float32)
    check.tensor("b", torch.zeros(0, 256, 7), ("n", "k", 7), torch.int32, torch.float32)
    assert check.dims == {"m": 3, "k": 256, "n": 0}
    assert check.backend() == "cpu"


def test_a_call_without_tensors_runs_on_cpu(check: Checker) -> None:
    assert check.backend() == "cpu"


def test_refuses_what_is_no_tensor(check: Checker) -> None:
    refuses(
        lambda: check.tensor("a", [1.0], ("m",), torch.float32),
        TypeError,
        "op: a must be a tensor, got list (wrap it)",
    )


def test_refuses_dtype(check: Checker) -> None:
    refuses(
        lambda: check.tensor("a", torch.zeros(2), ("m",), torch.bfloat16, torch.float16),
        TypeError,
        "op: a must have dtype bfloat16 or float16, got float32 (convert it)",
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("m",), "op: b must have shape [m], got [3, 256] (reshape it)"),
        (("m", 128), "op: b must have shape [m, 128], got [3, 256] (check its sizes)"),
        (
            ("k", "x"),
            "op: b must have shape [k, x] with k=512, got [3, 256] (k was set by a)",
        ),
        (("x", "x"), "op: b must have shape [x, x] with x=3, got [3, 256] (x was set by b)"),
    ],
)
def test_refuses_shape(check: Checker, shape: tuple[str | int, ...], message: str) -> None:
    check.tensor("a", torch.zeros(512), ("k",), torch.float32)
    b = torch.zeros(3, 256)
    refuses(lambda: check.tensor("b", b, shape, torch.float32), ValueError, message)


def test_refuses_another_device(check: Checker) -> None:
    check.tensor("a", torch.zeros(2), ("m",), torch.float32)
    b = torch.zeros(2, device="meta")
    refuses(
        lambda: check.tensor("b", b, ("m",), torch.float32),
        ValueError,
        "op: b must be on cpu like a, got meta (move it with .to())",
    )


def test_names_what_a_device_lacks(check: Checker) -> None:
    check.tensor("a", torch.zeros(2, device="meta"), ("m",), torch.float32)
    refuses(
        check.backend,
        NotImplementedError,
        "op: a must be on cpu, got meta"
        " (the kernel of this op for meta is not built yet; CPU tensors work)",
    )


def test_a_simulation_runs_what_has_a_kernel(check: Checker) -> None:
    check.tensor("a", torch.zeros(2), ("m",), torch.float32)
    assert check.backend(has_kernel=True) == "cpu"
    with csrc.simulate():
        assert check.backend(has_kernel=True) == "kernel"
        refuses(
            check.backend,
            NotImplementedError,
            "op: a must not be simulated, got a tensor on cpu"
            " (the Hopper kernel of this op is not built yet; call it outside)",
        )


PADDED_ROWS = torch.zeros(4, 24, dtype=torch.bfloat16)[:, :16]
UNALIGNED_ROWS = torch.zeros(4, 20, dtype=torch.bfloat16)[:, :16]
COLUMNS = torch.zeros(16, 4, dtype=torch.bfloat16).T
ONE_COLUMN = COLUMNS[:, :1]
OFF_BY_ONE = torch.zeros(65, dtype=torch.bfloat16)[1:].view(4, 16)
NO_ROWS = torch.zeros(0, 20, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("layout", "value"),
    [
        ("any", COLUMNS),
        ("rows", UNALIGNED_ROWS),
        ("rows", ONE_COLUMN),
        ("tma", PADDED_ROWS),
        ("tma", UNALIGNED_ROWS[:1]),
        ("tma", NO_ROWS),
        ("contiguous", OFF_BY_ONE),
    ],
)
def test_accepts_layout(check: Checker, layout: checks.Layout, value: torch.Tensor) -> None:
    check.tensor("a", value, ("m", "k"), torch.bfloat16, layout=layout)


CALL_CONTIGUOUS = "for shape [4, 16] (call .contiguous())"


@pytest.mark.parametrize(
    ("layout", "value", "rule", "actual"),
    [
        ("rows", COLUMNS, "have stride 1 in its last dim", f"strides [1, 4] {CALL_CONTIGUOUS}"),
        (
            "tma",
            UNALIGNED_ROWS,
            "have outer strides that are multiples of 8 elements",
            f"strides [20, 1] {CALL_CONTIGUOUS}",
        ),
        ("tma", OFF_BY_ONE, "start at a multiple of 16 bytes", "one 2 bytes off (clone it)"),
        ("contiguous", PADDED_ROWS, "be contiguous", f"strides [24, 1] {CALL_CONTIGUOUS}"),
    ],
)
def test_refuses_layout(
    check: Checker, layout: checks.Layout, value: torch.Tensor, rule: str, actual: str
) -> None:
    refuses(
        lambda: check.tensor("a", value, ("m", "k"), torch.bfloat16, layout=layout),
        ValueError,
        f"op: a must {rule}, got {actual}",
    )


def test_multiple(check: Checker) -> None:
    check.multiple("k", 0, 128, "pad b")
    check.multiple("k", 256, 128, "pad b")
    refuses(
        lambda: check.multiple("k", 100, 128, "pad b"),
        ValueError,
        "op: k must be a multiple of 128, got 100 (pad b)",
    )


@pytest.mark.parametrize("value", [-2, 8])
def test_between(check: Checker, value: int) -> None:
    check.between("topk", -1, -1, 7, "choose fewer")
    check.between("topk", 7, -1, 7, "choose fewer")
    refuses(
        lambda: check.between("topk", value, -1, 7, "choose fewer"),
        ValueError,
        f"op: topk must be between -1 and 7, got {value} (choose fewer)",
    )
