"""Standing in for `deep_gemm`."""

from __future__ import annotations

import sys
from types import ModuleType

from deepgemm import layout, not_built, quantization, scales, testing

# Submodules that callers import names from, and the modules of ours that have those names.
_SUBMODULES = {
    "utils": (layout, not_built, quantization, scales),
    "utils.math": (layout, not_built, quantization, scales),
    "utils.layout": (layout, scales),
    "jit_kernels": (),
    "jit_kernels.utils": (layout, scales),
    "testing.bench": (testing,),
    "testing.numeric": (testing,),
    "testing.utils": (testing,),
}


def install_as_deep_gemm() -> None:
    """Make `import deep_gemm` and `from deep_gemm.utils import ...` find this package.

    Call it before anything imports `deep_gemm`. Later calls change nothing.
    """
    package = sys.modules[__name__.rpartition(".")[0]]
    if sys.modules.get("deep_gemm") is package:
        return
    sys.modules["deep_gemm"] = package
    sys.modules["deep_gemm.testing"] = testing
    for name, sources in _SUBMODULES.items():
        module = ModuleType(f"deep_gemm.{name}", "Names that callers expect here.")
        for source in sources:
            vars(module).update(_functions_of(source))
        parent, _, child = f"deep_gemm.{name}".rpartition(".")
        sys.modules[f"deep_gemm.{name}"] = module
        # `testing.bench` is a function, as it is for who imports `testing`.
        vars(sys.modules[parent]).setdefault(child, module)


def _functions_of(module: ModuleType) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
