"""Every FP8 kernel, tile and mode in the simulator, against float64."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import csrc
from csrc.compiler import compile_kernel
from csrc.kernels import KERNELS
from deepgemm import fp8_kernels
from deepgemm.plan import Config, FewTokens, Problem, Share, Tiles, candidates, plan
from tests.comparison import assert_matches
from tests.oracles import fp8_gemm as oracle

pytestmark = pytest.mark.compile

E4M3 = torch.float8_e4m3fn
E4M3_NAN = 0x7F

Pair = tuple[Tensor, Tensor]


def tiles(block_m: int, block_n: int, num_stages: int, share: Share, **rest: Any) -> Tiles:
    return Tiles(block_m=block_m, block_n=block_n, num_stages=num_stages, share=share, **rest)


def few(tokens: int, num_stages: int, split: int) -> FewTokens:
    return FewTokens(tokens=tokens, num_stages=num_stages, split=split)


LARGE = (
    tiles(64, 16, 4, "nothing"),
    tiles(64, 112, 3, "b"),
    tiles(64, 192, 6, "a"),
    tiles(128, 48, 5, "b"),
    tiles(128, 128, 5, "b"),
    tiles(128, 128, 6, "a"),
    tiles(128, 144, 4, "nothing"),
    tiles(128, 160, 4, "a"),
    tiles(128, 192, 4, "b"),
    tiles(256, 96, 4, "a"),
    tiles(256, 128, 3, "a"),
)
SMALL = (few(8, 4, 1), few(16, 10, 2), few(24, 3, 4), few(40, 3, 8), few(64, 4, 4), few(56, 8, 1))


def ids(config: object) -> str | None:
    if isinstance(config, FewTokens):
        return f"tokens{config.tokens}x{config.num_stages}split{config.split}"
    if isinstance(config, Tiles):
        return f"{config.block_m}x{config.block_n}x{config.num_stages}{config.share}"
    return None


def operand(rows: int, k: int, block_rows: int, *groups: int) -> Pair:
    """Codes of any size inside of NaN, and scales so far apart that a wrong one shows."""
    around = torch.full((*groups, rows + 2, k + 32), E4M3_NAN, dtype=torch.uint8)
    data = around[..., 1 : rows + 1, 16 : k + 16]
    data.copy_(torch.randn(*groups, rows, k).to(E4M3).view(torch.uint8))
    blocks = (-(-rows // block_rows), -(-k // 128))
    return data.view(E4M3), torch.exp2(torch.rand(*groups, *blocks) * 12 - 8)


class Output:
    """A tensor of NaN, and NaN around it that has to stay."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> None:
        *groups, rows, columns = shape
        self._around = torch.full((*groups, rows + 2, columns + 16), torch.nan, dtype=dtype)
        self.d = self._around[..., 1 : rows + 1, 8 : columns + 8]

    def assert_is(self, expected: Tensor) -> None:
        assert_matches(self.d.clone(), expected, dtype=self.d.dtype)
        self.d.fill_(torch.nan)
        assert self._around.isnan().all()


def dense(config: Config | None, m: int, n: int, k: int, seed: int, num_sms: int = 8) -> None:
    torch.manual_seed(seed)
    a, b, output = operand(m, k, 1), operand(n, k, 128), Output(m, n)
    with csrc.simulate(seed=seed, num_sms=num_sms):
        fp8_kernels.gemm_nt(*a, *b, output.d, config=config)
    output.assert_is(oracle.gemm_nt(a, b))


@pytest.mark.parametrize("config", LARGE, ids=ids)
def test_tiles_at_their_edges(config: Tiles, seed: int) -> None:
    block_m, block_n = config.block_m, config.block_n
    shapes = [
        (1, 8, 16),
        (block_m, block_n, 128),
        (block_m - 1, block_n - 8, 112),
        (block_m + 1, block_n + 8, 144),
        (2 * block_m + 3, 3 * block_n + 8, 128 * config.num_stages + 16),
    ]
    for m, n, k in shapes:
        dense(config, m, n, k, seed)


@pytest.mark.parametrize("config", SMALL, ids=ids)
def test_few_tokens_at_their_edges(config: FewTokens, seed: int) -> None:
    tokens, least_k = config.tokens, 128 * (config.split - 1)
    shapes = [
        (1, 8, least_k + 16),
        (tokens, 128, least_k + 128),
        (tokens - 1, 120, least_k + 144),
        (tokens + 1, 136, least_k + 400),
        (2 * tokens, 520, 128 * config.num_stages * config.split + 16),
    ]
    for m, n, k in shapes:
        dense(config, m, n, k, seed)


