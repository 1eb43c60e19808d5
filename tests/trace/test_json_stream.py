"""A JSON document read in pieces says what json.loads says of the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.trace.json_stream import JsonEndError, JsonStream

NASTY = (
    r'[ {"a": "x\ud83d\ude00\u00e9\n\\\"q", "é😀": [true, false, null, NaN, Infinity, -Infinity]},'
    r"-1.5e-10, 12,1E+5 , 0.25, [[]], {}, 123456789012345678901234567890 ]"
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


def pieces(text: str, num_chars: int) -> JsonStream:
    """A stream of the text, of which every read returns at most so many characters."""
    read: Callable[[int], str] = StringIO(text).read
    return JsonStream(lambda wanted: read(min(wanted, num_chars)))


@pytest.mark.parametrize("num_chars", [1, 2, 3, 7, 1000], ids=str)
def test_a_document_may_be_cut_anywhere(num_chars: int) -> None:
    assert str(list(pieces(NASTY, num_chars).array())) == str(json.loads(NASTY))


@given(st.lists(values), st.sampled_from([None, 2]), st.integers(1, 50))
def test_arrays_say_what_they_say_as_a_whole(
    document: list[Any], indent: int | None, num_chars: int
) -> None:
    text = json.dumps(document, indent=indent)
    assert list(pieces(text, num_chars).array()) == document


@given(st.dictionaries(st.text(), values), st.sampled_from([None, 2]), st.integers(1, 50))
@example({"": 0}, None, 1)
def test_objects_say_what_they_say_as_a_whole(
    document: dict[str, Any], indent: int | None, num_chars: int
) -> None:
    stream = pieces(json.dumps(document, indent=indent), num_chars)
    assert {key: stream.value() for key in stream.members()} == document
    assert stream.peek() == ""


def test_every_beginning_of_a_document_ends_early() -> None:
    for end in range(len(NASTY)):
        with pytest.raises(JsonEndError):
            list(pieces(NASTY[:end], 1000).array())


@pytest.mark.parametrize(
    "text",
    [
        *("[1,]", "[,]", "[1 2]", "[tru e]", "[01]", "{]", "[}", "[1}", '["a\nb"]'),
        *("[{]", "[[1,]]", "['a']", '[{"a" 1}]', "[{1: 2}]", r'["\q"    ,   1 ,2,3,4]'),
        "[" * 200_000 + "]" * 200_000,
        "[" + "1" * 10_000 + "]",
    ],
    ids=lambda text: text[:12].encode("unicode_escape").decode(),
)
def test_mistakes_are_no_early_ends(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        list(pieces(text, 1000).array())
    assert not isinstance(caught.value, JsonEndError)


@pytest.mark.parametrize("mistake", ["oops ", "o", '["a" '], ids=str)
def test_a_mistake_is_found_without_reading_on(mistake: str) -> None:
    num_reads = 0

    def read(num_chars: int) -> str:
        nonlocal num_reads
        num_reads += 1
        assert num_reads <= 2
        return mistake * num_chars

    with pytest.raises(ValueError, match="Expecting"):
        JsonStream(read).value()
