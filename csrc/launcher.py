"""A compiled kernel -> a launch: on a CUDA stream, or in the simulator.

    launcher = Launcher(kernel, signature, op="axpy", block=(256, 1, 1))
    launcher(x, y, 3.0, grid=(16, 1, 1))

What stays the same from launch to launch is checked and prepared once; a launch checks its own
arguments, packs them into one buffer and hands that to the driver or to the simulation.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch

from csrc.checks import Checker
from csrc.compiler import Kernel
from csrc.entry import Extent, read_entry
from csrc.host import driver
from csrc.parameters import Map, Number, Signature
from csrc.simulation import Launch, active
from csrc.simulator import MemoryRange
from csrc.tensor_map import TensorMap

# Limits of compute capability 9.0 (CUDA C++ Programming Guide, "Compute Capabilities").
MAX_SHARED_BYTES = 227 * 1024
MAX_BLOCK_THREADS = 1024
MAX_CLUSTER_CTAS = 16
_MAX_BLOCK = (1024, 1024, 64)
_MAX_GRID = (2**31 - 1, 65535, 65535)
_CAPABILITY = (9, 0)


class Launcher:
    """A kernel that is ready to be launched, on every device that its arguments may lie on."""

    def __init__(
        self,
        kernel: Kernel,
        signature: Signature,
        *,
        op: str,
        block: Extent,
        cluster: Extent = (1, 1, 1),
        smem_bytes: int = 0,
        programmatic: bool = False,
    ) -> None:
        """Checks what all launches have in common.

        Args:
            kernel: From `csrc.compiler`.
            signature: Its parameters.
            op: What error messages call it.
            block: Threads per dim, at most 1024 in all.
            cluster: CTAs of a cluster per dim, at most 16 in all; above 8 the GPU must have room.
            smem_bytes: Dynamic shared memory; with the static, at most 232448 bytes.
            programmatic: Whether a launch may start before its predecessor on the stream has ended
                (programmatic dependent launch): the kernel then waits with griddepcontrol.wait.

        Raises:
            ValueError: A limit is broken, or the kernel's PTX says otherwise.
        """
        self._op, self._kernel, self._signature = op, kernel, signature
        self._block, self._cluster, self._smem_bytes = block, cluster, smem_bytes
        self._programmatic = programmatic
        self._prepared: dict[int, Any] = {}
        members = signature.members
        self._placed = [i for i, member in enumerate(members) if not isinstance(member, Number)]
        self._check_shape()
        self._check_entry()

    def __call__(self, *arguments: Any, grid: Extent) -> None:
        """Launches on the device of the arguments; on CUDA on torch's current stream.

        Inside `csrc.simulate()` a launch on CPU tensors runs to its end before this returns.

        Args:
            *arguments: One per member of the signature: tensors, numbers, tensor maps.
            grid: CTAs per dim.

        Raises:
            TypeError, ValueError: An argument or the grid is wrong; nothing has been launched.
            NotImplementedError: The device cannot run the kernel.
            RuntimeError: The driver refused; the text is the driver's. Or the simulator found what
                no kernel may do.
        """
        device = self._device_of(arguments)
        self._check_grid(grid)
        if device.type == "cuda":
            parameters = self._signature.pack(arguments, TensorMap.encode_for_driver)
            if parameters is None:
                self._refuse(arguments)
            stream = torch.cuda.current_stream(device).cuda_stream
            self._prepare(device).run(parameters, *grid, stream)
            return
        parameters = self._signature.pack(arguments, TensorMap.encode_for_simulator)
        if parameters is None:
            self._refuse(arguments)
        simulation = active()
        if simulation is None:
            remedy = "or run it in the simulator: with csrc.simulate()"
            Checker(self._op).not_built("arguments", "be on a CUDA device", device, remedy)
        simulation.launch(self._complete(arguments, grid, parameters))

    def _complete(self, arguments: tuple[Any, ...], grid: Extent, parameters: bytes) -> Launch:
        ranges = map(_range, self._signature.members, arguments)
        return Launch(
            kernel=self._kernel,
            grid=grid,
            block=self._block,
            cluster=self._cluster,
            smem_bytes=self._smem_bytes,
            parameters=parameters,
            memory=tuple(memory for memory in ranges if memory is not None),
        )

    def _prepare(self, device: torch.device) -> Any:
        """The driver's handle of the kernel on this device; made by the first launch there."""
        prepared = self._prepared.get(device.index)
        if prepared is None:
            self._check_capability(device)
            prepared = self._prepared[device.index] = driver().PreparedLaunch(
                cubin=self._kernel.cubin,
                name=self._kernel.name,
                device=device.index,
                block=self._block,
                cluster=self._cluster,
                dynamic_shared_bytes=self._smem_bytes,
                programmatic=self._programmatic,
                parameter_offsets=self._signature.offsets,
                parameter_bytes=self._signature.num_bytes,
            )
        return prepared

    def _device_of(self, arguments: tuple[Any, ...]) -> torch.device:
        """The one device of all tensors and maps."""
        members = self._signature.members
        if len(arguments) != len(members):
            names = ", ".join(member.name for member in members)
            rule, actual = f"be {len(members)}: {names}", len(arguments)
            Checker(self._op).wrong_type("arguments", rule, actual, "pass one per parameter")
        device: Any = None  # numpy's arrays have a device too
        for index in self._placed:
            other = getattr(arguments[index], "device", None)
            if device is None:
                device = other
            elif other != device and other is not None:
                self._refuse(arguments)
        if not isinstance(device, torch.device):
            self._refuse(arguments)
        return device

    def _refuse(self, arguments: tuple[Any, ...]) -> NoReturn:
        """Raises what is wrong with the arguments, told at leisure."""
        check = Checker(self._op)
        for member, argument in zip(self._signature.members, arguments, strict=True):
            member.refuse(check, argument)
        names = [self._signature.members[index].name for index in self._placed]
        devices = [getattr(arguments[index], "device", None) for index in self._placed]
        given = [(name, device) for name, device in zip(names, devices, strict=True) if device]
        if not given:
            rule = "hold a tensor or a tensor map"
            check.invalid("arguments", rule, "none", "nothing says where to run")
        first, device = given[0]
        for name, other in given:
            if other != device:
                check.invalid(name, f"be on {device} like {first}", other, "move it with .to()")
        raise AssertionError(f"{self._op}: refused for no reason")

    def _check_shape(self) -> None:
        check = Checker(self._op)
        for name, extent, limits in (
            ("block", self._block, _MAX_BLOCK),
            ("cluster", self._cluster, (MAX_CLUSTER_CTAS,) * 3),
        ):
            _check_extent(check, name, extent, limits)
        threads, ctas = math.prod(self._block), math.prod(self._cluster)
        check.between("the threads of block", threads, 1, MAX_BLOCK_THREADS, "loop in the kernel")
        check.between("the CTAs of cluster", ctas, 1, MAX_CLUSTER_CTAS, "8 are always possible")
        static = self._kernel.report.shared_bytes
        remedy = f"the kernel has {static} static bytes of the {MAX_SHARED_BYTES} of a CTA"
        check.between("smem_bytes", self._smem_bytes, 0, MAX_SHARED_BYTES - static, remedy)

    def _check_entry(self) -> None:
        """The PTX must agree, as the driver's own refusal would not say what is wrong."""
        entry, check = read_entry(self._kernel.ptx, self._kernel.name), Checker(self._op)
        own = tuple(zip(self._signature.offsets, self._signature.sizes, strict=True))
        remedy = "compare it with the kernel's source"
        if own != entry.parameters:
            rule = f"have (offset, bytes) {entry.parameters} as in the kernel's PTX"
            check.invalid("signature", rule, own, remedy)
        if entry.max_threads is not None:
            threads, most = math.prod(self._block), entry.max_threads
            check.between("the threads of block", threads, 1, most, "see its __launch_bounds__")
        if self._block != (entry.block or self._block):
            check.invalid("block", f"be the kernel's {entry.block}", self._block, remedy)
        if self._cluster != (entry.cluster or self._cluster):
            check.invalid("cluster", f"be the kernel's {entry.cluster}", self._cluster, remedy)

    def _check_grid(self, grid: Extent) -> None:
        (x, y, z), (cx, cy, cz) = grid, self._cluster
        if not (0 < x <= _MAX_GRID[0] and 0 < y <= _MAX_GRID[1] and 0 < z <= _MAX_GRID[2]):
            _check_extent(Checker(self._op), "grid", grid, _MAX_GRID)
        if x % cx or y % cy or z % cz:
            rule = f"be a multiple of cluster {self._cluster}"
            Checker(self._op).invalid("grid", rule, grid, "round it up, and let CTAs find no work")

    def _check_capability(self, device: torch.device) -> None:
        capability = torch.cuda.get_device_capability(device)
        if capability != _CAPABILITY:
            actual = f"{torch.cuda.get_device_name(device)} with {capability}"
            rule = f"be on a device of compute capability {_CAPABILITY}"
            Checker(self._op).not_built("arguments", rule, actual, "the kernel is Hopper's")


def num_sms(device: torch.device) -> int:
    """SMs of a GPU, or of the simulated one where CPU tensors are simulated: for persistent grids.

    Raises:
        NotImplementedError: The device is neither.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    simulation = active()
    if simulation is None:
        remedy = "or run the kernel in the simulator: with csrc.simulate()"
        Checker("num_sms").not_built("device", "be a CUDA device", device, remedy)
    return simulation.num_sms


def _check_extent(check: Checker, name: str, extent: Extent, limits: tuple[int, ...]) -> None:
    for axis, size, limit in zip("xyz", extent, limits, strict=True):
        check.between(f"{name}.{axis}", size, 1, limit, "do not launch at all for no work")


def _range(member: Any, argument: Any) -> MemoryRange | None:
    """The memory behind an argument; None if there is none."""
    if argument is None or isinstance(member, Number):
        return None
    if isinstance(member, Map):
        return MemoryRange(member.name, argument.address, argument.num_bytes)
    steps = zip(argument.shape, argument.stride(), strict=True)
    elements = sum((size - 1) * stride for size, stride in steps) + 1 if argument.numel() else 0
    return MemoryRange(member.name, argument.data_ptr(), elements * argument.element_size())
