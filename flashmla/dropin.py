"""Standing in for `flash_mla`."""

import sys


def install_as_flash_mla() -> None:
    """Make `import flash_mla` find this package. Call it before anything imports `flash_mla`."""
    sys.modules["flash_mla"] = sys.modules[__name__.rpartition(".")[0]]
