"""CUDA source -> PTX and cubin: what decides the key, and both real compilers."""

import dataclasses
import functools
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from csrc import cache, compiler, cuda_folders, nvcc, nvrtc
from csrc.compiled import Compiled, CompileError, NoCompilerError
from csrc.compiler import Compiler, compile_kernel

HOST_COMPILER = shutil.which("g++")  # before a test takes the programs away
HEADER = "template <typename T> __device__ T twice(T x) { return x + x; }\n"
SOURCE = """\
#include <cuda_bf16.h>
#include <cstdint>
#include "twice.cuh"

constexpr int next_of(int i) { return i + 1; }

namespace saxpy {

__global__ void plain_kernel(float* y, const float* x, float a, std::uint64_t n) {
  const uint64_t i = blockIdx.x * uint64_t{blockDim.x} + threadIdx.x;
  if (i < n) y[i] = a * x[i] + twice(y[i]);
}

template <int kThreads, typename T>
__global__ void __launch_bounds__(kThreads) rotate_kernel(T* x) {
  __shared__ float rotated[kThreads];
  rotated[next_of(threadIdx.x) % kThreads] = float(x[threadIdx.x]);
  __syncthreads();
  x[threadIdx.x] = T(rotated[threadIdx.x]);
}

// 32 registers cannot hold 96 numbers: it spills.
__global__ void __launch_bounds__(1024, 2) spill_kernel(float* x) {
  float v[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) x[i * 1024 + threadIdx.x] = v[95 - i] * v[i];
}

}  // namespace saxpy
"""
FAKE_LOG = """\
ptxas info    : Compiling entry function '_ZN5saxpy{0}Pf' for 'sm_90a'
ptxas info    : Used 8 registers, used 0 barriers
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cold cache, and the folder of the sources above."""
    monkeypatch.setenv("OPENWEEK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "saxpy.cu").write_text(SOURCE)
    (tmp_path / "twice.cuh").write_text(HEADER)
    return tmp_path


@dataclasses.dataclass
class FakeCompiler:
    """Counts its calls; knows two kernels."""

    version: str = "fake"
    identity: str = "fake 1"
    number: tuple[int, int] = (13, 0)
    location: str = "nowhere"
    calls: int = 0

    def compile(self, unit: str, flags: Sequence[str], include_dirs: Sequence[Path]) -> Compiled:
        assert "-arch=sm_90a" in flags
        assert list(include_dirs) == [compiler.SOURCES]
        self.calls += 1
        names = ["12plain_kernel", "12spill_kernel"]
        ptx = "".join(f".entry _ZN5saxpy{name}Pf(\n" for name in names)
        return Compiled(ptx, b"\x7fELF" + unit.encode(), "".join(map(FAKE_LOG.format, names)))


def compile_fake(fake: Compiler, folder: Path, name: str = "plain_kernel") -> str:
    return compile_kernel(folder / "saxpy.cu", f"saxpy::{name}", compiler=fake).name


def test_compiles_once(folder: Path) -> None:
    fake = FakeCompiler()
    kernels = [
        compile_kernel(folder / "saxpy.cu", "saxpy::plain_kernel", compiler=fake) for _ in range(2)
    ]
    assert fake.calls == 1
    assert kernels[0] == kernels[1]
    assert kernels[0].report.registers == 8
    assert kernels[0].cubin.startswith(b"\x7fELF")


def test_kernels_of_one_source_are_apart(folder: Path) -> None:
    fake = FakeCompiler()
    assert compile_fake(fake, folder, "plain_kernel") == "_ZN5saxpy12plain_kernelPf"
    assert compile_fake(fake, folder, "spill_kernel") == "_ZN5saxpy12spill_kernelPf"


@pytest.mark.parametrize("changed", ["source", "header", "compiler", "flags", "place"])
def test_key_covers(changed: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCompiler()
    compile_fake(fake, folder)
    if changed == "compiler":
        fake.identity = "fake 2"
    elif changed == "flags":
        monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-O0"))
    elif changed == "place":
        folder = folder.rename(folder.with_name(folder.name + "-moved"))
    else:
        file = folder / {"source": "saxpy.cu", "header": "twice.cuh"}[changed]
        file.write_text(file.read_text() + "// changed\n")
    compile_fake(fake, folder)
    assert fake.calls == 2


def test_damaged_kernel_is_compiled_again(folder: Path) -> None:
    fake = FakeCompiler()
    compile_fake(fake, folder)
    (cubin,) = cache.folder().rglob("kernel.cubin")
    cubin.write_bytes(cubin.read_bytes()[:-1])
    compile_fake(fake, folder)
    assert fake.calls == 2


def test_wrong_name_keeps_nothing(folder: Path) -> None:
    with pytest.raises(ValueError, match="'saxpy::missing', which names 0 of"):
        compile_fake(FakeCompiler(), folder, "missing")
    assert cache.usage().num_entries == 0


def test_missing_source(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"source must be a file, got .*gone\.cu"):
        compile_kernel(folder / "gone.cu", "k", compiler=FakeCompiler())


def test_unit_instantiates_templates_only() -> None:
    path = Path("/r/k.cu")
    assert compiler.unit_of(path, "a::k") == '#include "/r/k.cu"\n'
    assert compiler.unit_of(path, "a::k<1>") == (
        '#include "/r/k.cu"\ntemplate __global__ decltype(a::k<1>) a::k<1>;\n'
    )


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no CUDA but what is put into the folder, which is CUDA_HOME."""
    home = tmp_path / "cuda"
    home.mkdir()
    monkeypatch.setenv("CUDA_HOME", str(home))
    for module in (nvrtc, nvcc):
        monkeypatch.setattr(module, "cuda_folders", lambda: [home])
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    monkeypatch.setattr("shutil.which", {"g++": "/usr/bin/g++"}.get)
    monkeypatch.setattr(compiler, "_search", functools.cache(compiler._search.__wrapped__))
    return home


def test_no_compiler(bare_machine: Path) -> None:
    with pytest.raises(NoCompilerError) as caught:
        compile_kernel(bare_machine.parent / "saxpy.cu", "saxpy::plain_kernel")
    assert str(caught.value) == (
        "compile: a CUDA compiler must be installed, got"
        " no libnvrtc (pip install 'openweek[cuda]' brings one) and"
        " no nvcc (pip install nvidia-cuda-nvcc nvidia-cuda-cccl brings one)"
        " (pip install 'openweek[cuda]')"
    )


def test_broken_library_is_named(bare_machine: Path) -> None:
    (bare_machine / "lib").mkdir()
    (bare_machine / "lib" / "libnvrtc.so.13").write_text("no library")
    (bare_machine / "include").mkdir()
    (bare_machine / "include" / "cuda_bf16.h").write_text("")
    with pytest.raises(NoCompilerError, match=r"libnvrtc\.so\.13 cannot be loaded"):
        nvrtc.find_nvrtc()


def test_library_without_headers(bare_machine: Path) -> None:
    (bare_machine / "lib").mkdir()
    (bare_machine / "lib" / "libnvrtc.so.13").write_text("")
    with pytest.raises(NoCompilerError, match="pip install nvidia-cuda-runtime"):
        nvrtc.find_nvrtc()


def install_nvrtc(home: Path, number: tuple[int, int], headers: int) -> None:
    """A library that knows its version only, and headers of CUDA `headers`."""
    if HOST_COMPILER is None:
        pytest.skip("a library in NVRTC's place (no g++)")
    for room in ("lib", "include"):
        (home / room).mkdir(parents=True)
    (home / "include" / "cuda_bf16.h").write_text("")
    (home / "include" / "cuda_runtime_api.h").write_text(f"#define CUDART_VERSION  {headers}\n")
    source = home / "nvrtc.cpp"
    source.write_text(
        'extern "C" int nvrtcVersion(int* major, int* minor)'
        f" {{ *major = {number[0]}; *minor = {number[1]}; return 0; }}\n"
        'extern "C" const char* nvrtcGetErrorString(int) { return "no"; }\n'
    )
    library = home / "lib" / "libnvrtc.so.13"
    subprocess.run([HOST_COMPILER, "-shared", "-fPIC", "-o", str(library), str(source)], check=True)


@pytest.mark.parametrize(
    ("number", "headers", "problem"),
    [((11, 8), 11080, "is CUDA 11, older than 12"), ((12, 8), 13000, "no CUDA headers for")],
)
def test_unusable_nvrtc(
    number: tuple[int, int], headers: int, problem: str, bare_machine: Path
) -> None:
    install_nvrtc(bare_machine, number, headers)
    with pytest.raises(NoCompilerError, match=problem):
        nvrtc.find_nvrtc()


def test_usable_nvrtc_wins(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = [bare_machine / name for name in ("mixed", "right", "other")]
    for home, headers in zip(homes, (13000, 12060, 12080), strict=True):
        install_nvrtc(home, (12, 8), headers)
    monkeypatch.setattr(nvrtc, "cuda_folders", lambda: homes[1:])
    found = nvrtc.find_nvrtc()
    assert found.location.startswith(str(homes[1]))
    assert found.version == "NVRTC 12.8 (headers 12.6)"
    monkeypatch.setattr(nvrtc, "cuda_folders", lambda: homes)
    found = nvrtc.find_nvrtc()
    assert found.location.startswith(str(homes[0]))
    assert found.version == "NVRTC 12.8 (headers 12.6)"


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "problem"),
    [("release 11.8, V11.8.89", "older than 12"), ("hello", "prints no version")],
)
def test_unusable_nvcc(version: str, problem: str, bare_machine: Path) -> None:
    write_program(bare_machine / "bin" / "nvcc", f"echo '{version}'")
    with pytest.raises(NoCompilerError, match=problem):
        nvcc.find_nvcc()


def test_nvcc_needs_a_host_compiler(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(bare_machine / "bin" / "nvcc", "echo 'release 13.0, V13.0.88'")
    assert nvcc.find_nvcc().number == (13, 0)
    monkeypatch.setattr("shutil.which", {}.get)
    with pytest.raises(NoCompilerError, match=r"no g\+\+"):
        nvcc.find_nvcc()


def test_cuda_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert cuda_folders.cuda_folders()[0] == tmp_path
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "gone"))
    assert tmp_path not in cuda_folders.cuda_folders()


@pytest.fixture(params=["nvrtc", "nvcc"])
def real_compiler(request: pytest.FixtureRequest) -> Compiler:
    return _installed(request.param)


def _installed(name: str) -> Compiler:
    finders: dict[str, Callable[[], Compiler]] = {
        "nvrtc": nvrtc.find_nvrtc,
        "nvcc": nvcc.find_nvcc,
    }
    try:
        return finders[name]()
    except NoCompilerError as problem:
        pytest.skip(f"compile ({problem})")


@pytest.mark.compile
def test_plain_kernel(real_compiler: Compiler, folder: Path) -> None:
    kernel = compile_kernel(folder / "saxpy.cu", "saxpy::plain_kernel", compiler=real_compiler)
    assert kernel.name == "_ZN5saxpy12plain_kernelEPfPKffm"
    assert f".visible .entry {kernel.name}(" in kernel.ptx
    assert ".target sm_90a" in kernel.ptx
    assert f'"{folder / "saxpy.cu"}"' in kernel.ptx  # of .file: -lineinfo
    assert kernel.ptx.endswith("\n")
    assert kernel.cubin.startswith(b"\x7fELF")
    assert f".text.{kernel.name}".encode() in kernel.cubin  # a section of code
    assert 4 <= kernel.report.registers <= 40
    assert kernel.report == dataclasses.replace(
        kernel.report, shared_bytes=0, stack_bytes=0, spill_store_bytes=0, spill_load_bytes=0
    )
    assert kernel.report.warnings == ()


@pytest.mark.compile
def test_template(real_compiler: Compiler, folder: Path) -> None:
    kernel = compile_kernel(
        folder / "saxpy.cu", "saxpy::rotate_kernel<256, __nv_bfloat16>", compiler=real_compiler
    )
    assert kernel.name == "_ZN5saxpy13rotate_kernelILi256E13__nv_bfloat16EEvPT0_"
    assert ".maxntid 256" in kernel.ptx
    assert kernel.report.shared_bytes == 256 * 4


@pytest.mark.compile
def test_spills_are_reported(real_compiler: Compiler, folder: Path) -> None:
    report = compile_kernel(
        folder / "saxpy.cu", "saxpy::spill_kernel", compiler=real_compiler
    ).report
    assert report.registers == 32
    assert min(report.stack_bytes, report.spill_store_bytes, report.spill_load_bytes) > 0


@pytest.mark.compile
def test_compilers_agree(folder: Path) -> None:
    both = [_installed("nvrtc"), _installed("nvcc")]
    expressions = ["saxpy::plain_kernel", "saxpy::rotate_kernel<64, float>"]
    for expression in expressions:
        one, other = (
            compile_kernel(folder / "saxpy.cu", expression, compiler=each) for each in both
        )
        assert one.name == other.name
        assert one.report.shared_bytes == other.report.shared_bytes
        assert abs(one.report.registers - other.report.registers) <= 8


@pytest.mark.compile
@pytest.mark.parametrize(
    ("wrong", "place", "text"),
    [
        ('#include "gone.cuh"\n', ("saxpy.cu", 1), "gone.cuh"),
        ("int x = y;\n", ("saxpy.cu", 1), 'identifier "y" is undefined'),
        (
            '__global__ void k(int* x) {\n  *x = 1;\n  asm volatile("fence.nobody;");\n}\n',
            ("saxpy.cu", 3),
            ".nobody",
        ),
    ],
    ids=["missing header", "C++", "inline PTX"],
)
def test_errors_name_the_line(
    wrong: str, place: tuple[str, int], text: str, real_compiler: Compiler, folder: Path
) -> None:
    (folder / "saxpy.cu").write_text(wrong)
    with pytest.raises(CompileError) as caught:
        compile_kernel(folder / "saxpy.cu", "k", compiler=real_compiler)
    assert (Path(caught.value.file).name, caught.value.line) == place
    assert text in str(caught.value)
    assert cache.usage().num_entries == 0


@pytest.mark.compile
def test_wrong_template_argument(real_compiler: Compiler, folder: Path) -> None:
    with pytest.raises(CompileError, match=r"instantiation\.cu\(2\): error.*float9"):
        compile_kernel(
            folder / "saxpy.cu", "saxpy::rotate_kernel<64, float9>", compiler=real_compiler
        )


@pytest.mark.compile
def test_serialised_wgmma_is_a_warning(real_compiler: Compiler, folder: Path) -> None:
    # An accumulator is touched between two products, so ptxas cannot let them run on.
    (folder / "serial.cu").write_text("""\
__global__ void __launch_bounds__(128) serial_kernel(float* out, long a, long b, int n) {
  float d[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    d[0] += 1.0f;
  }
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  for (int i = 0; i < 4; ++i) out[threadIdx.x * 4 + i] = d[i];
}
""")
    report = compile_kernel(folder / "serial.cu", "serial_kernel", compiler=real_compiler).report
    assert any("wgmma" in warning and "serialized" in warning for warning in report.warnings)
