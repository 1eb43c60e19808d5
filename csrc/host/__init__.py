"""The part that runs on the host in C++: the CUDA driver, as far as launches need it.

The extension needs no CUDA to be built and imported: it opens libcuda.so.1 when it is first asked
for something. Its errors are `RuntimeError`s that carry the driver's call, code, name and text.
"""

from __future__ import annotations

import functools
from pathlib import Path
from types import ModuleType

from csrc import native


@functools.cache
def driver() -> ModuleType:
    """Returns the extension module, compiled at first use.

    `driver_version() -> int`, such as 13000; `encode_tiled(...) -> bytes`, see
    `TensorMap.encode_for_driver`; `PreparedLaunch(cubin, ...)` with `run(parameters, grid_x,
    grid_y, grid_z, stream)`, see `csrc.launcher`.
    """
    folder = Path(__file__).parent
    return native.load("openweek_host", sorted(folder.glob("*.cpp")))
