"""The same kernel on the same inputs, on a device of choice: the simulator ("cpu") or a GPU.

Results are numpy arrays of the results' bits, so that they can come from another process.
"""

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import csrc
import deepgemm
from csrc import Launcher, Map, Number, Pointer, Signature, TensorMap
from csrc.compiled import Report
from csrc.compiler import Kernel
from csrc.entry import read_entry
from tests.simulator.witness_compiler import Argument, Witness
from tests.simulator.witnesses import WITNESSES


def run_witness(
    name: str, device: str, cache: str, *, seed: int = 0, reduced_fp8: bool = True
) -> list[Any]:
    """Runs a witness on the inputs that it has for seed 0, and returns its results.

    Args:
        name: Of the witness.
        device: Where.
        cache: The folder of Triton's cache.
        seed: Of a simulation.
        reduced_fp8: Of a simulation.
    """
    os.environ["TRITON_CACHE_DIR"] = cache
    witness = moved(WITNESSES[name](0), device)
    launch = _launcher(name, witness)
    with csrc.simulate(seed=seed, reduced_fp8=reduced_fp8):
        launch(*witness.arguments, grid=witness.grid)
    return [bits(found) for found, _ in witness.results]


def multiply(m: int, n: int, k: int, device: str, *, seed: int = 0) -> Any:
    """The bits of deepgemm's BF16 product of random matrices."""
    a, b = (matrix.to(device) for matrix in operands(m, n, k))
    d = torch.full((m, n), float("nan"), dtype=torch.bfloat16, device=device)
    with csrc.simulate(seed=seed):
        deepgemm.bf16_gemm_nt(a, b, d)
    return bits(d)


def operands(m: int, n: int, k: int) -> tuple[Tensor, Tensor]:
    """A [m, k] and B [n, k] of `multiply`."""
    generator = torch.Generator().manual_seed(m)
    a, b = (torch.randn(rows, k, generator=generator) for rows in (m, n))
    return a.bfloat16(), b.bfloat16()


def bits(tensor: Tensor) -> Any:
    """A numpy array of unsigned integers as wide as the elements."""
    widths = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32}
    return tensor.cpu().contiguous().view(widths[tensor.element_size()]).numpy()


def moved(witness: Witness, device: str) -> Witness:
    """The same launch with its memory on a device."""
    memory = {tensor.data_ptr(): tensor.to(device) for tensor in witness.memory}

    def move(argument: Argument) -> Argument:
        if isinstance(argument, TensorMap):
            there = memory[argument.address]
            return replace(argument, address=there.data_ptr(), device=there.device)
        return memory[argument.data_ptr()] if isinstance(argument, Tensor) else argument

    return replace(
        witness,
        arguments=tuple(move(argument) for argument in witness.arguments),
        results=tuple((memory[found.data_ptr()], expected) for found, expected in witness.results),
        memory=tuple(memory.values()),
    )


def _launcher(name: str, witness: Witness) -> Launcher:
    sizes = [size for _, size in read_entry(witness.ptx, witness.entry).parameters]
    members = [
        _member(f"p{i}", argument, size)
        for i, (argument, size) in enumerate(zip(witness.arguments, sizes, strict=True))
    ]
    unknown = Report(0, 0, 0, 0, 0, ())
    return Launcher(
        Kernel(witness.entry, witness.ptx, witness.cubin, unknown),
        Signature(*members),
        op=name,
        block=(witness.num_threads, 1, 1),
        cluster=(witness.cluster_size, 1, 1),
        smem_bytes=witness.shared_bytes,
    )


def _member(name: str, argument: Argument, size: int) -> Map | Pointer | Number:
    if isinstance(argument, TensorMap):
        return Map(name)
    if isinstance(argument, Tensor):
        return Pointer(name, argument.dtype, contiguous=False)
    if isinstance(argument, float):
        return Number(name, "f32")
    return Number(name, "i64" if size == 8 else "i32")
