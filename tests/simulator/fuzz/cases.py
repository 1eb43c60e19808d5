"""One random case of each kind: what it is made of, and what it may end with."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from csrc import simulator
from csrc.tensor_map import TensorMap
from tests.simulator.fuzz.kernels import random_kernel
from tests.simulator.fuzz.mutations import mutated

MAX_INSTRUCTIONS = 20_000
_GUARD = 4096  # bytes on each side of a tensor that no kernel may touch
_PATTERN = 0x5A

# What messages say that a user can read. An error of the C++ library, or of the call from Python
# into C++, is a defect even where its type is right.
_MESSAGES = {
    "PtxError": r"line \d+, column \d+: ",
    "UnsupportedError": r"(line \d+: \S+: |the module |kernel |the history |the run |cp\.reduce: )"
    r"|(matrix|wgmma): |a tensor map must |special register |launch: ",
    "HazardError": r"[a-z][\w'. ]+: (.|\n)*\b(line \d+|CTA|cluster)",
    "DeadlockError": r"(deadlock|endless): ",
    "RuntimeError": r"run: ",
    "ValueError": r"(load|launch|Machine|run): ",
    "TypeError": r"(load|launch|Machine|run): ",
}


class DefectError(AssertionError):
    """The simulator did what it must never do."""


def play(kind: str, random: Random, texts: Sequence[str], note: Any) -> str:
    """Plays one random case and tells how it ended; `note` is told all of it before.

    Raises:
        DefectError: with an error of a wrong type or message, or by writing where it may not.
    """
    if kind == "text":
        base = random_kernel(random) if random.random() < 0.4 else random.choice(texts)
        text = mutated(random, base)
    else:
        text = random_kernel(random)
    note(text)
    ended = ["no kernel"]
    with outcome() as refused:
        module = simulator.load(text)
        for name in module.kernels()[:4]:
            ended = ["ran"]
            with outcome() as failed:
                _launch(random, module[name], note)
            ended += failed
    return (ended + refused)[-1]


@contextlib.contextmanager
def outcome() -> Iterator[list[str]]:
    """Takes the errors that are allowed; what it was is then in the list."""
    ended: list[str] = []
    try:
        yield ended
    except DefectError:
        raise
    except Exception as error:
        name = type(error).__name__
        if name not in _MESSAGES or not re.match(_MESSAGES[name], str(error)):
            raise DefectError(f"an error that no user should see: {error!r}") from error
        # What a run is stopped for says more than the type.
        ended.append(str(error).split(":")[0] if name in {"HazardError", "DeadlockError"} else name)


def _launch(random: Random, kernel: simulator.Kernel, note: Any) -> None:
    memory = _Memory()
    args = [_argument(random, size, memory) for _, _, size in kernel.parameters]
    cluster = random.choice([1, 1, 1, 2])
    block = random.choice([32, 32, 128, 128, 1, 33, 160, (8, 4, 4), 256])
    required = list(kernel.program.required_threads) or list(kernel.program.max_threads)[:1]
    options: dict[str, Any] = {
        "grid": cluster * random.randrange(1, 4),
        "block": tuple(required) or block,
        "cluster": tuple(kernel.program.required_cluster) or cluster,
        "smem_bytes": random.choice([0, 0, 1024, 65536, 160 * 1024]),
    }
    seed = random.getrandbits(64)
    shown = [arg if isinstance(arg, int | bytes) else "tensor" for arg in args]
    note(f"// {kernel.name} {options} seed={seed} args={shown}\n")
    machine = simulator.Machine(
        sms=random.choice([1, 2, 4]), seed=seed, max_instructions=MAX_INSTRUCTIONS
    )
    machine.launch(kernel, args=args, memory=memory.tensors, **options)
    try:
        machine.run()
    finally:
        memory.check()


class _Memory:
    """Two tensors with guards around them."""

    def __init__(self) -> None:
        self._blocks = [
            torch.full((size + 2 * _GUARD,), _PATTERN, dtype=torch.uint8) for size in (65536, 4096)
        ]
        self.tensors = [block[_GUARD:-_GUARD].view(torch.int32) for block in self._blocks]
        for tensor in self.tensors:
            tensor.copy_(torch.arange(tensor.numel()) % 2048)

    def check(self) -> None:
        for block in self._blocks:
            if (block[:_GUARD] != _PATTERN).any() or (block[-_GUARD:] != _PATTERN).any():
                raise DefectError("the kernel has written beside its tensors")

    def maps(self) -> list[bytes]:
        """Tensor maps of the first tensor."""
        values = self.tensors[0].view(torch.bfloat16)
        made = [
            TensorMap.of(values.view(128, 256), (8, 64), swizzle_bytes=128),
            TensorMap.of(values.view(128, 256), (16, 8)),
            TensorMap.of(values.view(8, 16, 256), (2, 4, 16), swizzle_bytes=32, fill="nan"),
            TensorMap.of(self.tensors[0], (64,)),
        ]
        return [tensor_map.encode_for_simulator() for tensor_map in made]


def _argument(random: Random, size: int, memory: _Memory) -> Tensor | int | bytes:
    if size == 8 and random.random() < 0.95:
        return random.choice(memory.tensors)
    if size in (1, 2, 4, 8):
        return random.choice([0, 1, 16, 64, 100, 2 ** (8 * size) - 1])
    given = bytearray(b"".join(random.choices(memory.maps(), k=size // 128)).ljust(size, b"\x10"))
    while random.random() < 0.4:
        _spoil(random, given)
    return bytes(given)


def _spoil(random: Random, given: bytearray) -> None:
    """Changes a tensor map, mostly one of its fields."""
    if not given:
        return
    start = random.randrange(0, len(given), 128)
    if random.random() < 0.1:
        given[start : start + 128] = random.randbytes(len(given[start : start + 128]))
        return
    fields = {8: 8, 16: 1, 17: 1, 19: 1, 22: 1, 24: 8, 32: 8, 40: 8, 64: 8, 72: 8, 96: 2, 98: 2}
    fields |= {100: 2, 102: 2, 104: 2, 107: 1}
    offset, size = random.choice(list(fields.items()))
    edges = [0, 1, 2, 5, 8, 255, 256, 2**16, 2**32, 2**40, 2**63, random.getrandbits(64)]
    value = random.choice(edges) % 2 ** (8 * size)
    if start + offset + size <= len(given):
        given[start + offset : start + offset + size] = value.to_bytes(size, "little")
