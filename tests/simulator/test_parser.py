"""The PTX parser, one construct at a time."""

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from tests.oracles.ptx_text import bits
from tests.simulator import parsing
from tests.simulator.parsing import HEADER, entry


@pytest.fixture(scope="module")
def parser() -> ModuleType:
    return parsing.load()


def operand(parser: ModuleType, text: str) -> Any:
    registers = ".reg .b32 %r<9>; .reg .pred %p<3>; .shared .b32 tile[8];"
    function = parsing.parse_body(parser, f"{registers} op {text};")
    (parsed,) = function["statements"][0]["operands"]
    return parsed


@pytest.mark.parametrize("target", ["sm_90", "sm_90a", "sm_90a, debug"])
def test_header(parser: ModuleType, target: str) -> None:
    module = parser.parse(HEADER.replace("sm_90a", target))
    assert (module["version"], module["target"]) == ("8.7", target.removesuffix(", debug"))
    assert module["functions"] == module["variables"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected .version, got the end of the text"),
        (".version 8.7", "line 1, column 13: expected .target, got the end of the text"),
        (HEADER.replace("90a", "80"), "line 2, column 9: expected the target sm_90 or sm_90a, got"),
        (HEADER.replace("90a", "100a"), "got 'sm_100a'"),
        (HEADER.replace("90a", "90a, fast"), "line 2, column 17: expected debug, got 'fast'"),
        (HEADER.replace("64", "32"), "line 3, column 15: expected addresses of 64 bits, got '32'"),
        (HEADER.replace(".address_size 64", ""), "expected .address_size, got the end"),
    ],
)
def test_another_machine(parser: ModuleType, text: str, message: str) -> None:
    with pytest.raises(parser.PtxError) as error:
        parser.parse(text)
    assert message in str(error.value)


def test_lines_of_the_source(parser: ModuleType) -> None:
    text = f"""{HEADER}
.func first() {{
  call first;
  .loc 1 10 5
  {{ // begin inline asm
  .reg .b32 %r; .loc 2 20 1, function_name $L__info_string0, inlined_at 1 11 3
  mov.b32 %r,
  1; .file 3 "c.cuh", 1700000000, 99
  mov.b32 %r, 2;
  .loc 1 11 0 // a comment
  }}
  ret; }}
.func second() {{ ret; }}
\t.file\t1 "a b.cu"
"""
    module = parser.parse(text)
    assert module["files"] == {1: "a b.cu", 3: "c.cuh"}
    assert module["locations"] == [(1, 10, 0, 0), (2, 20, 1, 11), (1, 11, 0, 0)]
    first, second = (function["statements"] for function in module["functions"])
    assert [statement["location"] for statement in first] == [-1, 1, 1, 2]
    assert [statement["line"] for statement in first] == [6, 10, 12, 15]
    assert second[0]["location"] == -1


def test_sections_are_skipped(parser: ModuleType) -> None:
    section = '.section .debug_info {\n$L:\n.b8 1,0x2\n.b64 .debug_str+4\n"x" @ ; : }'
    module = parser.parse(f"{HEADER}{section}\n.section .debug_macinfo\t{{\t}}\n.global .b8 x;")
    assert [variable["name"] for variable in module["variables"]] == ["x"]


def test_functions(parser: ModuleType) -> None:
    module = parser.parse(f"""{HEADER}
.func (.param .align 8 .b8 out[16]) twice(.param .b64 a, .param .b32 b);
.extern .func (.param .b32 status) vprintf (.param .b64 format, .param .b64 list) ;
.extern .func __assertfail (.param .b64 a) .noreturn;
.visible .entry kernel(.param .u64 .ptr .global .align 16 p, .param .align 64 .b8 map[128])
.maxntid 256, 1, 1 .minnctapersm 2 .explicitcluster .reqnctapercluster 2 .pragma "x"; {{ ret; }}
.weak .func (.param .align 8 .b8 out[16]) twice(.param .b64 a, .param .b32 b) {{ ret; }}
.entry bare {{ ret; }}""")
    twice, vprintf, assertfail, kernel, bare = module["functions"]
    assert [vprintf["is_declaration"], assertfail["is_declaration"]] == [True, True]
    assert (twice["name"], twice["is_declaration"], twice["is_entry"]) == ("twice", False, False)
    assert [(v["type"], v["num_elements"]) for v in twice["results"]] == [("b8", 16)]
    assert [v["name"] for v in twice["parameters"]] == ["a", "b"]
    assert assertfail["limits"] == {"noreturn": []}
    assert kernel["limits"] == {
        "maxntid": [256, 1, 1],
        "minnctapersm": [2],
        "explicitcluster": [],
        "reqnctapercluster": [2],
    }
    assert [(v["align"], v["num_elements"]) for v in kernel["parameters"]] == [(8, 1), (64, 128)]
    assert kernel["is_entry"]
    assert bare["parameters"] == []


