"""C++ built at first use: when it is compiled again, when not, and what happens when it fails."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csrc import native
from tests.forked_pool import ForkedPool

# Without pybind11, whose headers take seconds.
SOURCE = """
#include <Python.h>
#include "outer.h"

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "trial", nullptr, -1, nullptr};

PyMODINIT_FUNC PyInit_trial() {
  PyObject* module = PyModule_Create(&definition);
  PyModule_AddIntConstant(module, "value", kValue);
  return module;
}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with `value` 7, whose folder has a name that a shell would misread."""
    monkeypatch.setenv("OPENWEEK_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "a $folder: it's"
    folder.mkdir()
    (folder / "outer.h").write_text('#include "inner.h"\n')
    (folder / "inner.h").write_text("constexpr int kValue = 7;\n")
    (folder / "unrelated.h").write_text("")
    file = folder / "trial.cpp"
    file.write_text(SOURCE)
    return file


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """The compiler is looked for anew in the test, and after it."""
    native._find_compiler.cache_clear()
    yield
    native._find_compiler.cache_clear()


def wrap_compiler(folder: Path, script: str) -> None:
    """Puts a g++ into `folder` that runs `script` first when it compiles or links."""
    compiler = folder / "g++"
    real = shutil.which("g++")
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *" -o "*) {script};; esac\nexec {real} "$@"\n')
    compiler.chmod(0o755)


def test_builds_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = native.load("trial", [source])
    assert module.value == 7

    def fail(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", fail)
    assert native.load("trial", [source]) is module
    assert str(native.build("trial", [source])) == module.__file__


def test_rebuilds_for_what_changes_the_result_and_for_nothing_else(source: Path) -> None:
    first = native.build("trial", [source])
    (source.parent / "unrelated.h").write_text("int changed;")
    assert native.build("trial", [source]) == first
    assert native.build("trial", [source], flags=["-DUNUSED"]) != first
    (source.parent / "inner.h").write_text("constexpr int kValue = 8;\n")
    changed = native.build("trial", [source])
    assert changed != first
    assert native._import("trial", changed).value == 8


def test_flags_and_include_dirs_reach_the_compiler(source: Path, tmp_path: Path) -> None:
    (source.parent / "outer.h").write_text("#include <found_by_folder.h>\n")
    include = tmp_path / "include $dir"
    include.mkdir()
    (include / "found_by_folder.h").write_text("constexpr int kValue = VALUE;\n")
    module = native.load("trial", [source], include_dirs=[include], flags=["-DVALUE=(4 + 5)"])
    assert module.value == 9


def test_several_sources_make_one_module(source: Path) -> None:
    (source.parent / "inner.h").write_text("int value_of();\n#define kValue value_of()\n")
    second = source.with_name("second.cpp")
    second.write_text('#include "inner.h"\nint value_of() { return 11; }\n')
    assert native.load("trial", [source, second]).value == 11


@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_again_only_the_source_that_changed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, log = tmp_path / "tools", tmp_path / "log"
    tools.mkdir()
    wrap_compiler(tools, f"echo $1 >> {log}")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (source.parent / "inner.h").write_text("int value_of();\n#define kValue value_of()\n")
    second = source.with_name("second.cpp")
    for value in (1, 2):
        second.write_text(f"int value_of() {{ return {value}; }}\n")
        assert native.load("trial", [source, second]).value == value
    assert sorted(log.read_text().splitlines()) == ["-O3"] * 3 + ["-shared"] * 2


def test_shows_what_the_compiler_says(source: Path, tmp_path: Path) -> None:
    (source.parent / "inner.h").write_text("constexpr int kValue = no_such_name;\n")
    with pytest.raises(native.NativeBuildError) as caught:
        native.build("trial", [source])
    assert str(caught.value).startswith("native.build: the C++ does not compile:\n")
    assert "inner.h:1" in str(caught.value)
    assert "no_such_name" in str(caught.value)
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"]
    assert {path.name for path in left} == {"native", "objects"}


@pytest.mark.usefixtures("fresh_compiler")
def test_names_the_package_that_is_missing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(source.parent))
    message = r"^native.build: no C\+\+ compiler found \(apt-get install g\+\+\)$"
    with pytest.raises(RuntimeError, match=message):
        native.build("trial", [source])


def build_on_rank(_rank: int, source: Path, cache: Path, path: str) -> int:
    os.environ.update(OPENWEEK_CACHE=str(cache), PATH=path)
    value: int = native.load("trial", [source]).value
    return value


def test_eight_ranks_compile_once(source: Path, tmp_path: Path, ranks: ForkedPool) -> None:
    log = tmp_path / "log"
    tools = tmp_path / "tools"
    tools.mkdir()
    wrap_compiler(tools, f"echo $1 >> {log}; sleep 0.5")
    path = f"{tools}:{os.environ['PATH']}"
    values = ranks.run(build_on_rank, 8, source, tmp_path / "cache", path)
    assert values == [7] * 8
    assert log.read_text().splitlines() == ["-O3", "-shared"]


@pytest.mark.usefixtures("fresh_compiler")
def test_a_killed_builder_blocks_nobody(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, tools = tmp_path / "started", tmp_path / "tools"
    tools.mkdir()
    wrap_compiler(tools, f"if test ! -e {started}; then touch {started}; sleep 60; fi")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    code = f"import pathlib, csrc.native as n; n.build('trial', [pathlib.Path({str(source)!r})])"
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, start_new_session=True) as builder:
        try:
            deadline = time.monotonic() + 60
            while not started.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            builder.kill()  # the compiler that it has started lives on
            builder.wait()
            assert native.load("trial", [source]).value == 7
        finally:
            os.killpg(builder.pid, signal.SIGKILL)
    entries = [path for path in (tmp_path / "cache" / "native").iterdir() if path.is_dir()]
    assert len(entries) == 1


@pytest.mark.slow
def test_links_torch(source: Path) -> None:
    source.write_text("""
#include <ATen/ops/ones.h>
#include <torch/csrc/autograd/python_variable.h>

static PyObject* ones(PyObject*, PyObject*) { return THPVariable_Wrap(at::ones({3})); }
static PyMethodDef methods[] = {{"ones", ones, METH_NOARGS, nullptr}, {}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "trial", nullptr, -1, methods};

PyMODINIT_FUNC PyInit_trial() { return PyModule_Create(&definition); }
""")
    assert native.load("trial", [source], torch=True).ones().tolist() == [1, 1, 1]
