"""The PTX parser on what compilers print, and on what nobody would."""

import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import ptx_text
from tests.simulator import parsing

NAMES = ["traps.ptx", "triton_matmul.ptx"]


@pytest.fixture(scope="module")
def parser() -> ModuleType:
    return parsing.load()


def rendered(statement: Any) -> str:
    """A parsed statement in the normal form of the oracle, names without their suffixes."""
    guard = "@" + statement["guard"].split("@")[0] if statement["guard"] else ""
    opcode = ".".join([statement["opcode"], *statement["modifiers"]])
    return guard + opcode + ",".join(map(_rendered_operand, statement["operands"]))


def _rendered_operand(operand: Any) -> str:
    kind, *rest = operand
    match kind:
        case "register" | "special":
            return str(rest[0]).split("@")[0]
        case "symbol":
            return str(rest[0]).split("@")[0] + (f"+#{rest[1]}" if rest[1] else "")
        case "integer" | "float32" | "float64":
            return f"#{rest[0]}"
        case "label":
            return f"<{rest[0]}>"
        case "sink":
            return "_"
        case "address":
            base, *further = map(_rendered_operand, rest[0])
            return "[" + ",".join([base + (f"+#{rest[1]}" if rest[1] else ""), *further]) + "]"
    parts = [_rendered_operand(part) for part in rest[0]]
    if kind == "pair":
        return "|".join(parts)
    return ",".join(parts).join({"vector": "{}", "list": "()"}[kind])


@pytest.mark.parametrize("name", NAMES)
def test_compilers_are_read_as_by_the_oracle(parser: ModuleType, name: str) -> None:
    text = (parsing.TEXTS / name).read_text()
    expected = ptx_text.instructions(text)
    assert sum(map(len, expected.values())) > 100
    functions = {function["name"]: function for function in parser.parse(text)["functions"]}
    for function_name, instructions in expected.items():
        statements = functions[function_name]["statements"]
        assert [(item["line"], rendered(item)) for item in statements] == instructions


def assert_module_or_error(parser: ModuleType, text: str | bytes) -> None:
    """Whatever the text, it has a meaning without loose ends or an error with a place."""
    try:
        module = parser.parse(text)
    except parser.PtxError as error:
        assert str(error).startswith("line ")  # noqa: PT017 (no error is right as well)
        return
    for function in module["functions"]:
        count = len(function["statements"])
        assert all(0 <= at <= count for table in function["branch_tables"] for at in table)
        for statement in function["statements"]:
            assert statement["location"] < len(module["locations"])
            for operand in statement["operands"]:
                assert operand[0] != "label" or 0 <= operand[1] <= count


@settings(max_examples=300)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_mutated_texts(parser: ModuleType, data: st.DataObject, name: str) -> None:
    text = (parsing.TEXTS / name).read_bytes()
    places = st.integers(0, len(text) - 1)
    pieces = st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"{", b"}", b";", b".reg .b32 %r<9>;", b"<", b"0x", b"_", b"/*", b'"']),
        st.tuples(places, st.integers(0, 80)).map(lambda span: text[span[0] :][: span[1]]),
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at, dropped = data.draw(places), data.draw(st.integers(0, 40))
        text = text[:at] + data.draw(pieces) + text[at + dropped :]
    assert_module_or_error(parser, text)


@given(text=st.binary(max_size=200))
def test_random_bytes(parser: ModuleType, text: bytes) -> None:
    assert_module_or_error(parser, text)
    assert_module_or_error(parser, parsing.HEADER.encode() + text)
    assert_module_or_error(parser, parsing.HEADER.encode() + b".entry k() {" + text + b"}")


WORDS = """
    .reg .b32 .pred %r %r1 < > 9 ; , { } [ ] L : @ ! mov bra brx .branchtargets .callprototype call
    ( ) | _ + - .param .shared .align 0f3F800000 k p %tid .x WARP_SZ = .pragma "a" .loc
"""


@given(words=st.lists(st.sampled_from([*WORDS.split(), "\n"]), max_size=60))
def test_random_words(parser: ModuleType, words: list[str]) -> None:
    body = " ".join(words)
    assert_module_or_error(parser, f"{parsing.HEADER}.entry k(.param .b32 p) {{ {body} ret; }}")


@pytest.mark.parametrize("name", NAMES)
def test_every_prefix(parser: ModuleType, name: str) -> None:
    text = (parsing.TEXTS / name).read_bytes()
    for end in range(0, len(text), 97):
        assert_module_or_error(parser, text[:end])


LONG_TEXTS = {
    "digits of a name": "%r" + "0" * 500_000,
    "label": "L" + "a" * 500_000 + ":",
    "digits": "9" * 500_000,
    "blocks": "{" * 500_000,
    "addresses": "op [" * 100_000,
    "minus": "op " + "-" * 500_000,
    "guards": "@" * 500_000,
    "vector": "op {" + "1," * 200_000,
    "modifiers": ".a" * 200_000,
    "labels far out": "{" * 60 + "bra L;" * 100_000 + "}" * 60,
}


@pytest.mark.parametrize("text", LONG_TEXTS.values(), ids=LONG_TEXTS)
def test_long_texts(parser: ModuleType, text: str) -> None:
    assert_module_or_error(parser, parsing.entry(".reg .b32 %r<9>; " + text))


def _find_ptxas() -> str | None:
    wheel = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin" / "ptxas"
    return shutil.which("ptxas") or (str(wheel) if wheel.is_file() else None)


BODIES = """
ret;
ret;;
{ ret; };
bra L; ret; L:
bra L; { L: ret; }
bra L; { bra L; L: ret; } L: ret;
L: { bra L; }
L: L: ret;
@p ret;
.reg .pred p; @p { ret; }
.reg .pred p; @!p bra L; L:
.reg .b32 a; mov .b32 a, 1;
.reg .b32 a; .reg .b32 a;
.reg .b32 %r<4>; mov.b32 %r4, 0;
.reg .b32 %r<4>; .reg .b64 %r2;
.reg .b32 r<2>; mov.b32 r1, r0;
.reg .b32 a; mov.b32 a, 0xFFU;
.reg .b32 a; mov.b32 a, 0b12;
.reg .b32 a; mov.b32 a, 99999999999999999999;
.reg .f32 a; mov.f32 a, 0f3F80000;
.reg .b64 d; mov.b64 d, a;
.shared .b32 a[2]; .reg .b64 d; mov.b64 d, a+4;
.shared .align 3 .b8 a;
.shared .b8 a
.reg .b32 i; mov.b32 i, 0; T: .branchtargets A; brx.idx i, T; A: ret;
.reg .b32 a; .reg .pred p; shfl.sync.idx.b32 a|p, a, 1, 31, -1;
{{{{{{{{{ ret; }}}}}}}}}
.bogus 1;
.pragma 3;
bra kernel;
"""


@pytest.mark.compile
@pytest.mark.parametrize("body", BODIES.strip().splitlines())
def test_ptxas_agrees(parser: ModuleType, tmp_path: Path, body: str) -> None:
    ptxas = _find_ptxas()
    if ptxas is None:
        pytest.skip("no ptxas on this machine")
    text = parsing.entry(body)
    (tmp_path / "module.ptx").write_text(text)
    command = [ptxas, "-arch=sm_90a", "module.ptx", "-o", "module.cubin"]
    accepts = (
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    )
    try:
        parser.parse(text)
    except parser.PtxError:
        assert not accepts
    else:
        assert accepts
