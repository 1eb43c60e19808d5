"""The instructions of a PTX text, read with regular expressions: good for what compilers print.

An instruction becomes one line of text without blanks, in which numbers are `#` and their 64 bits,
and the target of a branch is `<index of the statement it goes to>`.
"""

import re
import struct
from dataclasses import dataclass, field

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_LINE_DIRECTIVE = re.compile(r"^[ \t]*\.(loc|file)\b[^\n]*", re.MULTILINE)
_SECTION = re.compile(r"\.section\s+\S+\s*\{[^}]*\}")
_FUNCTION = re.compile(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)[^{;]*\{")
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_NUMBER = re.compile(r"(?<![\w$.%:])-?\d[\w.]*")
_BRANCH = re.compile(r"(?<=bra)((?:\.uni)?)\s+([\w$]+)$")


@dataclass
class _Block:
    parent: "_Block | None"
    labels: dict[str, int] = field(default_factory=dict)

    def find(self, label: str) -> int:
        if label in self.labels:
            return self.labels[label]
        assert self.parent is not None, label
        return self.parent.find(label)


def instructions(text: str) -> dict[str, list[tuple[int, str]]]:
    """Function -> its instructions in order, each as (line in the text, normal form)."""
    for pattern in (_COMMENT, _LINE_DIRECTIVE, _SECTION):
        text = pattern.sub(lambda match: "\n" * match[0].count("\n"), text)
    return {match[1]: _read_body(text, match.end()) for match in _FUNCTION.finditer(text)}


def _read_body(text: str, at: int) -> list[tuple[int, str]]:
    block: _Block | None = _Block(None)
    found: list[tuple[int, str, _Block]] = []
    while block is not None:
        if text[at].isspace():
            at += 1
        elif text[at] == "{":
            block, at = _Block(block), at + 1
        elif text[at] == "}":
            block, at = block.parent, at + 1
        elif label := _LABEL.match(text, at):
            is_prototype = text[label.end() :].lstrip().startswith(".callprototype")
            if not is_prototype:
                block.labels[label[1]] = len(found)
            at = label.end()
        else:
            end = text.index(";", at)
            if text[at] != ".":
                found.append((text.count("\n", 0, at) + 1, text[at:end].rstrip(), block))
            at = end + 1
    return [(line, _normal(item, inside)) for line, item, inside in found]


def _normal(item: str, block: _Block) -> str:
    item = _BRANCH.sub(lambda match: f"{match[1]} <{block.find(match[2])}>", item)
    item = re.sub(r"<(\d+)>", r"<:\1>", item)  # the index is no number of the text
    item = _NUMBER.sub(lambda match: f"#{bits(match[0])}", item)
    return re.sub(r"\s+", "", item).replace("+#0]", "]").replace("<:", "<")


def bits(literal: str) -> int:
    """The 64 bits that a literal stands for, as a signed number; 0f has 32."""
    prefix, digits = literal[:2].lower(), literal[2:]
    if prefix == "0f":
        return int(digits, 16)
    if prefix == "0d":
        value = int(digits, 16)
    elif "." in literal:
        (value,) = struct.unpack("<q", struct.pack("<d", float(literal)))
    else:
        value = int(literal.rstrip("U"), 0)
    return (value + 2**63) % 2**64 - 2**63