@pytest.mark.parametrize(
    ("declaration", "expected"),
    [
        (".global .b32 x", ("b32", 4, 1, b"")),
        (".global .align 128 .u8 x[2][3]", ("u8", 128, 6, b"")),
        (".const .align 4 .b8 x[4] = {1, 255, -1}", ("b8", 4, 4, b"\x01\xff\xff")),
        (".global .u16 x = 0x1234", ("u16", 2, 1, b"\x34\x12")),
        (".global .s64 x = -2", ("s64", 8, 1, b"\xfe" + b"\xff" * 7)),
        (".global .b32 x[] = {1, 2}", ("b32", 4, 2, b"\1\0\0\0\2\0\0\0")),
        (".global .f32 x[2] = {0f3F800000, -0.5}", ("f32", 4, 2, b"\0\0\x80\x3f\0\0\0\xbf")),
        (".global .f64 x = 0d3FF0000000000000", ("f64", 8, 1, b"\0\0\0\0\0\0\xf0\x3f")),
        (".global .b128 x = 1", ("b128", 16, 1, b"\1" + bytes(15))),
        (".visible .global .attribute(.managed) .b8 x", ("b8", 1, 1, b"")),
        (".shared .b64 x", ("b64", 8, 1, b"")),
        (".extern .shared .align 16 .b8 x[]", ("b8", 16, 0, b"")),
        (".global .b8 x[0x100000000]", None),
        (".global .b8 x[65536][65536]", ("b8", 1, 2**32, b"")),
        (".global .b32 x[65536][65536]", None),
        (".global .b8 x[2147483647][2147483647][2147483647]", None),
        (".global .b8 x = 256", None),
        (".global .b8 x = -129", None),
        (".global .b8 x[2] = {1, 2, 3}", None),
        (".global .f32 x = 1", None),
        (".global .b32 x = 1.5", None),
        (".global .b32 x = other", None),
        (".global .b64 x = nothing", None),
        (".global .align 3 .b8 x", None),
        (".global .pred x", None),
        (".global .texref x", None),
        (".shared .b32 x = 1", None),
        (".param .b32 x", None),
        (".reg .b32 x", None),
        (".global .b32 x, y", None),
        (".alias x, y", None),
    ],
)
def test_variables(parser: ModuleType, declaration: str, expected: Any) -> None:
    text = f"{HEADER}.global .b32 other;\n{declaration};"
    if expected is None:
        with pytest.raises(parser.PtxError, match=r"^line 5, column "):
            parser.parse(text)
        return
    (_, variable) = parser.parse(text)["variables"]
    assert variable["name"] == "x"
    assert variable["is_extern"] == declaration.startswith(".extern")
    fields = ("type", "align", "num_elements", "initial")
    assert tuple(variable[field] for field in fields) == expected


def masked(names: Sequence[str]) -> str:
    """The bytes of an address, each with the name of what it is a byte of."""
    return ", ".join(f"0x{255 << 8 * i:X}({name})" for i, name in enumerate(names))


def test_addresses_in_values(parser: ModuleType) -> None:
    *_, words, packed = parser.parse(f"""{HEADER}
.func f(); .global .b32 x; .extern .global .b32 y; .global .b32 y;
.global .u64 words[4] = {{7, generic(x), x+-4, f}};
.global .align 1 .u8 packed[10] = {{9, {masked(["generic(f)+8"] * 8)}, 5}};""")["variables"]
    assert words["initial"] == b"\7" + bytes(31)
    assert words["relocations"] == {8: ("x", 0), 16: ("x", -4), 24: ("f", 0)}
    assert packed["initial"] == b"\x09" + bytes(8) + b"\5"
    assert packed["relocations"] == {1: ("f", 8)}


@pytest.mark.parametrize(
    "masks",
    [masked("fffffffg"), masked("f" * 7), masked("gffffffff"), "0xFF00(f)", "0xFF(f), 1", "f"],
)
def test_torn_addresses_in_values(parser: ModuleType, masks: str) -> None:
    with pytest.raises(parser.PtxError, match=r"^line 5, "):
        parser.parse(f"{HEADER}.func f(); .func g();\n.global .u8 x[8] = {{{masks}}};")


