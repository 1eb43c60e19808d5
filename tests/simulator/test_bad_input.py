"""What a user may get wrong: each is one error that names the line or the argument."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from csrc import simulator
from tests.simulator.parsing import HEADER, TEXTS, entry
from tests.simulator.running import source

_TRUNCATED = (TEXTS / "traps.ptx").read_text(encoding="utf-8")[:6000]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected .version, got the end of the text"),
        (" \n\t\n", "line 3, column 1: expected .version, got the end of the text"),
        (
            HEADER.replace("sm_90a", "sm_80"),
            "9: expected the target sm_90 or sm_90a, got 'sm_80'\n  .target sm_80\n          ^",
        ),
        (HEADER.replace("sm_90a", "sm_100a"), "sm_90 or sm_90a, got 'sm_100a'"),
        (HEADER.replace(".target sm_90a\n", ""), "line 2, column 1: expected .target, got '.add"),
        (HEADER.replace("64", "32"), "line 3, column 15: expected addresses of 64 bits, got '32'"),
        (HEADER.replace("8.7", "7.7"), "expected a version of PTX from 7.8 to 9.9, got '7.7'"),
        (HEADER.replace("8.7", "10.0"), "expected a version of PTX from 7.8 to 9.9, got '10.0'"),
        (HEADER.replace("8.7", "8"), "expected a version of PTX from 7.8 to 9.9, got '8'"),
        (HEADER.replace("8.7", "8.10"), "line 1, column 10: expected a version of PTX"),
        (HEADER.replace("8.7", "9" * 50 + ".0"), "expected a version of PTX from 7.8"),
        (
            entry("  mov.b32 %r1, [;").replace("\n}", "") + ".reg",
            "line 5, column 11: unknown name '%r1'\n    mov.b32 %r1, [;\n            ^",
        ),
        (entry(".reg .b32 %r; add.u32 %r, %r"), "line 6, column 1: expected ',' or ';', got '}'"),
        (
            entry(".reg .b32 %r<4>;\n\tadd.u32\t%r1, %r2 %r3;"),
            "line 6, column 19: expected ',' or ';', got '%r3'\n"
            "   add.u32 %r1, %r2 %r3;\n" + " " * 20 + "^",
        ),
        (_TRUNCATED, "expected"),
        (
            HEADER + ".visible .entry kernel() {",
            "line 4, column 27: expected an instruction or '}'",
        ),
        (
            "\x7fELF\x02\x01\x01\0\0",
            "line 1, column 1: unexpected character 0x7f\n  ?ELF?????\n  ^",
        ),
        (entry('.file 1 "é\u2028";\n§'), "line 6, column 1: unexpected character 0xc2\n  ??\n  ^"),
        (
            HEADER + ".entry a(){ret;}\n.entry a(){ret;}",
            "line 5, column 8: second definition of 'a'",
        ),
    ],
)
def test_texts(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^line \d+, column \d+: ") as raised:
        simulator.load(text)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_long_line_is_shown_around_its_column() -> None:
    text = entry(
        ".reg .b32 %r; " + "add.u32 %r, %r, %r; " * 20 + "add.u32 %r, %r ]; // " + "x" * 200
    )
    with pytest.raises(
        ValueError, match=r"^line 5, column 430: expected ',' or ';', got ']'"
    ) as raised:
        simulator.load(text)
    _, shown, mark = str(raised.value).split("\n")
    assert len(shown) == 102
    assert shown[mark.index("^")] == "]"


@pytest.mark.parametrize("given", [b"\x7fELF", None, 3, Path("kernel.ptx")])
def test_no_text_at_all(given: Any) -> None:
    with pytest.raises(
        TypeError, match=r"^load: ptx_text must be a str of PTX, no file and no cub"
    ):
        simulator.load(given)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("tcgen05.alloc.b32 [%rd0], 1;", "tcgen05.alloc.b32: .* does not know this instruction"),
        ("add.s32.what %r1, %r0, 1;", "add.s32.what: the simulator does not know .what here"),
        ("add.u32 %r1, %rd1, 1;\nadd.u32 %rd1, %r1, 1;", "destination has another width"),
        ("add.u32 %r1, %p1, 1;", "a predicate stands where a value is expected"),
        ("add.u32 %r1, %r2;", "operand 3 is missing"),
    ],
)
def test_instructions(body: str, message: str) -> None:
    module = simulator.load(source(body))
    line = 15 + body.count("\n")
    with pytest.raises(NotImplementedError, match=rf"^line {line}: \S+: ") as raised:
        module["kernel"]
    assert re.search(message, str(raised.value))


def test_names_of_kernels() -> None:
    text = (
        HEADER + ".func helper() { ret; }\n.extern .func (.param .b32 r) vprintf(.param .b64 a);\n"
    )
    module = simulator.load(text + ".entry matmul_bf16() { ret; }\n.entry softmax() { ret; }\n")
    assert module.kernels() == ["matmul_bf16", "softmax"]
    assert module["softmax"].name == "softmax"
    near = r"no kernel matmul_bf61 \(did you mean matmul_bf16\?\); it has matmul_bf16, softmax$"
    for name, message in (
        ("matmul_bf61", near),
        ("xyz", r"no kernel xyz; it has matmul_bf16, softmax$"),
        ("helper", "helper is a function that kernels call, and no kernel$"),
        ("vprintf", "vprintf is a function that kernels call, and no kernel$"),
        (0, "no kernel 0; it has"),
    ):
        with pytest.raises(ValueError, match=f"^load: .*{message}"):
            module[name]  # type: ignore[index]
    with pytest.raises(ValueError, match=r"^load: the module has no kernel a; it has none$"):
        simulator.load(HEADER)["a"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"devices": 0}, ValueError, "devices must be at least 1 and at most 1024, got 0"),
        ({"devices": 2**31}, ValueError, "devices must be at least 1 and at most 1024"),
        ({"devices": 10**6000}, ValueError, "devices must have at most 128 bits, got an integer"),
        ({"sms": "4"}, TypeError, "sms must be an integer, got '4'"),
        ({"sms": 1.0}, TypeError, "sms must be an integer, got 1.0"),
        ({"sms": True}, TypeError, "sms must be an integer, got True"),
        ({"seed": None}, TypeError, "seed must be an integer, got None"),
        (
            {"seed": torch.zeros(2)},
            TypeError,
            "seed must be an integer, got a tensor of torch.float",
        ),
        ({"max_instructions": 0}, ValueError, "max_instructions must be at least 1"),
    ],
)
def test_machines(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^Machine: {re.escape(message)}"):
        simulator.Machine(**options)


_BODY = "mad.wide.u32 %rd5, %r0, 4, %rd0; st.global.u32 [%rd5], %r0;"


class _OnGpu(torch.Tensor):
    """A tensor that says it is on a GPU, where its address would be one of the GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


