"""Standing in for `deep_gemm`."""

import sys


def install_as_deep_gemm() -> None:
    """Make `import deep_gemm` and `from deep_gemm.utils import ...` find this package.

    Call it before anything imports `deep_gemm`.
    """
    package = sys.modules[__name__.rpartition(".")[0]]
    # The names callers take from the submodule stand at the top level here.
    sys.modules["deep_gemm"] = sys.modules["deep_gemm.utils"] = package
    vars(package)["utils"] = package