@pytest.mark.parametrize("config", [LARGE[4], LARGE[9], SMALL[2]], ids=ids)
def test_any_order_of_events(config: Config) -> None:
    """Splitting k adds in a fixed order, so even that gives the same bits."""
    torch.manual_seed(0)
    a, b = operand(150, 656, 1), operand(264, 656, 128)
    expected = oracle.gemm_nt(a, b)
    seen = None
    for seed in range(40):
        d = torch.full((150, 264), torch.nan, dtype=torch.bfloat16)
        with csrc.simulate(seed=seed, num_sms=4):
            fp8_kernels.gemm_nt(*a, *b, d, config=config)
        seen = d if seen is None else seen
        assert torch.equal(d.view(torch.int16), seen.view(torch.int16))
    assert seen is not None
    assert_matches(seen, expected, dtype=torch.bfloat16)


@pytest.mark.parametrize("relaid", ["by columns", "apart"])
def test_scales_of_any_strides(relaid: str, seed: int) -> None:
    def relay(scale: Tensor) -> Tensor:
        if relaid == "by columns":
            return scale.T.contiguous().T
        wide = torch.full((2 * scale.shape[0], 3 * scale.shape[1]), torch.nan)
        wide[::2, ::3] = scale
        return wide[::2, ::3]

    a, b = operand(100, 400, 1), operand(264, 400, 128)
    for config in (LARGE[4], SMALL[0]):
        output = Output(100, 264)
        with csrc.simulate(seed=seed):
            fp8_kernels.gemm_nt(a[0], relay(a[1]), b[0], relay(b[1]), output.d, config=config)
        output.assert_is(oracle.gemm_nt(a, b))


MAPS = {
    "one group": [0] * 128,
    "rows without a group": [-1] * 384,
    "padding and gaps": [2] * 100 + [-1] * 28 + [-1] * 128 + [0] * 64 + [-1] * 64 + [1] * 128,
    "a ragged end": [1] * 128 + [0] * 70,
}


@pytest.mark.parametrize("config", [LARGE[1], LARGE[2], LARGE[7], None], ids=ids)
@pytest.mark.parametrize("name", MAPS)
def test_groups_by_a_map_of_rows(name: str, config: Tiles | None, seed: int) -> None:
    if config is not None and config.share == "b":
        config = tiles(config.block_m, config.block_n, config.num_stages, "nothing")
    row_map = MAPS[name]
    m, n, k = len(row_map), 200, 272
    a, b, output = operand(m, k, 1), operand(n, k, 128, 3), Output(m, n)
    expected = oracle.m_grouped_gemm_nt(a, b, row_map)
    layout = torch.tensor(row_map, dtype=torch.int32)
    a[0].view(torch.uint8)[layout < 0] = E4M3_NAN  # padding may hold anything
    with csrc.simulate(seed=seed):
        fp8_kernels.gemm_nt(*a, *b, output.d, grouping="row_map", layout=layout, config=config)
    output.assert_is(expected)


@pytest.mark.parametrize("config", [LARGE[2], LARGE[7], None], ids=ids)
@pytest.mark.parametrize("sizes", [[1, 0, 129], [128, 128, 128], [0, 0, 5], [200, 7, 0]], ids=str)
def test_groups_by_their_ends(sizes: list[int], config: Tiles | None, seed: int) -> None:
    ends, row_map, begin = [], [], 0
    for group, size in enumerate(sizes):
        ends.append(begin + size)
        padding = -size % 128
        row_map += [group] * size + [-1] * padding
        begin += size + padding
    row_map += [-1] * 128  # more rows than the groups need
    m, n, k = len(row_map), 136, 144
    a, b, output = operand(m, k, 1), operand(n, k, 128, 3), Output(m, n)
    expected = oracle.m_grouped_gemm_nt(a, b, row_map)
    a[0].view(torch.uint8)[torch.tensor(row_map) < 0] = E4M3_NAN
    with csrc.simulate(seed=seed):
        fp8_kernels.gemm_nt(
            *a,
            *b,
            output.d,
            grouping="prefix_sum",
            layout=torch.tensor(ends, dtype=torch.int32),
            config=config,
        )
    output.assert_is(expected)


