"""The simulator's number formats, matrix units and tensor copies, without a machine around them."""

import functools
from pathlib import Path
from types import ModuleType

import csrc
from csrc import native

_FOLDER = Path(csrc.__file__).parent / "simulator"
_SOURCES = ("formats", "matrix", "matrix_panels", "reduction", "tile_copy", "numeric_binding")


@functools.cache
def numeric() -> ModuleType:
    """csrc/simulator/numeric_binding.cpp, compiled at first use."""
    return native.load("openweek_numeric", [_FOLDER / f"{name}.cpp" for name in _SOURCES])
