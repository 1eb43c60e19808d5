"""What a CUDA compiler leaves behind, whichever it is: its output, its log, its errors."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ENTRY = re.compile(r"\.entry\s+([\w$]+)")
# "k.cu(3): error: ..." is CUDA's form, "k.cu:3:10: fatal error: ..." that of nvcc's host compiler.
_ERROR = re.compile(
    r"^(?P<file>[^\s(:][^(:\n]*)[(:](?P<line>\d+)(?:\)|:\d+): .*?error.*$", re.MULTILINE
)
# ptxas counts the lines of the PTX; inline assembly is where it finds mistakes.
_PTXAS_ERROR = re.compile(r"^ptxas .*?, line (?P<line>\d+); error.*$", re.MULTILINE)
_LOC = re.compile(r"^\s*\.loc\s+(\d+)\s+(\d+)")
_ANY_ERROR = re.compile(r"^.*(?:error|fatal).*$", re.MULTILINE | re.IGNORECASE)
# A number in brackets marks what ptxas has to say beside statistics, such as C7510: wgmma runs
# serialised, which costs a kernel most of its speed and is called information only.
_WARNING = re.compile(r"^.*(?:\bwarning\b|\([CW]\d{4,}\)).*$", re.MULTILINE)


class NoCompilerError(RuntimeError):
    """There is no CUDA compiler on this machine; the text says what would bring one."""


class CompileError(RuntimeError):
    """The compiler refused the source.

    Attributes:
        log: Everything that the compiler printed.
        file: The file of the first error, "" where it is not known.
        line: Its line, counted from 1, or 0.
    """

    def __init__(self, log: str, ptx: str = "") -> None:
        """Finds the first error.

        Args:
            log: What the compiler printed.
            ptx: What it had made before ptxas refused it, with line information.
        """
        self.log, self.file, self.line = log, "", 0
        if located := _ERROR.search(log):
            headline = located[0]
            self.file, self.line = located["file"], int(located["line"])
        elif located := _PTXAS_ERROR.search(log):
            self.file, self.line = source_line_of(ptx, int(located["line"]))
            headline = f"{self.file}({self.line}): {located[0]}" if self.file else located[0]
        else:
            first = _ANY_ERROR.search(log)
            headline = first[0].strip() if first else "no reason"
        super().__init__(
            f"compile: source must compile, got {headline} (the compiler's log follows)\n\n{log}"
        )


@dataclass(frozen=True, slots=True)
class Compiled:
    """The output of one compilation.

    Attributes:
        ptx: The text that the simulator runs.
        cubin: The ELF file that the GPU runs.
        log: What the compiler and ptxas -v printed.
    """

    ptx: str
    cubin: bytes
    log: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a kernel takes of a multiprocessor, as ptxas counts it.

    Attributes:
        registers: Per thread.
        shared_bytes: Static shared memory of a block.
        stack_bytes: Local memory of a thread.
        spill_store_bytes: Written to local memory for lack of registers, summed over instructions.
        spill_load_bytes: Read back.
        warnings: What the compiler warns of, line by line.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    warnings: tuple[str, ...]


def report_of(log: str, name: str) -> Report:
    """Reads what `ptxas -v` says of one kernel.

    Args:
        log: What the compiler printed.
        name: The kernel's name in PTX.
    """
    _, _, block = log.partition(f"Compiling entry function '{name}'")
    block = block.partition("Compiling entry function")[0]
    # Device functions that were not inlined have properties of their own in the same block.
    properties = block.partition(f"Function properties for {name}\n")[2]

    def number(before: str, text: str, after: str = "") -> int:
        found = re.search(rf"{before}(\d+){after}", text)
        return int(found[1]) if found else 0

    registers = number("Used ", block, " registers")
    if registers == 0:
        raise RuntimeError(f"compile: the log must tell of {name}, got\n{log}")
    return Report(
        registers=registers,
        shared_bytes=number("", block, " bytes smem"),
        stack_bytes=number("", properties, " bytes stack frame"),
        spill_store_bytes=number("", properties, " bytes spill stores"),
        spill_load_bytes=number("", properties, " bytes spill loads"),
        warnings=tuple(line.strip() for line in _WARNING.findall(log)),
    )


def source_line_of(ptx: str, ptx_line: int) -> tuple[str, int]:
    """Returns the source file and line that a line of PTX comes from, ("", 0) if it tells none."""
    places = [found for line in ptx.splitlines()[:ptx_line] if (found := _LOC.match(line))]
    if not places:
        return "", 0
    file, line = places[-1].groups()
    named = re.search(rf'^\s*\.file\s+{file}\s+"([^"]*)"', ptx, re.MULTILINE)
    return (named[1], int(line)) if named else ("", 0)


def entry_name(ptx: str, expression: str) -> str:
    """Returns the name in PTX of the kernel that C++ calls `expression`.

    The Itanium ABI, which nvcc and NVRTC follow, spells `a::kernel<1>` as `_ZN1a6kernelI...`: the
    path decides the beginning. Template arguments are not compared, as a source is compiled with
    one instantiation at a time.

    Args:
        ptx: The compiler's output.
        expression: A name from the global namespace, with or without template arguments.

    Raises:
        ValueError: The source defines no such kernel, or several.
    """
    path = expression.partition("<")[0].strip().removeprefix("::").split("::")
    mangled = "".join(f"{len(part)}{part}" for part in path)
    start = f"_ZN{mangled}" if len(path) > 1 else f"_Z{mangled}"
    entries: list[str] = _ENTRY.findall(ptx)
    matches = [entry for entry in entries if entry.startswith(start) or entry == path[-1]]
    if len(matches) != 1:
        raise ValueError(
            f"compile: expression must name one kernel, got {expression!r}, which names"
            f" {len(matches)} of {entries} (name it from the global namespace)"
        )
    return matches[0]