def test_registers_come_into_being_when_used(parser: ModuleType) -> None:
    function = parsing.parse_body(
        parser,
        """.reg .b32 %r<843>, a, %big<2147483647>; .reg .f64 %f1<20>; .reg .pred p;
        mov.b32 %r842, %r0; mov.b32 a, %r842; mov.f64 %f13, %f119; mov.b32 %big2147, 0;""",
    )
    expected = {"a": "b32", "p": "pred", "%r842": "b32", "%r0": "b32", "%f13": "f64"}
    assert function["registers"] == expected | {"%f119": "f64", "%big2147": "b32"}


@pytest.mark.parametrize("name", ["%r4", "%r", "%r01", "%r00", "%r99999999999", "%rd1", "%q"])
def test_registers_that_are_not_there(parser: ModuleType, name: str) -> None:
    with pytest.raises(parser.PtxError, match=rf"^line 6, column 9: unknown name '{name}'"):
        parser.parse(entry(f".reg .b32 %r<4>;\nmov.b32 {name}, 1;"))


def test_blocks_hide_names(parser: ModuleType) -> None:
    function = parsing.parse_body(
        parser,
        """.reg .b32 a, %r<4>; mov.b32 a, %r1;
        { .reg .b64 a, %r<4>; mov.b64 a, %r1; { mov.b64 a, %r1; } }
        { .param .b32 param0; .reg .pred a; st.param.b32 [param0+0], %r1; mov.b32 _, a; }
        { .param .b32 param0; st.param.b32 [param0], a; call kernel, (param0); }""",
    )
    statements = [statement["operands"] for statement in function["statements"]]
    names = [[part[1] for part in operands] for operands in statements[:3]]
    assert names == [["a", "%r1"], ["a@1", "%r1@1"], ["a@1", "%r1@1"]]
    assert statements[3] == [("address", [("symbol", "param0@3", 0)], 0), ("register", "%r1")]
    assert statements[4][1] == ("register", "a@3")
    assert statements[5] == [("address", [("symbol", "param0@4", 0)], 0), ("register", "a")]
    assert statements[6][1] == ("list", [("symbol", "param0@4", 0)])
    assert [variable["name"] for variable in function["variables"]] == ["param0@3", "param0@4"]
    assert function["registers"]["a@1"] == "b64"
    assert function["registers"]["a@3"] == "pred"


def test_labels_belong_to_their_block(parser: ModuleType) -> None:
    function = parsing.parse_body(
        parser,
        """.reg .pred p;
        OUT: { WAIT: @p bra DONE; bra WAIT; bra OUT; bra END; DONE: }
        { bra WAIT; WAIT: @!p bra.uni DONE; DONE: bra OUT; { OUT: bra OUT; } kernel: }
        bra kernel; kernel: ret; END:""",
    )
    targets = [s["operands"][0][1] for s in function["statements"] if s["opcode"] == "bra"]
    assert targets == [4, 0, 0, 10, 5, 6, 0, 7, 9]
    guards = [statement["guard"] for statement in function["statements"]]
    assert guards == ["p", None, None, None, None, "!p", None, None, None, None]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("bra L; { L: ret; }", "L"),
        ("{ L: ret; } bra L;", "L"),
        ("bra kernel;", "kernel"),
        ("T: .branchtargets L; ret;", "L"),
    ],
)
def test_labels_that_are_not_there(parser: ModuleType, body: str, name: str) -> None:
    with pytest.raises(parser.PtxError, match=f"^line 5, column .*: unknown name '{name}'"):
        parser.parse(entry(body))


def test_branch_tables_and_prototypes(parser: ModuleType) -> None:
    function = parsing.parse_body(
        parser,
        """.reg .b32 i; .reg .b64 f; .param .b32 a;
        T: .branchtargets A, B, A;
        brx.idx.uni i, T;
        A: ret;
        B: { prototype_2 : .callprototype (.param .b32 _) _ (.param .align 8 .b8 _[16]) .noreturn;
        call (a),
        f,
        ( a )
        , prototype_2; }""",
    )
    brx, _, call = function["statements"]
    assert function["branch_tables"] == [[1, 2, 1]]
    assert brx["operands"] == [("register", "i"), ("table", 0)]
    a = ("list", [("symbol", "a", 0)])
    assert call["operands"] == [a, ("register", "f"), a, ("symbol", "prototype_2", 0)]