def _emptied() -> torch.Tensor:
    tensor = torch.zeros(32)
    tensor.untyped_storage().resize_(0)
    return tensor


_ZEROS = torch.zeros(32)
_ON_GPU = torch.zeros(32).as_subclass(_OnGpu)
_CPU = "must be a contiguous CPU tensor"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "kernel"}, TypeError, "kernel must be one of a module, got 'kernel'"),
        ({"grid": 1.5}, TypeError, "grid must be an integer, got 1.5"),
        ({"grid": (1, "2")}, TypeError, "grid must be an integer, got '2'"),
        ({"grid": ()}, ValueError, "grid must have one to three numbers, got ()"),
        ({"grid": (1, 1, 1, 1)}, ValueError, "grid must have one to three numbers"),
        ({"grid": (1, 0)}, ValueError, "grid must be positive, got (1, 0, 1)"),
        ({"grid": 2**31}, ValueError, "grid must be at most (2147483647, 65535, 65535)"),
        ({"grid": (1, 65536)}, ValueError, "grid must be at most (2147483647, 65535, 65535), got"),
        ({"grid": (1, 1, 65536)}, ValueError, "grid must be at most"),
        ({"grid": 10**6000}, ValueError, "grid must have at most 128 bits"),
        ({"block": 1025}, ValueError, "block must have at most 1024 threads, got (1025, 1, 1)"),
        ({"block": (32, 33)}, ValueError, "block must have at most 1024 threads"),
        ({"block": (1, 1, 65)}, ValueError, "block must be at most (1024, 1024, 64)"),
        ({"block": -32}, ValueError, "block must be positive, got (-32, 1, 1)"),
        ({"block": None}, TypeError, "block must be an integer, got None"),
        ({"grid": 3, "cluster": 2}, ValueError, "cluster must divide grid, got (2, 1, 1) and (3"),
        ({"grid": (4, 3), "cluster": (2, 2)}, ValueError, "cluster must divide grid"),
        ({"grid": 17, "cluster": 17}, ValueError, "cluster must have at most 16 CTAs"),
        ({"smem_bytes": 232449}, ValueError, "smem_bytes must be within 0 and 232448 for kernel"),
        ({"smem_bytes": -1}, ValueError, "smem_bytes must be within 0 and"),
        ({"smem_bytes": 1.0}, TypeError, "smem_bytes must be an integer, got 1.0"),
        ({"device": 2}, ValueError, "device must be below 2, got 2"),
        ({"device": -1}, ValueError, "device must be below 2, got -1"),
        ({"device": "cuda:0"}, TypeError, "device must be an integer, got 'cuda:0'"),
        ({"args": []}, ValueError, "args must have one entry for each of the 1 parameters of kern"),
        (
            {"args": [_ZEROS, 1]},
            ValueError,
            "args must have one entry for each of the 1 parameters of kernel, got 2",
        ),
        (
            {"args": _ZEROS},
            TypeError,
            "args must be a list or a tuple, got a tensor of torch.float",
        ),
        ({"args": 5}, TypeError, "args must be a list or a tuple, got 5"),
        ({"args": ["x"]}, TypeError, "args[0] must be a tensor, a number or bytes, got 'x'"),
        ({"args": [None]}, TypeError, "args[0] must be a tensor, a number or bytes, got None"),
        (
            {"args": [np.zeros(4)]},
            TypeError,
            "args[0] must be a tensor, a number or bytes, got arr",
        ),
        ({"args": [b"1234567"]}, ValueError, "args[0] must have 8 bytes, got 7"),
        ({"args": [2**64]}, ValueError, "args[0] must fit in 8 bytes, got 18446744073709551616"),
        ({"args": [10**6000]}, ValueError, "args[0] must fit in 8 bytes, got an integer of 19932"),
        ({"args": [-(2**63) - 1]}, ValueError, "args[0] must fit in 8 bytes"),
        ({"args": [_ZEROS[::2]]}, ValueError, f"args[0] {_CPU} (use .contiguous())"),
        ({"args": [_ZEROS.to("meta")]}, ValueError, f"args[0] {_CPU}, got one on meta"),
        ({"args": [_ON_GPU]}, ValueError, f"args[0] {_CPU}, got one on cuda:0"),
        (
            {"args": [_ZEROS.view(4, 8).to_sparse()]},
            ValueError,
            f"args[0] {_CPU}, got one on cpu of",
        ),
        ({"args": [_emptied()]}, ValueError, "args[0] must have memory, its storage has been emp"),
        ({"memory": _ZEROS}, TypeError, "memory must be a list or a tuple, got a tensor"),
        ({"memory": [1]}, TypeError, "memory[0] must be a tensor, got 1"),
        ({"memory": [_ZEROS, _ON_GPU]}, ValueError, f"memory[1] {_CPU}, got one on cuda:0"),
        ({"memory": [_ZEROS.to("meta")]}, ValueError, f"memory[0] {_CPU}, got one on meta"),
        ({"memory": [_emptied()]}, ValueError, "memory[0] must have memory"),
    ],
    ids=lambda value: f"{value!s:.60}" if isinstance(value, str) else "",
)
def test_launches(options: dict[str, Any], error: type[Exception], message: str) -> None:
    kernel = simulator.load(source(_BODY, 1))["kernel"]
    machine = simulator.Machine(devices=2)
    given = {"kernel": kernel, "grid": 1, "block": 32, "args": [_ZEROS], **options}
    with pytest.raises(error, match=f"^launch: {re.escape(message)}"):
        machine.launch(**given)
    with pytest.raises(RuntimeError, match=r"^run: nothing is launched"):
        machine.run()


