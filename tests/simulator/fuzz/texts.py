"""PTX texts to change: those of the tests, and what compilers make of kernels."""

import contextlib
from pathlib import Path

TEXTS = Path(__file__).parents[1] / "ptx"


def compiled(folder: Path) -> list[Path]:
    """Writes what NVRTC makes of our kernels, and Triton of the witnesses, as far as they are here.

    The names of the files are returned.
    """
    texts: dict[str, str] = {}
    with contextlib.suppress(RuntimeError):  # no compiler of device code on this machine
        from csrc import compiler  # noqa: PLC0415 (only for this)
        from csrc.kernels import KERNELS  # noqa: PLC0415

        for kernel in KERNELS:
            texts[Path(kernel.source).stem] = compiler.compile_kernel(
                kernel.source, kernel.expression
            ).ptx
    with contextlib.suppress(ImportError):  # no Triton
        from tests.simulator.witnesses import WITNESSES  # noqa: PLC0415

        texts.update({name: make(0).ptx for name, make in WITNESSES.items()})
    paths = []
    for name, text in texts.items():
        paths.append(folder / f"{name}.ptx")
        paths[-1].write_text(text, encoding="utf-8")
    return paths
