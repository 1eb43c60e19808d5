"""Questions to a machine, simulated or real: kernels of silicon_*.cu with what they are given."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

import csrc
from csrc import Launcher, Map, Pointer, Signature, TensorMap, compile_kernel

_FOLDER = Path(__file__).parent
_SIGNATURE = Signature(Map("map"), Pointer("words", torch.int32), Pointer("out", torch.int32))


@dataclass(frozen=True, slots=True)
class Box:
    """What the kernel's tensor map says of `Probe.data`; dims from the innermost."""

    dtype: torch.dtype = torch.int32
    sizes: tuple[int, ...] = (4, 1)
    row_bytes: int = 16
    box: tuple[int, ...] = (4, 1)
    element_strides: tuple[int, ...] = (1, 1)
    swizzle_bytes: int = 0
    fill: Literal["zero", "nan"] = "zero"

    def map_of(self, data: Tensor) -> TensorMap:
        return TensorMap(
            dtype=self.dtype,
            address=data.data_ptr(),
            sizes=self.sizes,
            strides=(self.row_bytes,),
            box=self.box,
            element_strides=self.element_strides,
            swizzle_bytes=self.swizzle_bytes,
            fill=self.fill,
            device=data.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One launch.

    Attributes:
        kernel: Its name.
        source: The file that has it.
        words: What it reads.
        out: What it writes, as it is before; as many zeros if it is a number.
        data: The tensor that its tensor map is about.
        box: That map.
        threads: Of a CTA.
        ctas: Of the grid.
        clustered: Whether they are one cluster.
        smem_bytes: Dynamic shared memory.
    """

    kernel: str
    source: str = "silicon_probes.cu"
    words: Sequence[int] = (0,)
    out: Sequence[int] | int = 1
    data: Sequence[int] = (0,) * 4
    box: Box = Box()
    threads: int = 32
    ctas: int = 1
    clustered: bool = False
    smem_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The words that are in `out` and `data` afterwards, from 0 to 2**32 - 1."""

    out: list[int]
    data: list[int]


Ask: TypeAlias = Callable[[Probe], Answer]
Record: TypeAlias = Callable[[str, object], None]  # pytest's record_property


def ask_simulator(probe: Probe, *, reduced_fp8: bool = False) -> Answer:
    """Runs the kernel in the simulator, on several seeds, which have to agree."""
    first, *others = (ask(probe, "cpu", seed=seed, reduced_fp8=reduced_fp8) for seed in range(3))
    assert all(other == first for other in others)
    return first


def ask(probe: Probe, device: str, *, seed: int = 0, reduced_fp8: bool = False) -> Answer:
    """Runs the kernel on a device; on "cpu" that is the simulator."""
    out = [0] * probe.out if isinstance(probe.out, int) else probe.out
    tensors = [_words(values, device) for values in (probe.data, probe.words, out)]
    cluster = probe.ctas if probe.clustered else 1
    launch = _launcher(probe.source, probe.kernel, probe.threads, cluster, probe.smem_bytes)
    with csrc.simulate(seed=seed, reduced_fp8=reduced_fp8):
        launch(probe.box.map_of(tensors[0]), *tensors[1:], grid=(probe.ctas, 1, 1))
    data, _, written = (tensor.cpu().view(torch.uint32).tolist() for tensor in tensors)
    return Answer(written, data)


@cache
def _launcher(source: str, kernel: str, threads: int, cluster: int, smem_bytes: int) -> Launcher:
    return Launcher(
        compile_kernel(_FOLDER / source, kernel),
        _SIGNATURE,
        op=kernel,
        block=(threads, 1, 1),
        cluster=(cluster, 1, 1),
        smem_bytes=smem_bytes,
    )


def _words(values: Sequence[int], device: str) -> Tensor:
    unsigned = [value & 0xFFFFFFFF for value in values]
    return torch.tensor(unsigned, dtype=torch.uint32).view(torch.int32).to(device)
