"""The peers of the FP8 products do the same as ours."""

import pytest
import torch

from benchmarks.cases.deepgemm import Gemm, _dense_inputs
from benchmarks.gemm_peers import TORCH_PEERS, exact
from csrc import simulator

pytest.importorskip("triton", reason="pip install triton (it compiles without a GPU)")

from benchmarks.triton_block_scaled import block_scaled_gemm
from tests.simulator.witness_compiler import compile_witness


@pytest.mark.parametrize("name", sorted(TORCH_PEERS))
def test_torch(name: str) -> None:
    inputs = _dense_inputs(Gemm(5, 192, 256), torch.device("cpu"), seed=0)
    found, expected = TORCH_PEERS[name].run(inputs).double(), exact(inputs)
    assert (found - expected).norm() < 6e-3 * expected.norm()


@pytest.mark.compile
@pytest.mark.parametrize("shape", [Gemm(70, 200, 272), Gemm(3, 128, 128)])
def test_the_triton_kernel(
    shape: Gemm, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for Hopper, and run by the simulator."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
    inputs = _dense_inputs(shape, torch.device("cpu"), seed=0)
    (a, a_scale), (b, b_scale), d = inputs["a"], inputs["b"], inputs["d"]
    block_m = 64
    witness = compile_witness(
        block_scaled_gemm,
        (-(-shape.m // block_m) * -(-shape.n // 128),),
        {
            "a": a,
            "a_scale": a_scale,
            "b": b,
            "b_scale": b_scale,
            "d": d,
            "m": shape.m,
            "n": shape.n,
            "k": shape.k,
            "stride_a": a.stride(0),
            "stride_a_scale": a_scale.stride(0),
            "step_a_scale": a_scale.stride(1),
            "stride_b": b.stride(0),
            "stride_b_scale": b_scale.stride(0),
            "step_b_scale": b_scale.stride(1),
            "stride_d": d.stride(0),
        },
        {"BLOCK_M": block_m},
        [(d, exact(inputs))],
        num_warps=4,
        num_stages=4,
    )
    with simulator.Machine(sms=4, seed=1) as machine:
        machine.launch(
            simulator.load(witness.ptx)[witness.entry],
            witness.grid,
            witness.num_threads,
            args=witness.arguments,  # type: ignore[arg-type]
            cluster=witness.cluster_size,
            smem_bytes=witness.shared_bytes,
            memory=witness.memory,
        )
        machine.run()
    expected = exact(inputs)
    assert (d.double() - expected).norm() < 4e-3 * expected.norm()
