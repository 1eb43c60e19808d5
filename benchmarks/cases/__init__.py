"""The benchmark cases: every module of this folder is found by itself.

Adding one takes one file with a tuple `CASES`. Nothing is registered anywhere else; pytest runs the
`tiny` shapes of whatever it finds here:

    @dataclass(frozen=True, slots=True)
    class Vectors:                      # the fields label the rows: "n=4096"
        n: int

    CASES = (
        TensorCase(
            name="dot",
            title="torch.dot of two vectors",
            needs=("torch.dot",),       # what has to exist; else the case says "not available"
            shapes={"tiny": (Vectors(1),), "real": (Vectors(4096),), "sweep": (Vectors(1024),)},
            work=lambda s: Work(flops=2 * s.n, bytes=8 * s.n, arithmetic="fp32"),
            inputs=...,                 # (shape, device, seed) -> dict of tensors
            ours=...,                   # inputs -> result
            oracle=...,                 # inputs -> the true result, float64
            tolerance=1e-5,
            peers={"einsum": Peer(...)},
        ),
    )

A result that is no tensor brings its own `error(result, truth)`: a schedule that validates has the
error 0. A case in which several ranks work together is a `RankCase`, as in deepep.py.

Packages under test are imported inside functions, with `importlib.import_module`: a package that is
not there must cost its own case only.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from benchmarks.case import Case


def load_cases() -> dict[str, Case[Any]]:
    """Returns all cases by name, in the order of module names."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__, f"{__name__}."))
    modules = map(importlib.import_module, names)
    return {case.name: case for module in modules for case in module.CASES}
