"""What is read out of a compiler's log and of its PTX."""

import pytest

from csrc.compiled import CompileError, Report, entry_name, report_of, source_line_of

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z1aPf' for 'sm_90a'
ptxas info    : Function properties for _Z4slowPf
    64 bytes stack frame, 60 bytes spill stores, 62 bytes spill loads
ptxas info    : Function properties for _Z1aPf
    168 bytes stack frame, 176 bytes spill stores, 180 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 168 bytes cumulative stack size
ptxas info    : Compile time = 10.591 ms
ptxas info    : Compiling entry function '_Z1aPfi' for 'sm_90a'
ptxas info    : Function properties for _Z1aPfi
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 1024 bytes smem, 8 bytes cmem[2]
ptxas info    : Compile time = 1 ms
"""
SERIALISED = "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async are serialized"
UNUSED = 'k.cuh(3): warning #177-D: variable "x" was declared but never referenced'


def test_report() -> None:
    assert report_of(LOG, "_Z1aPf") == Report(32, 0, 168, 176, 180, ())
    assert report_of(LOG, "_Z1aPfi") == Report(168, 1024, 0, 0, 0, ())


def test_report_keeps_the_warnings() -> None:
    log = f"{UNUSED}\n  float x;\n        ^\n\n{SERIALISED}\n{LOG}"
    assert report_of(log, "_Z1aPfi").warnings == (UNUSED, SERIALISED)


def test_log_without_the_kernel() -> None:
    with pytest.raises(RuntimeError, match="the log must tell of _Z1b"):
        report_of(LOG, "_Z1b")


PTX = """
.visible .entry _ZN8openweek4test5scaleILi64E13__nv_bfloat16EEviPT0_(
.visible .entry _ZN8openweek4test11scale_plainEPf(
.entry _ZN8openweek4test4copyEPf(
.visible .func _ZN8openweek4test4copyEPfi(
.visible .entry _ZN8openweek4test4copyEPKfPf(
.visible .entry _Z5plainPf(
.visible .entry _Z5typedIfEvPT_(
.visible .entry bare_c(
"""
ENTRIES = {
    "openweek::test::scale<64, __nv_bfloat16>": (
        "_ZN8openweek4test5scaleILi64E13__nv_bfloat16EEviPT0_"
    ),
    "::openweek::test::scale_plain": "_ZN8openweek4test11scale_plainEPf",
    "plain": "_Z5plainPf",
    "typed<float>": "_Z5typedIfEvPT_",
    "bare_c": "bare_c",
}


@pytest.mark.parametrize(("expression", "name"), ENTRIES.items())
def test_entry_name(expression: str, name: str) -> None:
    assert entry_name(PTX, expression) == name


@pytest.mark.parametrize(
    ("expression", "count"),
    [("openweek::test::copy", 2), ("openweek::test::missing", 0), ("scale<64>", 0), ("", 0)],
)
def test_entry_name_that_is_not_one(expression: str, count: int) -> None:
    with pytest.raises(ValueError, match=f"which names {count} of "):
        entry_name(PTX, expression)


LINES = """\
.target sm_90a
.entry k(
\t.loc\t1 4 0
  .loc 2 17 3, function_name $L__info_string0, inlined_at 1 6 3
\twgmma.fence.sync.alligned;
\t.file\t1 "/r/k.cu"
\t.file 2 "/r/p/wgmma.cuh"
"""


@pytest.mark.parametrize(
    ("ptx_line", "place"),
    [(2, ("", 0)), (3, ("/r/k.cu", 4)), (5, ("/r/p/wgmma.cuh", 17)), (99, ("/r/p/wgmma.cuh", 17))],
)
def test_source_line(ptx_line: int, place: tuple[str, int]) -> None:
    assert source_line_of(LINES, ptx_line) == place


def test_error_of_the_front_end() -> None:
    log = (
        f'{UNUSED}\n/r/a b/k.cuh(12): error: identifier "y" is undefined\n/r/k.cu(1): error: more\n'
    )
    error = CompileError(log)
    assert (error.file, error.line, error.log) == ("/r/a b/k.cuh", 12, log)
    assert str(error).startswith(
        'compile: source must compile, got /r/a b/k.cuh(12): error: identifier "y" is undefined ('
    )
    assert log in str(error)


def test_error_of_the_host_compiler() -> None:
    error = CompileError("In file included from\n/r/k.cu:7:10: fatal error: gone.cuh: No such file")
    assert (error.file, error.line) == ("/r/k.cu", 7)


def test_error_of_ptxas_is_brought_back_to_the_source() -> None:
    log = "ptxas application ptx input, line 5; error   : Unknown modifier '.alligned'"
    error = CompileError(log, LINES)
    assert (error.file, error.line) == ("/r/p/wgmma.cuh", 17)
    assert f"got /r/p/wgmma.cuh(17): {log}" in str(error)
    assert (CompileError(log).file, CompileError(log).line) == ("", 0)


@pytest.mark.parametrize(
    ("log", "headline"),
    [
        ("nvcc fatal   : Failed to preprocess", "nvcc fatal   : Failed to preprocess"),
        ("note\nnvrtc: error: unrecognized option", "nvrtc: error: unrecognized option"),
        ("", "no reason"),
    ],
)
def test_error_without_a_place(log: str, headline: str) -> None:
    error = CompileError(log)
    assert (error.file, error.line) == ("", 0)
    assert f"got {headline} (the compiler's log follows)" in str(error)
