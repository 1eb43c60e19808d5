"""`python -m csrc doctor`: what of the CUDA toolchain is here, and what brings the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from csrc import cache
from csrc.compiled import NoCompilerError
from csrc.compiler import Compiler
from csrc.cuda_folders import INSTALL
from csrc.driver import Driver, find_driver
from csrc.nvcc import find_nvcc
from csrc.nvrtc import find_nvrtc

# "absent" is what one can do without: the simulator stands in for a GPU, one compiler is enough.
State = Literal["ok", "absent", "missing"]
_HOPPER = (9, 0)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        subject: What it is.
        state: "missing" is what must be mended.
        text: What was found, or what would bring it.
    """

    subject: str
    state: State
    text: str


def examine() -> list[Finding]:
    """Looks at this machine."""
    nvrtc, nvcc = _compiler(find_nvrtc), _compiler(find_nvcc)
    driver = find_driver()
    return [
        *compiler_findings(nvrtc, nvcc),
        *driver_findings(driver, nvrtc if not isinstance(nvrtc, str) else nvcc),
        _cpp_finding(),
        _cache_finding(),
    ]


def healthy(findings: list[Finding]) -> bool:
    """Whether kernels compile here, and run at least in the simulator."""
    return all(finding.state != "missing" for finding in findings)


def rendered(findings: list[Finding]) -> str:
    """The findings as lines of a table."""
    subject_width = max(len(finding.subject) for finding in findings)
    return "\n".join(
        f"{finding.state:7}  {finding.subject:{subject_width}}  {finding.text}"
        for finding in findings
    )


def compiler_findings(nvrtc: Compiler | str, nvcc: Compiler | str) -> Iterator[Finding]:
    """One finding per compiler, given it or the reason why there is none."""
    lacking: State = "missing" if isinstance(nvrtc, str) and isinstance(nvcc, str) else "absent"
    for subject, compiler in (("NVRTC", nvrtc), ("nvcc", nvcc)):
        if isinstance(compiler, str):
            remedy = f"; {INSTALL}" if lacking == "missing" else ""
            yield Finding(subject, lacking, f"{compiler}{remedy}")
        else:
            yield Finding(subject, "ok", f"{compiler.version} at {compiler.location}")


def driver_findings(driver: Driver | None, compiler: Compiler | str) -> Iterator[Finding]:
    """The driver, whether the compiler's output fits it, and the GPUs."""
    if driver is None:
        yield Finding("driver", "absent", "no libcuda.so.1: kernels run in the simulator only")
        return
    version = "CUDA {}.{}".format(*driver.version)
    if driver.error:
        yield Finding("driver", "missing", f"{version} does not start: {driver.error}")
        return
    if not isinstance(compiler, str) and compiler.number[0] > driver.version[0]:
        yield Finding(
            "driver",
            "missing",
            f"{version} is too old for {compiler.version}: update the driver, or install a"
            f" compiler of CUDA {driver.version[0]}",
        )
    else:
        yield Finding("driver", "ok", version)
    for index, gpu in enumerate(driver.gpus):
        runs = gpu.capability == _HOPPER
        capability = "compute capability {}.{}".format(*gpu.capability)
        use = "runs the Hopper kernels" if runs else "cannot run the Hopper kernels (9.0 can)"
        state: State = "ok" if runs else "absent"
        yield Finding(f"GPU {index}", state, f"{gpu.name}, {capability}, {use}")


def _compiler(find: Callable[[], Compiler]) -> Compiler | str:
    try:
        return find()
    except NoCompilerError as problem:
        return str(problem)


def _cpp_finding() -> Finding:
    """What builds the simulator and the host part of the launcher."""
    found = shutil.which("g++")
    return Finding("g++", "ok" if found else "missing", found or "not found (apt-get install g++)")


def _cache_finding() -> Finding:
    folder, usage = cache.folder(), cache.usage()
    text = f"{folder}: {usage.num_entries} entries, {usage.num_bytes / 1e6:.1f} MB"
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        return Finding("cache", "missing", f"{text}, not writable (set OPENWEEK_CACHE)")
    return Finding("cache", "ok", text)
