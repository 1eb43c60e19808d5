"""Kernels with a planted mistake and their repaired twins, compiled and run in the simulator."""

import functools
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from csrc import compiler, simulator
from csrc.tensor_map import TensorMap

FOLDER = Path(__file__).parent / "hazards"
SEEDS = range(20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a pair of kernels is launched."""

    block: int = 32
    grid: int = 1
    cluster: int = 1
    smem_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """What hazards/planted.cuh calls Params. Only data, other and box_rows may be touched."""

    whole: Tensor = field(default_factory=lambda: torch.arange(1024, dtype=torch.int32))
    box_rows: Tensor = field(
        default_factory=lambda: torch.arange(1024, dtype=torch.int32).view(32, 32)
    )
    stranger: Tensor = field(default_factory=lambda: torch.zeros(32, 32, dtype=torch.int32))

    @property
    def data(self) -> Tensor:
        return self.whole[256:320]

    @property
    def other(self) -> Tensor:
        return self.whole[384:448]

    @property
    def freed(self) -> Tensor:
        return self.whole[640:704]

    def params(self) -> bytes:
        maps = [TensorMap.of(tensor, (8, 32)) for tensor in (self.box_rows, self.stranger)]
        tensors = (self.data, self.other, self.freed)
        addresses = [*(tensor.data_ptr() for tensor in tensors), 0, self.box_rows.data_ptr()]
        packed = b"".join(tensor_map.encode_for_simulator() for tensor_map in maps)
        packed += struct.pack("<5Q8i", *addresses, 8, *range(7))
        return packed.ljust(-(-len(packed) // 64) * 64, b"\0")


@functools.cache
def ptx(source: str) -> str:
    """What the compiler makes of all pairs of a source file."""
    return compiler.compile_kernel(FOLDER / source, f"{names(source)[0]}_bug").ptx


@functools.cache
def kernel(source: str, name: str) -> simulator.Kernel:
    """One of them."""
    return _module(source)[name]


@functools.cache
def _module(source: str) -> simulator.Module:
    return simulator.load(ptx(source))


@functools.cache
def _lines(source: str) -> list[str]:
    return (FOLDER / source).read_text().splitlines()


def names(source: str) -> list[str]:
    """The pairs of a source file."""
    return re.findall(r"^OPENWEEK_PLANTED\((\w+)\)", "\n".join(_lines(source)), re.MULTILINE)


def places(source: str, mark: str) -> list[str]:
    """The lines that end with the mark as a comment, as messages name them."""
    numbers = [i for i, line in enumerate(_lines(source), 1) if line.endswith(f" // {mark}")]
    return [f"{FOLDER / source}:{number}" for number in numbers]


def run(source: str, name: str, launch: Launch, seed: int) -> Memory:
    """Runs a kernel, and returns the memory that it had."""
    memory = Memory()
    with simulator.Machine(seed=seed) as machine:
        machine.launch(
            kernel(source, name),
            launch.grid,
            launch.block,
            args=[memory.params()],
            cluster=launch.cluster,
            smem_bytes=launch.smem_bytes,
            memory=[memory.data, memory.other, memory.box_rows],
        )
        machine.run()
    return memory


def found(source: str, name: str, launch: Launch, seed: int) -> str:
    """What the simulator says of the kernel with the mistake; empty if it says nothing."""
    kernel(source, f"{name}_bug")  # that it compiles is no finding
    try:
        run(source, f"{name}_bug", launch, seed)
    except RuntimeError as error:
        return str(error)
    return ""


def assert_found(source: str, name: str, launch: Launch, pattern: str, mark: str = "") -> None:
    """Whatever the seed, the mistake is found: by that text, and at a line that bears its mark."""
    marked = places(source, mark or name)
    assert marked, f"{source} must mark where {name} is found"
    for seed in SEEDS:
        text = found(source, name, launch, seed)
        assert re.match(pattern, text, re.DOTALL), f"seed {seed}: {text or 'nothing found'}"
        assert any(re.search(rf"{place}\b", text) for place in marked), f"seed {seed}: {text}"
        for opcode, line in re.findall(r"([\w.:]+) at line (\d+) of the PTX", text):
            assert opcode in ptx(source).splitlines()[int(line) - 1], text


def assert_clean(source: str, name: str, launch: Launch) -> list[Memory]:
    """Whatever the seed, the repaired kernel runs to its end; returns what it made of memory."""
    return [run(source, f"{name}_twin", launch, seed) for seed in SEEDS]