@pytest.mark.parametrize("config", [LARGE[1], LARGE[9], SMALL[2], SMALL[5], None], ids=ids)
@pytest.mark.parametrize("m_max", [8, 100, 300])
def test_masked_groups(m_max: int, config: Config | None, seed: int) -> None:
    n, k, counts = 264, 656, [m_max, 0, 1, m_max // 2]
    a, b, output = operand(m_max, k, 1, 4), operand(n, k, 128, 4), Output(4, m_max, n)
    with csrc.simulate(seed=seed):
        fp8_kernels.gemm_nt(
            *a,
            *b,
            output.d,
            grouping="masked",
            layout=torch.tensor(counts, dtype=torch.int32),
            expected_m=max(1, m_max // 3),
            config=config,
        )
    for group, count in enumerate(counts):
        expected = oracle.gemm_nt((a[0][group], a[1][group]), (b[0][group], b[1][group]))
        assert_matches(output.d[group, :count].clone(), expected[:count], dtype=torch.bfloat16)
    output.d.fill_(torch.nan)
    assert output._around.isnan().all()


ACCUMULATING = (
    tiles(64, 16, 6, "nothing", output="fp32"),
    tiles(128, 128, 6, "b", output="fp32"),
    tiles(128, 192, 5, "a", output="fp32"),
    tiles(256, 112, 4, "b", output="fp32"),
)


def exact(a: Pair, b: Pair) -> Tensor:
    return oracle.dequantised(*a, 1) @ oracle.dequantised(*b, 1).T


@pytest.mark.parametrize("config", [*ACCUMULATING, None], ids=ids)
@pytest.mark.parametrize("in_place", [True, False])
def test_accumulation(config: Tiles | None, in_place: bool, seed: int) -> None:
    for m, n, k in ((1, 8, 16), (129, 136, 144), (300, 264, 784)):
        a, b, output = operand(m, k, 1), operand(n, k, 1), Output(m, n, dtype=torch.float32)
        c = torch.randn(m, n) * 100
        expected = c.double() + exact(a, b)
        if in_place:
            output.d.copy_(c)
        with csrc.simulate(seed=seed):
            fp8_kernels.accumulate_nt(*a, *b, output.d if in_place else c, output.d, config=config)
        baseline = (c.double() + exact(a, b).float()).float()
        assert_matches(output.d.clone(), expected, baseline, rtol=2.0**-19, global_bound=1e-6)


@pytest.mark.parametrize("config", [ACCUMULATING[1], ACCUMULATING[2], None], ids=ids)
@pytest.mark.parametrize("ks", [[128], [0, 256, 128], [384, 0, 0, 128, 0, *[128] * 5]], ids=str)
def test_groups_along_k(ks: list[int], config: Tiles | None, seed: int) -> None:
    m, n = 200, 136
    groups = [(operand(m, k, 1), operand(n, k, 1)) for k in ks]
    c = torch.randn(len(ks), m, n)
    flat = [
        torch.cat([pair[which][0].reshape(-1).view(torch.uint8) for pair in groups]).view(E4M3)
        for which in (0, 1)
    ]
    scales = [torch.cat([pair[which][1] for pair in groups], 1) for which in (0, 1)]
    output = Output(len(ks), m, n, dtype=torch.float32)
    with csrc.simulate(seed=seed):
        fp8_kernels.k_grouped_accumulate_nt(
            flat[0], scales[0], flat[1], scales[1], c, output.d, ks, config=config
        )
    for group, (k, (a, b)) in enumerate(zip(ks, groups, strict=True)):
        expected = c[group].double() + (exact(a, b) if k else 0)
        assert_matches(
            output.d[group].clone(),
            expected,
            expected.float(),
            rtol=2.0**-19,
            global_bound=1e-6,
        )


def test_more_groups_along_k_than_one_kernel_takes(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(fp8_kernels, "_MOST_GROUPS", (1, 2))
    test_groups_along_k([128, 0, 128, 256, 128], None, seed)


def test_two_levels_of_sums_keep_what_fourteen_bits_lose(seed: int) -> None:
    """On tensor cores that sum FP8 with 14 bits, the second level keeps the error near FP32's."""
    m, n, k = 64, 64, 4096
    torch.manual_seed(seed)
    a = torch.rand(m, k).to(E4M3), torch.ones(m, k // 128)
    b = torch.rand(n, k).to(E4M3), torch.ones(n, k // 128)
    expected, c = exact(a, b), torch.zeros(m, n)
    errors = {}
    for name, reduced in (("FP32", False), ("two levels", True)):
        d = torch.full((m, n), torch.nan)
        with csrc.simulate(seed=seed, reduced_fp8=reduced):
            fp8_kernels.accumulate_nt(*a, *b, c, d)
        errors[name] = relative_error(d, expected)
    errors["one level"] = relative_error(one_level(a[0], b[0], seed), expected)
    assert errors["FP32"] < 1e-6
    # Each of 128 products loses what is below 2^-13 of the largest number that it meets: of all of
    # them, not of the sum, about half of that.
    assert errors["two levels"] < 2.0**-10
    assert errors["one level"] > 10 * errors["two levels"]


def relative_error(d: Tensor, expected: Tensor) -> float:
    return float((d.double() - expected).norm() / expected.norm())


def one_level(a: Tensor, b: Tensor, seed: int) -> Tensor:
    """The product [64, 64] whose sums the tensor core keeps over all of k."""
    signature = csrc.Signature(
        csrc.Map("a"), csrc.Map("b"), csrc.Pointer("d", torch.float32), csrc.Number("k", "i32")
    )
    kernel = compile_kernel(Path(__file__).with_name("one_level.cu"), "openweek::tests::one_level")
    launch = csrc.Launcher(kernel, signature, op="one_level", block=(128, 1, 1))
    maps = [csrc.TensorMap.of(tensor, (64, 128), swizzle_bytes=128) for tensor in (a, b)]
    d = torch.full((64, 64), torch.nan)
    with csrc.simulate(seed=seed, reduced_fp8=True):
        launch(*maps, d, a.shape[1], grid=(1, 1, 1))
    return d


@pytest.mark.parametrize("config", [*LARGE, *SMALL, *ACCUMULATING], ids=ids)
def test_shared_memory_is_as_the_planner_counts_it(config: Config, tmp_path: Path) -> None:
    source, expression = fp8_kernels.source_of(config, "dense")
    room = Path(source).stem
    arguments = expression[expression.index("<") :]
    probe = tmp_path / "probe.cu"
    probe.write_text(
        f'#include "deepgemm/{room}_sm90.cuh"\n'
        f"using Storage = openweek::deepgemm::{room}::Config{arguments}::Storage;\n"
        f"static_assert(sizeof(Storage) == {config.smem_bytes});\n"
        "__global__ void probe() {}\n"
    )
    compile_kernel(probe, "probe")


def test_a_whole_production_shape(seed: int) -> None:
    """4096 rows of a down projection, in the tiles that the planner chooses for a whole GPU."""
    torch.manual_seed(seed)
    m, n, k = 4096, 2112, 7168
    a, b = operand(m, k, 1), operand(n, k, 128)
    d = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    with csrc.simulate(seed=seed, num_sms=132):
        fp8_kernels.gemm_nt(*a, *b, d)
    rows = torch.arange(0, m, 61)
    picked = a[0][rows], a[1][rows]
    assert_matches(d[rows], oracle.gemm_nt(picked, b), dtype=torch.bfloat16)
    assert d.isfinite().all()


# (n, k) of the projections and expert layers of DeepSeek-V3, and of its experts alone.
LAYERS = ((2112, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168), (7168, 2048))
EXPERTS = LAYERS[4:]


def common_problems() -> Iterator[Problem]:
    for n, k in LAYERS:
        for m in (1, 8, 16, 32, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096, 8192):
            yield Problem(m=m, n=n, k=k)
        for tokens in (4096, 8192):
            yield Problem(m=k, n=n, k=tokens, output="fp32")
    for n, k in EXPERTS:
        for groups, m in ((4, 32768), (8, 32768), (4, 512), (8, 1024)):
            yield Problem(grouping="row_map", m=m, n=n, k=k, num_groups=groups)
            yield Problem(grouping="prefix_sum", m=m, n=n, k=k, num_groups=groups)
        for groups, likely in (
            (1, 1024),
            (2, 512),
            (4, 256),
            (32, 8),
            (32, 20),
            (32, 64),
            (32, 128),
        ):
            room = {"num_groups": groups, "expected_m": likely}
            yield Problem(grouping="masked", m=4096, n=n, k=k, **room)
        for groups in (8, 32):
            yield Problem(grouping="along_k", m=k, n=n, k=1024, num_groups=groups, output="fp32")


def test_what_common_shapes_take_is_compiled_ahead() -> None:
    """The register holds what the planner chooses for them on 132 SMs, and nothing else."""
    chosen = set()
    for problem in common_problems():
        _, expression = fp8_kernels.source_of(plan(problem, 132), problem.grouping)
        if problem.output == "fp32":
            most = problem.num_groups if problem.grouping == "along_k" else 1
            expression = f"{expression.removesuffix('>')}, {most}>"
        chosen.add(expression)
    ahead = {kernel.expression for kernel in KERNELS if "fp8_" in kernel.source}
    assert chosen == {kernel for kernel in ahead if "cast_fp8" not in kernel}


@pytest.mark.slow
@pytest.mark.parametrize("grouping", ["dense", "masked"])
def test_every_candidate_compiles_without_spills(grouping: Any) -> None:
    for m in (64, 4096):
        for config in candidates(Problem(grouping=grouping, m=m, n=4096, k=4096)):
            report = compile_kernel(*fp8_kernels.source_of(config, grouping)).report
            assert report.spill_store_bytes == 0, config
