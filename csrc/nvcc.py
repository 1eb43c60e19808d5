"""nvcc, the CUDA compiler that is a program: from a toolkit or a wheel, beside a host compiler."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from csrc.compiled import Compiled, CompileError, NoCompilerError
from csrc.cuda_folders import cuda_folders

_OLDEST = (12, 0)  # the first with sm_90a and C++20
_WHEELS = "pip install nvidia-cuda-nvcc nvidia-cuda-cccl"
_OWN_FLAGS = ("--expt-relaxed-constexpr",)  # constexpr functions need no __device__


class Nvcc:
    """One nvcc program.

    Attributes:
        version: For people.
        identity: For cache keys: everything of the compiler that decides its output.
        number: The version of CUDA that it belongs to.
        location: Where it is.
    """

    def __init__(self, program: Path) -> None:
        printed = _run([str(program), "--version"])
        found = re.search(r"V((\d+)\.(\d+)[.\d]*)", printed.stdout)
        if found is None:
            raise NoCompilerError(f"{program} --version prints no version: {printed.stdout!r}")
        self.number = int(found[2]), int(found[3])
        self.location = str(program)
        self.version = f"nvcc {found[1]}"
        self.identity = f"{self.version} {_OWN_FLAGS}"

    def compile(self, unit: str, flags: Sequence[str], include_dirs: Sequence[Path]) -> Compiled:
        """Compiles the text of one translation unit.

        Args:
            unit: CUDA C++.
            flags: As nvcc and NVRTC spell them alike.
            include_dirs: Searched for headers before CUDA's own.

        Raises:
            CompileError: The source has errors, or the host compiler does not fit.
        """
        with tempfile.TemporaryDirectory(prefix="openweek-nvcc-") as name:
            folder = Path(name)
            (folder / "instantiation.cu").write_text(unit)
            # One compilation gives both files: --keep leaves the PTX that the cubin is made of.
            command = [self.location, *flags, *_OWN_FLAGS, "-cubin", "--keep"]
            command += [f"-I{include}" for include in include_dirs]
            done = _run([*command, "instantiation.cu", "-o", "kernel.cubin"], folder)
            log = (done.stdout + done.stderr).strip()
            ptx_file = folder / "instantiation.ptx"
            ptx = ptx_file.read_text() if ptx_file.is_file() else ""
            if done.returncode != 0:
                raise CompileError(log, ptx)
            return Compiled(ptx, (folder / "kernel.cubin").read_bytes(), log)


def find_nvcc() -> Nvcc:
    """Returns the preferred nvcc of this machine.

    Raises:
        NoCompilerError: There is none, or no host compiler for it.
    """
    on_path = shutil.which("nvcc")
    programs = [folder / "bin" / "nvcc" for folder in cuda_folders()]
    programs += [Path(on_path)] if on_path else []
    problem = f"no nvcc ({_WHEELS} brings one)"
    for program in filter(Path.is_file, programs):
        if shutil.which("g++") is None:
            raise NoCompilerError(f"no g++ for {program} (install g++)")
        compiler = Nvcc(program)
        if compiler.number >= _OLDEST:
            return compiler
        problem = f"{program} is CUDA {compiler.number[0]}, older than 12 ({_WHEELS})"
    raise NoCompilerError(problem)


def _run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - nvcc, found by find_nvcc
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
