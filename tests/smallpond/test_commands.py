"""Other programs, line by line."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time

import pytest

from smallpond.utility import execute_command


def python(program: str) -> str:
    return shlex.join([sys.executable, "-c", program])


def test_lines_of_both_kinds() -> None:
    program = "import sys; print('a b', flush=True); sys.stderr.write('c\\n')"
    assert list(execute_command(python(program))) == ["a b", "c"]
    assert list(execute_command("printf 'x\\377y'", shell=True)) == ["x\ufffdy"]  # noqa: S604
    assert list(execute_command("echo $A | tr a-z A-Z", {"A": "hello"}, shell=True)) == ["HELLO"]  # noqa: S604


def test_a_failure() -> None:
    lines = execute_command(python("print('so far'); raise SystemExit(3)"))
    assert next(lines) == "so far"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        next(lines)
    assert caught.value.returncode == 3


def test_it_does_not_outlive_its_reader() -> None:
    began_s = time.monotonic()
    lines = execute_command(python("import time; print(1, flush=True); time.sleep(60)"))
    assert next(lines) == "1"
    lines.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began_s < 30
