"""What TMA copies, element by element: a box of a tensor, and where its bytes lie when swizzled."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tests.oracles.matrix_units import swizzled


def elements(
    corner: tuple[int, ...], box: tuple[int, ...], steps: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """Coordinates of the box's elements, innermost dim first and fastest; dim 0 has no step."""
    axes = [range(c, c + b, s) for c, b, s in zip(corner, box, (1, *steps[1:]), strict=True)]
    for coordinates in itertools.product(*reversed(axes)):
        yield tuple(reversed(coordinates))


def load(
    tensor: NDArray[np.generic],
    corner: tuple[int, ...],
    box: tuple[int, ...],
    steps: tuple[int, ...],
    fill: float,
) -> NDArray[np.generic]:
    """The box's elements one after the other; `tensor` has numpy's order, outermost dim first."""
    values = []
    for coordinates in elements(corner, box, steps):
        index = tuple(reversed(coordinates))
        inside = all(0 <= i < n for i, n in zip(index, tensor.shape, strict=True))
        values.append(tensor[index] if inside else tensor.dtype.type(fill))
    return np.array(values, tensor.dtype)


def place(raw: NDArray[np.uint8], address: int, swizzle_bytes: int) -> list[int]:
    """The shared address of each byte."""
    return [swizzled(address + i, swizzle_bytes) for i in range(len(raw))]
