"""C++ sources -> a Python extension module, compiled at first use and kept by content.

    module = native.load("openweek_parser", [folder / "parser.cpp", folder / "binding.cpp"])

What decides an object file is its key: source, the headers that it includes from `include_dirs` or
from beside it, flags, compiler, Python, torch and the processor (code is compiled with
-march=native, and a home folder may be shared by machines of several kinds). A change of one source
compiles that one again, and links.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch as torch_package

from csrc import cache
from csrc.includes import read_with_includes

_TORCH_FOLDER = Path(torch_package.__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall")


class NativeBuildError(RuntimeError):
    """The C++ compiler refused a source; the text is what it printed."""


def load(
    name: str,
    sources: Sequence[Path],
    *,
    include_dirs: Sequence[Path] = (),
    flags: Sequence[str] = (),
    torch: bool = False,
) -> ModuleType:
    """Builds as `build` does and imports the module, once per process."""
    path = build(name, sources, include_dirs=include_dirs, flags=flags, torch=torch)
    return _import(name, path)


def build(
    name: str,
    sources: Sequence[Path],
    *,
    include_dirs: Sequence[Path] = (),
    flags: Sequence[str] = (),
    torch: bool = False,
) -> Path:
    """Compiles C++20 sources to an extension module, unless the cache has it.

    Args:
        name: What PYBIND11_MODULE calls the module.
        sources: The .cpp files; as many are compiled at a time as there are processors.
        include_dirs: Searched for headers; pybind11's and Python's are always found.
        flags: Further flags of the compiler, such as "-DNAME=1".
        torch: Whether the sources need torch's headers and libraries.

    Returns:
        The shared object. Processes that ask for the same one at the same time compile it once.

    Raises:
        NativeBuildError: The compiler refused a source.
        CacheError: The cache does not have it and cannot be written.
        RuntimeError: No C++ compiler or no Python headers on this machine.
    """
    folders = [folder.resolve() for folder in include_dirs]
    compile_flags = [*_FLAGS, *flags, *(f"-I{folder}" for folder in folders)]
    compile_flags += [f"-isystem{folder}" for folder in _system_include_dirs(torch=torch)]
    units = [_Unit.of(source.resolve(), folders, compile_flags) for source in sources]
    link_flags = _torch_link_flags() if torch else []
    key = cache.key_of([name, *link_flags, *(unit.key for unit in units)])
    file_name = f"{name}{importlib.machinery.EXTENSION_SUFFIXES[0]}"

    def link(folder: Path) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = pool.map(_Unit.compiled, units)
            _run_compiler(
                ["-shared", *map(str, objects), "-o", str(folder / file_name), *link_flags]
            )

    return cache.get("native", key, link) / file_name


@dataclass(frozen=True, slots=True)
class _Unit:
    """One source and how it is compiled."""

    source: Path
    flags: list[str]
    key: str

    @classmethod
    def of(cls, source: Path, include_dirs: Sequence[Path], flags: list[str]) -> _Unit:
        texts = read_with_includes([source], include_dirs)
        files = [part for path, text in sorted(texts.items()) for part in (path.name, text)]
        outside = [_find_compiler().version, _processor(), sys.version, torch_package.__version__]
        return cls(source, flags, cache.key_of([*outside, *flags, *files]))

    def compiled(self) -> Path:
        """Returns the object file, from the cache or from the compiler."""

        def compile_to(folder: Path) -> None:
            target = str(folder / "unit.o")
            _run_compiler([*self.flags, "-c", str(self.source), "-o", target])

        return cache.get("objects", self.key, compile_to) / "unit.o"


@dataclass(frozen=True, slots=True)
class _Compiler:
    path: str
    version: str


@functools.cache
def _find_compiler() -> _Compiler:
    path = shutil.which("g++")
    if path is None:
        raise RuntimeError("native.build: no C++ compiler found (apt-get install g++)")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        raise RuntimeError("native.build: no Python.h found (apt-get install python3-dev)")
    version = subprocess.run(  # noqa: S603 (our own command)
        [path, "-v"], check=True, capture_output=True, encoding="utf-8", errors="replace"
    )
    return _Compiler(path, version.stderr)


def _run_compiler(arguments: Sequence[str]) -> None:
    result = subprocess.run(  # noqa: S603 (our own command)
        [_find_compiler().path, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        raise NativeBuildError(f"native.build: the C++ does not compile:\n{result.stdout}")


def _system_include_dirs(*, torch: bool) -> list[Path]:
    """Python's headers, and torch's: the latter bring pybind11 along."""
    include = _TORCH_FOLDER / "include"
    api = [include / "torch/csrc/api/include"] if torch else []
    return [Path(sysconfig.get_paths()["include"]), include, *api]


def _torch_link_flags() -> list[str]:
    folder = _TORCH_FOLDER / "lib"
    libraries = [f"-l{name}" for name in ("c10", "torch_cpu", "torch", "torch_python")]
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", *libraries]


@functools.cache
def _processor() -> str:
    """What -march=native depends on: the kind of this machine's processor, with its features."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor() or platform.machine()
    lines = information.read_text(encoding="utf-8").split("\n\n", maxsplit=1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("vendor_id", "model", "flags")))


@functools.cache
def _import(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"native.load: {path} is not named like an extension module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
