"""`python -m csrc doctor` and `build`: what they find, say, and exit with."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from csrc import __main__ as command
from csrc import build, cache, doctor
from csrc.compiled import Compiled, CompileError, NoCompilerError, Report
from csrc.compiler import Kernel
from csrc.driver import Driver, Gpu, find_driver
from csrc.kernels import Instantiation
from csrc.native import NativeBuildError

HOPPER, ADA = Gpu("NVIDIA H200", (9, 0)), Gpu("NVIDIA L4", (8, 9))


class Compiler13:
    """A compiler of CUDA 13, as far as the doctor asks."""

    version = identity = "NVRTC 13.5"
    number = (13, 5)
    location = "there"

    def compile(self, *_: object) -> Compiled:
        raise NotImplementedError


def states(findings: list[doctor.Finding]) -> list[str]:
    return [finding.state for finding in findings]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENWEEK_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_one_compiler_is_enough() -> None:
    one = Compiler13()
    assert states(list(doctor.compiler_findings(one, one))) == ["ok", "ok"]
    assert states(list(doctor.compiler_findings(one, "no nvcc"))) == ["ok", "absent"]
    assert states(list(doctor.compiler_findings("no libnvrtc", one))) == ["absent", "ok"]
    findings = list(doctor.compiler_findings("no libnvrtc", "no nvcc"))
    assert states(findings) == ["missing", "missing"]
    assert all("pip install 'openweek[cuda]'" in finding.text for finding in findings)


DRIVERS = {
    "none": (None, ["absent"], "simulator only"),
    "a Hopper GPU": (Driver((13, 0), (HOPPER,), ""), ["ok", "ok"], "H200, compute capability 9.0"),
    "two sorts": (Driver((13, 0), (HOPPER, ADA), ""), ["ok", "ok", "absent"], "cannot run"),
    "no GPU": (Driver((13, 0), (), ""), ["ok"], "CUDA 13.0"),
    "too old": (Driver((12, 8), (HOPPER,), ""), ["missing", "ok"], "install a compiler of CUDA 12"),
    "does not start": (
        Driver((13, 0), (), "CUDA_ERROR_NO_DEVICE"),
        ["missing"],
        "does not start: CUDA_ERROR_NO_DEVICE",
    ),
}


@pytest.mark.parametrize(("driver", "expected", "text"), DRIVERS.values(), ids=DRIVERS)
def test_drivers(driver: Driver | None, expected: list[str], text: str) -> None:
    findings = list(doctor.driver_findings(driver, Compiler13()))
    assert states(findings) == expected
    assert text in doctor.rendered(findings)


def test_old_driver_matters_only_to_a_compiler() -> None:
    (finding, _) = doctor.driver_findings(Driver((12, 8), (HOPPER,), ""), "no compiler")
    assert finding.state == "ok"


LIBCUDA = """
#include <cstring>
extern "C" {
int cuDriverGetVersion(int* version) { *version = 13010; return 0; }
int cuInit(unsigned) { return STATUS; }
int cuGetErrorName(int status, const char** name) {
  *name = status == 100 ? "CUDA_ERROR_NO_DEVICE" : nullptr;
  return 0;
}
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char* name, int, int device) {
  std::strcpy(name, device == 7 ? "NVIDIA H200" : "NVIDIA L4");
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? (device == 7 ? 9 : 8) : (device == 7 ? 0 : 9);
  return 0;
}
}
"""


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, Driver((13, 1), (HOPPER, ADA), "")),
        (100, Driver((13, 1), (), "CUDA_ERROR_NO_DEVICE")),
        (999, Driver((13, 1), (), "CUDA error 999")),
    ],
)
def test_driver_is_asked(
    status: int, expected: Driver, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("a library in the driver's place (no g++)")
    (folder / "cuda.cpp").write_text(LIBCUDA)
    library = folder / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", f"-DSTATUS={status}", "-o", str(library)]
    subprocess.run([*command, str(folder / "cuda.cpp")], check=True)
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load(str(folder / name)))
    assert find_driver() == expected


def test_no_driver(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda name: load(str(folder / name)))
    assert find_driver() is None


@pytest.mark.gpu
def test_driver_of_this_machine() -> None:
    driver = find_driver()
    assert driver is not None
    assert driver.version >= (12, 0)
    assert driver.gpus
    assert driver.error == ""


def test_table_is_aligned() -> None:
    findings = [doctor.Finding("g++", "ok", "/bin/g++"), doctor.Finding("driver", "absent", "no")]
    assert doctor.rendered(findings) == "ok       g++     /bin/g++\nabsent   driver  no"


def missing(text: str) -> Callable[[], Compiler13]:
    def find() -> Compiler13:
        raise NoCompilerError(text)

    return find


def test_healthy_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    cache.get("kernels", cache.key_of(["one"]), lambda entry: (entry / "a").write_bytes(bytes(10)))
    monkeypatch.setattr(doctor, "find_nvrtc", Compiler13)
    monkeypatch.setattr(doctor, "find_nvcc", missing("no nvcc (mend it)"))
    monkeypatch.setattr(doctor, "find_driver", lambda: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda program, **_: f"/bin/{program}")
    assert command.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "ok       NVRTC   NVRTC 13.5 at there\n" in text
    assert "absent   nvcc    no nvcc (mend it)\n" in text
    assert f"{folder / 'cache'}: 1 entries, 0.0 MB\n" in text
    assert "missing" not in text


def test_sick_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("OPENWEEK_CACHE", str(folder / "file"))
    monkeypatch.setattr(doctor, "find_nvrtc", missing("no libnvrtc"))
    monkeypatch.setattr(doctor, "find_nvcc", missing("no nvcc"))
    monkeypatch.setattr(doctor, "find_driver", lambda: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    assert command.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("missing")] == [
        ["missing", subject] for subject in ("NVRTC", "nvcc", "g++", "cache")
    ]
    assert "not writable (set OPENWEEK_CACHE)" in lines[-1]
    assert "apt-get install g++" in lines[-2]


KERNELS = (
    Instantiation("a.cu", "a::fine<1>"),
    Instantiation("b.cu", "b::spilling"),
    Instantiation("c.cu", "c::wrong"),
)
REPORTS = {
    "a.cu": Report(168, 1024, 0, 0, 0, ()),
    "b.cu": Report(255, 0, 96, 120, 144, ("(C7510) Potential Performance Loss",)),
}


def compile_one(source: str, expression: str) -> Kernel:
    if source not in REPORTS:
        raise CompileError(f"{source}(3): error: wrong")
    return Kernel(expression, "", b"", REPORTS[source])


def test_build(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def compile_all(kernels: tuple[Instantiation, ...]) -> list[tuple[Instantiation, object]]:
        done = build.compile_all(kernels, compile_one)
        return sorted(done, key=lambda outcome: kernels.index(outcome[0]), reverse=True)

    monkeypatch.setattr(command, "KERNELS", KERNELS)
    monkeypatch.setattr(command, "compile_all", compile_all)
    monkeypatch.setattr(command, "find_compiler", Compiler13)
    assert command.main(["build"]) == 1
    captured = capsys.readouterr()
    assert captured.err == ""  # no progress line where nobody sees it
    assert captured.out.startswith(
        "NVRTC 13.5\n"
        "kernel       registers  static smem  stack  spill stores  spill loads\n"
        "a::fine<1>         168         1024      0             0            0\n"
        "b::spilling        255            0     96           120          144\n"
        "b::spilling: (C7510) Potential Performance Loss\n"
        "c::wrong: compile: source must compile, got c.cu(3): error: wrong ("
    )
    assert captured.out.endswith("2 of 3 kernels compiled\n")


def test_build_of_sound_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "KERNELS", KERNELS[:2])
    monkeypatch.setattr(command, "compile_all", lambda k: build.compile_all(k, compile_one))
    monkeypatch.setattr(command, "find_compiler", Compiler13)
    assert command.main(["build"]) == 0


def test_progress_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "KERNELS", KERNELS[:2])
    monkeypatch.setattr(command, "compile_all", lambda k: build.compile_all(k, compile_one))
    monkeypatch.setattr(command, "find_compiler", Compiler13)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    command.main(["build"])
    shown = capsys.readouterr().err.split("\r\x1b[K")
    assert shown == ["", "0 of 2 kernels", "1 of 2 kernels", ""]


def test_all_of_it_brings_the_cpp_parts_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = []

    def refused() -> None:
        raise NativeBuildError("native.build: the C++ does not compile")

    monkeypatch.setattr(command, "KERNELS", KERNELS[:1])
    monkeypatch.setattr(command, "compile_all", lambda k: build.compile_all(k, compile_one))
    monkeypatch.setattr(command, "find_compiler", Compiler13)
    parts = {"launcher": lambda: built.append("launcher"), "simulator": lambda: None}
    monkeypatch.setattr(command, "CPP_PARTS", parts)
    assert command.main(["build"]) == 0
    assert built == []
    capsys.readouterr()
    assert command.main(["build", "--all"]) == 0
    assert built == ["launcher"]
    assert capsys.readouterr().out.endswith(
        "1 of 1 kernels compiled\nlauncher (C++): ready\nsimulator (C++): ready\n"
    )
    parts["launcher"] = refused
    assert command.main(["build", "--all"]) == 1
    captured = capsys.readouterr()
    assert captured.out.endswith("simulator (C++): ready\n")
    assert captured.err == "launcher (C++): native.build: the C++ does not compile\n"


def test_build_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_compiler", missing("compile: a CUDA compiler must be"))
    assert command.main(["build"]) == 1
    assert "a CUDA compiler must be" in capsys.readouterr().err


def test_error_that_is_no_kernels_stops_the_build() -> None:
    def broken(_source: str, _expression: str) -> Kernel:
        raise cache.CacheError("full")

    with pytest.raises(cache.CacheError, match="full"):
        list(build.compile_all(KERNELS, broken))


@pytest.mark.parametrize("argv", [[], ["cure"]])
def test_mistakes_in_the_command(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(argv)
    assert caught.value.code == 2
    assert "python -m csrc" in capsys.readouterr().err
