"""Functions that a kernel calls, by name and by address, and what it finds when they return."""

from pathlib import Path

import pytest
import torch

from csrc import compiler, simulator
from tests.simulator.running import per_thread, run, source

_DOUBLE = """.func (.param .b32 r) double(.param .b32 x)
{ .reg .b32 %a; ld.param.b32 %a, [x]; shl.b32 %a, %a, 1; st.param.b32 [r], %a; ret; }
"""
_CALL_DOUBLE = """{ .param .b32 p; .param .b32 q; st.param.b32 [p], %r1;
call (q), double, (p); ld.param.b32 %r2, [q]; }"""


def _results(body: str, module: str, seed: int = 0) -> list[int]:
    """%r2 of each thread at the end."""
    found = torch.zeros(32, dtype=torch.int32)
    body += "\nmad.wide.u32 %rd5, %r0, 4, %rd0; st.global.b32 [%rd5], %r2;"
    run(body, [found], module=module, seed=seed)
    return found.tolist()


def test_an_argument_goes_there_and_a_result_comes_back() -> None:
    body = "add.u32 %r1, %r0, 5;" + _CALL_DOUBLE
    assert _results(body, _DOUBLE) == [2 * (i + 5) for i in range(32)]


def test_arguments_and_results_may_be_registers_and_constants() -> None:
    module = """.func (.reg .b32 %r, .reg .b64 %s) mix(.param .b32 x, .reg .b64 %y, .param .b16 z)
    { .reg .b32 %a; .reg .b16 %c; ld.param.b32 %a, [x]; ld.param.b16 %c, [z];
    mad.wide.u32 %s, %a, 3, %y; cvt.u32.u16 %r, %c; ret; }"""
    body = """cvt.u64.u32 %rd6, %r0; shl.b64 %rd6, %rd6, 40; mov.b16 %h1, 0xFFFE;
    call.uni (%r3, %rd7), mix, (%r0, %rd6, %h1); call (_, %rd8), mix, (7, 1000, %h1);
    shr.u64 %rd9, %rd7, 40; cvt.u32.u64 %r4, %rd9; cvt.u32.u64 %r5, %rd7; cvt.u32.u64 %r6, %rd8;
    mad.lo.u32 %r2, %r4, 100, %r5; add.u32 %r2, %r2, %r6; add.u32 %r2, %r2, %r3;"""
    assert _results(body, module) == [100 * i + 3 * i + 1021 + 0xFFFE for i in range(32)]


def test_a_structure_goes_there_and_back() -> None:
    """By bytes, with an alignment."""
    module = """.func (.param .align 8 .b8 r[24]) turn(.param .align 8 .b8 x[24])
    { .reg .b64 %a<3>; .reg .b32 %b; ld.param.b64 %a0, [x]; ld.param.v2.b64 {%a1, %a2}, [x+8];
    st.param.b64 [r+16], %a0; st.param.b64 [r+8], %a1; st.param.b64 [r], %a2; ret; }"""
    body = """{ .param .align 8 .b8 p[24]; .param .align 8 .b8 q[24];
    cvt.u64.u32 %rd6, %r0; st.param.b64 [p], %rd6; add.u64 %rd6, %rd6, 100;
    st.param.b64 [p+8], %rd6; add.u64 %rd6, %rd6, 1000; st.param.b64 [p+16], %rd6;
    call (q), turn, (p);
    ld.param.b32 %r3, [q]; ld.param.b32 %r4, [q+8]; ld.param.b32 %r5, [q+16];
    mad.lo.u32 %r2, %r3, 2, %r4; mad.lo.u32 %r2, %r5, 4, %r2; }"""
    assert _results(body, module) == [2 * (i + 1100) + i + 100 + 4 * i for i in range(32)]


