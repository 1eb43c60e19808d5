"""The witnesses compile, each with the instructions for which it is there."""

import re
from collections.abc import Iterator
from math import prod

import pytest
from torch import Tensor

from csrc.tensor_map import TensorMap

pytest.importorskip("triton", reason="pip install triton (it compiles without a GPU)")

from tests.simulator.witness_compiler import Witness
from tests.simulator.witnesses import WITNESSES

pytestmark = pytest.mark.compile

# By name, what its PTX must have: otherwise another version of Triton has made it say less.
PURPOSE = {
    "matmul_bf16": r"wgmma.*\.f32\.bf16\.bf16",
    "matmul_f16": r"wgmma.*\.f32\.f16\.f16",
    "matmul_e4m3": r"wgmma.*\.f32\.e4m3\.e4m3",
    "matmul_e5m2": r"wgmma.*\.f32\.e5m2\.e5m2",
    "matmul_tf32": r"wgmma.*\.f32\.tf32\.tf32",
    "matmul_bf16_mn_major": r"wgmma.*, 0, 1;",
    "matmul_bf16_256_wide": r"wgmma.*\.m64n256k16",
    "matmul_e4m3_256_wide": r"wgmma.*\.m64n256k32",
    "matmul_bf16_mma_sync": r"mma\.sync\.aligned\.m16n8k16",
    "scaled_matmul_bf16": r"wgmma.*\}, \{%r",  # the left operand in registers
    "descriptor_matmul_bf16": r"cp\.async\.bulk\.tensor\.2d\.shared",
    "descriptor_matmul_bf16_cluster": r"barrier\.cluster",
    "own_descriptor_matmul_bf16": r"tensormap\.replace",
    "persistent_matmul_bf16": r"fence\.proxy\.tensormap::generic\.acquire",
    "attention_bf16": r"shfl\.sync\.bfly",
    "elementwise": r"ex2\.approx",
    "elementwise_fp8": r"cvt.*\.e4m3x2",
    "row_scan": r"shfl\.sync\.up",
    "count_values": r"atom\..*\.cas",
    "extremes": r"redux\.sync\.max",
    "transpose": r"\.trans\.",
}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


@pytest.mark.parametrize("name", WITNESSES)
def test_witness_compiles(name: str) -> None:
    witness = WITNESSES[name](0)
    assert ".target sm_90a" in witness.ptx
    assert re.search(PURPOSE.get(name, ""), witness.ptx)
    assert 1 <= witness.num_threads <= 1024
    assert witness.grid[0] % witness.cluster_size == 0
    check_arguments(witness)


def check_arguments(witness: Witness) -> None:
    """One per parameter, of its size; what they point to is there."""
    head = witness.ptx[witness.ptx.index(f".entry {witness.entry}") :].partition(")")[0]
    sizes = []
    for line in head.splitlines()[1:]:
        kind, elems = re.findall(r"\.[a-z](\d+) .*?(?:\[(\d+)\])?,?$", line.strip())[0]
        sizes.append(int(kind) // 8 * int(elems or 1))
    assert len(sizes) == len(witness.arguments)
    for size, argument in zip(sizes, witness.arguments, strict=True):
        if isinstance(argument, TensorMap):
            assert size == 128
            spans = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in witness.memory]
            assert any(start <= argument.address < end for start, end in spans)
        elif isinstance(argument, Tensor):
            assert size == 8
            assert any(argument is tensor for tensor in witness.memory)
        else:
            assert size in (4, 8)
    for written, expected in witness.results:
        assert written.shape == expected.shape
        assert prod(written.shape) > 0
