"""The harness itself: what is wrong must be found, and what is right must pass."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.comparison import assert_matches
from tests.strategies import (
    GARBAGE_PAGE,
    PagedCache,
    extents,
    gemm_shapes,
    paged_caches,
    routings,
    schedule_sizes,
)

ROOT = Path(__file__).parents[1]

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]


def matmul_case(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A result with float32 accumulation, its oracle, and plain torch in the same precision."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(256, 320, generator=generator).to(dtype) for _ in range(2))
    actual = (a.float() @ b.float().T).to(dtype)
    oracle = a.double() @ b.double().T
    baseline = actual if dtype == torch.float8_e4m3fn else a @ b.T
    return actual, oracle, baseline


def one_nan(x: Tensor) -> None:
    x[17, 33] = torch.nan


def one_inf(x: Tensor) -> None:
    x[255, 255] = torch.inf


def one_wrong_element(x: Tensor) -> None:
    x[130, 7] += 4


def swapped_rows(x: Tensor) -> None:
    x[[3, 200]] = x[[200, 3]]


def zeroed_fragment(x: Tensor) -> None:
    x[64:128, 8:16] = 0


def all_zero(x: Tensor) -> None:
    x.zero_()


def scaled(x: Tensor) -> None:
    x *= 1.02


CORRUPTIONS = [
    one_nan,
    one_inf,
    one_wrong_element,
    swapped_rows,
    zeroed_fragment,
    all_zero,
    scaled,
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_good_matmul_passes(dtype: torch.dtype, seed: int) -> None:
    actual, oracle, baseline = matmul_case(dtype, seed)
    assert_matches(actual, oracle, baseline)
    assert_matches(oracle.to(dtype), oracle, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_corrupted_matmul_fails(
    dtype: torch.dtype, corrupt: Callable[[Tensor], None], seed: int
) -> None:
    actual, oracle, baseline = matmul_case(dtype, seed)
    corrupt(actual)
    with pytest.raises(AssertionError, match=r"elements are wrong|the whole is off"):
        assert_matches(actual, oracle, baseline)


@pytest.mark.parametrize("corrupt", [one_nan, swapped_rows, zeroed_fragment, all_zero])
def test_corrupted_float8_fails(corrupt: Callable[[Tensor], None], seed: int) -> None:
    actual, oracle, baseline = matmul_case(torch.float8_e4m3fn, seed)
    wide = actual.float()
    corrupt(wide)
    with pytest.raises(AssertionError, match="elements are wrong"):
        assert_matches(wide.to(actual.dtype), oracle, baseline)


def test_report_names_element_count_and_tile(seed: int) -> None:
    actual, oracle, baseline = matmul_case(torch.bfloat16, seed)
    actual[7, 250] = torch.nan
    actual[200:203, 130:134] = torch.nan
    with pytest.raises(AssertionError) as caught:
        assert_matches(actual, oracle, baseline)
    assert str(caught.value).startswith(
        "13 of 65536 elements are wrong, the first at [7, 250]: actual nan, expected "
    )
    assert str(caught.value).endswith("12 of them lie in [128:256, 128:256]")


def test_one_wrong_element_among_1e5(seed: int) -> None:
    oracle = torch.randn(100_000, dtype=torch.float64)
    actual = oracle.float()
    actual[54_321] += 1e-5
    with pytest.raises(AssertionError, match=r"^1 of 100000 .* at \[54321\].* in \[54272:54400\]"):
        assert_matches(actual, oracle, dtype=torch.float32)


def test_small_row_beside_a_large_one(seed: int) -> None:
    """The error of a large row is no excuse for a wrong small one."""
    oracle = torch.randn(2, 512, dtype=torch.float64)
    oracle[1] *= 1e-3
    actual = oracle.bfloat16()
    assert_matches(actual, oracle, oracle.bfloat16())
    actual[1] = 0
    with pytest.raises(AssertionError, match=r"elements are wrong, the first at \[1, "):
        assert_matches(actual, oracle, oracle.bfloat16())


def test_bias_below_every_elements_bound_fails(seed: int) -> None:
    oracle = torch.rand(1000, dtype=torch.float64) + 1
    eps = torch.finfo(torch.float32).eps
    with pytest.raises(AssertionError, match="the whole is off"):
        assert_matches((oracle + eps).float(), oracle, dtype=torch.float32)


def test_wrong_shape_dtype_strides_fail() -> None:
    oracle = torch.ones(4, 6, dtype=torch.float64)
    actual = torch.ones(4, 6)
    with pytest.raises(AssertionError, match=r"shape is \(3, 6\), expected \(4, 6\)"):
        assert_matches(actual[:3], oracle, actual)
    with pytest.raises(AssertionError, match=r"shape of the baseline is \(6,\), expected \(4, 6\)"):
        assert_matches(actual, oracle, actual[0])
    with pytest.raises(AssertionError, match=r"dtype is torch.float32, expected torch.bfloat16"):
        assert_matches(actual, oracle, actual.bfloat16())
    with pytest.raises(AssertionError, match=r"strides are \(6, 1\), expected \(1, 4\)"):
        assert_matches(actual, oracle, actual, strides=(1, 4))
    assert_matches(actual.T.contiguous().T, oracle, actual, strides=(1, 4))


def test_special_values_must_stand_where_the_oracle_has_them() -> None:
    special = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.0], dtype=torch.float64)
    assert_matches(special.float(), special, dtype=torch.float32)
    for wrong in ([0, 1, 2, 0], [0, 2, 2, 3], [3, 1, 2, 3], [0, 1, 3, 3]):
        with pytest.raises(AssertionError, match="1 of 4 elements are wrong"):
            assert_matches(special[wrong].float(), special, dtype=torch.float32)


def test_a_baseline_that_fails_is_no_excuse() -> None:
    oracle = torch.ones(64, dtype=torch.float64)
    baseline = torch.full((64,), torch.nan)
    assert_matches(torch.ones(64), oracle, baseline)
    with pytest.raises(AssertionError, match="64 of 64"):
        assert_matches(baseline, oracle, baseline)


def test_oracle_must_be_exact() -> None:
    with pytest.raises(TypeError, match=r"oracle must be float64 or integer, got torch.float32"):
        assert_matches(torch.ones(3), torch.ones(3), torch.ones(3))
    with pytest.raises(TypeError, match="dtype must be given where there is no baseline"):
        assert_matches(torch.ones(3), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool], ids=str)
def test_integers_compare_exactly(dtype: torch.dtype) -> None:
    oracle = torch.tensor([[0, 1, 1], [1, 0, 0]], dtype=dtype)
    assert_matches(oracle.clone(), oracle)
    wrong = oracle.clone()
    wrong[1, 2] = 1
    with pytest.raises(AssertionError, match=r"1 of 6 .* at \[1, 2\]: actual (1|True), expected"):
        assert_matches(wrong, oracle)
    with pytest.raises(AssertionError, match=r"expected torch\.int16"):
        assert_matches(oracle, oracle, dtype=torch.int16)


def test_empty_and_scalar_tensors() -> None:
    empty = torch.empty(0, 7, dtype=torch.float64)
    assert_matches(empty.float(), empty, dtype=torch.float32)
    with pytest.raises(AssertionError, match="shape"):
        assert_matches(torch.empty(7, 0), empty, dtype=torch.float32)
    one = torch.tensor(1.0, dtype=torch.float64)
    assert_matches(one.float(), one, dtype=torch.float32)
    with pytest.raises(AssertionError, match=r"1 of 1 elements are wrong, the first at \[\]"):
        assert_matches(torch.tensor(1.5), one, dtype=torch.float32)


def test_given_bounds_replace_the_derived_ones() -> None:
    oracle = torch.ones(64, dtype=torch.float64)
    assert_matches(torch.full((64,), 1.004), oracle, dtype=torch.float32, rtol=1e-2)
    with pytest.raises(AssertionError, match="the whole is off"):
        assert_matches(
            torch.full((64,), 1.004), oracle, dtype=torch.float32, rtol=1e-2, global_bound=1e-3
        )


@given(gemm_shapes(), schedule_sizes(), extents(64))
def test_drawn_sizes_are_legal(
    shape: tuple[int, int, int], schedule: tuple[int, int], extent: int
) -> None:
    m, n, k = shape
    assert (0 <= m <= 256, n % 64, k % 128) == (True, 0, 0)
    num_ranks, num_microbatches = schedule
    assert (num_ranks % 2, num_microbatches % 2) == (0, 0)
    assert num_microbatches >= 2 * num_ranks
    assert 0 <= extent <= 128


@given(paged_caches())
def test_drawn_pages_belong_to_one_request_each(cache: PagedCache) -> None:
    seen: list[int] = []
    for length, pages in zip(cache.cache_seqlens.tolist(), cache.block_table, strict=True):
        used = -(-length // cache.page_size)
        assert (pages[used:] == GARBAGE_PAGE).all()
        seen += pages[:used].tolist()
    assert len(set(seen)) == len(seen) < cache.num_pages
    assert all(0 <= page < cache.num_pages for page in seen)


@given(st.data(), st.integers(1, 8))
def test_drawn_routing_names_an_expert_once_per_token(data: st.DataObject, experts: int) -> None:
    topk_idx = data.draw(routings(experts))
    assert topk_idx.dtype == torch.int64
    for row in topk_idx.tolist():
        chosen = [expert for expert in row if expert >= 0]
        assert len(set(chosen)) == len(chosen)
        assert all(-1 <= expert < experts for expert in row)


INNER_TESTS = """
import random
import pytest
import torch
@pytest.mark.gpu
def test_gpu(): pass
@pytest.mark.gpu
def test_gpu_too(): pass
@pytest.mark.multigpu
def test_multigpu(): pass
def test_backend(backend):
    with backend.run():
        assert backend.device.type == "cpu"
