"""What an independent compiler has made of small kernels gives torch's numbers in the simulator."""

import dataclasses
import re
from collections.abc import Iterator

import pytest

from csrc import simulator
from csrc.tensor_map import TensorMap

pytest.importorskip("triton", reason="pip install triton (it compiles without a GPU)")

from tests.simulator.witness_compiler import Witness
from tests.simulator.witnesses import WITNESSES

pytestmark = pytest.mark.compile


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def _run(witness: Witness, seed: int) -> None:
    kernel = simulator.load(witness.ptx)[witness.entry]
    args = [
        argument.encode_for_simulator() if isinstance(argument, TensorMap) else argument
        for argument in witness.arguments
    ]
    with simulator.Machine(sms=8, seed=seed) as machine:
        machine.launch(
            kernel,
            witness.grid,
            witness.num_threads,
            args=args,
            cluster=witness.cluster_size,
            smem_bytes=witness.shared_bytes,
            memory=witness.memory,
        )
        machine.run()


@pytest.mark.parametrize("name", sorted(WITNESSES))
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_are_torchs(name: str, seed: int) -> None:
    witness = WITNESSES[name](seed)
    _run(witness, seed)
    for found, expected in witness.results:
        if not expected.dtype.is_floating_point:
            assert (found == expected).all()
            continue
        # Half a step of the result's format, and as much again for sums in another order.
        step = 2.0**-3 if found.element_size() == 1 else 2.0**-8
        # Attention rounds its weights, too, to the format, between its two products.
        slack = 2.0**-8 if name.startswith("attention") else 1e-5
        bound = step * expected.abs() + slack * expected.abs().max()
        assert ((found.double() - expected.double()).abs() <= bound).all()


def test_a_map_of_the_kernel_needs_its_fence() -> None:
    witness = WITNESSES["persistent_matmul_bf16"](0)
    without, count = re.subn(r"@\S+ fence\.proxy\.tensormap::generic\.acquire.*;", "", witness.ptx)
    assert count == 3
    with pytest.raises(RuntimeError, match="missing tensormap fence"):
        _run(dataclasses.replace(witness, ptx=without), 0)
