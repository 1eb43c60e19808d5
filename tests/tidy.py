"""Reads the source tree for what no other tool checks: layers, banned calls, names and leftovers.

Every check takes a path relative to the repository and the file's text, and returns findings of the
form ``path:line: what is wrong (what to do instead)``.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

MAX_FILE_BYTES = 500_000

TOP_LEVEL = {
    *("csrc", "flashmla", "deepep", "deepgemm", "dualpipe", "eplb", "threefs", "smallpond"),
    *("tests", "benchmarks", ".ci"),
}
KERNEL_LIBRARIES = ("flashmla", "deepgemm", "deepep")
# What a package may import beside itself and the standard library. The packages are not in each
# other's lists: they meet through tensors, dataclasses and URLs.
LAYERS = {
    "csrc": {"torch", "numpy"},
    "flashmla": {"csrc", "torch", "numpy", "triton"},
    "deepgemm": {"csrc", "torch", "numpy", "triton"},
    "deepep": {"csrc", "torch", "numpy", "triton"},
    "dualpipe": {"torch"},
    "eplb": {"torch", "numpy", "matplotlib"},
    "threefs": {"fsspec", "pyarrow", "numpy", "torch"},
    "smallpond": {
        *("duckdb", "pyarrow", "numpy", "fsspec", "cloudpickle", "ray"),
        *("pandas", "polars", "torch", "rich", "deltalake", "pyiceberg", "graphviz"),
        *("warcio", "lxml"),
    },
}
# Slow to import, or behind an extra: a package imports them in the function that needs them.
HEAVY = {
    *("ray", "duckdb", "triton", "matplotlib", "rich"),
    *("pandas", "polars", "deltalake", "pyiceberg", "graphviz", "warcio", "lxml"),
}

# These unpickle what comes through a pipe from a process that they started, or that started them.
PRIVATE_PIPES = {"benchmarks/ranks.py", "smallpond/executors/process.py"}

EMPTY_NAMES = {"utils", "common", "misc", "helpers"}
# Import paths that users of the originals have.
ORIGINAL_NAMES = {"dualpipe/utils.py", "smallpond/common.py"}

DEVICE_SUFFIXES = {".cu", ".cuh", ".h", ".hpp", ".cpp"}
TEXT_SUFFIXES = DEVICE_SUFFIXES | {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ""}
# These two quote what they look for.
_SELF = {"tests/tidy.py", "tests/test_tidy.py"}

_LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX)\b")
_MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(work|home|root|Users)/\w")
_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
_CITED = re.compile(r"`([\w.-]+/[\w./-]*)`|\]\(([^)#\s:]+)(?:#[^)]*)?\)")


def check_path(path: str) -> list[str]:
    """A file has a place among the top-level folders, and every part of its path a meaning."""
    parts = PurePosixPath(path).parts
    findings = []
    if len(parts) > 1 and parts[0] not in TOP_LEVEL:
        findings.append(f"{path}:1: no top-level folder {parts[0]} (use one of those there are)")
    names = {PurePosixPath(part).stem for part in parts}
    if names & EMPTY_NAMES and path not in ORIGINAL_NAMES:
        findings.append(f"{path}:1: the name says nothing (name the idea the module is about)")
    return findings


def check_text(path: str, text: str) -> list[str]:
    """No leftovers, no trailing blanks, no place that exists on one machine only."""
    findings = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line != line.rstrip():
            findings.append(f"{path}:{number}: trailing blanks (strip them)")
        if path not in _SELF and _LEFTOVER.search(line):
            findings.append(f"{path}:{number}: unfinished business (finish it)")
        if path not in _SELF and _MACHINE_PATH.search(line):
            findings.append(f"{path}:{number}: a path of one machine (make it relative)")
    return findings


def check_citations(path: str, text: str, exists: Callable[[str], bool]) -> list[str]:
    """The files that a document names are there; ``exists`` takes a path from the repository."""
    folder = PurePosixPath(path).parent
    findings = []
    for number, line in enumerate(text.splitlines(), start=1):
        for quoted, linked in _CITED.findall(line):
            if quoted and PurePosixPath(quoted).parts[0] not in TOP_LEVEL:
                continue
            if not (exists(quoted) if quoted else exists(str(folder / linked))):
                findings.append(f"{path}:{number}: {quoted or linked} does not exist (correct it)")
    return findings


def check_includes(path: str, text: str) -> list[str]:
    """Device code includes no torch header, and a kernel library nothing of another one."""
    parts = PurePosixPath(path).parts
    room = parts[1] if len(parts) > 2 else ""
    if parts[0] != "csrc" or room not in ("primitives", *KERNEL_LIBRARIES):
        return []
    findings = []
    for number, line in enumerate(text.splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include is None:
            continue
        target = PurePosixPath(include[1]).parts
        if target[0] in ("torch", "ATen", "c10", "pybind11"):
            findings.append(f"{path}:{number}: device code includes {include[1]} (use csrc/host)")
        foreign = sorted(set(target[:-1]) & set(KERNEL_LIBRARIES) - {room})
        if foreign:
            findings.append(
                f"{path}:{number}: {room} includes {foreign[0]} (move it to csrc/primitives)"
            )
    return findings


def check_native_calls(path: str, text: str) -> list[str]:
    """Native code waits for a stream or an event, never for the whole device."""
    return [
        f"{path}:{number}: cudaDeviceSynchronize (synchronise the stream or an event)"
        for number, line in enumerate(text.splitlines(), start=1)
        if "cudaDeviceSynchronize(" in line
    ]


def check_imports(path: str, text: str) -> list[str]:
    """A package imports what its layer allows, and the heavy libraries lazily."""
    package = PurePosixPath(path).parts[0]
    if package not in LAYERS:
        return []
    findings = []
    for line, target, lazy in _imports(ast.parse(text)):
        if target != package and target not in LAYERS[package] | sys.stdlib_module_names:
            findings.append(
                f"{path}:{line}: {package} may not import {target} (meet through tensors,"
                " dataclasses or URLs)"
            )
        elif target in HEAVY and not lazy:
            findings.append(f"{path}:{line}: {target} at import time (import it in the function)")
    return findings


def check_calls(path: str, text: str) -> list[str]:
    """No call for which there is something better."""
    tree = ast.parse(text)
    findings = [
        f"{path}:{node.lineno}: bare except (name the exception)"
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    findings += [
        f"{path}:{node.lineno}: versions compared as text (compare tuples of numbers)"
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and _orders_versions(node)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (advice := _better_than(node, path)):
            findings.append(f"{path}:{node.lineno}: {ast.unparse(node.func)}() ({advice})")
    return findings


def check_file(path: str, text: str) -> list[str]:
    """All checks that look at one file alone."""
    suffix = PurePosixPath(path).suffix
    findings = check_path(path)
    if suffix in TEXT_SUFFIXES:
        findings += check_text(path, text)
    if suffix in DEVICE_SUFFIXES:
        findings += check_includes(path, text) + check_native_calls(path, text)
    if suffix == ".py":
        findings += check_imports(path, text) + check_calls(path, text)
    return findings


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """(line, top-level name, whether it is imported late or never) of what is not relative."""
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = [node.module] if node.module and node.level == 0 else []
        elif isinstance(node, ast.Call):
            targets = _import_module_target(node)
        else:
            continue
        for target in targets:
            yield node.lineno, target.split(".")[0], id(node) in late


def _import_module_target(call: ast.Call) -> list[str]:
    if ast.unparse(call.func) not in {"import_module", "importlib.import_module"}:
        return []
    return [
        argument.value
        for argument in call.args[:1]
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def _better_than(call: ast.Call, path: str) -> str | None:
    """What to use instead of this call; None where the call is right."""
    folder, name = PurePosixPath(path).parts[0], PurePosixPath(path).name
    called = ast.unparse(call.func)
    if called == "print" and name != "__main__.py" and folder != "benchmarks":
        return "return the text, or print it in __main__.py"
    if called in {"exit", "quit", "sys.exit", "os._exit"}:
        if name != "__main__.py" and folder != "tests":
            return "raise, and let __main__.py turn it into an exit status"
    elif called in {"eval", "exec"}:
        return "use ast.literal_eval, or a dictionary of functions"
    elif _unpickles(call, called) and path not in PRIVATE_PIPES and folder != "tests":
        return "use JSON, Parquet or torch.load(weights_only=True)"
    return None


def _orders_versions(node: ast.Compare) -> bool:
    ordered = any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops)
    sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
    version = re.compile(r"__version__$|\bversion\.(cuda|hip)$|^sys\.version$|\bversion\('")
    return ordered and any(version.search(side) for side in sides)


def _unpickles(node: ast.Call, called: str) -> bool:
    if called in {"pickle.load", "pickle.loads"}:
        return True
    return called == "torch.load" and not any(
        keyword.arg == "weights_only" and ast.unparse(keyword.value) == "True"
        for keyword in node.keywords
    )