@pytest.mark.parametrize(
    ("directives", "options", "message"),
    [
        (".reqntid 64", {"block": 32}, "block must be [64] for kernel, got (32, 1, 1)"),
        (".reqntid 8, 4", {"block": 32}, "block must be [8, 4] for kernel, got (32, 1, 1)"),
        (".maxntid 16", {"block": 32}, "block must be within [16] threads, got (32, 1, 1)"),
        (".maxntid 4, 4", {"block": 32}, "block must be within [4, 4] threads, got (32, 1, 1)"),
        (
            ".reqnctapercluster 2",
            {"grid": 4, "cluster": 4},
            "cluster must be [2] for kernel, got (4, 1, 1)",
        ),
    ],
)
def test_what_a_kernel_asks_of_its_launch(
    directives: str, options: dict[str, Any], message: str
) -> None:
    text = source(_BODY, 1).replace(")\n{", f")\n{directives}\n{{")
    given = {"grid": 1, "block": 32, **options}
    with pytest.raises(ValueError, match=f"^launch: {re.escape(message)}$"):
        simulator.Machine().launch(simulator.load(text)["kernel"], args=[_ZEROS], **given)


def test_memory_of_all_threads() -> None:
    shared = simulator.load(source(".shared .b8 x[200000];"))["kernel"]
    with pytest.raises(
        ValueError, match=r"^launch: smem_bytes must be within 0 and 32448 for kernel"
    ):
        simulator.Machine().launch(shared, 1, 32, args=[], smem_bytes=32449)
    local = simulator.load(source(".local .b8 x[524288];"))["kernel"]
    with pytest.raises(
        ValueError, match=r"^launch: block must have fewer threads, or .* 65536 resid"
    ):
        simulator.Machine(sms=64).launch(local, 100, 1024, args=[])


