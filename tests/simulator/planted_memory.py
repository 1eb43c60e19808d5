"""Kernels with a planted bug, and their repaired twins: what the simulator says of each."""

import re
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch

from csrc import compiler, simulator
from csrc.tensor_map import TensorMap

SEEDS = range(20)

_FOLDER = Path(__file__).parent
_PARAMS_BYTES = 320
_SHARED_BYTES = 4 * 8192 + 5 * 1024 + 32
_PLACE = re.compile(r"([\w.:]+) at line (\d+) of the PTX")


@dataclass(frozen=True, slots=True)
class Planted:
    """A bug in a kernel of a source.

    Attributes:
        finding: how the message must begin, such as "data race".
        block: threads of a CTA.
        grid: CTAs.
        cluster: CTAs of a cluster.
    """

    finding: str
    block: int = 128
    grid: int = 1
    cluster: int = 1


def assert_found(source: str, name: str, planted: Planted) -> None:
    """Each seed must find the bug, by its name and with the marked lines of the source."""
    marks = _marks(source, name)
    assert marks, f"{name} marks no line"
    for seed in SEEDS:
        with pytest.raises(RuntimeError) as raised:
            _run(source, name, planted, seed, repaired=False)
        message = str(raised.value)
        assert message.startswith(planted.finding + ": "), f"seed {seed}: {message}"
        for line in marks:
            assert re.search(rf"{re.escape(source)}:{line}\b", message), f"line {line}: {message}"
        _assert_places_are_right(source, message, len(marks))


def assert_clean(source: str, name: str, planted: Planted) -> None:
    """No seed may find anything in the repaired twin."""
    for seed in SEEDS:
        _run(source, name, planted, seed, repaired=True)


def names(source: str) -> set[str]:
    """The kernels that a source plants bugs in."""
    return set(
        re.findall(r"^OPENWEEK_PLANTED\((\w+)\)", (_FOLDER / source).read_text(), re.MULTILINE)
    )


def _run(source: str, name: str, planted: Planted, seed: int, *, repaired: bool) -> None:
    x = torch.ones(128, 64, dtype=torch.bfloat16)
    out = torch.zeros(128, 64, dtype=torch.bfloat16)
    words = torch.zeros(4096, dtype=torch.int32)
    maps = [TensorMap.of(tensor, (64, 64), swizzle_bytes=128) for tensor in (x, out)]
    packed = b"".join(tensor_map.encode_for_simulator() for tensor_map in maps)
    packed += struct.pack("<Q", words.data_ptr())
    with simulator.Machine(sms=4, seed=seed) as machine:
        machine.launch(
            _kernel(source, f"{len(name)}{name}ILb{int(repaired)}E"),
            planted.grid,
            planted.block,
            args=[packed.ljust(_PARAMS_BYTES, b"\0")],
            cluster=planted.cluster,
            smem_bytes=_SHARED_BYTES,
            memory=[x, out, words],
        )
        machine.run()


@cache
def _compiled(source: str) -> compiler.Kernel:
    stem = source.removesuffix(".cu")
    return compiler.compile_kernel(_FOLDER / source, f"openweek::tests::{stem}")


@cache
def _module(source: str) -> simulator.Module:
    return simulator.load(_compiled(source).ptx)


@cache
def _kernel(source: str, mangled: str) -> simulator.Kernel:
    module = _module(source)
    (entry,) = [entry for entry in module.kernels() if mangled in entry]
    return module[entry]


@cache
def _marks(source: str, name: str) -> list[int]:
    """The numbers of the marked lines of a kernel."""
    lines = (_FOLDER / source).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if f" {name}(" in line)
    end = lines.index("}", start)
    return [i + 1 for i in range(start, end) if re.search(r"// \[", lines[i])]


def _assert_places_are_right(source: str, message: str, num_marks: int) -> None:
    """The named lines of PTX must have the named instructions."""
    lines = _compiled(source).ptx.splitlines()
    places = _PLACE.findall(message)
    assert len(places) >= num_marks, message
    for opcode, line in places:
        assert opcode in lines[int(line) - 1], f"line {line}: {lines[int(line) - 1]}"
