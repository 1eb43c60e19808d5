"""What kernels print, and assertions that fail."""

import re
from pathlib import Path

import pytest
import torch

from csrc import compiler, simulator
from tests.simulator.running import run, source

_DECLARED = """.extern .func (.param .b32 r) vprintf(.param .b64 f, .param .b64 a);
.extern .func __assertfail
(.param .b64 t, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s);
"""


def _text(name: str, text: str) -> str:
    data = text.encode() + b"\0"
    return f".global .align 1 .b8 {name}[{len(data)}] = {{{', '.join(map(str, data))}}};\n"


def _print(form: str, arguments: str = "", **options: int) -> None:
    """A kernel that prints with arguments that it has stored at [%rd9]."""
    body = f"""{{ .local .align 8 .b8 buffer[256]; .param .b64 p; .param .b64 q;
    .reg .b64 %at; .param .b32 z; mov.u64 %rd9, buffer; cvta.local.u64 %at, %rd9; {arguments}
    mov.u64 %rd8, form; cvta.global.u64 %rd8, %rd8; st.param.b64 [p], %rd8; st.param.b64 [q], %at;
    call.uni (z), vprintf, (p, q); ld.param.b32 %r2, [z]; }}"""
    run(body, module=_DECLARED + _text("form", form) + _text("word", "wörd"), **options)


def _bits(value: float) -> str:
    return f"0d{int(torch.tensor(value, dtype=torch.float64).view(torch.int64)) % 2**64:016X}"


