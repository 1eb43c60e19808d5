"""The files of a source: found as the compiler finds them, each once, without system headers."""

from pathlib import Path

import pytest

from csrc.includes import read_with_includes

ROOT = Path("/r")


def closure(files: dict[str, str], source: str = "lib/k.cu") -> list[str]:
    """What `source` is made of, in a tree of `files` with the include folder /r."""
    texts = {ROOT / name: text for name, text in files.items()}
    found = read_with_includes([ROOT / source], [ROOT], texts.get)
    assert all(found[path] == texts[path] for path in found)
    return sorted(str(path.relative_to(ROOT)) for path in found)


CASES = {
    "alone": ({"lib/k.cu": "int x;"}, ["lib/k.cu"]),
    "beside, quoted": ({"lib/k.cu": '#include "a.h"', "lib/a.h": ""}, ["lib/a.h", "lib/k.cu"]),
    "beside, angled: not searched": ({"lib/k.cu": "#include <a.h>", "lib/a.h": ""}, ["lib/k.cu"]),
    "from the root, angled": (
        {"lib/k.cu": "#include <p/a.h>", "p/a.h": ""},
        ["lib/k.cu", "p/a.h"],
    ),
    "beside wins over the root": (
        {"lib/k.cu": '#include "a.h"', "lib/a.h": "", "a.h": ""},
        ["lib/a.h", "lib/k.cu"],
    ),
    "through a header, beside that header": (
        {"lib/k.cu": '#include "p/a.h"', "p/a.h": '#include "b.h"', "p/b.h": ""},
        ["lib/k.cu", "p/a.h", "p/b.h"],
    ),
    "a circle": (
        {"lib/k.cu": '#include "a.h"', "lib/a.h": '#include "b.h"', "lib/b.h": '#include "a.h"'},
        ["lib/a.h", "lib/b.h", "lib/k.cu"],
    ),
    "two names of one file": (
        {"lib/k.cu": '#include "a.h"\n#include "../lib/./a.h"', "lib/a.h": ""},
        ["lib/a.h", "lib/k.cu"],
    ),
    "spaces, tabs, any line": (
        {"lib/k.cu": 'int x;\n\t# \tinclude\t"a.h" // why', "lib/a.h": ""},
        ["lib/a.h", "lib/k.cu"],
    ),
    "a branch not taken": (
        {"lib/k.cu": '#if 0\n#include "a.h"\n#endif', "lib/a.h": ""},
        ["lib/a.h", "lib/k.cu"],
    ),
    "commented out": ({"lib/k.cu": '// #include "a.h"', "lib/a.h": ""}, ["lib/k.cu"]),
    "of the compiler": ({"lib/k.cu": "#include <cuda_bf16.h>"}, ["lib/k.cu"]),
}


@pytest.mark.parametrize(("files", "expected"), CASES.values(), ids=CASES)
def test_closure(files: dict[str, str], expected: list[str]) -> None:
    assert closure(files) == expected


def test_missing_source() -> None:
    with pytest.raises(FileNotFoundError, match=r"source must be a file, got /r/lib/k\.cu"):
        closure({})


def test_reads_the_disk(tmp_path: Path) -> None:
    (tmp_path / "k.cu").write_text(
        f'#include "a.h"\n#include "../{tmp_path.name}/./a.h"\n#include "folder"\n'
    )
    (tmp_path / "a.h").write_bytes(b"// \xff is no UTF-8\n")
    (tmp_path / "folder").mkdir()
    assert set(read_with_includes([tmp_path / "k.cu"], [])) == {tmp_path / "k.cu", tmp_path / "a.h"}
