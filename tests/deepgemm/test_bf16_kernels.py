"""The BF16 kernel in the simulator: groupings, tiles, majors, outputs, against exact sums.

Operands are small integers, so sums in FP32 are exact in any order, and results are compared bit by
bit. NaN lies around whatever is read or written, and in all rows that are padding.
"""

import itertools

import pytest
import torch
from torch import Tensor

import csrc
from csrc.kernels import KERNELS
from deepgemm import bf16_kernels
from deepgemm.bf16_kernels import expression, gemm
from deepgemm.plan import Grouping, Output, Problem, Share
from deepgemm.plan_bf16 import Bf16Tiles, Major, plan
from tests.mutations import changed, launch_instead, text_of

pytestmark = pytest.mark.compile

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def poisoned(*shape: int, dtype: torch.dtype = torch.bfloat16, major: Major = "k") -> Tensor:
    """NaN, amid NaN that belongs to nobody; the strides are what TMA takes."""
    *groups, rows, columns = shape
    if major == "mn":
        return poisoned(*groups, columns, rows, dtype=dtype).mT
    around = [*(groups + 2 for groups in groups), rows + 4, (columns + 7) // 8 * 8 + 16]
    inside = torch.full(around, torch.nan, dtype=dtype)
    for dim in range(len(groups)):
        inside = inside.narrow(dim, 1, groups[dim])
    return inside[..., 2 : rows + 2, 8 : columns + 8]


def integers(*shape: int, dtype: torch.dtype = torch.bfloat16, major: Major = "k") -> Tensor:
    made = poisoned(*shape, dtype=dtype, major=major)
    return made.copy_(torch.randint(-8, 9, shape))


def assert_holds(d: Tensor, expected: Tensor) -> None:
    """The exact result, rounded once; and nothing around it has changed."""
    assert torch.equal(d.double(), expected.float().to(d.dtype).double())
    assert_nothing_around(d)


def assert_nothing_around(d: Tensor) -> None:
    d.fill_(torch.nan)
    around = d._base
    assert around is not None
    assert around.isnan().all()


def product(a: Tensor, b: Tensor) -> Tensor:
    return a.double() @ b.double().T


def tiling(
    block_m: int,
    block_n: int,
    share: Share = "nothing",
    majors: tuple[Major, Major] = ("k", "k"),
    output: Output = "bf16",
    num_stages: int = 3,
) -> Bf16Tiles:
    return Bf16Tiles(
        block_m=block_m,
        block_n=block_n,
        num_stages=num_stages,
        share=share,
        major_a=majors[0],
        major_b=majors[1],
        output=output,
    )


@pytest.mark.parametrize(
    "tiles",
    [
        tiling(64, 16),
        tiling(64, 128, "b", ("k", "mn"), num_stages=4),
        tiling(64, 256, "a", ("k", "mn"), "fp32"),
        tiling(128, 48),
        tiling(128, 96, "b", output="fp32"),
        tiling(128, 128, "b", ("mn", "k")),
        tiling(128, 160, "a"),
        tiling(128, 256, "a", ("mn", "mn")),
        tiling(256, 64, "nothing", ("mn", "k"), "fp32"),
        tiling(256, 128, "b", ("mn", "mn"), "fp32"),
        tiling(256, 144, "a"),
        tiling(256, 192, "b", ("mn", "k"), "fp32"),
    ],
    ids=lambda t: f"{t.block_m}x{t.block_n}-{t.share}-{t.major_a}-{t.major_b}-{t.output}",
)
def test_dense(tiles: Bf16Tiles, seed: int) -> None:
    inside, beyond = tiles.block_m - 8, 2 * tiles.block_m + 9
    for m, n, k in [
        (1, 2, 1),
        (inside, tiles.block_n, 64),
        (beyond, tiles.block_n + 10, 64 * tiles.num_stages + 40),
    ]:
        a = integers(m, k, major=tiles.major_a)
        b = integers(n, k, major=tiles.major_b)
        c = integers(m, n, dtype=torch.float32) if tiles.output == "fp32" else None
        d = poisoned(m, n, dtype=DTYPES[tiles.output])
        with csrc.simulate(seed=seed, num_sms=2):
            gemm(a, b, c, d, tiles=tiles)
        assert_holds(d, product(a, b) + (0 if c is None else c))


def by_rows(sizes: list[int | None]) -> tuple[list[int], list[int]]:
    """The group of every row, -1 for padding; and the row behind every group.

    Args:
        sizes: rows of each group, None for a block of 128 rows that has none.
    """
    groups: list[int] = []
    ends: list[int] = []
    for size in sizes:
        if size is None:
            groups += [-1] * 128
        else:
            ends.append(len(groups) + size)
            groups += [len(ends) - 1] * size + [-1] * (-size % 128)
    return groups, ends


@pytest.mark.parametrize(
    "tiles",
    [
        tiling(64, 96),
        tiling(128, 128, "a", ("mn", "mn")),
        tiling(128, 64, output="fp32"),
        tiling(64, 128, "a", ("k", "mn"), "fp32"),
    ],
    ids=lambda t: f"{t.block_m}x{t.block_n}-{t.share}-{t.major_a}-{t.major_b}-{t.output}",
)
@pytest.mark.parametrize(
    ("grouping", "sizes", "missing"),
    [
        pytest.param("row_map", [100, 0, 128, 130, 7, None], 0, id="row_map-padding-after"),
        pytest.param("row_map", [5, None, 128], 0, id="row_map-padding-between"),
        pytest.param("row_map", [130, 0, 7], 121, id="row_map-last-block-cut-off"),
        pytest.param("row_map", [0, 0, None], 0, id="row_map-padding-alone"),
        pytest.param("prefix_sum", [100, 0, 128, 130, 7, None], 0, id="prefix_sum-padding-after"),
        pytest.param("prefix_sum", [130, 0, 7], 121, id="prefix_sum-last-block-cut-off"),
        pytest.param("prefix_sum", [0, 0, None], 0, id="prefix_sum-padding-alone"),
    ],
)
def test_groups_of_rows(
    tiles: Bf16Tiles, grouping: Grouping, sizes: list[int | None], missing: int, seed: int
) -> None:
    groups, ends = by_rows(sizes)
    m = len(groups) - missing
    layout = torch.tensor(groups[:m] if grouping == "row_map" else ends, dtype=torch.int32)
    n, k = 152, 136
    a, b = poisoned(m, k, major=tiles.major_a), integers(len(ends), n, k, major=tiles.major_b)
    c = integers(m, n, dtype=torch.float32) if tiles.output == "fp32" else None
    d, expected = poisoned(m, n, dtype=DTYPES[tiles.output]), torch.zeros(m, n).double()
    for row, group in enumerate(groups[:m]):
        if group >= 0:
            a[row] = torch.randint(-8, 9, (k,)).to(a)
            expected[row] = product(a[row : row + 1], b[group])
    with csrc.simulate(seed=seed, num_sms=4):
        gemm(a, b, c, d, grouping=grouping, layout=layout, tiles=tiles)
    assert_holds(d, expected if c is None else expected + c)


@pytest.mark.parametrize(
    "tiles",
    [tiling(64, 96, "b"), tiling(128, 128, "a"), tiling(256, 64, output="fp32")],
    ids=lambda t: f"{t.block_m}x{t.block_n}-{t.share}-{t.output}",
)
@pytest.mark.parametrize("counts", [[0, 72, 5, 64, 0, 200], [0, 0, 0], [200]])
def test_masked(tiles: Bf16Tiles, counts: list[int], seed: int) -> None:
    m, n, k = 200, 104, 136
    a, b = poisoned(len(counts), m, k), integers(len(counts), n, k)
    d = poisoned(len(counts), m, n, dtype=DTYPES[tiles.output])
    expected = []
    for group, count in enumerate(counts):
        a[group, :count] = torch.randint(-8, 9, (count, k)).to(a)
        expected.append(product(a[group, :count], b[group]))
    layout = torch.tensor(counts, dtype=torch.int32)
    with csrc.simulate(seed=seed, num_sms=4):
        gemm(a, b, None, d, grouping="masked", layout=layout, expected_m=72, tiles=tiles)
    for group, count in enumerate(counts):
        actual = d[group, :count].double()
        assert torch.equal(actual, expected[group].to(DTYPES[tiles.output]).double())
        # Tiles that reach beyond a group leave the next one alone.
        if count == 0:
            assert d[group].isnan().all()
    assert_nothing_around(d)


ALONG_K = [
    tiling(64, 64, "b", ("mn", "k"), "fp32"),
    tiling(128, 128, "a", ("mn", "mn"), "fp32"),
    tiling(256, 128, "b", ("mn", "mn"), "fp32"),
]
TO_BF16 = tiling(128, 64, "nothing", ("k", "mn"))


@pytest.mark.parametrize("ks", [[64, 0, 320, 128], [0, 0, 64, 0], [0, 0]])
@pytest.mark.parametrize(
    ("tiles", "added"),
    [*itertools.product(ALONG_K, ["nothing", "c", "d itself"]), (TO_BF16, "nothing")],
    ids=lambda value: value if isinstance(value, str) else f"{value.block_m}x{value.block_n}",
)
def test_groups_along_k(tiles: Bf16Tiles, ks: list[int], added: str, seed: int) -> None:
    m, n = 136, 264
    # Beyond the last group lies poison: nobody may read that far.
    a = poisoned(m, sum(ks) + 64, major=tiles.major_a)
    b = poisoned(n, sum(ks) + 64, major=tiles.major_b)
    a[:, : sum(ks)], b[:, : sum(ks)] = integers(m, sum(ks)), integers(n, sum(ks))
    c, d = (poisoned(len(ks), m, n, dtype=DTYPES[tiles.output]) for _ in "cd")
    expected, first = [], 0
    for group, size in enumerate(ks):
        c[group] = torch.randint(-8, 9, (m, n))
        before = 0 if added == "nothing" else c[group].double()
        columns = slice(first, first + size)
        expected.append(product(a[:, columns], b[:, columns]) + before)
        first += size
    if added == "d itself":
        d = c
    layout = torch.tensor(ks, dtype=torch.int32)
    with csrc.simulate(seed=seed, num_sms=4):
        old = None if added == "nothing" else c
        gemm(a, b, old, d, grouping="along_k", layout=layout, tiles=tiles)
    assert_holds(d, torch.stack(expected))


@pytest.mark.parametrize(
    ("grouping", "m", "n", "k"),
    [
        pytest.param("dense", 4096, 2112, 7168, id="qkv"),
        pytest.param("row_map", 1024, 4096, 512, id="prefill-experts"),
        pytest.param("masked", 128, 4096, 512, id="decode-experts"),
        pytest.param("along_k", 1024, 2048, 512, id="weight-gradients"),
    ],
)
def test_production_shapes(grouping: Grouping, m: int, n: int, k: int, seed: int) -> None:
    """By the planner's tiles; of the oracle, some rows."""
    rows = torch.randint(0, m, (16,)).tolist()
    if grouping == "dense":
        a, b, layout = integers(m, k), integers(n, k), None
        expected = product(a[rows], b)
    elif grouping == "row_map":
        a, b = integers(m, k), integers(4, n, k)
        groups = [row // 256 for row in range(m)]
        layout = torch.tensor(groups, dtype=torch.int32)
        expected = torch.cat([product(a[row : row + 1], b[groups[row]]) for row in rows])
    elif grouping == "masked":
        a, b = integers(4, m, k), integers(4, n, k)
        layout = torch.tensor([m] * 4, dtype=torch.int32)
        expected = product(a[3, rows], b[3])
    else:
        a, b = integers(m, 2 * k, major="mn"), integers(n, 2 * k, major="mn")
        layout = torch.tensor([k, k], dtype=torch.int32)
        expected = product(a[rows, k:], b[:, k:])
    shape = {"masked": (4, m, n), "along_k": (2, m, n)}.get(grouping, (m, n))
    dtype = torch.float32 if grouping == "along_k" else torch.bfloat16
    d = poisoned(*shape, dtype=dtype)
    with csrc.simulate(seed=seed, num_sms=132):
        gemm(a, b, None, d, grouping=grouping, layout=layout)
    actual = (d if d.dim() == 2 else d[-1])[rows].double()
    assert torch.equal(actual, expected.to(dtype).double())
    assert not d.isnan().any()
    assert_nothing_around(d)


def test_masked_groups_are_planned_by_what_is_expected(seed: int) -> None:
    groups, m, n, k = 2, 512, 1024, 64
    sizes = {"grouping": "masked", "m": m, "n": n, "k": k, "num_groups": groups}
    few, many = (plan(Problem(**sizes, expected_m=rows), 8, "k", "k") for rows in (40, m))
    a, b = integers(groups, m, k), integers(groups, n, k)
    layout = torch.tensor([40, 40], dtype=torch.int32)
    reports = []
    for chosen in ({"expected_m": 40}, {"tiles": few}, {"tiles": many}):
        d = poisoned(groups, m, n)
        with csrc.simulate(seed=seed) as simulation:
            gemm(a, b, None, d, grouping="masked", layout=layout, **chosen)
        reports.append(simulation.report)
    assert reports[0] == reports[1] != reports[2]


@pytest.mark.parametrize(
    ("tiles", "grouping"),
    [
        (tiling(128, 128, "b"), "dense"),
        (tiling(64, 64, "a", ("k", "mn")), "row_map"),
        (tiling(256, 64, "a", ("mn", "mn"), "fp32"), "along_k"),
    ],
    ids=["dense", "row_map", "along_k"],
)
def test_any_order_of_events_gives_the_same(tiles: Bf16Tiles, grouping: Grouping) -> None:
    m, n, k = 256, 200, 320
    a, b = integers(m, k, major=tiles.major_a), integers(n, k, major=tiles.major_b)
    layout = {
        "row_map": torch.tensor([0] * 128 + [-1] * 128, dtype=torch.int32),
        "along_k": torch.tensor([k], dtype=torch.int32),
    }.get(grouping)
    expected = product(a, b)
    if grouping == "row_map":
        b, expected[128:] = b[None], 0
    for seed in range(40):
        d = poisoned(m, n, dtype=DTYPES[tiles.output])
        with csrc.simulate(seed=seed, num_sms=2):
            shaped = d[None] if grouping == "along_k" else d
            gemm(a, b, None, shaped, grouping=grouping, layout=layout, tiles=tiles)
        assert torch.equal(d.double(), expected.to(d.dtype).double())


@pytest.mark.parametrize(
    ("text", "replacement", "found"),
    [
        ("    wgmma_wait<1>();\n", "", "overwrite in flight: .* wgmma"),
        ("  fence_async_proxy();", "", "missing proxy fence: "),
        ("  if (thread == 0) tma_store_wait_read<0>();\n  n", "  n", "overwrite in flight: "),
        ("full.arrive_and_expect(C::kStageBytes)", "full.arrive_and_expect(128)", "deadlock: "),
        ("rank, tile.first_k + k, tile.row", "rank, k, tile.row", "numbers"),
        ("kElementBytes : kPanelRows * kElementBytes", "kElementBytes : kElementBytes", "numbers"),
        ("P::kColumns, tile.row + first", "P::kColumns, tile.row + 64 + first", "numbers"),
    ],
    ids=["wait", "fence", "store-wait", "bytes", "first-k", "descriptor-step", "row"],
)
def test_a_broken_kernel_is_found(
    monkeypatch: pytest.MonkeyPatch, text: str, replacement: str, found: str
) -> None:
    """The clean twin of each is above: the same call with the kernel as it is."""
    broken = changed(text_of("bf16_gemm"), text, replacement)
    launch_instead(broken, "bf16_gemm", bf16_kernels, monkeypatch)
    tiles, ks = tiling(128, 64, "nothing", ("mn", "mn")), [128, 384]
    a, b = integers(264, 512, major="mn"), integers(136, 512, major="mn")
    d = poisoned(2, 264, 136)
    layout = torch.tensor(ks, dtype=torch.int32)

    def run(seeds: range) -> None:
        for seed in seeds:
            with csrc.simulate(seed=seed, num_sms=1):
                gemm(a, b, None, d, grouping="along_k", layout=layout, tiles=tiles)

    if found == "numbers":
        run(range(1))
        expected = torch.stack([product(a[:, :128], b[:, :128]), product(a[:, 128:], b[:, 128:])])
        assert not torch.equal(d.double(), expected.bfloat16().double())
    else:
        with pytest.raises(RuntimeError, match=found):
            run(range(5))


def test_the_default_set_is_what_production_uses() -> None:
    """What `python -m csrc build` compiles before the first call."""
    problems: list[tuple[Problem, Major]] = [
        (Problem(m=4096, n=7168, k=16384), "k"),
        (Problem(m=64, n=2112, k=7168), "k"),
        (Problem(grouping="row_map", m=8192, n=4096, k=7168, num_groups=4), "k"),
        (Problem(grouping="masked", m=1024, n=4096, k=7168, num_groups=4), "k"),
        (Problem(grouping="along_k", m=4096, n=7168, k=8192, num_groups=4, output="fp32"), "mn"),
    ]
    chosen = {expression(plan(p, 132, major, major), p.grouping) for p, major in problems}
    assert chosen == {kernel.expression for kernel in KERNELS if "bf16" in kernel.source}
