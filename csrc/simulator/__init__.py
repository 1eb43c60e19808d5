"""A Hopper GPU in software: runs the PTX of kernels on CPU tensors, instruction by instruction."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from csrc import native
from csrc.simulator.arguments import (
    Held,
    Range,
    Shape,
    check_memory,
    check_shapes,
    dims,
    pack,
    shown,
    whole,
)

__all__ = ["Kernel", "Machine", "MemoryRange", "Module", "load"]

MAX_DEVICES = 1024
MAX_SMS = 1024
MAX_INSTRUCTIONS = 10**11  # about an hour

_FOLDER = Path(__file__).parent
_TEST_BINDINGS = {"parser_binding.cpp", "numeric_binding.cpp"}


@functools.cache
def core() -> ModuleType:
    """The C++ core, compiled at first use."""
    sources = sorted(path for path in _FOLDER.glob("*.cpp") if path.name not in _TEST_BINDINGS)
    flags = ("-ffp-contract=off", "-frounding-math", "-DMODULE_NAME=openweek_simulator")
    return native.load("openweek_simulator", sources, include_dirs=[_FOLDER], flags=flags)


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """Bytes that a launch may touch, and what errors call them."""

    name: str
    address: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a module, ready to be launched."""

    module: Any
    program: Any

    @property
    def name(self) -> str:
        return str(self.program.name)

    @property
    def parameters(self) -> list[tuple[str, int, int]]:
        """(name, offset, bytes) of each parameter."""
        return list(self.program.parameters)

    def split(self, buffer: bytes) -> list[bytes]:
        """The parameters in a buffer that holds all of them, as `Machine.launch` takes them."""
        return [buffer[offset : offset + size] for _, offset, size in self.parameters]