def test_functions_call_functions_from_loops_and_from_both_sides_of_a_branch(seed: int) -> None:
    module = (
        _DOUBLE
        + """.func (.param .b32 s) four(.param .b32 y)
    { .reg .b32 %r<3>; ld.param.b32 %r1, [y]; """
        + _CALL_DOUBLE
        + "mov.b32 %r1, %r2;"
        + _CALL_DOUBLE
        + "st.param.b32 [s], %r2; ret; }"
    )
    body = f"""mov.b32 %r5, 0; mov.b32 %r6, 0; and.b32 %r7, %r0, 1; setp.eq.u32 %p1, %r7, 0;
    LOOP: setp.ge.u32 %p2, %r6, %r0; @%p2 bra DONE; mov.b32 %r1, %r6; @%p1 bra EVEN;
    {_CALL_DOUBLE} bra.uni NEXT;
    EVEN: {{ .param .b32 p; .param .b32 q; st.param.b32 [p], %r1;
    call (q), four, (p); ld.param.b32 %r2, [q]; }}
    NEXT: add.u32 %r5, %r5, %r2; add.u32 %r6, %r6, 1; bra LOOP;
    DONE: mov.b32 %r2, %r5;"""
    expected = [(2 if i % 2 else 4) * (i * (i - 1) // 2) for i in range(32)]
    assert _results(body, module, seed) == expected


def test_lanes_that_have_called_meet_those_that_have_not() -> None:
    """At the first instruction behind the call that all run, as after any branch."""
    body = """setp.lt.u32 %p1, %r0, 9; mov.b32 %r1, %r0; mov.b32 %r3, 0; @%p1 bra CALL;
    bra.uni MEET; CALL: """
    body += _CALL_DOUBLE + "MEET: activemask.b32 %r3; mov.b32 %r2, %r3;"
    assert _results(body, _DOUBLE) == [-1] * 32


def test_guards_choose_who_calls_and_who_returns() -> None:
    module = """.func (.param .b32 r) half(.param .b32 x)
    { .reg .b32 %a; .reg .pred %p; ld.param.b32 %a, [x]; st.param.b32 [r], %a;
    setp.lt.u32 %p, %a, 10; @%p ret; mul.lo.u32 %a, %a, 100; st.param.b32 [r], %a; ret; }"""
    body = """mov.b32 %r2, -1; setp.gt.u32 %p1, %r0, 4; @%p1 call (%r2), half, (%r0);"""
    expected = [-1] * 5 + list(range(5, 10)) + [100 * i for i in range(10, 32)]
    assert _results(body, module) == expected


def test_exit_in_a_function_ends_the_thread() -> None:
    module = ".func stop(.param .b32 x) { .reg .b32 %a; .reg .pred %p; ld.param.b32 %a, [x];"
    module += "setp.gt.u32 %p, %a, 7; @%p exit; }"  # returns where it ends
    assert _results("mov.b32 %r2, 1; call stop, (%r0);", module) == [1] * 8 + [0] * 24


def test_shared_variables_of_a_module_are_the_same_in_every_function() -> None:
    module = """.shared .align 4 .b8 room[128];
    .func put(.param .b32 x) { .reg .b32 %a<3>; .shared .align 4 .b8 own[64]; ld.param.b32 %a1, [x];
    mov.u32 %a2, room; mad.lo.u32 %a2, %a1, 4, %a2; st.shared.b32 [%a2], %a1; ret; }"""
    body = """.shared .align 4 .b8 own[64]; call put, (%r0); bar.sync 0;
    xor.b32 %r3, %r0, 31; mov.u32 %r4, room; mad.lo.u32 %r4, %r3, 4, %r4;
    ld.shared.b32 %r2, [%r4];"""
    assert _results(body, module) == [31 - i for i in range(32)]


_TRIPLE = _DOUBLE.replace("double", "triple").replace("shl.b32 %a, %a, 1", "mul.lo.u32 %a, %a, 3")
_OTHER = ".func (.param .b32 r) other(.param .b64 x) { st.param.b32 [r], 1; ret; }\n"
_POINTERS = _DOUBLE + _TRIPLE + _OTHER + ".global .align 8 .u64 table[2] = {double, triple};\n"
_INDIRECT = """{ .param .b32 p; .param .b32 q; st.param.b32 [p], %r0;
to : .callprototype (.param .b32 _) _ (.param .b32 _);
call (q), %rd7, (p), to; ld.param.b32 %r2, [q]; }"""


def test_functions_are_called_by_address() -> None:
    """Each lane its own, from a table in memory."""
    body = """and.b32 %r3, %r0, 1; mov.u64 %rd6, table; mad.wide.u32 %rd6, %r3, 8, %rd6;
    ld.global.b64 %rd7, [%rd6]; setp.gt.u32 %p1, %r0, 28; @%p1 mov.u64 %rd7, double;"""
    expected = [(3 if i % 2 and i <= 28 else 2) * i for i in range(32)]
    assert _results(body + _INDIRECT, _POINTERS) == expected
    targets = _INDIRECT.replace(".callprototype (.param .b32 _) _ (.param .b32 _)", "{}")
    targets = targets.replace("{}", ".calltargets double, triple")
    assert _results(body + targets, _POINTERS) == expected


@pytest.mark.parametrize(
    "address", ["mov.u64 %rd7, other;", "mov.u64 %rd7, 0;", "mov.u64 %rd7, %rd0;"]
)
def test_a_call_of_an_address_without_such_a_function_is_found(address: str) -> None:
    with pytest.raises(RuntimeError, match=r"wrong call: thread \(0, 0, 0\) .* at call at line"):
        _results(address + _INDIRECT, _POINTERS)


def test_recursion_is_an_error_that_names_the_cycle() -> None:
    module = """.func b();
    .func a() { call b; ret; }
    .func b() { call a; ret; }"""
    loaded = simulator.load(source("call a;", module=module))
    with pytest.raises(NotImplementedError, match="recursive call: a -> b -> a;"):
        loaded["kernel"]


def test_recursion_by_address_is_found_when_it_happens() -> None:
    module = """.func a(.param .b64 f) { .reg .b64 %rd<2>; ld.param.b64 %rd1, [f];
    to : .callprototype _ (.param .b64 _); call %rd1, (%rd1), to; ret; }"""
    body = "mov.u64 %rd7, a; call a, (%rd7);"
    with pytest.raises(NotImplementedError, match="recursive call: the function a is active"):
        _results(body, module)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("call missing_one, (%r0);", "unknown name"),
        ("call (%r1), double, (%r0, %r0);", "the function has 1 parameters, the call 2"),
        ("call double, (%r0);", "the function has 1 results, the call 0"),
        ("call (%r1), double, (%rd0);", ""),
        ("call (%r1), wide, (%r0);", "narrower than the function's parameter"),
        ("{ .param .b64 p; call (%r1), double, (p); }", "p.* has 8 bytes where the function has 4"),
        ("call free, (%rd0);", "declares free and does not define it"),
        ("call (%r1), double, (table);", "table is neither a parameter of the call nor a register"),
    ],
)
def test_calls_that_cannot_be(call: str, message: str) -> None:
    module = _POINTERS + ".extern .func free(.param .b64 p);\n"
    module += ".func (.param .b32 r) wide(.param .b64 x) { st.param.b32 [r], 1; ret; }"
    text = source(call, module=module)
    if not message:  # the low half is taken
        assert simulator.load(text)["kernel"].name == "kernel"
        return
    with pytest.raises((NotImplementedError, ValueError), match=message):
        simulator.load(text)["kernel"]


