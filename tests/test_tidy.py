"""The tree is tidy, and the checks that say so find what they look for."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests import tidy

ROOT = Path(__file__).parents[1]


@cache
def source_files() -> list[str]:
    """What git tracks or would track, as paths from the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("tidy (not in a git checkout)")
    return sorted(path for path in set(listing.stdout.split("\0")) if (ROOT / path).is_file())


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def test_every_file_is_tidy() -> None:
    findings = [finding for path in source_files() for finding in tidy.check_file(path, read(path))]
    assert not findings, "\n".join(["", *findings])


def test_documents_cite_files_that_exist() -> None:
    def exists(path: str) -> bool:
        return (ROOT / path).exists()

    findings = [
        finding
        for path in source_files()
        if path.endswith(".md")
        for finding in tidy.check_citations(path, read(path), exists)
    ]
    assert not findings, "\n".join(["", *findings])


def test_no_file_is_large() -> None:
    large = [path for path in source_files() if (ROOT / path).stat().st_size > tidy.MAX_FILE_BYTES]
    assert not large, "over 500 kB (keep the script that makes it): " + ", ".join(large)


BAD = {
    "top-level folder": ("examples/train.py", "", "no top-level folder examples"),
    "empty module name": ("deepep/utils.py", "", "the name says nothing"),
    "empty folder name": ("csrc/common/tma.cuh", "", "the name says nothing"),
    "trailing blank": ("README.md", "one \n", "trailing blanks"),
    "leftover": ("deepep/buffer.py", "x = 1  # TODO: two\n", "unfinished business"),
    "leftover in device code": ("csrc/deepep/a.cuh", "// FIXME\n", "unfinished business"),
    "machine path": ("README.md", "cd /home/me/openweek\n", "a path of one machine"),
    "device code, torch": ("csrc/primitives/tma.cuh", "#include <torch/torch.h>\n", "csrc/host"),
    "device code, ATen": ("csrc/deepgemm/gemm.cu", "# include <ATen/ATen.h>\n", "csrc/host"),
    "another library": (
        "csrc/deepep/a.cuh",
        '#include "../flashmla/params.h"\n',
        "includes flashm",
    ),
    "primitive uses library": (
        "csrc/primitives/tma.cuh",
        '#include "csrc/deepgemm/params.h"\n',
        "primitives includes deepgemm",
    ),
    "device synchronise": ("csrc/host/a.cpp", "cudaDeviceSynchronize();\n", "the stream or"),
    "package imports package": (
        "deepep/a.py",
        "import deepgemm.casts\n",
        "may not import deepgemm",
    ),
    "from import": ("eplb/a.py", "from csrc import checks\n", "eplb may not import csrc"),
    "lazy is no excuse": ("dualpipe/a.py", "def f():\n    import numpy\n", "may not import numpy"),
    "import_module": (
        "flashmla/a.py",
        "import importlib\nimportlib.import_module('tests.oracles')\n",
        "may not import tests",
    ),
    "package imports benchmarks": ("csrc/a.py", "import benchmarks\n", "may not import benchmarks"),
    "heavy import": ("smallpond/a.py", "import ray\n", "ray at import time"),
    "heavy import in try": (
        "flashmla/a.py",
        "try:\n    import triton\nexcept ImportError:\n    pass\n",
        "triton at import time",
    ),
    "print": ("deepep/a.py", "print(1)\n", "print() (return the text"),
    "exit": ("benchmarks/a.py", "exit(1)\n", "exit() (raise"),
    "sys.exit": ("deepep/a.py", "import sys\nsys.exit(1)\n", "sys.exit() (raise"),
    "os._exit": ("threefs/a.py", "import os\nos._exit(1)\n", "os._exit() (raise"),
    "eval": ("tests/test_a.py", "eval('1')\n", "ast.literal_eval"),
    "bare except": ("tests/test_a.py", "try:\n    f()\nexcept:\n    pass\n", ":3: bare except"),
    "pickle": ("threefs/a.py", "import pickle\npickle.loads(b'')\n", "use JSON"),
    "torch.load": ("benchmarks/a.py", "torch.load(f, weights_only=False)\n", "use JSON"),
    "version text": ("csrc/a.py", "torch.__version__ >= '2.10'\n", "versions compared as text"),
    "version function": ("csrc/a.py", "'3' < version('numpy')\n", "versions compared as text"),
}


@pytest.mark.parametrize(("path", "text", "message"), BAD.values(), ids=BAD)
def test_bad_file_is_reported_once(path: str, text: str, message: str) -> None:
    (finding,) = tidy.check_file(path, text)
    assert message in finding
    assert finding.startswith(f"{path}:")


GOOD = {
    "original name": ("dualpipe/utils.py", "import torch\n"),
    "layer": (
        "deepep/a.py",
        "import numpy\nimport torch\nfrom csrc import checks\nfrom . import b\n",
    ),
    "lazy heavy import": ("smallpond/a.py", "def f():\n    import ray\n"),
    "heavy import for types": (
        "smallpond/a.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray\n",
    ),
    "tests import all": ("tests/test_a.py", "import rich\nimport benchmarks\nimport deepep\n"),
    "a command prints and exits": ("benchmarks/__main__.py", "print(1)\nsys.exit(2)\n"),
    "method eval": ("benchmarks/a.py", "model.eval()\n"),
    "safe load": ("benchmarks/a.py", "torch.load(f, weights_only=True)\n"),
    "number versions": ("csrc/a.py", "import sys\nsys.version_info >= (3, 12)\n"),
    "own headers": (
        "csrc/deepep/a.cu",
        '#include "csrc/deepep/params.h"\n#include "csrc/primitives/tma.cuh"\n#include <cuda.h>\n',
    ),
    "host may use torch": ("csrc/host/a.cpp", "#include <torch/extension.h>\n"),
    "URL with such a folder": ("README.md", "https://host/home/page\n"),
}


@pytest.mark.parametrize(("path", "text"), GOOD.values(), ids=GOOD)
def test_good_file_is_not_reported(path: str, text: str) -> None:
    assert tidy.check_file(path, text) == []


def test_citations_are_followed() -> None:
    text = (
        "See `csrc/checks.py`, `tests/gone.py`, `numpy/core.py`, `python -m benchmarks`,\n"
        "[there](tidy.md#part), [not there](missing.md), [the web](https://host/page.md).\n"
    )
    findings = tidy.check_citations(
        "benchmarks/README.md", text, {"csrc/checks.py", "benchmarks/tidy.md"}.__contains__
    )
    assert findings == [
        "benchmarks/README.md:1: tests/gone.py does not exist (correct it)",
        "benchmarks/README.md:2: missing.md does not exist (correct it)",
    ]
