"""Triton kernel -> PTX for Hopper and what a launch of it takes, on a machine without a GPU."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from csrc.tensor_map import TensorMap

_TARGET = GPUTarget("cuda", 90, 32)
_TRITON_DTYPES = {
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.float32: "fp32",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.int32: "i32",
}
# As Triton's metadata numbers them.
_SWIZZLE_BYTES = {0: 0, 1: 32, 2: 64, 3: 128}


@dataclass(frozen=True, slots=True)
class Tiled:
    """A tensor that the kernel reaches through a TMA descriptor, block by block."""

    tensor: Tensor
    block: tuple[int, ...]


Argument: TypeAlias = Tensor | TensorMap | int | float


@dataclass(frozen=True, slots=True)
class Witness:
    """One launch, and what it must leave behind.

    Attributes:
        ptx: What Triton wrote.
        cubin: What its assembler made of that.
        entry: The name of the kernel in it.
        grid: CTAs per dimension.
        cluster_size: CTAs of a cluster, along x.
        num_threads: Of a CTA.
        shared_bytes: Dynamic shared memory of a CTA.
        arguments: One per parameter of the PTX, in order: a tensor stands for its address.
        results: The tensors that the kernel writes, each with what belongs into it: float64, or
            integers that must be equal. Until then they hold NaN or zero.
        memory: Every tensor that the kernel may touch; alive as long as the witness is.
    """

    ptx: str
    cubin: bytes
    entry: str
    grid: tuple[int, int, int]
    cluster_size: int
    num_threads: int
    shared_bytes: int
    arguments: tuple[Argument, ...]
    results: tuple[tuple[Tensor, Tensor], ...]
    memory: tuple[Tensor, ...]


def compile_witness(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Mapping[str, Tensor | Tiled | int | float],
    constants: Mapping[str, int],
    results: Sequence[tuple[Tensor, Tensor]],
    **options: int,
) -> Witness:
    """Compiles as Triton's own launcher would: a 1 is a constant, a multiple of 16 known as one.

    Args:
        kernel: The Triton function.
        grid: Programs per dimension; with num_ctas > 1 each is a cluster.
        arguments: What is not constexpr, by name, in the order of the parameters.
        constants: What is constexpr.
        results: As in Witness.
        options: Of Triton: num_warps, num_stages, num_ctas.
    """
    ones = {name: 1 for name, argument in arguments.items() if _is_one(argument)}
    kinds = {name: _kind(argument) for name, argument in arguments.items() if name not in ones}
    compiled = triton.compile(
        ASTSource(
            kernel,
            {name: kinds.get(name, "constexpr") for name in kernel.arg_names},
            {**constants, **ones},
            {
                (kernel.arg_names.index(name),): [["tt.divisibility", 16]]
                for name in kinds
                if _divides_by_16(arguments[name])
            },
        ),
        target=_TARGET,
        options={"enable_fp_fusion": True, **options},
    )
    metadata = compiled.metadata
    ptx = compiled.asm["ptx"]
    cluster_size = metadata.num_ctas
    full_grid = (grid[0] * cluster_size, *grid[1:], 1, 1)[:3]
    scratch_bytes = metadata.global_scratch_size * full_grid[0] * full_grid[1]
    passed = _flatten([arguments[name] for name in kinds], metadata.tensordesc_meta or ())
    scratch = _scratch(scratch_bytes)
    tensors = [a.tensor if isinstance(a, Tiled) else a for a in (*arguments.values(), scratch)]
    return Witness(
        ptx=ptx,
        cubin=compiled.asm["cubin"],
        entry=metadata.name,
        grid=full_grid,
        cluster_size=cluster_size,
        num_threads=int(re.findall(r"\.(?:req|max)ntid (\d+)", ptx)[0]),
        shared_bytes=metadata.shared,
        # Triton adds two buffers of its own: one for scratch, one for a profiler.
        arguments=(*passed, scratch, 0),
        results=tuple(results),
        memory=tuple(tensor for tensor in tensors if isinstance(tensor, Tensor)),
    )


def _is_one(argument: Tensor | Tiled | float) -> bool:
    return isinstance(argument, int) and argument == 1


def _kind(argument: Tensor | Tiled | float) -> str:
    if isinstance(argument, Tensor):
        return "*" + _TRITON_DTYPES[argument.dtype]
    if isinstance(argument, Tiled):
        block = ",".join(str(elems) for elems in argument.block)
        return f"tensordesc<{_TRITON_DTYPES[argument.tensor.dtype]}[{block}]>"
    return "i32" if isinstance(argument, int) else "fp32"


def _divides_by_16(argument: Tensor | Tiled | float) -> bool:
    if isinstance(argument, Tensor):
        return argument.data_ptr() % 16 == 0
    return isinstance(argument, int) and argument % 16 == 0


def _flatten(
    arguments: Sequence[Tensor | Tiled | int | float], maps: Sequence[Mapping[str, Any]]
) -> list[Argument]:
    """A descriptor is three parameters' worth: the map, the sizes and the strides in elements."""
    flat: list[Argument] = []
    remaining = iter(maps)
    for argument in arguments:
        if isinstance(argument, Tiled):
            told = next(remaining)
            swizzle_bytes = _SWIZZLE_BYTES[told["swizzle"]]
            flat.append(
                TensorMap.of(argument.tensor, told["block_size"], swizzle_bytes=swizzle_bytes)
            )
            flat += [*argument.tensor.shape, *argument.tensor.stride()]
        else:
            flat.append(argument)
    return flat


def _scratch(num_bytes: int) -> Argument:
    """Room for the descriptors that CTAs write, aligned as TMA wants them."""
    if num_bytes == 0:
        return 0
    room = torch.zeros(num_bytes + 128, dtype=torch.uint8)
    return room[-room.data_ptr() % 128 :][:num_bytes]
