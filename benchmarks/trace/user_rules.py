"""Rules of the user's own for what work is for, read from a JSON file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.trace.model import Kind
from benchmarks.trace.rules import Role, Rule

_T = TypeVar("_T")

_COMMUNICATION = (Kind.PAYLOAD, Kind.WAITING)
_KINDS = {
    "communication": Kind.PAYLOAD,
    "waiting": Kind.WAITING,
    "compute": Kind.COMPUTE,
    "copy": Kind.COPY,
}
_ROLES = {"send": Role.SEND, "receive": Role.RECEIVE}


class RulesError(ValueError):
    """A file of rules that cannot be used; one sentence that names file, rule and fault."""


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Reads a user's rules: a JSON list of objects, see `python -m benchmarks trace --help`.

    Raises:
        RulesError: if the file or an entry of it is no such thing; names the entry and its fault.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RulesError(f"rules: {path} must be readable, got {error.strerror}") from None
    except ValueError as error:
        raise RulesError(f"rules: {path} must be JSON, got {error}") from None
    if not isinstance(entries, list):
        raise RulesError(f"rules: {path} must hold a list of rules, got {_json_type(entries)}")
    return tuple(_rule(f"rules: {path}: rule {n}", entry) for n, entry in enumerate(entries, 1))


def _rule(where: str, entry: Any) -> Rule:
    if not isinstance(entry, dict):
        raise RulesError(f"{where} must be an object, got {_json_type(entry)}")
    fields = dict(_texts(where, entry))
    if "match" not in fields:
        raise RulesError(f'{where} must have a "match" (".*" is every name)')
    kind = _choice(where, "kind", fields.get("kind", ""), _KINDS)
    role = _choice(where, "role", fields["role"], _ROLES) if "role" in fields else Role.WHOLE
    for key in {"operation", "role"} & fields.keys():
        if kind not in _COMMUNICATION:
            raise RulesError(
                f"{where}: kind must be communication or waiting to have an {key}, "
                f"got {fields['kind']}"
            )
    stream = _pattern(where, "stream", fields["stream"]) if "stream" in fields else None
    match = _pattern(where, "match", fields["match"])
    return Rule(match, kind, fields.get("operation", ""), role, stream)


def _texts(where: str, entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    known = ("match", "kind", "operation", "role", "stream")
    for key, value in entry.items():
        if key not in known:
            raise RulesError(f"{where}: key must be one of {', '.join(known)}, got {key!r}")
        if not isinstance(value, str):
            raise RulesError(f"{where}: {key} must be text, got {_json_type(value)}")
        yield key, value


def _choice(where: str, key: str, value: str, choices: dict[str, _T]) -> _T:
    if value not in choices:
        raise RulesError(f"{where}: {key} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]


def _pattern(where: str, key: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        rule = f"{where}: {key} must be a regular expression"
        raise RulesError(f"{rule}, got {text!r} ({error})") from None


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "a boolean"}
    return names.get(type(value), "a number")
