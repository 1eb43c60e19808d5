"""The planner: whatever it chooses can be compiled, fits, and is what an expert would expect."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepgemm.plan import SMEM_BYTES, FewTokens, Problem, Tiles, candidates, cycles, plan

# (n, k) of the projections and expert layers of DeepSeek-V3.
LAYERS = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048))


def assert_legal(config: Tiles | FewTokens, problem: Problem) -> None:
    """What the kernels' static assertions and comments ask for, said once more."""
    assert 0 < config.smem_bytes <= SMEM_BYTES
    assert config.num_stages >= 3
    if isinstance(config, FewTokens):
        assert problem.grouping in ("dense", "masked")
        assert problem.output == "bf16"
        assert config.tokens in range(8, 65, 8)
        # Each part of k has something to do.
        assert config.split in (1, 2, 4, 8)
        assert config.split <= -(-problem.k // 128)
        return
    assert config.output == problem.output
    assert config.block_m in (64, 128, 256)
    # No tile may touch three blocks of 128 scales, wherever it begins.
    begins = range(0, 128 * config.block_n, config.block_n)
    assert all((begin + config.block_n - 1) // 128 - begin // 128 <= 1 for begin in begins)
    # Accumulators of two levels fit into the registers of a consumer.
    waves = 2 if config.block_m == 256 else 1
    assert (1 + waves) * config.block_n // 2 <= 192
    if problem.grouping in ("row_map", "prefix_sum"):
        assert 128 % config.block_m == 0
        assert config.share != "b"


@settings(max_examples=200)
@given(
    grouping=st.sampled_from(["dense", "row_map", "prefix_sum", "masked", "along_k"]),
    m=st.integers(1, 100_000),
    n=st.integers(1, 6000).map(lambda n: 8 * n),
    k=st.integers(1, 2000).map(lambda k: 16 * k),
    num_groups=st.integers(1, 300),
    expected_m=st.none() | st.integers(0, 5000),
    output=st.sampled_from(["bf16", "fp32"]),
    num_sms=st.integers(1, 200),
)
def test_every_choice_is_legal(num_sms: int, **sizes: object) -> None:
    problem = Problem(**sizes)  # type: ignore[arg-type]
    assert_legal(plan(problem, num_sms), problem)


def test_every_candidate_is_legal() -> None:
    for grouping in ("dense", "row_map", "prefix_sum", "masked", "along_k"):
        for m in (1, 65, 4096):
            problem = Problem(grouping=grouping, m=m, n=512, k=700, num_groups=3)
            made = list(candidates(problem))
            assert len(made) > 20
            assert len(set(made)) == len(made)
            for config in made:
                assert_legal(config, problem)


@pytest.mark.parametrize(("n", "k"), LAYERS)
@pytest.mark.parametrize("m", [1, 8, 64])
def test_few_tokens_swap_operands_and_fill_the_gpu(m: int, n: int, k: int) -> None:
    config = plan(Problem(m=m, n=n, k=k), 132)
    assert isinstance(config, FewTokens)
    assert config.tokens == -(-m // 8) * 8
    # At least half of the SMs read weights.
    assert config.num_clusters(Problem(m=m, n=n, k=k)) * config.cluster >= 66


@pytest.mark.parametrize(("n", "k"), LAYERS)
def test_many_rows_take_large_shared_tiles(n: int, k: int) -> None:
    config = plan(Problem(m=4096, n=n, k=k), 132)
    assert isinstance(config, Tiles)
    assert config.block_m * config.block_n >= 128 * 192
    assert config.share != "nothing"


def test_groups_with_few_tokens_swap_operands_too() -> None:
    problem = Problem(grouping="masked", m=4096, n=4096, k=7168, num_groups=32, expected_m=20)
    assert isinstance(plan(problem, 132), FewTokens)
    busy = dataclasses.replace(problem, expected_m=1024)
    assert isinstance(plan(busy, 132), Tiles)


def test_an_estimate_grows_with_the_work_and_shrinks_with_sms() -> None:
    problem = Problem(m=4096, n=4096, k=4096)
    config = plan(problem, 132)
    assert cycles(problem, config, 132) < cycles(problem, config, 66)
    for size in ("m", "n", "k"):
        larger = dataclasses.replace(problem, **{size: 8192})
        assert cycles(larger, config, 132) > cycles(problem, config, 132)


def test_the_estimate_is_never_below_the_hardware() -> None:
    """1979 TFLOPS of 132 SMs at 1.83 GHz, and 3.35 TB/s: in cycles, at the planner's clock."""
    for m in (1, 64, 128, 1024, 4096):
        for n, k in LAYERS:
            problem = Problem(m=m, n=n, k=k)
            tensor = 2 * m * n * k / (132 * 8192)
            memory = (m * k + n * k + 2 * m * n) / (3.35e12 / 1.7e9)
            assert cycles(problem, plan(problem, 132), 132) > max(tensor, 0.99 * memory)
