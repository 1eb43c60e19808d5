"""What a kernel's PTX declares of its launches: parameters, threads, cluster."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TypeAlias

Extent: TypeAlias = tuple[int, int, int]

# A parameter: `.param .u64 name` or `.param .align 64 .b8 name[128]`.
_PARAMETER = re.compile(r"\.[bsuf](8|16|32|64)\s[^\[]*(?:\[(\d+)\])?\s*$")
_ALIGN = re.compile(r"^\s*\.param\s+\.align\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """The head of a kernel in PTX.

    Attributes:
        parameters: Offset and bytes of each.
        max_threads: At most so many per CTA (`__launch_bounds__`), None if nothing is said.
        block: Threads per dim, where the kernel asks for a certain block.
        cluster: CTAs per dim, where it asks for a certain cluster (`__cluster_dims__`).
    """

    parameters: tuple[tuple[int, int], ...]
    max_threads: int | None
    block: Extent | None
    cluster: Extent | None


def read_entry(ptx: str, kernel: str) -> Entry:
    """Reads the head of one kernel; raises ValueError if the PTX does not have it."""
    head = re.search(rf"\.entry\s+{re.escape(kernel)}(?![\w$])\s*(?:\(([^)]*)\))?([^{{;]*)", ptx)
    if head is None:
        raise ValueError(f"launcher: kernel must be in its PTX, got {kernel} (compile it again)")
    max_threads = _extent(head[2], "maxntid")
    return Entry(
        parameters=_parameters(head[1] or ""),
        max_threads=math.prod(max_threads) if max_threads else None,
        block=_extent(head[2], "reqntid"),
        cluster=_extent(head[2], "reqnctapercluster"),
    )


def _parameters(declarations: str) -> tuple[tuple[int, int], ...]:
    end, parameters = 0, []
    for declaration in declarations.split(",") if declarations.strip() else ():
        declared, align = _PARAMETER.search(declaration), _ALIGN.match(declaration)
        if declared is None:
            raise ValueError(f"launcher: PTX must declare parameters, got {declaration.strip()!r}")
        element_bytes = int(declared[1]) // 8
        num_bytes = element_bytes * int(declared[2] or 1)
        offset = align_up(end, int(align[1]) if align else element_bytes)
        parameters.append((offset, num_bytes))
        end = offset + num_bytes
    return tuple(parameters)


def _extent(directives: str, name: str) -> Extent | None:
    found = re.search(rf"\.{name}\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", directives)
    return (int(found[1]), int(found[2] or 1), int(found[3] or 1)) if found else None


def align_up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
