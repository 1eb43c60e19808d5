"""Findings name the line of the source, and through which calls it was inlined."""

import pytest

from tests.simulator.running import run

_FILES = """
.file 1 "kernel.cu"
.file 2 "gemm.cuh"
.file 3 "tma.cuh"
"""


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        (".loc 1 7 3", "kernel.cu:7"),
        (
            ".loc 1 7 3\n.loc 2 20 5, function_name $L1, inlined_at 1 7 3",
            "gemm.cuh:20, called at kernel.cu:7",
        ),
        (
            (
                ".loc 1 7 3\n.loc 1 8 3\n.loc 2 20 5, function_name $L1, inlined_at 1 7 3\n"
                ".loc 2 20 5, function_name $L1, inlined_at 1 8 3\n"
                ".loc 3 65 1, function_name $L2+12, inlined_at 2 20 5"
            ),
            "tma.cuh:65, called at gemm.cuh:20, called at kernel.cu:8",
        ),
        (".loc 3 65 1, function_name $L2, inlined_at 9 9 9", "tma.cuh:65"),
        ("", ""),
    ],
    ids=["own", "inlined", "inlined twice", "unknown call", "none"],
)
def test_place_of_a_finding(lines: str, place: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        run(f"{lines}\ntrap;", module=_FILES)
    found = str(raised.value).partition(" of the PTX")[2]
    assert found == (f", {place}" if place else "")
