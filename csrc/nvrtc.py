"""NVRTC, the CUDA compiler that is a library: compiles in this process, needs no host compiler."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from csrc.compiled import Compiled, CompileError, NoCompilerError
from csrc.cuda_folders import INSTALL, cuda_folders

_OLDEST = (12, 0)  # the first with sm_90a and C++20
# What --expt-relaxed-constexpr is to nvcc: constexpr functions need no __device__.
_OWN_FLAGS = ("--device-as-default-execution-space",)
# NVRTC brings no C++ standard library. These few headers are all that device code needs of it;
# with them it includes <cstdint> for either compiler.
_INTEGERS = b"""#pragma once
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;
using intptr_t = long;
using uintptr_t = unsigned long;
namespace std {
using ::int8_t, ::int16_t, ::int32_t, ::int64_t, ::intptr_t, ::ptrdiff_t;
using ::uint8_t, ::uint16_t, ::uint32_t, ::uint64_t, ::uintptr_t, ::size_t;
}
"""
_HEADERS = (b"cstdint", b"cstddef", b"stdint.h", b"stddef.h", b"stdlib.h")


class Nvrtc:
    """One NVRTC library with the CUDA headers that fit it.

    Attributes:
        version: For people.
        identity: For cache keys: everything of the compiler that decides its output.
        number: The version of CUDA that it belongs to.
        location: Where it is.
    """

    def __init__(self, library: str, headers: Path) -> None:
        self._library = ctypes.CDLL(library)
        self._headers = headers
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("Version", ctypes.byref(major), ctypes.byref(minor))
        self.number = major.value, minor.value
        self.location = library
        dotted = ".".join(map(str, _headers_version(headers)))
        self.version = f"NVRTC {major.value}.{minor.value} (headers {dotted})"
        self.identity = f"{self.version} {_OWN_FLAGS} {_INTEGERS!r} {_HEADERS}"

    def compile(self, unit: str, flags: Sequence[str], include_dirs: Sequence[Path]) -> Compiled:
        """Compiles the text of one translation unit.

        Args:
            unit: CUDA C++.
            flags: As nvcc and NVRTC spell them alike.
            include_dirs: Searched for headers before CUDA's own.

        Raises:
            CompileError: The source has errors.
        """
        program = ctypes.c_void_p()
        count = len(_HEADERS)
        self._call(
            *("CreateProgram", ctypes.byref(program), unit.encode(), b"instantiation.cu", count),
            (ctypes.c_char_p * count)(*[_INTEGERS] * count),
            (ctypes.c_char_p * count)(*_HEADERS),
        )
        options = [*flags, *_OWN_FLAGS]
        options += [f"-I{folder}" for folder in (*include_dirs, self._headers)]
        encoded = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        try:
            status = self._library.nvrtcCompileProgram(program, len(options), encoded)
            log = self._output("ProgramLog", program).decode(errors="replace").strip("\0\n ")
            ptx = self._output("PTX", program).rstrip(b"\0").decode()
            if status != 0:
                raise CompileError(log or self._text_of(status), ptx)
            return Compiled(ptx, self._output("CUBIN", program), log)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _output(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"Get{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(f"Get{what}", program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._library, f"nvrtc{function}")(*arguments)
        if status != 0:
            raise RuntimeError(
                f"compile: nvrtc{function} must succeed, got {self._text_of(status)}"
            )

    def _text_of(self, status: int) -> str:
        text: bytes = self._library.nvrtcGetErrorString(status)
        return text.decode()


def find_nvrtc() -> Nvrtc:
    """Returns the preferred NVRTC of this machine.

    Raises:
        NoCompilerError: There is no library, or none with fitting headers.
    """
    problem = f"no libnvrtc ({INSTALL} brings one)"
    for library in _libraries():
        try:
            compiler = _with_headers(library)
        except OSError as error:
            problem = f"{library} cannot be loaded: {error}"
            continue
        if compiler is None:
            problem = f"no CUDA headers for {library} (pip install nvidia-cuda-runtime)"
        elif compiler.number < _OLDEST:
            problem = f"{library} is CUDA {compiler.number[0]}, older than 12 ({INSTALL})"
        else:
            return compiler
    raise NoCompilerError(problem)


def _libraries() -> Iterator[str]:
    for folder in cuda_folders():
        for room in ("lib64", "lib"):
            # libnvrtc.alt.so and libnvrtc-builtins.so do not match.
            yield from map(str, sorted((folder / room).glob("libnvrtc.so*")))
    if (known_to_loader := ctypes.util.find_library("nvrtc")) is not None:
        yield known_to_loader


def _with_headers(library: str) -> Nvrtc | None:
    """The library with headers of its major version; those installed with it are preferred."""
    beside = Path(library).parents[1] if "/" in library else None
    folders = ([beside] if beside else []) + cuda_folders()
    candidates = [folder / "include" for folder in folders]
    for headers in candidates:
        if (headers / "cuda_bf16.h").is_file():
            compiler = Nvrtc(library, headers)
            if _headers_version(headers)[0] == compiler.number[0]:
                return compiler
    return None


def _headers_version(headers: Path) -> tuple[int, int]:
    text = (headers / "cuda_runtime_api.h").read_text(errors="replace")
    found = re.search(r"#define\s+CUDART_VERSION\s+(\d+)", text)
    number = int(found[1]) if found else 0
    return number // 1000, number % 1000 // 10
