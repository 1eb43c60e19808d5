"""What the host extension asks of the CUDA driver: with a fake one, and with none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csrc.cuda_folders import cuda_folders

ROOT = Path(__file__).parents[2]

PREPARE = """
import struct
import torch
from csrc.host import driver
from csrc.tensor_map import TensorMap

def prepare(**changes):
    settings = dict(
        cubin=b"image", name="kernel", device=3, block=(128, 2, 1), cluster=(1, 1, 1),
        dynamic_shared_bytes=0, programmatic=False, parameter_offsets=(0, 8, 16),
        parameter_bytes=24,
    )
    return driver().PreparedLaunch(**settings | changes)

parameters = struct.pack("<Qi4xq", 0x7F0000000010, -3, 2**40)
"""


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libcuda.so.1 that writes down its calls; built with NVIDIA's own cuda.h."""
    includes = [folder / "include" for folder in cuda_folders()]
    include = next((folder for folder in includes if (folder / "cuda.h").is_file()), None)
    if include is None:
        pytest.skip("cuda.h (pip install nvidia-cuda-runtime)")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_libcuda.cpp")
    command = ["g++", "-shared", "-fPIC", f"-I{include}", source, "-o", folder / "libcuda.so.1"]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture
def calls(fake_driver: Path, tmp_path: Path) -> "Calls":
    return Calls(fake_driver, tmp_path / "log")


class Calls:
    """Runs Python code on the fake driver."""

    def __init__(self, driver: Path, log: Path) -> None:
        self._driver, self._log = driver, log

    def of(self, code: str) -> list[str]:
        """Returns the driver calls that the code makes."""
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(self._driver),
            "FAKE_CUDA_LOG": str(self._log),
        }
        command = [sys.executable, "-c", PREPARE + code]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
        return self._log.read_text().splitlines()


def test_a_launch(calls: Calls) -> None:
    made = calls.of("prepare().run(parameters, 7, 8, 9, 0x55)")
    assert made == [
        "cuInit 0",
        "cuCtxPushCurrent 0x1003",
        "cuModuleLoadData image",
        "cuModuleGetFunction kernel",
        "cuCtxPopCurrent",
        "cuCtxPushCurrent 0x1003",
        (
            "cuLaunchKernelEx grid 7 8 9 block 128 2 1 shared 0 stream 0x55"
            f" values 7f0000000010 -3 {2**40}"
        ),
        "cuCtxPopCurrent",
        "cuCtxPushCurrent 0x1003",
        "cuModuleUnload",
        "cuCtxPopCurrent",
    ]


def test_a_launch_with_everything(calls: Calls) -> None:
    made = calls.of(
        "prepare(cluster=(2, 4, 2), dynamic_shared_bytes=232448, programmatic=True)"
        ".run(parameters, 2, 4, 2, 0)"
    )
    assert "cuFuncSetAttribute shared 232448" in made
    assert "cuFuncSetAttribute cluster 1" in made
    at = made.index("cluster 2 4 2")
    assert made[at + 1] == "programmatic 1"
    assert made[at + 2].startswith("cuLaunchKernelEx grid 2 4 2 block 128 2 1 shared 232448")


def test_a_tensor_map(calls: Calls) -> None:
    made = calls.of("""
described = TensorMap(
    dtype=torch.bfloat16, address=0x1230, sizes=(64, 1000, 3), strides=(160, 2**39),
    box=(64, 32, 1), element_strides=(1, 2, 1), swizzle_bytes=128, l2_promotion_bytes=64,
    fill="nan", device=torch.device("cpu"),
)
assert described.encode_for_driver() == bytes([0xab]) * 128
assert described.encode_for_driver() == bytes([0xab]) * 128
""")
    assert made == [
        "cuInit 0",
        "dim 64 0 64 1",
        "dim 1000 160 32 2",
        f"dim 3 {2**39} 1 1",
        "cuTensorMapEncodeTiled 0x1230 bf16 1 none 1 128B 1 64B 1 nan 1",
    ]


def test_an_error_carries_the_drivers_words_and_leaves_nothing_loaded(calls: Calls) -> None:
    made = calls.of("""
import os
for call, words in (
    ("cuInit", "cuInit"),
    ("cuModuleLoadData", "cuModuleLoadData"),
    ("cuModuleGetFunction", "cuModuleGetFunction"),
    ("cuFuncSetAttribute", "cuFuncSetAttribute(max dynamic shared memory)"),
    ("cuLaunchKernelEx", "cuLaunchKernelEx"),
):
    os.environ["FAKE_CUDA_FAIL"] = call
    try:
        prepare(dynamic_shared_bytes=1024).run(parameters, 1, 1, 1, 0)
    except RuntimeError as error:
        assert type(error).__name__ == "CudaError"
        assert str(error) == f"{words}: CUDA_ERROR_INVALID_VALUE (1): invalid argument", error
    else:
        raise AssertionError(call)
""")
    assert made.count("cuModuleLoadData image") == 4
    assert made.count("cuModuleUnload") == 3
    pushed = sum(call.startswith("cuCtxPushCurrent") for call in made)
    assert pushed == made.count("cuCtxPopCurrent") == 6


def test_parameters_of_another_size_are_refused(calls: Calls) -> None:
    made = calls.of("""
try:
    prepare().run(parameters + b"x", 1, 1, 1, 0)
except ValueError as error:
    assert str(error) == "launch: parameters must have 24 bytes, got 25", error
else:
    raise AssertionError("nothing was raised")
""")
    assert not any(call.startswith("cuLaunch") for call in made)


def test_without_a_driver_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")
    code = """
try:
    driver().driver_version()
except RuntimeError as error:
    assert str(error).startswith("no CUDA driver on this machine: "), error
    assert str(error).endswith("(install the NVIDIA driver, or use CPU tensors)"), error
else:
    raise AssertionError("nothing was raised")
"""
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", PREPARE + code]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120)
