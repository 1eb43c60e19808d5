"""A Hopper GPU in software: runs the PTX of kernels on CPU tensors, instruction by instruction."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from csrc import native

__all__ = ["Kernel", "Machine", "MemoryRange", "Module", "load"]

MAX_SHARED_BYTES = 227 * 1024
MAX_THREADS = 1024
MAX_CLUSTER = 16

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
        ValueError: the text is no PTX for sm_90 or sm_90a; the message names line and column.
    """

    def __init__(self, text: str) -> None:
        self._module = core().Module(text)

    def kernels(self) -> list[str]:
        """The names of the kernels."""
        return list(self._module.kernels())

    def __getitem__(self, name: str) -> Kernel:
        """The kernel of that name.

        Raises:
            NotImplementedError: there is none, or it has an instruction that the simulator does not
                know; the message names the line.
        """
        return Kernel(self._module, self._module.kernel(name))


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
        reduced_fp8: sums FP8 products of the tensor cores with 14 significant bits, as measurements
            of Hopper suggest, instead of in float32.
    """

    def __init__(
        self, devices: int = 1, sms: int = 4, seed: int = 0, *, reduced_fp8: bool = False
    ) -> None:
        for name, value in (("devices", devices), ("sms", sms)):
            if value < 1:
                raise ValueError(f"Machine: {name} must be at least 1, got {value}")
        self.devices, self.sms, self.seed = devices, sms, seed
        self._machine = core().Machine(devices, sms, seed & (2**64 - 1), reduced_fp8)
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
        shapes = {"grid": _dims(grid), "block": _dims(block), "cluster": _dims(cluster)}
        self._check(kernel, shapes, smem_bytes, device)
        packed, ranges = _pack(kernel, args)
        ranges += [_range(f"memory[{i}]", given) for i, given in enumerate(memory)]
        ranges += [_range(f"symmetric[{i}]", tensor) for i, tensor in enumerate(self._symmetric)]
        self._machine.launch(
            kernel.module,
            kernel.program,
            *shapes.values(),
            smem_bytes,
            packed,
            ranges,
            device,
            registers,
            programmatic,
        )

    def run(self) -> dict[str, int]:
        """Runs all that is launched to the end.

        Returns:
            What was done: num_instructions (of warps), num_slices, num_ctas.

        Raises:
            RuntimeError: the kernel did what no kernel may do, or waits for ever.
        """
        return dict(self._machine.run(torch.get_num_threads()))

    def _check(
        self, kernel: Kernel, shapes: dict[str, tuple[int, int, int]], smem_bytes: int, device: int
    ) -> None:
        program = kernel.program
        for name, dims in shapes.items():
            if min(dims) < 1:
                raise ValueError(f"launch: {name} must be positive, got {dims}")
        grid, block, cluster = shapes.values()
        threads = block[0] * block[1] * block[2]
        if threads > MAX_THREADS:
            raise ValueError(f"launch: block must have at most {MAX_THREADS} threads, got {block}")
        for axis in range(3):
            if grid[axis] % cluster[axis]:
                raise ValueError(f"launch: cluster must divide grid, got {cluster} and {grid}")
        size = cluster[0] * cluster[1] * cluster[2]
        if size > MAX_CLUSTER:
            raise ValueError(f"launch: cluster must have at most {MAX_CLUSTER} CTAs, got {cluster}")
        total = program.shared_bytes + smem_bytes
        if smem_bytes < 0 or total > MAX_SHARED_BYTES:
            raise ValueError(
                f"launch: smem_bytes must be within 0 and "
                f"{MAX_SHARED_BYTES - program.shared_bytes} for {kernel.name}, got {smem_bytes}"
            )
        if not 0 <= device < self.devices:
            raise ValueError(f"launch: device must be below {self.devices}, got {device}")
        required = list(program.required_threads)
        if required and required + [1] * (3 - len(required)) != list(block):
            raise ValueError(f"launch: block must be {required} for {kernel.name}, got {block}")
        limit = list(program.max_threads)
        if limit and threads > limit[0] * (limit[1:2] or [1])[0] * (limit[2:3] or [1])[0]:
            raise ValueError(f"launch: block must be within {limit} threads, got {block}")
        wanted = list(program.required_cluster)
        if wanted and wanted + [1] * (3 - len(wanted)) != list(cluster):
            raise ValueError(f"launch: cluster must be {wanted} for {kernel.name}, got {cluster}")


def _dims(given: int | Sequence[int]) -> tuple[int, int, int]:
    dims = (given,) if isinstance(given, int) else tuple(int(size) for size in given)
    if not 1 <= len(dims) <= 3:
        raise ValueError(f"launch: a shape must have one to three numbers, got {dims}")
    padded = dims + (1,) * (3 - len(dims))
    return padded[0], padded[1], padded[2]


def _pack(
    kernel: Kernel, args: Sequence[Tensor | float | bytes]
) -> tuple[bytes, list[tuple[int, int, str]]]:
    """The buffer of parameters, and the memory that tensors among them give access to."""
    parameters = kernel.parameters
    if len(args) != len(parameters):
        raise ValueError(
            f"launch: args must have one entry for each of the {len(parameters)} parameters of "
            f"{kernel.name}, got {len(args)}"
        )
    buffer = bytearray(kernel.program.parameter_bytes)
    ranges = []
    for position, (value, (_, offset, size)) in enumerate(zip(args, parameters, strict=True)):
        packed = _packed(f"args[{position}]", value, size)
        buffer[offset : offset + size] = packed
        if isinstance(value, Tensor):
            ranges.append(_range(f"args[{position}]", value))
    return bytes(buffer), ranges


def _range(name: str, given: Tensor | MemoryRange) -> tuple[int, int, str]:
    """Begin, end and name; of a tensor up to its last element."""
    if isinstance(given, MemoryRange):
        return given.address, given.address + given.num_bytes, given.name
    tensor, extent = given, 0
    if tensor.numel():
        strides = zip(tensor.shape, tensor.stride(), strict=True)
        extent = 1 + sum((size - 1) * stride for size, stride in strides)
    begin = tensor.data_ptr()
    return begin, begin + extent * tensor.element_size(), name


def _packed(name: str, value: Tensor | float | bytes, size: int) -> bytes:
    if isinstance(value, Tensor):
        if value.device.type != "cpu" or not value.is_contiguous():
            raise ValueError(f"launch: {name} must be a contiguous CPU tensor (use .contiguous())")
        if size != 8:
            raise ValueError(f"launch: {name} must be {size} bytes, got a tensor, which is 8")
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, bytes):
        if len(value) != size:
            raise ValueError(f"launch: {name} must have {size} bytes, got {len(value)}")
        return value
    if isinstance(value, bool | int):
        try:
            return int(value).to_bytes(size, "little", signed=value < 0)
        except OverflowError:
            raise ValueError(f"launch: {name} must fit in {size} bytes, got {value}") from None
    if isinstance(value, float) and size in (4, 8):
        return struct.pack("<f" if size == 4 else "<d", value)
    raise TypeError(f"launch: {name} must be a tensor, a number or bytes, got {value!r}")
