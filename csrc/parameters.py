"""A kernel's parameters: what each one accepts, and where its bytes lie in the parameter buffer.

    signature = Signature(
        Map("map_a"),
        Struct("params", (Pointer("d", torch.bfloat16), Number("m", "i32"), Number("n", "i32"))),
    )

stands for `kernel(const __grid_constant__ TensorMap map_a, const __grid_constant__ Params params)`.
The layout is C's: every member at the next multiple of its alignment, and a struct aligned like its
widest member.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from csrc.checks import Checker
from csrc.entry import align_up
from csrc.tensor_map import MAP_BYTES, TensorMap

Encode: TypeAlias = Callable[[TensorMap], bytes]
NumberKind: TypeAlias = Literal["bool", "i32", "u32", "i64", "u64", "f32"]

# What each kind is to C: its letter in the module struct, and its bytes.
_NUMBERS = {
    "bool": ("?", 1),
    "i32": ("i", 4),
    "u32": ("I", 4),
    "i64": ("q", 8),
    "u64": ("Q", 8),
    "f32": ("f", 4),
}


@dataclass(frozen=True, slots=True)
class Pointer:
    """A tensor, passed as the address of its first element; None, if `optional`, as null."""

    name: str
    dtype: torch.dtype
    contiguous: bool = True
    optional: bool = False

    format = "Q"
    num_bytes = alignment = 8

    def take(self, argument: Any, encode: Encode) -> int | None:
        """Returns what is packed, or None: `refuse` says why. Fast, as every launch calls it."""
        del encode
        if argument is None:
            return 0 if self.optional else None
        if (
            isinstance(argument, Tensor)
            and argument.dtype is self.dtype
            and (argument.is_contiguous() or not self.contiguous)
        ):
            return argument.data_ptr()
        return None

    def refuse(self, check: Checker, argument: Any) -> None:
        """Raises what is wrong with the argument, if something is."""
        if argument is None and self.optional:
            return
        layout: Literal["contiguous", "any"] = "contiguous" if self.contiguous else "any"
        shape = getattr(argument, "shape", ())
        check.tensor(self.name, argument, shape, self.dtype, layout=layout)


@dataclass(frozen=True, slots=True)
class Number:
    """A Python number, passed as one of C's."""

    name: str
    kind: NumberKind

    @property
    def format(self) -> str:
        return _NUMBERS[self.kind][0]

    @property
    def num_bytes(self) -> int:
        return _NUMBERS[self.kind][1]

    @property
    def alignment(self) -> int:
        return _NUMBERS[self.kind][1]

    def take(self, argument: Any, encode: Encode) -> int | float | None:
        """Returns what is packed, or None; the range is left to the packing, which checks it."""
        del encode
        if isinstance(argument, int) or (self.kind == "f32" and isinstance(argument, float)):
            return argument
        return None

    def refuse(self, check: Checker, argument: Any) -> None:
        """Raises what is wrong with the argument, if something is."""
        if not isinstance(argument, (int, float) if self.kind == "f32" else int):
            kind = "a number" if self.kind == "f32" else "an int"
            actual = type(argument).__name__
            check.wrong_type(self.name, f"be {kind}", actual, "convert it with int() or float()")
        try:
            struct.pack(f"<{self.format}", argument)
        except (struct.error, OverflowError):
            check.invalid(self.name, f"fit in {self.kind}", argument, "use a smaller problem")


@dataclass(frozen=True, slots=True)
class Map:
    """A `TensorMap`, passed by value as `primitives::TensorMap`: 128 bytes, aligned to 64."""

    name: str

    format = f"{MAP_BYTES}s"
    num_bytes = MAP_BYTES
    alignment = 64

    def take(self, argument: Any, encode: Encode) -> bytes | None:
        """Returns what is packed, or None."""
        return encode(argument) if isinstance(argument, TensorMap) else None

    def refuse(self, check: Checker, argument: Any) -> None:
        """Raises what is wrong with the argument, if something is."""
        if not isinstance(argument, TensorMap):
            actual = type(argument).__name__
            check.wrong_type(self.name, "be a TensorMap", actual, "make one with TensorMap.of")


Member: TypeAlias = Pointer | Number | Map


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct passed by value; its members are given to a launch one by one."""

    name: str
    members: tuple[Member, ...]

    @property
    def alignment(self) -> int:
        return max(member.alignment for member in self.members)

    @property
    def num_bytes(self) -> int:
        *_, (member, offset) = _placed(self.members)
        return align_up(offset + member.num_bytes, self.alignment)


class Signature:
    """The parameters of a kernel, in order.

    Attributes:
        members: All that a launch is given, in order: structs are replaced by their members.
        offsets: Where each of the kernel's parameters starts in the buffer.
        sizes: The bytes of each.
        num_bytes: The size of the buffer.
    """

    def __init__(self, *parameters: Member | Struct) -> None:
        placed = list(_placed(parameters))
        self.offsets = tuple(offset for _, offset in placed)
        self.sizes = tuple(parameter.num_bytes for parameter in parameters)
        self.num_bytes = self.offsets[-1] + self.sizes[-1] if placed else 0
        flat = [
            (member, offset + inner)
            for parameter, offset in placed
            for member, inner in _members(parameter)
        ]
        self.members = tuple(member for member, _ in flat)
        self._layout = struct.Struct(_format(flat, self.num_bytes))

    def pack(self, arguments: Sequence[Any], encode: Encode) -> bytes | None:
        """Returns the parameter buffer; None if a member refuses its argument.

        Args:
            arguments: One per member.
            encode: Turns a tensor map into its 128 bytes.
        """
        values = []
        for member, argument in zip(self.members, arguments, strict=True):
            value = member.take(argument, encode)
            if value is None:
                return None
            values.append(value)
        try:
            return self._layout.pack(*values)
        except (struct.error, OverflowError):  # a number does not fit
            return None


def _members(parameter: Member | Struct) -> Iterator[tuple[Member, int]]:
    """The members of a parameter with their offsets in it."""
    if isinstance(parameter, Struct):
        yield from _placed(parameter.members)
    else:
        yield parameter, 0


_Placed = TypeVar("_Placed", bound=Pointer | Number | Map | Struct)


def _placed(parameters: Sequence[_Placed]) -> Iterator[tuple[_Placed, int]]:
    """Each parameter with its offset by the rules of C."""
    end = 0
    for parameter in parameters:
        offset = align_up(end, parameter.alignment)
        yield parameter, offset
        end = offset + parameter.num_bytes


def _format(placed: Sequence[tuple[Member, int]], num_bytes: int) -> str:
    """The buffer as the module struct writes it, with its padding written out."""
    pieces, end = [], 0
    for member, offset in placed:
        pieces += [f"{offset - end}x", member.format]
        end = offset + member.num_bytes
    return "<" + "".join(pieces) + f"{num_bytes - end}x"