R1, R2 = ("register", "%r1"), ("register", "%r2")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%r1", R1),
        ("!%p1", ("register", "!%p1")),
        ("_", ("sink",)),
        ("%tid.x", ("special", "%tid.x")),
        ("%cluster_ctarank", ("special", "%cluster_ctarank")),
        ("WARP_SZ", ("special", "WARP_SZ")),
        ("tile", ("symbol", "tile", 0)),
        ("tile+8", ("symbol", "tile", 8)),
        ("kernel", ("symbol", "kernel", 0)),
        ("%r1|%p1", ("pair", [R1, ("register", "%p1")])),
        ("_|%p1", ("pair", [("sink",), ("register", "%p1")])),
        ("{%r1, _, 3}", ("vector", [R1, ("sink",), ("integer", 3)])),
        ("{}", ("vector", [])),
        ("[%r1]", ("address", [R1], 0)),
        ("[%r1+-8]", ("address", [R1], -8)),
        ("[tile+0x10]", ("address", [("symbol", "tile", 0)], 16)),
        ("[pointer]", ("address", [("symbol", "pointer", 0)], 0)),
        ("[64]", ("address", [("integer", 64)], 0)),
        ("[%r1, {%r2, 0}]", ("address", [R1, ("vector", [R2, ("integer", 0)])], 0)),
        ("[%r1+4, %r2]", ("address", [R1, R2], 4)),
        ("(tile, %r1)", ("list", [("symbol", "tile", 0), R1])),
    ],
)
def test_operands(parser: ModuleType, text: str, expected: Any) -> None:
    assert operand(parser, text) == expected


NO_OPERANDS = """
    %tid | %tid.q | %tid.xy | %laneid.x | %r1.x | !tile | !3 | -%r1 | ~1 | 1+2 | tile+L
    [_] | [!%p1] | [1.5] | [%r1+%r2] | [%r1-8] | [%r1+1.5] | [] | [%r1 | [[%r1]] | [L]
    {{%r1}} | {%r1 | (%r1 | {%r1,} | %r1, | %r1 %r2 | {L} | "text" | <1> | ::a | :
"""
NO_PAIRS = ["%r1|3", "!%p1|%p2", "%r1|%p1|%p2", "%r1|", "|%p1", "[%r1]|%p1"]


@pytest.mark.parametrize("text", [*re.split(r" \| |\n\s+", NO_OPERANDS.strip()), *NO_PAIRS])
def test_no_operands(parser: ModuleType, text: str) -> None:
    with pytest.raises(parser.PtxError, match=r"^line 5, column "):
        operand(parser, text)


LITERALS = {
    "integer": "0 7 -1 4294967295 12U 0U 0xFFU 0XaBc 0x1E -0x10 0b101 0B11 -9223372036854775808"
    " 9223372036854775808 18446744073709551615 0xFFFFFFFFFFFFFFFF",
    "float32": "0f3F800000 0FffC00000 0f00000001",
    "float64": "0d3FF0000000000000 0D7ff8000000000001 1.5 -2.25 0.0 1.0e5 2.5e-3 1.25E+2",
}


@pytest.mark.parametrize(
    ("literal", "kind"),
    [(literal, kind) for kind, literals in LITERALS.items() for literal in literals.split()],
)
def test_literals(parser: ModuleType, literal: str, kind: str) -> None:
    assert operand(parser, literal) == (kind, bits(literal))


def test_octal_and_signed_floats(parser: ModuleType) -> None:
    assert operand(parser, "0777") == ("integer", 0o777)
    assert operand(parser, "-0f3F800000") == ("float32", 0xBF800000)
    assert operand(parser, "1e3") == ("float64", bits("1000.0"))


NO_LITERALS = """
    0x 0xG 08 0b2 0b 12a 0U1 U --1 18446744073709551616 0x1FFFFFFFFFFFFFFFF
    0f3F80000 0f3F8000000 0f3F80000G 0d3F800000 1.5U 1.5.5 1.5e 1e999
"""


@pytest.mark.parametrize("literal", NO_LITERALS.split())
def test_no_literals(parser: ModuleType, literal: str) -> None:
    with pytest.raises(parser.PtxError, match=r"^line 5, column "):
        operand(parser, literal)


