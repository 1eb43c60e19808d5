"""The torch ops behind the functions: what torch may assume of them, and torch.compile."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import deepgemm
from tests.deepgemm.cases import bf16_operand, fp8_operand

OPS = torch.ops.openweek_deepgemm
GROUPS = torch.tensor([0] * 128 + [1] * 128, dtype=torch.int32)
KS = torch.tensor([128, 256], dtype=torch.int32)


def bf16_zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def fp8_call(m: int, n: int, rows: int, groups: int | None = None) -> tuple[Tensor, ...]:
    return *fp8_operand(m, 128, 1), *fp8_operand(n, 128, rows, groups)


def flat(m: int, n: int) -> tuple[Tensor, ...]:
    parts = [fp8_operand(rows, 384, 1) for rows in (m, n)]
    return tuple(part for data, scale in parts for part in (data.view(-1), scale))


CALLS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "fp8_gemm": lambda: ("fp8_gemm_nt", *fp8_call(8, 16, 128), bf16_zeros(8, 16)),
    "fp8_accumulate": lambda: (
        "fp8_gemm_nt",
        *fp8_call(8, 16, 1),
        torch.zeros(8, 16),
        torch.ones(8, 16),
    ),
    "m_grouped_fp8_gemm": lambda: (
        "m_grouped_fp8_gemm_nt_contiguous",
        *fp8_call(256, 16, 128, 2),
        bf16_zeros(256, 16),
        GROUPS,
        "row_map",
        None,
    ),
    "k_grouped_fp8_accumulate": lambda: (
        "k_grouped_fp8_gemm_nt_contiguous",
        *flat(8, 16),
        torch.zeros(2, 8, 16),
        torch.ones(2, 8, 16),
        [128, 256],
        KS,
    ),
    "bf16_gemm": lambda: (
        "bf16_gemm_nt",
        bf16_operand(8, 64),
        bf16_operand(16, 64),
        torch.zeros(8, 16),
        torch.ones(8, 16),
    ),
    "m_grouped_bf16_gemm": lambda: (
        "m_grouped_bf16_gemm_nt_contiguous",
        bf16_operand(256, 64),
        bf16_operand(2, 16, 64),
        bf16_zeros(256, 16),
        GROUPS,
        "row_map",
        None,
    ),
    "k_grouped_bf16_gemm": lambda: (
        "k_grouped_bf16_gemm_tn_contiguous",
        bf16_operand(384, 8),
        bf16_operand(384, 16),
        torch.zeros(2, 8, 16),
        None,
        [128, 256],
        KS,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_keeps_the_promises_of_its_schema(name: str, seed: int) -> None:
    op, arguments = getattr(OPS, name).default, CALLS[name]()
    tests = ["test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic"]
    if "fp8" not in name:  # torch cannot compare FP8 tensors
        tests.append("test_schema")
    torch.library.opcheck(op, arguments, test_utils=tests)


@pytest.mark.parametrize("name", CALLS)
def test_writes_into_d_alone(name: str, seed: int) -> None:
    op, arguments = getattr(OPS, name).default, CALLS[name]()
    before = [value.clone() if isinstance(value, Tensor) else value for value in arguments]
    op(*arguments)
    for argument, value, old in zip(op._schema.arguments, arguments, before, strict=True):
        if isinstance(value, Tensor):
            same = torch.equal(value.view(torch.uint8), old.view(torch.uint8))
            assert same == (argument.name != "d"), argument.name


def test_every_op_is_checked() -> None:
    registered = {
        name.partition("::")[2]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("openweek_deepgemm::")
    }
    assert registered == set(CALLS)


def dense(x: Tensor, w: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    deepgemm.fp8_gemm_nt(deepgemm.per_token_cast_to_fp8(x), w, out)
    return out.float() * 2


def added_to_itself(x: Tensor, w: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    total = out.float()
    pair = deepgemm.per_token_cast_to_fp8(x)
    deepgemm.fp8_gemm_nt(
        pair, (w[0], w[1].expand(len(w[0]), -1)), total, c=total, recipe=(1, 1, 128)
    )
    return total + 1


def grouped(x: Tensor, w: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    deepgemm.m_grouped_fp8_gemm_nt_masked(
        tuple(part[None] for part in deepgemm.per_token_cast_to_fp8(x)),
        tuple(part[None] for part in w),
        out[None],
        torch.full((1,), len(x), dtype=torch.int32),
        expected_m=4,
    )
    return out - 1


def columns(x: Tensor, w: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    a, b = (deepgemm.per_channel_cast_to_fp8(w[0].float().T) for _ in range(2))
    layout, total = torch.full((1,), 128, dtype=torch.int32), torch.ones(1, 16, 16)
    deepgemm.k_grouped_fp8_gemm_tn_contiguous(a, b, total, [128], layout, c=total)
    return total * 2


def bf16(x: Tensor, w: tuple[Tensor, Tensor], out: Tensor) -> Tensor:
    deepgemm.bf16_gemm_nn(x, w[0].to(torch.bfloat16).T.contiguous(), out)
    return out.relu()


@pytest.mark.parametrize("function", [dense, added_to_itself, grouped, columns, bf16])
def test_compiles_as_one_graph(function: Callable[..., Tensor], seed: int) -> None:
    x, w = bf16_operand(12, 128), fp8_operand(16, 128, 128)
    out = bf16_operand(12, 16)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    written, expected_written = out.clone(), out.clone()
    made = compiled(x, w, written)
    assert torch.equal(made, function(x, w, expected_written))
    assert torch.equal(written, expected_written)


def test_a_compiled_call_checks_its_arguments() -> None:
    x, w = bf16_operand(12, 128), fp8_operand(16, 128, 128)
    compiled = torch.compile(dense, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"fp8_gemm_nt: d must have shape \[m, n\] with n=16"):
        compiled(x, w, bf16_zeros(12, 8))


def test_eager_calls_skip_the_dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The op costs more than the checks: an eager call must not go through it."""
    seen: list[str] = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(str(func))
            return func(*args, **kwargs or {})

    d = bf16_zeros(8, 16)
    a, b = fp8_operand(8, 128, 1), fp8_operand(16, 128, 128)
    with Recorder():
        deepgemm.fp8_gemm_nt(a, b, d)
        OPS.fp8_gemm("fp8_gemm_nt", *a, *b, d)
    assert [name for name in seen if "openweek" in name] == ["openweek_deepgemm.fp8_gemm.default"]
