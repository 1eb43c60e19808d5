"""One instruction on many values: the kernel around it, and values worth trying."""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tests.simulator.running import run

Words = NDArray[np.unsignedinteger]

UNSIGNED = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
_BLOCK = 256
_NAMES = "abcde"


def width_of(ptx_type: str) -> int:
    """Bits of a value: 32 of u32, f16x2, e4m3x4."""
    name, _, count = ptx_type.partition("x")
    digits = "8" if name in {"e4m3", "e5m2"} else "32" if name == "tf32" else name.lstrip("usbf")
    return int(digits) * int(count or 1)


def evaluate(
    operation: str, *inputs: Sequence[int], widths: Sequence[int], out: int, module: str = ""
) -> list[int]:
    """What an operation makes of each column of inputs, as bits.

    Args:
        operation: PTX that makes %x of %a, %b, ...; it has %p1 to %p7 and %t1 to %t7 (32 bits).
        inputs: one sequence of bits for each of %a, %b, ...
        widths: bits of each input's register.
        out: bits of %x.
        module: what stands before the kernel.
    """
    count = len(inputs[0])
    arrays = [
        np.array([value % 2**width for value in values], UNSIGNED[width])
        for values, width in zip(inputs, widths, strict=True)
    ]
    result = np.zeros(count, UNSIGNED[out])
    body = [
        f".reg .b32 %t<8>; .reg .b64 %at; .reg .b{max(out, 16)} %x;",
        f"mov.u32 %t1, %ctaid.x; mad.lo.u32 %t0, %t1, {_BLOCK}, %r0;",
        f"setp.ge.u32 %p0, %t0, {count}; @%p0 exit;",
    ]
    body += [
        f".reg .b{max(width, 16)} %{name}; mad.wide.u32 %at, %t0, {width // 8}, %rd{i};"
        f"ld.global.{'u' if width == 8 else 'b'}{width} %{name}, [%at];"
        for i, (name, width) in enumerate(zip(_NAMES, widths, strict=False))
    ]
    body.append(operation)
    body.append(f"mad.wide.u32 %at, %t0, {out // 8}, %rd{len(arrays)}; st.global.b{out} [%at], %x;")
    tensors = [torch.from_numpy(array) for array in [*arrays, result]]
    run("\n".join(body), tensors, module=module, grid=-(-count // _BLOCK), block=_BLOCK)
    return [int(value) for value in result]


def integers(width: int) -> list[int]:
    """Bits that go wrong first."""
    half = 1 << (width - 1)
    edges = {0, 1, 2, 3, 0x5A, width - 1, width, half - 1, half, half + 1, -1, -2}
    return sorted(edge % (2 * half) for edge in edges)


def signed(bits: int, width: int) -> int:
    return bits - (1 << width) if bits >> (width - 1) else bits


def columns(values: Sequence[Sequence[int]], widths: Sequence[int], seed: int) -> list[list[int]]:
    """Every combination of the values given for each input, and as many random ones."""
    rng = np.random.default_rng(seed)
    rows = list(itertools.product(*values))
    rows += [
        tuple(int.from_bytes(rng.bytes(width // 8), "little") for width in widths)
        for _ in range(min(len(rows), 300))
    ]
    return [list(column) for column in zip(*rows, strict=True)]
