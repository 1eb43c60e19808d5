"""No opcode that the simulator lowers is without a test."""

import re
from pathlib import Path

import pytest

from csrc import simulator

_FOLDER = Path(__file__).parent

# Which file tests an opcode: each of its types and forms, with values.
_TESTED = {
    "test_instructions_integer.py": "abs add addc and brev cnot div dp2a dp4a mad mad24 madc max"
    " min mul mul24 neg not or rem sad sub subc vabsdiff2 vabsdiff4 xor",
    "test_instructions_bits.py": "bfe bfi bfind bmsk clz fns lop3 popc prmt selp shf shl shr slct"
    " szext",
    "test_instructions_float.py": "copysign fma rcp sqrt testp",
    "test_instructions_approximate.py": "cos ex2 lg2 rsqrt sin tanh",
    "test_instructions_compare.py": "set setp",
    "test_instructions_convert.py": "cvt cvta isspacep mov",
    "test_instructions_control.py": "applypriority bra brkpt brx createpolicy discard elect"
    " exit getctarank griddepcontrol nanosleep pmevent prefetch prefetchu ret setmaxnreg trap",
    "test_instructions_memory.py": "atom fence ld ldu membar red st",
    "test_calls.py": "activemask alloca call stackrestore stacksave",
    "test_machine.py": "bar barrier mapa match mbarrier redux shfl vote",
    "test_matrix.py": "ldmatrix mma stmatrix wgmma",
    "test_async_bulk.py": "cp",
    "test_async_multimem.py": "multimem",
    "test_tensor_map_replace.py": "tensormap",
}


def _opcodes() -> list[tuple[str, str]]:
    return [(opcode, file) for file, names in _TESTED.items() for opcode in names.split()]


def test_every_opcode_has_a_file_that_tests_it() -> None:
    """A new opcode belongs into the table above, and into that file."""
    assert simulator.core().opcodes() == sorted(opcode for opcode, _ in _opcodes())


@pytest.mark.parametrize(("opcode", "file"), _opcodes())
def test_the_file_names_the_opcode(opcode: str, file: str) -> None:
    text = (_FOLDER / file).read_text()
    assert re.search(rf"(?<![\w.%]){opcode}[.\s;,\"'\]]", text), opcode