@pytest.mark.parametrize("size", [1, 2, 4])
def test_arguments_of_another_size(size: int) -> None:
    kernel = simulator.load(source("", 1).replace(".u64", f".b{8 * size}"))["kernel"]
    for value, message in (
        (_ZEROS, f"args[0] must be {size} bytes, got a tensor, which is 8"),
        (256**size, f"args[0] must fit in {size} bytes, got {256**size}"),
        (b"12345678", f"args[0] must have {size} bytes, got 8"),
        (1e300 if size == 4 else 1.0, "args[0] must "),
    ):
        with pytest.raises((ValueError, TypeError), match=f"^launch: {re.escape(message)}"):
            simulator.Machine().launch(kernel, 1, 32, args=[value])


def test_arguments_that_are_as_good() -> None:
    """Integers of numpy and torch, shapes of any kind of sequence, and a launch after an error."""
    memory = torch.zeros(32, dtype=torch.int32)
    kernel = simulator.load(source(_BODY, 1))["kernel"]
    machine = simulator.Machine(sms=np.int64(2), seed=-1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^launch: grid must be positive"):
        machine.launch(kernel, 0, 32, args=[memory])
    grid, block = torch.tensor([1, 1]), [np.int32(32)]
    machine.launch(kernel, grid, block, args=(memory,), smem_bytes=np.uint8(4))  # type: ignore[arg-type]
    assert machine.run()["num_ctas"] == 1
    assert memory.tolist() == list(range(32))
