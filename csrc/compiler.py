"""CUDA source -> the PTX that the simulator runs and the cubin that the GPU runs, for sm_90a.

    kernel = compile_kernel("deepgemm/gemm.cu", "openweek::deepgemm::gemm_kernel<128, 4>")

Compiled at first use by NVRTC or nvcc, whichever this machine has, and kept in the cache.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from csrc import cache
from csrc.compiled import Compiled, NoCompilerError, Report, entry_name, report_of
from csrc.cuda_folders import INSTALL
from csrc.includes import read_with_includes
from csrc.nvcc import find_nvcc
from csrc.nvrtc import find_nvrtc

SOURCES = Path(__file__).parent
# Both compilers spell these alike. Fast math stays off: kernels say where they approximate.
FLAGS = ("-arch=sm_90a", "-std=c++20", "-lineinfo", "--ptxas-options=-v")


class Compiler(Protocol):
    """NVRTC or nvcc.

    Attributes:
        version: For people.
        identity: For cache keys: everything of the compiler that decides its output.
        number: The version of CUDA that it belongs to.
        location: Where it is.
    """

    version: str
    identity: str
    number: tuple[int, int]
    location: str

    def compile(self, unit: str, flags: Sequence[str], include_dirs: Sequence[Path]) -> Compiled:
        """Compiles the text of one translation unit, or raises CompileError."""
        ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """A compiled kernel.

    Attributes:
        name: What it is called in `ptx` and `cubin`.
        ptx: With line information, for the simulator.
        cubin: For the driver.
        report: Registers, spills and shared memory.
    """

    name: str
    ptx: str
    cubin: bytes
    report: Report


def compile_kernel(
    source: str | Path, expression: str, *, compiler: Compiler | None = None
) -> Kernel:
    """Compiles one kernel for sm_90a, unless the cache has it.

    Args:
        source: The .cu file, absolute or as a path inside csrc. It includes others by their path
            from its own folder or from csrc.
        expression: The kernel's name from the global namespace, with its template arguments. It
            may use whatever the source includes.
        compiler: The preferred one of this machine if not given.

    Returns:
        The kernel. The same arguments give the same bytes, from the cache or not.

    Raises:
        CompileError: The source has errors; the text is the compiler's.
        NoCompilerError: This machine has no CUDA compiler.
        CacheError: The kernel is not in the cache, and the cache folder cannot be written.
        FileNotFoundError, ValueError: There is no such source, or no such kernel in it.
    """
    compiler = compiler or find_compiler()
    path = SOURCES / source
    texts = read_with_includes([path], [SOURCES])
    unit = unit_of(path, expression)
    # The files' places are in the PTX as line information, so they belong to the key.
    parts = [part for file, text in sorted(texts.items()) for part in (str(file), text)]
    key = cache.key_of([compiler.identity, *FLAGS, unit, expression, *parts])

    def make(folder: Path) -> None:
        compiled = compiler.compile(unit, FLAGS, [SOURCES])
        name = entry_name(compiled.ptx, expression)
        report = dataclasses.asdict(report_of(compiled.log, name))
        (folder / "kernel.ptx").write_text(compiled.ptx)
        (folder / "kernel.cubin").write_bytes(compiled.cubin)
        (folder / "kernel.json").write_text(json.dumps({"name": name, "report": report}))

    return _read(cache.get("kernels", key, make))


def unit_of(source: Path, expression: str) -> str:
    """Returns the translation unit that instantiates one kernel of a source."""
    unit = f'#include "{source}"\n'
    if expression.endswith(">"):
        # decltype spares the parameter list, which only the template knows.
        unit += f"template __global__ decltype({expression}) {expression};\n"
    return unit


def find_compiler() -> Compiler:
    """Returns NVRTC, or nvcc where there is none: NVRTC is faster and needs no host compiler.

    Raises:
        NoCompilerError: This machine has neither.
    """
    compiler, problems = _search()
    if compiler is None:
        raise NoCompilerError(
            f"compile: a CUDA compiler must be installed, got {problems} ({INSTALL})"
        )
    return compiler


@functools.cache
def _search() -> tuple[Compiler | None, str]:
    """Asked once per process: nvcc --version alone takes longer than a hit in the cache."""
    finders: tuple[Callable[[], Compiler], ...] = (find_nvrtc, find_nvcc)
    problems = []
    for find in finders:
        try:
            return find(), ""
        except NoCompilerError as problem:
            problems.append(str(problem))
    return None, " and ".join(problems)


def _read(entry: Path) -> Kernel:
    meta = json.loads((entry / "kernel.json").read_text())
    meta["report"]["warnings"] = tuple(meta["report"]["warnings"])
    ptx, cubin = (entry / "kernel.ptx").read_text(), (entry / "kernel.cubin").read_bytes()
    return Kernel(meta["name"], ptx, cubin, Report(**meta["report"]))