def test_statements(parser: ModuleType) -> None:
    function = parsing.parse_body(
        parser,
        """.reg .pred %p<2>; .reg .b64 d;
        @!%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint
          [d], [d], 16, [d], d;
        ldmatrix .sync.aligned.x4.m8n8 . shared.b16 {d}, [d]; ret;""".replace(
            ". shared", ".shared"
        ),
    )
    copy, matrix, ret = function["statements"]
    spaces = ["async", "bulk", "shared::cluster", "global"]
    assert copy["modifiers"] == [*spaces, "mbarrier::complete_tx::bytes", "L2::cache_hint"]
    assert (copy["guard"], copy["opcode"], copy["line"]) == ("!%p1", "cp", 6)
    assert matrix["modifiers"] == ["sync", "aligned", "x4", "m8n8", "shared", "b16"]
    assert (ret["opcode"], ret["modifiers"], ret["operands"]) == ("ret", [], [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (";", "column 1: expected an instruction or '}', got ';'"),
        ("ret", "line 6, column 1: expected an operand, got '}'"),
        (
            "ret;\n  .bogus 3;",
            "line 6, column 3: expected a directive of a function body, got '.bog",
        ),
        ("mov.b32 a b;", "column 11: expected ',' or ';', got 'b'"),
        ("%r1 = 3;", "column 1: expected an instruction, got '%r1'"),
        ("@p ret;", "column 2: expected a predicate, got 'p'"),
        (".reg .b32 p; @p ret;", "column 15: expected a predicate, got 'p'"),
        (".reg .pred p; @p { ret; }", "column 18: expected an instruction, got '{'"),
        (".reg .b32 a, a;", "column 14: second declaration of 'a'"),
        (".reg .b32 r<4>, r<9>;", "column 17: second declaration of 'r'"),
        (".reg .b32 r<4>, r3;", "column 17: second declaration of 'r3'"),
        (".reg .b32 r<-1>;", "column 13: expected a number, got '-'"),
        (".reg .b32 r<2147483648>;", "column 13: expected a number from 0 to 2147483647"),
        (".reg .b7 r;", "column 6: expected the type of a register, got '.b7'"),
        (".shared .b32 pointer;", "column 14: second declaration of 'pointer'"),
        ("L: L: ret;", "column 4: second declaration of 'L'"),
        ("ret; /* no end", "column 6: expected an end of this comment"),
        ("/* a comment\n * of two lines */ ?", "line 6, column 20: unexpected character"),
        ('.pragma "no end\n";', "column 9: expected a closing quote on this line"),
        ("ret; \0", "column 6: unexpected character"),
        ("ret; # 1", "column 6: unexpected character"),
        ("ld. b32;", "column 3: expected a name after the dot"),
        (".loc 1;", "column 7: expected a number, got ';'"),
        ("op " + "x" * 99 + ".b;", "expected ',' or ';', got '.b'"),
        ("op {" + "x" * 99 + "};", f"unknown name '{'x' * 60}...'"),
        ("{" * 63 + "}" * 63, None),
        ("{" * 64 + "}" * 64, "column 64: expected at most 64 nested blocks"),
        ("{", "line 7, column 1: expected an instruction or '}', got the end of the text"),
        ("}", "line 6, column 1: expected a directive of a module, got '}'"),
        ("} .visible .entry kernel() { ret;", "second definition of 'kernel'"),
        ("} .global .b32 kernel; .entry k() { ret;", "second definition of 'kernel'"),
        ("} .entry k() .maxntid { ret;", "expected a number, got '{'"),
        ("} .entry k() .maxntid 1,1,1, { ret;", "column 28: expected '{', got ','"),
        ("} .entry k() .bogus { ret;", "expected a directive of a function, '{' or ';', got '.bog"),
        ("} .entry k(.reg .b32 a) { ret;", "expected .param, got '.reg'"),
        ("} .bogus {", "column 3: expected a directive of a module, got '.bogus'"),
        ("} .section .debug {}", "line 6, column 1: expected a directive of a module, got '}'"),
        ("} .section .a { } .section .b", "line 6, column 1: expected '{', got '}'"),
    ],
)
def test_what_is_wrong_and_where(parser: ModuleType, body: str, message: str | None) -> None:
    if message is None:
        parser.parse(entry(body))
        return
    with pytest.raises(parser.PtxError) as error:
        parser.parse(entry(body))
    assert message in str(error.value)
    assert isinstance(error.value, ValueError)
