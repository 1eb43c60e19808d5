"""Kernels with a mistake in their text, for tests of what finds it."""

from pathlib import Path
from types import ModuleType

import pytest

from csrc import cache
from csrc.compiler import SOURCES, compile_kernel


def text_of(kernel: str) -> str:
    """The entry and the header of a kernel of deepgemm as one text."""
    header = (SOURCES / f"deepgemm/{kernel}_sm90.cuh").read_text().replace("#pragma once\n", "")
    return changed(
        (SOURCES / f"deepgemm/{kernel}.cu").read_text(),
        f'#include "deepgemm/{kernel}_sm90.cuh"\n',
        header,
    )


def changed(text: str, old: str, new: str) -> str:
    """The text with another part in place of one that stands there once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def launch_instead(
    text: str, kernel: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lets the launches of a module take a kernel of that text.

    A text always lies in the same place, so that it is compiled once.
    """

    def write(folder: Path) -> None:
        (folder / f"{kernel}.cu").write_text(text)

    entry = cache.get("mutations", cache.key_of([kernel, text]), write) / f"{kernel}.cu"
    for name in ("_launcher", "_accumulate_launcher"):
        if maker := getattr(module, name, None):
            monkeypatch.setattr(module, name, maker.__wrapped__)
    monkeypatch.setattr(module, "compile_kernel", lambda _, what: compile_kernel(entry, what))
