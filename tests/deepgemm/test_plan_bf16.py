"""The tiles that BF16 products are computed in: always ones that the kernel has, and sensible."""

import itertools

import pytest

from deepgemm.plan import Grouping, Output, Problem
from deepgemm.plan_bf16 import Bf16Tiles, Major, candidates, cycles, plan

SHARED_BYTES = 227 * 1024
MAJORS: list[Major] = ["k", "mn"]
GROUPINGS: list[Grouping] = ["dense", "row_map", "prefix_sum", "masked", "along_k"]
OUTPUTS: list[Output] = ["bf16", "fp32"]
ROWS = (1, 2, 7, 16, 63, 64, 65, 128, 129, 300, 1000, 2048, 4095, 8192)


def assert_legal(tiles: Bf16Tiles, grouping: Grouping) -> None:
    """The rules of the kernel's static assertions, and room for what it keeps."""
    m, n = tiles.block_m, tiles.block_n
    assert (m in (64, 128) and 16 <= n <= 256) or (m == 256 and 16 <= n <= 192)
    assert n % 16 == 0
    if grouping in ("row_map", "prefix_sum"):
        assert m <= 128
        assert tiles.share != "b"
    if tiles.major_a == "mn":
        assert m % (128 if tiles.share == "a" else 64) == 0
    if tiles.major_b == "mn":
        assert n % (128 if tiles.share == "b" else 64) == 0
    stages = tiles.num_stages * (128 * (m + n) + 2 * 8)
    kept = stages + (m * n * 2 if tiles.output == "bf16" else 0)
    assert kept <= tiles.smem_bytes <= SHARED_BYTES
    assert tiles.num_stages >= 3
    assert tiles.num_threads == (256 if m == 64 else 384)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_candidate_is_legal(grouping: Grouping) -> None:
    for majors, output in itertools.product(itertools.product(MAJORS, MAJORS), OUTPUTS):
        problem = Problem(grouping=grouping, m=512, n=512, k=512, num_groups=2, output=output)
        every = list(candidates(problem, *majors))
        assert len(every) == len(set(every)) > 10
        for tiles in every:
            assert_legal(tiles, grouping)
            assert (tiles.major_a, tiles.major_b, tiles.output) == (*majors, output)


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("num_sms", [1, 2, 7, 132])
def test_every_problem_has_tiles(grouping: Grouping, num_sms: int) -> None:
    for m, (n, k) in itertools.product(ROWS, [(8, 8), (2112, 7168)]):
        problem = Problem(
            grouping=grouping, m=m, n=n, k=k, num_groups=1 if grouping == "dense" else 4
        )
        tiles = plan(problem, num_sms, "k", "mn")
        assert_legal(tiles, grouping)
        assert tiles.cluster <= num_sms


@pytest.mark.parametrize(("n", "k"), [(2112, 7168), (7168, 2048)])
def test_more_rows_never_cost_less(n: int, k: int) -> None:
    costs = []
    for m in ROWS:
        problem = Problem(m=m, n=n, k=k)
        costs.append(cycles(problem, plan(problem, 132, "k", "k"), 132))
    assert costs == sorted(costs)


def test_large_products_fill_the_registers() -> None:
    for output in OUTPUTS:
        problem = Problem(m=8192, n=8192, k=8192, output=output)
        tiles = plan(problem, 132, "k", "k")
        assert tiles.block_m * tiles.block_n >= 128 * 256
        assert tiles.share != "nothing"


@pytest.mark.parametrize("m", [1, 16, 64])
@pytest.mark.parametrize("n", [2112, 4096, 7168])
def test_few_rows_are_spread_over_the_sms(m: int, n: int) -> None:
    problem = Problem(m=m, n=n, k=7168)
    tiles = plan(problem, 132, "k", "k")
    assert tiles.block_m == 64
    assert tiles.num_clusters(problem) * tiles.cluster > 132 / 2


def test_masked_groups_are_planned_by_what_is_expected() -> None:
    sizes = {"grouping": "masked", "m": 4096, "n": 4096, "k": 7168, "num_groups": 8}
    few = plan(Problem(**sizes, expected_m=40), 132, "k", "k")
    many = plan(Problem(**sizes), 132, "k", "k")
    assert few.block_m == 64
    assert many.block_m > 64