class Module:
    """The kernels of one PTX text, by name.

    Raises:
        TypeError: it is no text.
        ValueError: the text is no PTX for sm_90 or sm_90a; the message names line and column.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            what = type(text).__name__
            raise TypeError(
                f"load: ptx_text must be a str of PTX, no file and no cubin, got {what}"
            )
        self._module = core().Module(text)

    def kernels(self) -> list[str]:
        """The names of the kernels."""
        return list(self._module.kernels())

    def __getitem__(self, name: str) -> Kernel:
        """The kernel of that name.

        Raises:
            ValueError: there is none; the message names those that there are.
            NotImplementedError: it has an instruction that the simulator does not know; the message
                names the line.
        """
        known = self.kernels()
        if name in known:
            return Kernel(self._module, self._module.kernel(name))
        if name in self._module.functions():
            raise ValueError(f"load: {name} is a function that kernels call, and no kernel")
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        has = ", ".join(known) or "none"
        raise ValueError(f"load: the module has no kernel {name!s:.200}{hint}; it has {has:.2000}")


def load(ptx_text: str) -> Module:
    """Reads the PTX that nvcc, NVRTC or Triton have made."""
    return Module(ptx_text)


class Machine:
    """Devices that run kernels, deterministically: one seed, one run.

    All devices run at the same time; the launches of one device follow one another, as on one
    stream. A launch may touch its own arguments, on whichever device they are thought to lie, and
    the machine's symmetric memory.

    Args:
        devices: how many GPUs.
        sms: how many CTAs are resident on each at a time.
        seed: decides the order in which warps take turns.
        max_instructions: a run ends with an error after so many instructions of warps: one that
            would never end does, and Ctrl-C ends any run at once.
        reduced_fp8: sums FP8 products of the tensor cores with 14 significant bits, as measurements
            of Hopper suggest, instead of in float32.
    """

    def __init__(
        self,
        devices: int = 1,
        sms: int = 4,
        seed: int = 0,
        *,
        max_instructions: int = MAX_INSTRUCTIONS,
        reduced_fp8: bool = False,
    ) -> None:
        self.devices = _within("devices", devices, MAX_DEVICES)
        self.sms = _within("sms", sms, MAX_SMS)
        self.seed = whole("Machine: seed", seed)
        self.max_instructions = _within("max_instructions", max_instructions, 2**63)
        self.reduced_fp8 = bool(reduced_fp8)
        self._machine = core().Machine(
            self.devices,
            self.sms,
            self.seed & (2**64 - 1),
            self.reduced_fp8,
            self.max_instructions,
        )
        self._launches: list[_Launch] = []
        self._symmetric: list[Tensor] = []
        self._multicast: list[Tensor] = []  # kept alive: the addresses stay valid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def symmetric(self, tensor: Tensor) -> Tensor:
        """Lets every later launch, on every device, touch a tensor: memory that peers reach.

        Args:
            tensor: on the CPU; it must stay alive as long as the machine runs.

        Returns:
            The tensor.
        """
        if tensor.device.type != "cpu":
            raise ValueError(f"symmetric: tensor must be on the CPU, got {tensor.device}")
        self._symmetric.append(tensor)
        return tensor

    def multicast(self, tensors: Sequence[Tensor]) -> int:
        """Makes one address of several tensors, one per device, as the switch of NVLink does.

        Args:
            tensors: as many as there are devices, contiguous and of one size in bytes.

        Returns:
            The address that means the first byte of each of them to `multimem` instructions, on
            every device, and means nothing to others. Pass it as an argument, or add to it.

        Raises:
            ValueError: there are not as many tensors as devices, or they differ in size.
        """
        if len(tensors) != self.devices:
            raise ValueError(
                f"multicast: tensors must be {self.devices}, one per device, got {len(tensors)}"
            )
        for tensor in tensors:
            if tensor.device.type != "cpu" or not tensor.is_contiguous():
                raise ValueError("multicast: tensors must be contiguous and on the CPU")
        sizes = [tensor.nbytes for tensor in tensors]
        if min(sizes) != max(sizes) or min(sizes) == 0:
            raise ValueError(f"multicast: tensors must have one size above 0, got bytes {sizes}")
        if any(tensor.data_ptr() % 16 for tensor in tensors):
            raise ValueError("multicast: tensors must be aligned to 16 bytes (clone them)")
        self._multicast += tensors
        bases = [tensor.data_ptr() for tensor in tensors]
        return int(self._machine.multicast(sizes[0], bases))

    def launch(
        self,
        kernel: Kernel,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *,
        args: Sequence[Tensor | float | bytes],
        cluster: int | Sequence[int] = 1,
        smem_bytes: int = 0,
        device: int = 0,
        memory: Sequence[Tensor | MemoryRange] = (),
        registers: int = 0,
        programmatic: bool = False,
    ) -> None:
        """Enters a kernel that `run` will run, together with all others entered before it.

        Args:
            kernel: of a module.
            grid: CTAs, up to three numbers.
            block: threads of a CTA.
            args: one per parameter: a contiguous CPU tensor for a pointer, a number for a scalar,
                bytes for a structure. The kernel may touch these tensors and no other memory.
            cluster: CTAs of a cluster.
            smem_bytes: dynamic shared memory.
            device: on which GPU.
            memory: more that the kernel may touch, such as what structures in `args` point to.
            registers: of a thread at the start, as the compiler reports them; 0: as many as fit.
                What setmaxnreg may take follows from it.
            programmatic: whether the kernel may start before the launch before it on the device has
                ended, once all CTAs of that have executed griddepcontrol.launch_dependents or
                ended. Only behind griddepcontrol.wait is what that launch wrote known.

        Raises:
            TypeError: an argument is of no such kind.
            ValueError: an argument breaks a rule; the message names it.
        """
        if not isinstance(kernel, Kernel):
            raise TypeError(f"launch: kernel must be one of a module, got {shown(kernel)}")
        shapes = dims("grid", grid), dims("block", block), dims("cluster", cluster)
        smem_bytes = whole("launch: smem_bytes", smem_bytes)
        device = whole("launch: device", device)
        if not 0 <= device < self.devices:
            raise ValueError(f"launch: device must be below {self.devices}, got {device}")
        check_shapes(kernel, *shapes)
        check_memory(kernel, *shapes[:2], smem_bytes, self.sms)
        packed, held = pack(kernel, args)
        if isinstance(memory, Tensor) or not isinstance(memory, Sequence):
            raise TypeError(f"launch: memory must be a list or a tuple, got {shown(memory)}")
        ranges = []
        for i, given in enumerate(memory):
            if isinstance(given, MemoryRange):
                ranges.append((given.address, given.address + given.num_bytes, given.name))
            else:
                held.append(Held(f"memory[{i}]", given))
        held += [Held(f"symmetric[{i}]", tensor) for i, tensor in enumerate(self._symmetric)]
        registers = whole("launch: registers", registers)
        settings = (smem_bytes, packed), (device, registers, bool(programmatic))
        self._launches.append(_Launch(kernel, shapes, *settings, held, ranges))

    def run(self) -> dict[str, int]:
        """Runs all that is launched to the end. After an error, too, nothing is launched any more.

        Returns:
            What was done: num_instructions (of warps), num_slices, num_ctas.

        Raises:
            RuntimeError: the kernel did what no kernel may do, or waits for ever; or nothing is
                launched.
            ValueError: a tensor has lost its memory since the launch.
        """
        launches, self._launches = self._launches, []
        if not launches:
            raise RuntimeError("run: nothing is launched; call launch before")
        for launch in launches:
            for held in launch.held:
                held.check()
        for launch in launches:
            self._machine.launch(
                launch.kernel.module,
                launch.kernel.program,
                *launch.shapes,
                *launch.data,
                [*(held.range for held in launch.held), *launch.ranges],
                *launch.settings,
            )
        return dict(self._machine.run(torch.get_num_threads()))


@dataclass(frozen=True, slots=True)
class _Launch:
    """What run needs of a launch: its tensors live until then, whoever else forgets them."""

    kernel: Kernel
    shapes: tuple[Shape, Shape, Shape]
    data: tuple[int, bytes]  # bytes of dynamic shared memory; the parameters
    settings: tuple[int, int, bool]  # device, registers, programmatic
    held: list[Held]
    ranges: list[Range]


def _within(name: str, value: int, most: int) -> int:
    given = whole(f"Machine: {name}", value)
    if not 1 <= given <= most:
        raise ValueError(f"Machine: {name} must be at least 1 and at most {most}, got {given}")
    return given
