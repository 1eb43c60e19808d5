"""Launches: what is refused before anything is launched, and what arrives where it runs."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

import csrc
from csrc.compiled import Report
from csrc.compiler import Kernel, compile_kernel
from csrc.launcher import Launcher, num_sms
from csrc.parameters import Map, Number, Pointer, Signature, Struct
from csrc.simulation import Launch
from csrc.simulator import MemoryRange
from csrc.tensor_map import TensorMap

KERNELS = Path(__file__).with_name("launch_kernels.cu")
PTX = """
.visible .entry kernel(
	.param .align 8 .b8 kernel_param_0[24],
	.param .align 64 .b8 kernel_param_1[128]
){directives}
{{ ret; }}
"""
SIGNATURE = Signature(
    Struct(
        "params",
        (
            Pointer("x", torch.float32, optional=True),
            Pointer("y", torch.float32, contiguous=False),
            Number("a", "f32"),
            Number("n", "i32"),
        ),
    ),
    Map("map"),
)
X, Y = torch.ones(16, 4), torch.zeros(4, 8).t()
MAP = TensorMap.of(torch.zeros(64, 64), (8, 8))


def kernel(directives: str = "", static_bytes: int = 48) -> Kernel:
    report = Report(32, static_bytes, 0, 0, 0, ())
    return Kernel("kernel", PTX.format(directives=directives), b"", report)


def launcher(**settings: Any) -> Launcher:
    changes = {"kernel": kernel(), "signature": SIGNATURE, "block": (128, 1, 1)} | settings
    return Launcher(changes.pop("kernel"), changes.pop("signature"), op="op", **changes)


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """What a simulation would have run."""
    kept: list[Launch] = []

    class Recorder:
        launch = kept.append

    monkeypatch.setattr("csrc.launcher.active", Recorder)
    return kept


def test_a_simulation_gets_everything_that_a_launch_is(launches: list[Launch]) -> None:
    ready = launcher(block=(32, 4, 2), cluster=(2, 1, 1), smem_bytes=4096)
    ready(X, Y, 0.5, -7, MAP, grid=(6, 5, 4))
    ready(None, Y, 1, 0, MAP, grid=(2, 1, 1))
    first, second = launches
    assert (first.grid, first.block, first.cluster) == ((6, 5, 4), (32, 4, 2), (2, 1, 1))
    assert first.smem_bytes == 4096
    assert first.kernel.name == "kernel"
    assert first.memory == (
        MemoryRange("x", X.data_ptr(), 16 * 4 * 4),
        MemoryRange("y", Y.data_ptr(), 32 * 4),
        MemoryRange("map", MAP.address, 64 * 64 * 4),
    )
    expected = (
        X.data_ptr().to_bytes(8, "little")
        + Y.data_ptr().to_bytes(8, "little")
        + bytes(ctypes.c_float(0.5))
        + bytes(ctypes.c_int32(-7))
        + bytes(64 - 24)
        + MAP.encode_for_simulator()
    )
    assert first.parameters == expected
    assert second.parameters[:8] == bytes(8)
    assert [memory.name for memory in second.memory] == ["y", "map"]


@pytest.mark.parametrize(
    ("tensor", "num_bytes"),
    [
        (torch.zeros(7, 9)[2:5, 3:5], (2 * 9 + 2) * 4),
        (torch.zeros(1).expand(5, 5), 4),
        (torch.zeros(0, 3), 0),
        (torch.zeros(()), 4),
    ],
    ids=["slice", "expanded", "empty", "scalar"],
)
def test_memory_is_that_of_the_view_alone(
    tensor: torch.Tensor, num_bytes: int, launches: list[Launch]
) -> None:
    launcher()(X, tensor, 1, 1, MAP, grid=(1, 1, 1))
    assert launches[0].memory[1] == MemoryRange("y", tensor.data_ptr(), num_bytes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": (0, 1, 1)}, "block.x must be between 1 and 1024, got 0"),
        ({"block": (1, 1, 65)}, "block.z must be between 1 and 64, got 65"),
        ({"block": (64, 17, 1)}, "the threads of block must be between 1 and 1024, got 1088"),
        ({"cluster": (0, 1, 1)}, "cluster.x must be between 1 and 16, got 0"),
        ({"cluster": (4, 5, 1)}, "the CTAs of cluster must be between 1 and 16, got 20"),
        ({"smem_bytes": -1}, "smem_bytes must be between 0 and 232400, got -1"),
        (
            {"smem_bytes": 232401},
            (
                r"smem_bytes must be between 0 and 232400, got 232401 \(the kernel has 48 static"
                r" bytes of the 232448 of a CTA\)"
            ),
        ),
        (
            {"signature": Signature(Map("map"))},
            (
                r"signature must have \(offset, bytes\) \(\(0, 24\), \(64, 128\)\) as in the"
                r" kernel's PTX, got \(\(0, 128\),\)"
            ),
        ),
        (
            {"kernel": kernel(".maxntid 64, 1, 1")},
            "the threads of block must be between 1 and 64, got 128",
        ),
        (
            {"kernel": kernel(".reqntid 64, 2, 1")},
            r"block must be the kernel's \(64, 2, 1\), got \(128, 1, 1\)",
        ),
        (
            {"kernel": kernel(".reqnctapercluster 2")},
            r"cluster must be the kernel's \(2, 1, 1\), got \(1, 1, 1\)",
        ),
    ],
    ids=str,
)
def test_refuses_a_launcher_that_could_not_launch(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^op: {message}"):
        launcher(**changes)


def test_accepts_the_limits_themselves() -> None:
    launcher(block=(16, 1, 64), cluster=(4, 2, 2), smem_bytes=232448 - 48)
    agreeing = kernel(".maxntid 128, 1, 1 .reqntid 128 .reqnctapercluster 2, 1, 1")
    launcher(kernel=agreeing, cluster=(2, 1, 1))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, Y, 1.0, 1), TypeError, "arguments must be 5: x, y, a, n, map, got 4"),
        ((X, Y, 1.0, 1, MAP, 1), TypeError, "arguments must be 5: x, y, a, n, map, got 6"),
        ((X.double(), Y, 1.0, 1, MAP), TypeError, "x must have dtype float32, got float64"),
        ((Y, Y, 1.0, 1, MAP), ValueError, "x must be contiguous"),
        ((X.numpy(), Y, 1.0, 1, MAP), TypeError, "x must be a tensor, got ndarray"),
        ((X.numpy(), None, 1.0, 1, None), TypeError, "x must be a tensor, got ndarray"),
        ((X, None, 1.0, 1, MAP), TypeError, "y must be a tensor, got NoneType"),
        ((X, Y, 1.0, 1.0, MAP), TypeError, "n must be an int, got float"),
        ((X, Y, 1.0, 2**31, MAP), ValueError, "n must fit in i32, got 2147483648"),
        ((X, Y, 1.0, 1, X), TypeError, "map must be a TensorMap, got Tensor"),
        (
            (X, Y.to("meta"), 1.0, 1, MAP),
            ValueError,
            r"y must be on cpu like x, got meta \(move it with .to\(\)\)",
        ),
        (
            (X.to("meta"), Y.to("meta"), 1.0, 1, MAP),
            ValueError,
            "map must be on meta like x, got cpu",
        ),
    ],
    ids=str,
)
def test_refuses_arguments_and_launches_nothing(
    arguments: tuple[Any, ...], error: type[Exception], message: str, launches: list[Launch]
) -> None:
    with pytest.raises(error, match=f"^op: {message}"):
        launcher()(*arguments, grid=(1, 1, 1))
    assert not launches


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((0, 2, 1), "grid.x must be between 1 and 2147483647, got 0"),
        ((2**31, 2, 1), "grid.x must be between 1 and 2147483647, got 2147483648"),
        ((4, 65536, 1), "grid.y must be between 1 and 65535, got 65536"),
        ((4, 2, 65536), "grid.z must be between 1 and 65535, got 65536"),
        ((4, 3, 1), r"grid must be a multiple of cluster \(2, 2, 1\), got \(4, 3, 1\)"),
        ((3, 2, 1), r"grid must be a multiple of cluster \(2, 2, 1\), got \(3, 2, 1\)"),
    ],
    ids=str,
)
def test_refuses_grids(grid: tuple[int, int, int], message: str, launches: list[Launch]) -> None:
    with pytest.raises(ValueError, match=f"^op: {message}"):
        launcher(cluster=(2, 2, 1))(X, Y, 1, 1, MAP, grid=grid)
    assert not launches


def test_cpu_tensors_need_a_simulation() -> None:
    with pytest.raises(NotImplementedError, match=r"^op: arguments must be on a CUDA device.*sim"):
        launcher()(X, Y, 1, 1, MAP, grid=(1, 1, 1))


def test_the_number_of_sms_is_that_of_the_simulation() -> None:
    with csrc.simulate(num_sms=6):
        assert num_sms(X.device) == 6
    with pytest.raises(NotImplementedError, match="device must be a CUDA device, got cpu"):
        num_sms(X.device)


def test_something_must_say_where_to_run() -> None:
    ptx = ".entry kernel(.param .u32 kernel_param_0) { ret; }"
    numbers_only = Kernel("kernel", ptx, b"", Report(32, 0, 0, 0, 0, ()))
    with pytest.raises(ValueError, match=r"^op: arguments must hold a tensor or a tensor map"):
        launcher(kernel=numbers_only, signature=Signature(Number("n", "i32")))(1, grid=(1, 1, 1))


AXPY = Signature(
    Struct(
        "params",
        (
            Pointer("x", torch.float32, optional=True),
            Pointer("y", torch.float32),
            Number("a", "f32"),
            Number("n", "i32"),
        ),
    )
)
COPY_BOX = Signature(
    Map("map"),
    Pointer("box", torch.int32),
    Pointer("shape", torch.int32),
    Number("column", "i32"),
    Number("row", "i32"),
    Number("num_elements", "i32"),
)


def compiled(name: str, signature: Signature, **settings: Any) -> Launcher:
    return Launcher(
        compile_kernel(KERNELS, f"openweek::tests::{name}"), signature, op=name, **settings
    )


@pytest.mark.compile
def test_signatures_agree_with_what_the_compiler_makes() -> None:
    compiled("axpy", AXPY, block=(256, 1, 1))
    compiled("copy_box", COPY_BOX, block=(256, 1, 1), cluster=(2, 1, 1), smem_bytes=2**16)
    with pytest.raises(ValueError, match=r"^axpy: signature must have .*\(\(0, 24\),\)"):
        compiled("axpy", COPY_BOX, block=(256, 1, 1))


devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.mark.compile
@devices
@pytest.mark.parametrize("n", [1, 255, 256, 257, 2_003])
@pytest.mark.parametrize("programmatic", [False, True])
def test_axpy(device: str, n: int, programmatic: bool, seed: int) -> None:
    x, y = torch.randn(2, n + 1, device=device).unbind()
    expected = y + 2.5 * x + 0.5
    expected[n] = y[n]
    axpy = compiled("axpy", AXPY, block=(256, 1, 1), programmatic=programmatic)
    with csrc.simulate(seed=seed):
        axpy(x, y, 2.5, n, grid=(-(-n // 256), 1, 1))
        axpy(None, y, 0.5, n, grid=(-(-n // 256), 1, 1))
    torch.testing.assert_close(y, expected)


@pytest.mark.compile
@devices
@pytest.mark.parametrize(
    ("cluster", "smem_bytes"), [((1, 1, 1), 4096), ((2, 2, 1), 65536), ((16, 1, 1), 100_000)]
)
def test_a_box(device: str, cluster: tuple[int, int, int], smem_bytes: int) -> None:
    source = torch.arange(100 * 64, dtype=torch.int32, device=device).view(100, 64)
    box = torch.full((16, 32), -1, dtype=torch.int32, device=device)
    shape = torch.full((10,), -1, dtype=torch.int32, device=device)
    copy_box = compiled(
        "copy_box", COPY_BOX, block=(128, 2, 1), cluster=cluster, smem_bytes=smem_bytes
    )
    grid = (cluster[0], 2 * cluster[1], 1)
    with csrc.simulate():
        copy_box(TensorMap.of(source, (16, 32)), box, shape, 8, 90, 16 * 32, grid=grid)
    expected = torch.zeros_like(box)
    expected[:10] = source[90:, 8:40]  # rows beyond the tensor are zeros
    assert torch.equal(box, expected)
    assert shape.tolist() == [*grid, 128, 2, 1, smem_bytes, *cluster]


@pytest.mark.gpu
@pytest.mark.compile
def test_a_launch_is_on_the_current_stream() -> None:
    y, one = torch.zeros(256, device="cuda"), torch.ones((), device="cuda")
    axpy = compiled("axpy", AXPY, block=(256, 1, 1))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        y.add_(one)
        axpy(None, y, 1.0, 256, grid=(1, 1, 1))  # waits for its stream: 2, then doubled
        y.mul_(2)
    torch.cuda.current_stream().wait_stream(stream)
    assert y.unique().tolist() == [4.0]


@pytest.mark.gpu
@pytest.mark.compile
def test_a_launch_is_captured_in_a_graph() -> None:
    y = torch.zeros(256, device="cuda")
    axpy = compiled("axpy", AXPY, block=(256, 1, 1))
    axpy(None, y, 1.0, 256, grid=(1, 1, 1))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        axpy(None, y, 2.0, 256, grid=(1, 1, 1))
    graph.replay()
    graph.replay()
    assert y.unique().tolist() == [5.0]


@pytest.mark.gpu
@pytest.mark.compile
def test_the_driver_refuses_in_its_own_words() -> None:
    y = torch.zeros(256, device="cuda")
    broken = compile_kernel(KERNELS, "openweek::tests::axpy")
    broken = Kernel(broken.name, broken.ptx, broken.cubin[:64] + bytes(64), broken.report)
    launcher_of_it = Launcher(broken, AXPY, op="axpy", block=(256, 1, 1))
    with pytest.raises(RuntimeError, match=r"^cuModuleLoadData: CUDA_ERROR_\w+ \(\d+\): "):
        launcher_of_it(None, y, 1.0, 256, grid=(1, 1, 1))


@pytest.mark.multigpu
@pytest.mark.compile
def test_launches_on_the_device_of_the_arguments() -> None:
    axpy = compiled("axpy", AXPY, block=(256, 1, 1))
    for index in (1, 0):
        y = torch.zeros(256, device=f"cuda:{index}")
        axpy(None, y, 1.0, 256, grid=(1, 1, 1))
        assert y.unique().tolist() == [1.0]