def test_seed(seed):
    assert False, f"drew {torch.rand(1).item()} {random.random()}"
def test_no_lambda(ranks):
    ranks.run(lambda rank: None, 1)
"""


@pytest.fixture(scope="module")
def inner_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inner") / "test_inner.py"
    path.write_text(INNER_TESTS)
    return path


def run_inner(path: Path, *options: str, **environment: str) -> str:
    """Runs tests under this project's conftest, on what looks like a machine without a GPU."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "pyproject.toml"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, str(path)],
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout


@pytest.fixture(scope="module")
def inner_output(inner_path: Path) -> str:
    return run_inner(inner_path)


def test_skips_are_counted_by_reason(inner_output: str) -> None:
    assert "\nskipped: 3 gpu (no CUDA GPU)\n" in inner_output  # with the backend "cuda"
    assert "\nskipped: 1 multigpu (needs two CUDA GPUs, has 0)\n" in inner_output


def test_only_a_named_function_travels_to_a_rank(inner_output: str) -> None:
    assert "Can't pickle" in inner_output
    assert "2 failed" in inner_output


def test_the_seed_is_shown_and_repeats_the_test(inner_path: Path, inner_output: str) -> None:
    def lines_with(start: str, output: str) -> list[str]:
        return [line for line in output.splitlines() if line.startswith(start)]

    (hint,) = lines_with("OPENWEEK_TEST_SEED=", inner_output)
    seed = hint.split()[0].removeprefix("OPENWEEK_TEST_SEED=")
    again = run_inner(inner_path, "-k", "test_seed", OPENWEEK_TEST_SEED=seed)
    (drawn,) = lines_with("E       AssertionError: drew", again)
    assert drawn in inner_output
