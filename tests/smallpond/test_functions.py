"""Python functions as values: what belongs to their identity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import smallpond

ROOT = Path(smallpond.__file__).parents[1]
MODULE = """
import functools


def plain(row):
    return {"b": row["a"] * 2, "ok": row["c"] in {"x", "y", "z"}, "f": (lambda v: v + 1)(row["a"])}


class Large:
    def __init__(self):
        self.table = list(range(1000))
    def method(self, row):
        return {"b": row["a"] * 2}
    def __call__(self, row):
        return {"b": row["a"] * 2}

def two(factor, row):
    return {"b": row["a"] * 2}

called = functools.partial(two, list(range(1000)))
"""
FUNCTIONS = ("plain", "Large().method", "Large()", "called")


def digests(folder: Path, text: str, hash_seed: str = "0") -> list[str]:
    """The digests of the module's functions, in a process of their own."""
    folder.mkdir(exist_ok=True)
    (folder / "module_of_a_test.py").write_text(text)
    made = ", ".join(f"of(m.{name}, 'map').digest" for name in FUNCTIONS)
    code = f"""
import module_of_a_test as m
from smallpond.functions import FunctionRef
of = FunctionRef.of
print({made})
"""
    env = {"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_function_is_the_same_in_every_process(tmp_path: Path) -> None:
    first = digests(tmp_path, MODULE)
    assert len(set(first)) == len(FUNCTIONS)
    for seed in ("1", "2", "3"):
        assert digests(tmp_path, MODULE, seed) == first
    assert digests(tmp_path / "moved", "\n\n# a comment\n" + MODULE) == first


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("* 2", "* 3", [True] * 4),
        ('row["a"] * 2', 'row["a"] + 2', [True] * 4),
        ('"y"', '"w"', [True, False, False, False]),
        ("v + 1", "v + 7", [True, False, False, False]),
        ("range(1000))\n    def", "range(1001))\n    def", [False, True, True, False]),
    ],
)
def test_other_code_is_another_function(
    tmp_path: Path, old: str, new: str, changed: list[bool]
) -> None:
    before, after = digests(tmp_path, MODULE), digests(tmp_path, MODULE.replace(old, new))
    assert [a != b for a, b in zip(before, after, strict=True)] == changed
