"""What the tests of the parser share: the module, a module's text around a body, its statements."""

from pathlib import Path
from types import ModuleType
from typing import Any

import csrc
from csrc import native

TEXTS = Path(__file__).parent / "ptx"
HEADER = ".version 8.7\n.target sm_90a\n.address_size 64\n"


def load() -> ModuleType:
    folder = Path(csrc.__file__).parent / "simulator"
    names = ("lexer", "cursor", "declarations", "initializer", "scopes", "operands", "body")
    names += ("directives", "parser", "parser_binding")
    return native.load("openweek_parser", [folder / f"{name}.cpp" for name in names])


def entry(body: str) -> str:
    """A module with one kernel, whose body begins on line 5."""
    return f"{HEADER}.visible .entry kernel(.param .u64 pointer) {{\n{body}\n}}\n"


def parse_body(parser: ModuleType, body: str) -> Any:
    (function,) = parser.parse(entry(body))["functions"]
    return function
