"""The mutating calls as torch ops, so that torch.compile and CUDA graphs take them as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

import torch

_NAMESPACE = "openweek_deepgemm"

Arguments = ParamSpec("Arguments")


def torch_op(schema: str) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Register a function that writes into its arguments as `torch.ops.openweek_deepgemm.<name>`.

    A compiler that traces a call sees the op: what it reads, what it overwrites, and that it
    returns nothing. Eager calls skip torch's dispatcher, which costs more than all checks together.
    Arguments are checked when the op runs.

    Args:
        schema: name and arguments in torch's schema language, with `Tensor(a!)` for what is
            overwritten, and without the result.
    """

    def register(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
        name, parenthesis, arguments = schema.partition("(")
        qualified = f"{_NAMESPACE}::{name}"
        torch.library.define(qualified, f"{parenthesis}{arguments} -> ()")
        torch.library.impl(qualified, "default", function)
        # Nothing is returned, so there are no shapes to infer.
        torch.library.register_fake(qualified, _nothing)
        registered = getattr(getattr(torch.ops, _NAMESPACE), name).default

        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            if torch.compiler.is_compiling():
                registered(*args, **kwargs)
            else:
                function(*args, **kwargs)

        return call

    return register


def _nothing(*_args: object, **_kwargs: object) -> None:
    pass
