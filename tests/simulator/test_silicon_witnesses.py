"""The same PTX in the simulator and on a GPU, from the same inputs.

Integers and copies are equal bit for bit, sums of products within what another order of summation
may change. Where there is no GPU, the simulator on another seed takes its place for some kernels,
so that all but the launch itself is tried.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.simulator.agreement import assert_agree, reordering_slack
from tests.simulator.gpu_process import GpuProcess
from tests.simulator.silicon_probes import Record

pytest.importorskip("triton", reason="pip install triton (it compiles without a GPU)")

from tests.simulator.silicon_runs import multiply, operands, run_witness
from tests.simulator.witness_compiler import Witness
from tests.simulator.witnesses import WITNESSES

pytestmark = pytest.mark.compile

# Starting CUDA and compiling with Triton take a while; a kernel does not.
_TIMEOUT_S = 60
# Of each kind one: what the simulator does with all of them is another test's business.
_TRIED_WITHOUT_GPU = {
    *("matmul_e4m3", "descriptor_matmul_bf16", "scaled_matmul_bf16", "attention_bf16"),
    *("elementwise_fp8", "row_softmax", "row_scan", "count_values", "transpose"),
}
_SHAPES = [(1, 8, 8), (128, 128, 64), (129, 136, 72), (300, 264, 520), (64, 2112, 448)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("triton"))


@pytest.fixture(autouse=True)
def _cache(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", cache)


def _machines() -> list[Any]:
    names = [(name, "stand-in") for name in WITNESSES if name in _TRIED_WITHOUT_GPU]
    names += [(name, "silicon") for name in WITNESSES]
    return [
        pytest.param(
            name,
            machine,
            id=f"{name}-{machine}",
            marks=pytest.mark.gpu if machine == "silicon" else (),
        )
        for name, machine in names
    ]


@pytest.mark.parametrize(("name", "machine"), _machines())
def test_a_witness_gives_the_same_numbers(
    name: str, machine: str, cache: str, gpu_process: GpuProcess, record_property: Record
) -> None:
    witness = WITNESSES[name](0)
    here = run_witness(name, "cpu", cache)
    if machine == "silicon":
        there = gpu_process.call(_TIMEOUT_S, run_witness, name, "cuda", cache)
    else:
        there = run_witness(name, "cpu", cache, seed=1)
    for (result, expected), found, other in zip(witness.results, here, there, strict=True):
        share = assert_agree(
            torch.from_numpy(found).view(result.dtype),
            torch.from_numpy(other).view(result.dtype),
            _slack(name, witness, expected),
        )
        record_property("share of equal bits", share)


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
@pytest.mark.parametrize("machine", ["stand-in", pytest.param("silicon", marks=pytest.mark.gpu)])
def test_our_bf16_gemm_gives_the_same_numbers(
    shape: tuple[int, int, int], machine: str, gpu_process: GpuProcess, record_property: Record
) -> None:
    here = multiply(*shape, "cpu")
    if machine == "silicon":
        there = gpu_process.call(_TIMEOUT_S, multiply, *shape, "cuda")
    else:
        there = multiply(*shape, "cpu", seed=1)
    a, b = operands(*shape)
    found, other = (torch.from_numpy(bits).view(torch.bfloat16) for bits in (here, there))
    record_property("share of equal bits", assert_agree(found, other, reordering_slack(a, b.T)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in WITNESSES if "_e4m3" in name or "_e5m2" in name])
def test_whose_fp8_sums_silicon_has(
    name: str, cache: str, gpu_process: GpuProcess, record_property: Record
) -> None:
    """Which of the simulator's two ways of summing comes nearer, by the share of equal bits."""
    witness = WITNESSES[name](0)
    result, expected = witness.results[0]
    slack = _slack(name, witness, expected)
    (there,) = gpu_process.call(_TIMEOUT_S, run_witness, name, "cuda", cache)
    for reduced_fp8 in (False, True):
        (here,) = run_witness(name, "cpu", cache, reduced_fp8=reduced_fp8)
        found, other = (torch.from_numpy(bits).view(result.dtype) for bits in (here, there))
        share = assert_agree(found, other, slack)
        record_property(f"share of equal bits, reduced_fp8={reduced_fp8}", share)