@pytest.mark.parametrize(
    ("form", "stores", "expected"),
    [
        ("plain %%", [], "plain %"),
        ("%d|%5d|%-5d|%05d|%+d", ["b32", -7, 42, 42, 42, 42], "-7|   42|42   |00042|+42"),
        ("%u %x %X %o %#x", ["b32", -1, 255, 255, 8, 255], "4294967295 ff FF 10 0xff"),
        ("%c%c", ["b32", 72, 105], "Hi"),
        ("%hd %hhu %hu", ["b32", 0x18000, 0x1FF, -1], "-32768 255 65535"),
        (
            "%ld %lld %llu",
            ["b64", -5, -(2**62), 2**64 - 1],
            "-5 -4611686018427387904 " + str(2**64 - 1),
        ),
        ("%lx %zu", ["b64", 2**60, 2**40], f"{2**60:x} {2**40}"),
        ("%f %.2f %8.3f", ["f64", 1.5, 2.125, -3.25], "1.500000 2.12   -3.250"),
        (
            "%e %g %G %.3e",
            ["f64", 12345.678, 1e-7, 1e20, 0.5],
            "1.234568e+04 1e-07 1E+20 5.000e-01",
        ),
        ("%f %f", ["f64", float("inf"), float("nan")], "inf nan"),
        ("%a", ["f64", 1.0], "0x1p+0"),
        ("%p", ["b64", 0xABC], "0xabc"),
        ("%*d|%.*f", ["b32", 6, 42, "b32", 1, "f64", 2.25], "    42|2.2"),
        ("%d %f %d", ["b32", 1, "f64", 0.5, "b32", 2], "1 0.500000 2"),
        ("%y%d", ["b32", 3], "%y3"),
        ("%d" * 33, ["b32", *range(32)], "".join(map(str, range(32))) + "%d"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_formats(
    form: str, stores: list[float | str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each argument lies where its size says."""
    lines, offset, kind = [], 0, "b32"
    for value in stores:
        if isinstance(value, str):
            kind = value
            continue
        size = 4 if kind == "b32" else 8
        offset = -(-offset // size) * size
        literal = _bits(value) if kind == "f64" else str(int(value) % 2 ** (8 * size))
        register = "%r5" if size == 4 else "%rd5"
        lines.append(f"mov.b{8 * size} {register}, {literal};")
        lines.append(f"st.local.b{8 * size} [%rd9+{offset}], {register};")
        offset += size
    _print(form + "\n", "\n".join(lines), block=1)
    assert capsys.readouterr().out == expected + "\n"


def test_texts_are_printed_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """In global memory, in local memory, or nowhere."""
    stores = """mov.u64 %rd5, word; cvta.global.u64 %rd5, %rd5; st.local.b64 [%rd9], %rd5;
    mov.b32 %r5, 0x6F6C; st.local.b32 [%rd9+64], %r5; add.u64 %rd5, %at, 64;
    st.local.b64 [%rd9+8], %rd5; st.local.b64 [%rd9+16], 0;"""
    _print("<%s> <%4s> <%s>", stores, block=1)
    assert capsys.readouterr().out == "<wörd> <  lo> <(null)>"


def test_threads_print_in_the_order_of_lanes(capsys: pytest.CaptureFixture[str]) -> None:
    stores = "st.local.b32 [%rd9], %r0; mov.u32 %r6, %ctaid.x; st.local.b32 [%rd9+4], %r6;"
    _print("%d of %d\n", stores, block=3, grid=2)
    assert capsys.readouterr().out == "".join(f"{t} of {c}\n" for c in range(2) for t in range(3))


def test_printf_tells_how_many_arguments_it_has_taken() -> None:
    found = torch.zeros(3, dtype=torch.int32)
    call = "call (%r2), vprintf, (%rd8, %rd9); st.global.b32 [%rd0+{}], %r2;"
    body = """.local .align 8 .b8 buffer[16]; mov.u64 %rd9, buffer; cvta.local.u64 %rd9, %rd9;
    mov.u64 %rd8, form; """ + call.format(0)
    body += "mov.u64 %rd8, none;" + call.format(4) + "mov.u64 %rd8, 0;" + call.format(8)
    run(body, [found], module=_DECLARED + _text("form", "%d %d") + _text("none", "x"), block=1)
    assert found.tolist() == [2, 0, -1]


def test_nothing_is_lost_when_the_run_ends_with_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = _DECLARED + _text("form", "%d ")
    body = """.local .align 8 .b8 buffer[16]; mov.u64 %rd9, buffer; cvta.local.u64 %rd8, %rd9;
    mov.u32 %r6, %ctaid.x; st.local.b32 [%rd9], %r6; mov.u64 %rd7, form;
    call (%r2), vprintf, (%rd7, %rd8); setp.eq.u32 %p1, %r6, 3; @%p1 trap;"""
    with pytest.raises(RuntimeError, match="trap"):
        run(body, module=module, block=1, grid=6)
    assert capsys.readouterr().out == "0 1 2 3 "
    memory = torch.zeros(1, dtype=torch.int32)
    atom = "atom.global.add.u32 %r9, [%rd0], 1;"  # then clusters may see one another
    with pytest.raises(RuntimeError, match="trap"):
        run(atom + body, [memory], module=module, block=1, grid=6, sms=1)
    assert capsys.readouterr().out == "0 1 2 3 "


def test_clusters_behind_one_that_fails_have_not_happened(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though other host threads have run them while that one was under way."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    body = """.local .align 8 .b8 buffer[16]; mov.u64 %rd9, buffer; cvta.local.u64 %rd8, %rd9;
    mov.u32 %r6, %ctaid.x; st.local.b32 [%rd9], %r6; mov.u64 %rd7, form; mov.b32 %r7, 0;
    setp.ne.u32 %p1, %r6, 3; @%p1 bra PRINT;
    WORK: add.u32 %r7, %r7, 1; setp.lt.u32 %p2, %r7, 200000; @%p2 bra WORK;
    PRINT: call (%r2), vprintf, (%rd7, %rd8); @!%p1 trap;"""
    with pytest.raises(RuntimeError, match="trap"):
        run(body, module=_DECLARED + _text("form", "%d "), block=1, grid=40)
    assert capsys.readouterr().out == "0 1 2 3 "


def test_a_format_outside_of_memory_is_found() -> None:
    body = "mov.u64 %rd8, 64; call (%r2), vprintf, (%rd8, %rd8);"
    with pytest.raises(RuntimeError, match=r"out of bounds: thread .* at call at line"):
        run(body, module=_DECLARED, block=1)


def test_an_assertion_tells_what_where_and_who() -> None:
    module = _DECLARED + _text("t", "n > 3") + _text("f", "a.cu") + _text("n", "void k(int)")
    body = """setp.eq.u32 %p1, %r0, 5; @!%p1 bra OUT; mov.u64 %rd5, t; mov.u64 %rd6, f;
    mov.u64 %rd7, n; mov.b32 %r5, 17; mov.b64 %rd8, 1;
    call.uni __assertfail, (%rd5, %rd6, %r5, %rd7, %rd8); OUT: """
    message = "assertion failed: a.cu:17: void k(int): `n > 3`, thread (5, 0, 0) of CTA (0, 0, 0)"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        run(body, module=module)


def test_functions_of_the_driver_must_be_declared_as_they_are() -> None:
    module = ".extern .func (.param .b32 r) vprintf(.param .b32 f, .param .b64 a);"
    loaded = simulator.load(source("call (%r2), vprintf, (%r0, %rd0);", module=module))
    with pytest.raises(NotImplementedError, match="vprintf has other parameters"):
        loaded["kernel"]


_CUDA = r"""
__global__ void kernel(int limit) {
  short s = threadIdx.x - 2;
  printf("%d: %5.2f %s %c %lld %hd\n", threadIdx.x, 0.1f * threadIdx.x, s < 0 ? "low" : "high",
         'a' + threadIdx.x, 1ll << (40 + threadIdx.x), s);
  assert(threadIdx.x < limit);
}
"""


@pytest.mark.compile
def test_printf_and_assert_of_cuda(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prints.cu"
    file.write_text(_CUDA)
    compiled = compiler.compile_kernel(file, "kernel")
    with simulator.Machine() as machine:
        machine.launch(simulator.load(compiled.ptx)[compiled.name], 1, 4, args=[3])
        with pytest.raises(
            RuntimeError, match=r"prints.cu:6: .*kernel\(int\): `threadIdx.x < limit`"
        ):
            machine.run()
    expected = [
        f"{t}: {0.1 * t:5.2f} {'low' if t < 2 else 'high'} {'abcd'[t]} {1 << (40 + t)} {t - 2}"
        for t in range(4)
    ]
    assert capsys.readouterr().out.splitlines() == expected
