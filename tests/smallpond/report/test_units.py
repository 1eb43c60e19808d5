"""Numbers as people read them."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smallpond.report.units import count, duration, size

EXAMPLES = {
    count: {
        0: "0", 950: "950", 999.6: "1.00k", 9994: "9.99k", 9996: "10.0k", 12_345: "12.3k",
        99_960: "100k", 999_600: "1.00M", 4_560_000: "4.56M", 2.5e15: "2500T",
    },
    size: {0: "0 B", 999: "999 B", 1000: "1.00 kB", 12_300_000: "12.3 MB", 1.5e9: "1.50 GB"},
    duration: {
        0: "0 s", 2e-7: "0 s", 2.5e-4: "250 us", 0.042: "42.0 ms", 0.99949: "999 ms",
        0.9996: "1.00 s", 3.2: "3.20 s", 9.996: "10.0 s", 59.94: "59.9 s", 59.96: "1 min 00 s",
        125: "2 min 05 s", 3599.7: "1 h 00 min", 3780: "1 h 03 min", 90_000: "25 h 00 min",
    },
}  # fmt: skip
CASES = [(text, value, wanted) for text, told in EXAMPLES.items() for value, wanted in told.items()]
WORTH = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "s": 1, "ms": 1e-3, "us": 1e-6}


@pytest.mark.parametrize(("text", "value", "wanted"), CASES)
def test_examples(text: Callable[[float], str], value: float, wanted: str) -> None:
    assert text(value) == wanted


def worth(said: str) -> float:
    match = re.fullmatch(r"([\d.]+) ?(\w*)", said)
    assert match is not None
    return float(match[1]) * WORTH[match[2].removesuffix("B") if match[2] != "s" else "s"]


@given(st.floats(1, 9e14))
def test_what_is_said_is_near_what_is_meant(value: float) -> None:
    for said in (count(value), size(value)):
        assert worth(said) == pytest.approx(value, rel=0.0051, abs=0.5)
        assert len(re.sub(r"\D", "", said)) <= 3


@given(st.floats(1e-6, 59.9))
def test_what_is_said_of_a_time_is_near_it(value: float) -> None:
    assert worth(duration(value)) == pytest.approx(value, rel=0.0051)