def _slack(name: str, witness: Witness, expected: Tensor) -> Tensor | None:
    """How far the results may be apart before they are rounded; None: they have to be equal."""
    if "matmul" in name:
        a, b = _factors(name, witness)
        is_fp8 = a.element_size() == 1
        return reordering_slack(a, b, 13 if is_fp8 else 23)
    if name.startswith("attention"):
        # Weights are rounded to bf16 between the products: where one falls on the other side, the
        # result changes by eps of its part.
        q, k, v = (tensor.double() for tensor in witness.memory[:3])
        later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.mT / q.shape[2] ** 0.5).masked_fill(later, float("-inf"))
        return torch.finfo(torch.bfloat16).eps * (scores.softmax(-1) @ v.abs())
    if name.startswith(("elementwise", "row_softmax")):
        # ex2, rcp, sqrt and div.full err by 2**-22 at most, a few of them in a row; all terms are
        # positive.
        return 2.0**-20 * expected.abs()
    return None


def _factors(name: str, witness: Witness) -> tuple[Tensor, Tensor]:
    a, b = witness.memory[:2]
    if name.startswith("scaled"):
        a = a * witness.memory[2]
    return a, b if name.endswith("mn_major") else b.T


# ---- the comparison itself ----


def test_another_order_of_summation_agrees(cache: str) -> None:
    """Of the whole product in one piece by torch: most bits differ, and none by too much."""
    witness = WITNESSES["matmul_tf32"](0)
    (found,) = run_witness("matmul_tf32", "cpu", cache)
    a, b = _factors("matmul_tf32", witness)
    share = assert_agree(torch.from_numpy(found).view(torch.float32), a @ b, reordering_slack(a, b))
    assert share < 0.5


def test_fp8_sums_of_both_kinds_agree(cache: str) -> None:
    witness = WITNESSES["matmul_e4m3"](0)
    both = [run_witness("matmul_e4m3", "cpu", cache, reduced_fp8=reduced) for reduced in (0, 1)]
    found, other = (torch.from_numpy(bits).view(torch.bfloat16) for (bits,) in both)
    share = assert_agree(found, other, _slack("matmul_e4m3", witness, witness.results[0][1]))
    assert share < 0.99


def _product() -> tuple[Tensor, Tensor, Tensor]:
    a, b = operands(64, 64, 256)
    return a, b.T, a.double() @ b.double().T


def test_a_missing_product_is_noticed() -> None:
    a, b, whole = _product()
    a_less = a.clone()
    a_less[3, 17] = 0
    less = a_less.double() @ b.double()
    with pytest.raises(AssertionError, match=r" elements differ; the first is \(3, "):
        assert_agree(whole.float(), less.float(), reordering_slack(a, b))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_one_wrong_element_is_noticed(value: float) -> None:
    a, b, whole = _product()
    other = whole.bfloat16()
    other[5, 7] = value
    message = r"1 of 4096 elements differ; the first is \(5, 7\)"
    with pytest.raises(AssertionError, match=message):
        assert_agree(whole.bfloat16(), other, reordering_slack(a, b))
    with pytest.raises(AssertionError, match=message):
        assert_agree(other, whole.bfloat16(), reordering_slack(a, b))


def test_equal_nan_agrees_and_one_bit_of_an_integer_does_not() -> None:
    nan = torch.full((4,), float("nan"), dtype=torch.bfloat16)
    assert assert_agree(nan, nan.clone(), torch.zeros(4)) == 1
    other_nan = torch.full((4,), -1, dtype=torch.int16).view(torch.bfloat16)
    assert assert_agree(nan, other_nan, torch.zeros(4)) == 0
    counts = torch.arange(4, dtype=torch.int32)
    with pytest.raises(AssertionError, match=r"the first is \(2,\): 2 here, 3 there"):
        assert_agree(counts, torch.tensor([0, 1, 3, 3], dtype=torch.int32), None)
    zero = torch.zeros(1, dtype=torch.bfloat16)
    with pytest.raises(AssertionError, match=r"0\.0 here, -0\.0 there"):
        assert_agree(zero, -zero, None)
