"""The Hopper kernels that cast to FP8, and when they can."""

from __future__ import annotations

import functools
from typing import Literal

import torch

from csrc import Launcher, Number, Pointer, Signature, Struct, compile_kernel, simulating
from deepgemm.kernel_terms import NAMESPACE
from deepgemm.layout import ceil_div

Granularity = Literal["row", "column", "block"]

_INPUTS = {torch.bfloat16: "kBf16", torch.float16: "kFp16", torch.float32: "kFp32"}
_GRANULARITIES: dict[Granularity, str] = {"row": "kRow", "column": "kColumn", "block": "kBlock"}
_BLOCK, _THREADS = 128, 256
# What a lane loads at once, in elements.
_VECTOR = 4


def serve(x: torch.Tensor) -> bool:
    """Whether kernels run on the device of x, and take x as it is.

    Not under a compiler, which fuses plain torch operations by itself.
    """
    if torch.compiler.is_compiling():
        return False
    if x.device.type == "cuda":
        return torch.cuda.get_device_capability(x.device) == (9, 0) and can_cast(x)
    return x.device.type == "cpu" and simulating() and can_cast(x)


def can_cast(x: torch.Tensor) -> bool:
    """Whether the kernels take x as it is: rows that can be read four elements at a time."""
    rows, columns = x.shape
    aligned = x.data_ptr() % (_VECTOR * x.element_size()) == 0
    strides = x.stride(1) == 1 and (x.stride(0) % _VECTOR == 0 or rows == 1)
    return columns % _VECTOR == 0 and aligned and strides and x.numel() > 0


def cast(
    x: torch.Tensor, granularity: Granularity, *, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the cast of x [rows, columns], for which `can_cast` holds.

    Returns:
        `(data, scale)`: data [rows, columns] e4m3; scale float32 with 128 columns, 128 rows or both
        together in one.
    """
    rows, columns = x.shape
    row_blocks, column_blocks = ceil_div(rows, _BLOCK), ceil_div(columns, _BLOCK)
    shapes = {
        "row": (rows, column_blocks),
        "column": (row_blocks, columns),
        "block": (row_blocks, column_blocks),
    }
    data = torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(shapes[granularity], dtype=torch.float32, device=x.device)
    _launcher(x.dtype, granularity)(
        *(x, data, scale, x.stride(0), rows, columns, use_ue8m0),
        grid=(column_blocks, row_blocks, 1),
    )
    return data, scale


def source_of(dtype: torch.dtype, granularity: Granularity) -> tuple[str, str]:
    """The file of the kernel, and the kernel as C++ names it."""
    room = f"{NAMESPACE}::cast_fp8"
    arguments = (
        f"{room}::Input::{_INPUTS[dtype]}, {room}::Granularity::{_GRANULARITIES[granularity]}"
    )
    return "deepgemm/cast_fp8.cu", f"{NAMESPACE}::cast_fp8_sm90_kernel<{arguments}>"


@functools.cache
def _launcher(dtype: torch.dtype, granularity: Granularity) -> Launcher:
    members = (
        Pointer("x", dtype, contiguous=False),
        Pointer("data", torch.float8_e4m3fn),
        Pointer("scale", torch.float32),
        Number("row_stride", "i64"),
        Number("rows", "i32"),
        Number("columns", "i32"),
        Number("to_power_of_two", "bool"),
    )
    return Launcher(
        compile_kernel(*source_of(dtype, granularity)),
        Signature(Struct("params", members)),
        op="cast_to_fp8",
        block=(_THREADS, 1, 1),
    )