def test_memory_of_a_size_known_at_run_time() -> None:
    """A function's own goes when it returns, so that a loop of calls does not run out of it."""
    module = """.func (.param .b32 r) sum(.param .b32 n)
    { .reg .b32 %n; .reg .b32 %i; .reg .b32 %s; .reg .b64 %at; .reg .b64 %p; .reg .pred %q;
    ld.param.b32 %n, [n]; mul.wide.u32 %at, %n, 4; alloca.u64 %p, %at, 16; mov.b32 %i, 0;
    FILL: mad.wide.u32 %at, %i, 4, %p; st.local.b32 [%at], %i; add.u32 %i, %i, 1;
    setp.lt.u32 %q, %i, %n; @%q bra FILL; mov.b32 %s, 0;
    ADD: sub.u32 %i, %i, 1; mad.wide.u32 %at, %i, 4, %p; ld.local.b32 %n, [%at];
    add.u32 %s, %s, %n; setp.gt.u32 %q, %i, 0; @%q bra ADD; st.param.b32 [r], %s; ret; }"""
    body = """mov.b32 %r4, 0; add.u32 %r5, %r0, 200;
    AGAIN: call (%r2), sum, (%r5); add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 20; @%p1 bra AGAIN;"""
    assert _results(body, module) == [(i + 200) * (i + 199) // 2 for i in range(32)]


def test_the_stack_is_saved_and_restored() -> None:
    body = """stacksave.u64 %rd6; alloca.u64 %rd7, 100; alloca.u64 %rd8, 8, 32;
    stackrestore.u64 %rd6; alloca.u64 %rd9, 4; sub.u64 %rd10, %rd9, %rd7; and.b64 %rd11, %rd8, 31;
    sub.u64 %rd12, %rd8, %rd7; setp.ge.u64 %p1, %rd12, 100; selp.b64 %rd13, 1, 0, %p1;
    shl.b64 %rd10, %rd10, 8; or.b64 %rd20, %rd10, %rd11; shl.b64 %rd20, %rd20, 8;
    or.b64 %rd20, %rd20, %rd13;"""
    assert per_thread(body, out=torch.int64).tolist() == [1] * 32
    with pytest.raises(RuntimeError, match=r"stack overflow: thread .* wants 8193 bytes"):
        per_thread("alloca.u64 %rd7, 8193;", out=torch.int32)


_CUDA = """
struct Pair { double sum; int parts[5]; };
__noinline__ __device__ Pair add(Pair a, const Pair& b, int n) {
  Pair c;
  c.sum = a.sum + b.sum;
  for (int i = 0; i < 5; ++i) c.parts[i] = a.parts[i] * n + b.parts[i];
  return c;
}
__noinline__ __device__ float scale(float x, short by) { return x * by; }
__noinline__ __device__ int twice(int x) { return 2 * x; }
__noinline__ __device__ int thrice(int x) { return 3 * x; }
__device__ int (*const table[])(int) = {twice, thrice};
__global__ void kernel(int* out, int n) {
  Pair a = {0.5, {1, 2, 3, 4, 5}}, b = {0.25 * threadIdx.x, {n, n, n, n, n}};
  for (int i = 0; i < n; ++i) {
    if ((threadIdx.x + i) % 3 == 0) a = add(a, b, i);
  }
  int total = (int)(100 * a.sum) + (int)scale(1.5f, threadIdx.x);
  for (int part : a.parts) total = 3 * total + part;
  out[threadIdx.x] = total + table[threadIdx.x % 2](n);
}
"""


def _expected(thread: int, n: int) -> int:
    total, parts = 0.5, [1, 2, 3, 4, 5]
    for i in range(n):
        if (thread + i) % 3 == 0:
            total, parts = total + 0.25 * thread, [part * i + n for part in parts]
    result = int(100 * total) + int(1.5 * thread)
    for part in parts:
        result = 3 * result + part
    return result + (3 if thread % 2 else 2) * n


@pytest.mark.compile
def test_functions_of_cuda_that_are_not_inlined(tmp_path: Path, seed: int) -> None:
    file = tmp_path / "calls.cu"
    file.write_text(_CUDA)
    compiled = compiler.compile_kernel(file, "kernel")
    assert compiled.ptx.count(".func") >= 4
    out = torch.zeros(64, dtype=torch.int32)
    with simulator.Machine(seed=seed) as machine:
        machine.launch(simulator.load(compiled.ptx)[compiled.name], 1, 64, args=[out, 4])
        machine.run()
    assert out.tolist() == [_expected(thread, 4) for thread in range(64)]
