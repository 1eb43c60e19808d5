"""Reads a JSON document piece by piece: in memory is a little text and one value at a time.

The standard library's scanner decodes the values. Unlike the streaming parsers built on yajl it
takes what profilers do write: NaN, infinities, integers of any size; and it is faster.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_CHUNK_CHARS = 1 << 20
_CLOSING = '}]"'
# What a literal, a number or an escape leaves at the end of the text that cuts it in two.
_CUT = re.compile(r"[-+.\w\\]{0,12}\Z")
_BLANK = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")


class JsonEndError(ValueError):
    """The document ends inside a value."""


class JsonStream:
    """A position in a JSON document that is read as far as needed.

    Args:
        read: returns at most so many of the next characters; "" at the end, as often as asked.
    """

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read = read
        self._decode = json.JSONDecoder().raw_decode
        self._text = ""
        self._at = 0

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the document."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def take(self, expected: str) -> str:
        """Takes the next character that is not blank, one of `expected`.

        Raises:
            JsonEndError: if there is none.
            ValueError: if it is another one.
        """
        char = self.peek()
        if not char:
            raise JsonEndError("the document ends early")
        if char not in expected:
            raise ValueError(f"{' or '.join(map(repr, expected))} expected, got {char!r}")
        self._at += 1
        return char

    def value(self) -> Any:
        """Takes the next value, which something must follow.

        Raises:
            JsonEndError: if the document ends before it is whole.
            ValueError: if it is no JSON, or one that Python cannot hold.
        """
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not _may_be_cut(error):
                    raise ValueError(error.msg) from None
            except RecursionError:
                raise ValueError("values are nested too deeply") from None
            else:
                # A number at the end of the text may go on in the rest of the document.
                if self._text[end - 1] in _CLOSING or not _CUT.match(self._text, end):
                    self._at = end
                    return value
            if not self._fill():
                raise JsonEndError("the document ends early")

    def array(self) -> Iterator[Any]:
        """Takes an array and yields its values."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            # Nearly always there is a comma and more of the text, found in one step.
            comma = _COMMA.match(self._text, self._at)
            if comma:
                self._at = comma.end()
            elif self.take(",]") == "]":
                return

    def members(self) -> Iterator[str]:
        """Takes an object and yields its keys; whoever asks takes the value after each of them."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() not in ('"', ""):
                raise ValueError("a member's name expected")
            key: str = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def _fill(self) -> bool:
        """Adds text, doubling what a long value has so far; False at the end of the document."""
        rest = len(self._text) - self._at
        more = self._read(max(_CHUNK_CHARS, rest))
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)


def _may_be_cut(error: json.JSONDecodeError) -> bool:
    """Whether more text could mend the value."""
    unterminated = error.msg.startswith("Unterminated string")
    return unterminated or _CUT.match(error.doc, error.pos) is not None
