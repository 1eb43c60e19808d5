"""PTX texts with something wrong in them."""

import re
from collections.abc import Callable
from random import Random

_TOKEN = re.compile(r"\s+|[%$.]?[\w$]+(?:::\w+)*|[^\w\s]")
_NUMBER = re.compile(r"(?<![\w%$.])\d\w*")
_OPERANDS = re.compile(r"^(\s*(?:@!?%\w+\s+)?[a-z][\w.:]*\s+)(.+)(;.*)$")
_MODIFIER = re.compile(r"\.[a-z]\w*(?:::\w+)*")

NUMBERS = (
    *("0", "1", "-1", "3", "7", "17", "255", "65536", "2147483647", "2147483648", "4294967295"),
    *("4294967296", "9223372036854775807", "18446744073709551615", "18446744073709551616"),
    *(
        "1152921504606846976",
        "0x7fffffff",
        "0f7FC00000",
        "0d7FF0000000000000",
        "1.5",
        "1e999",
        "08",
    ),
)
_TOKENS = (
    *("{", "}", "(", ")", "[", "]", ",", ";", ":", "|", "!", "@", "-", "+", "=", "<", ">", "_"),
    *("%p1", "%r1", "%rd1", "%tid.x", "%tid.w", "%clock64", "WARP_SZ", ".reg", ".shared", ".local"),
    *(".align 1048576", ".extern", ".entry", ".func", ".pred", ".b128", "ret;", "/*", "//", '"'),
)
_CHARACTERS = "\0\x7f\n\t\"'{}[]();,.%@\\é\u2028\U0001f600aZ09"


def _pick(random: Random, found: list[re.Match[str]]) -> re.Match[str] | None:
    return random.choice(found) if found else None


def _replace(text: str, match: re.Match[str] | None, by: str) -> str:
    return text if match is None else text[: match.start()] + by + text[match.end() :]


def _characters(random: Random, text: str) -> str:
    at = random.randrange(len(text) + 1)
    some = "".join(random.choices(_CHARACTERS, k=random.randrange(4)))
    return text[:at] + some + text[at + random.randrange(3) :]


def _tokens(random: Random, text: str) -> str:
    found = list(_TOKEN.finditer(text))
    one, other = _pick(random, found), _pick(random, found)
    if one is None or other is None:
        return text
    by = random.choice(["", other[0], one[0] + other[0], random.choice(_TOKENS)])
    return _replace(text, one, by)


def _numbers(random: Random, text: str) -> str:
    return _replace(text, _pick(random, list(_NUMBER.finditer(text))), random.choice(NUMBERS))


def _modifiers(random: Random, text: str) -> str:
    found = list(_MODIFIER.finditer(text))
    one, other = _pick(random, found), _pick(random, found)
    if one is None or other is None:
        return text
    return _replace(text, one, random.choice(["", other[0], other[0], one[0] + other[0]]))


def _lines(random: Random, text: str) -> str:
    lines = text.split("\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(5):
        case 0:
            del lines[one]
        case 1:
            lines.insert(one, lines[other])
        case 2:
            lines[one], lines[other] = lines[other], lines[one]
        case 3:
            del lines[min(one, other) : min(max(one, other), min(one, other) + 20)]
        case _:
            lines = lines[:one]
    return "\n".join(lines)


def _operands(random: Random, text: str) -> str:
    """Operands of one instruction in another order, fewer of them, or more."""
    lines = text.split("\n")
    found = [(i, match) for i, line in enumerate(lines) if (match := _OPERANDS.match(line))]
    if not found:
        return text
    at, match = random.choice(found)
    operands = match[2].split(", ")
    one, other = random.randrange(len(operands)), random.randrange(len(operands))
    match random.randrange(4):
        case 0:
            operands[one], operands[other] = operands[other], operands[one]
        case 1:
            del operands[one]
        case 2:
            operands.insert(one, operands[other])
        case _:
            donor = random.choice(found)[1][2].split(", ")
            operands[one] = random.choice([*donor, *NUMBERS, "_", "{}", "!%p1", "{%r1}"])
    lines[at] = match[1] + ", ".join(operands) + match[3]
    return "\n".join(lines)


_MUTATIONS: tuple[Callable[[Random, str], str], ...] = (
    *(_characters, _tokens, _tokens, _numbers, _numbers, _modifiers, _modifiers, _lines),
    *(_operands, _operands, _operands),
)


def mutated(random: Random, text: str) -> str:
    """The text with one to four changes."""
    for _ in range(random.choice([1, 1, 1, 2, 2, 4])):
        text = random.choice(_MUTATIONS)(random, text)
    return text
