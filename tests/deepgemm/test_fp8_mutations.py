"""Planted bugs in the FP8 kernels: each is found by its name, or by the numbers."""

from collections.abc import Callable

import pytest
import torch

import csrc
from deepgemm import fp8_kernels
from deepgemm.plan import Config, FewTokens, Tiles
from tests.mutations import changed, launch_instead, text_of
from tests.oracles import fp8_gemm as oracle

pytestmark = pytest.mark.compile

E4M3 = torch.float8_e4m3fn
SEEDS = range(5)

TILES = Tiles(block_m=128, block_n=112, num_stages=3, share="b")
FEW = FewTokens(tokens=16, num_stages=3, split=2)
SUMS = Tiles(block_m=128, block_n=64, num_stages=3, share="a", output="fp32")

# (file, what stands there, what is put there, what is found)
LARGE = {
    "fence": ("  fence_async_proxy();", "", "missing proxy fence: "),
    "store-wait": (
        "  if (thread == 0) tma_store_wait_read<0>();\n  n",
        "  n",
        "overwrite in flight: ",
    ),
    "last-store-wait": (
        "  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();",
        "",
        "in flight at exit: ",
    ),
    "full-wait": (
        "    storage.full[at.stage].wait(at.phase);\n",
        "",
        "still filling|uninitialised",
    ),
    "empty-wait": (
        "      storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);\n",
        "",
        "mbarrier misuse: |overwrite in flight: ",
    ),
    "bytes": (
        "full.arrive_and_expect(C::kStageBytes)",
        "full.arrive_and_expect(1024)",
        "deadlock: ",
    ),
    "wgmma-fence": ("  wgmma_fence();\n", "", "missing wgmma.fence"),
    "wgmma-wait": ("  wgmma_wait_all(product);\n", "", "accumulator in flight: "),
    "readers": ("lane < C::kClusterSize", "lane < 1", "deadlock: "),
    "other-row-scale": ("i / 2 % 2] * scale_b", "0] * scale_b", "numbers"),
    "other-column-scale": ("former ? 0 : 1", "0", "numbers"),
    "scale-step": ("      b_[i] += k_stride_b_;\n", "", "numbers"),
    "half-of-b": ("k, row + half, group", "k, row, group", "numbers"),
}
SMALL = {
    "scales-not-waited-for": (
        "storage.full[stage].init(2)",
        "storage.full[stage].init(1)",
        "mbarrier misuse: |data race: |still filling: |uninitialised: |deadlock: ",
    ),
    "sums-before-they-are-there": (
        "  storage.partial_full.wait_for_cluster(turn % 2);\n",
        "",
        "uninitialised|data race",
    ),
    "sums-overwritten": (
        "    storage.partial_empty.wait_for_cluster(turn % 2 ^ 1);\n",
        "",
        "data race|mbarrier misuse",
    ),
    "early-weights-twice": (
        "        --num_early;\n",
        "",
        "overwrite in flight: |deadlock: |mbarrier misuse: ",
    ),
    "part-of-k": (
        "steps * static_cast<int32_t>(rank + 1)",
        "steps * static_cast<int32_t>(rank)",
        "numbers|deadlock: ",
    ),
    "other-token-scale": ("token_scales[i / 4 * 8 + i % 2]", "token_scales[i / 4 * 8]", "numbers"),
}


def broken(kernel: str, text: str, replacement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets launches take a kernel in which that text is replaced."""
    launch_instead(changed(text_of(kernel), text, replacement), kernel, fp8_kernels, monkeypatch)


def product(config: Config, m: int, n: int, k: int, num_sms: int) -> Callable[[int], bool]:
    """A run with a seed, which tells whether the numbers are right."""
    torch.manual_seed(0)
    a = torch.randn(m, k).to(E4M3), torch.exp2(torch.rand(m, -(-k // 128)) * 8 - 4)
    b = torch.randn(n, k).to(E4M3), torch.exp2(torch.rand(-(-n // 128), -(-k // 128)) * 8 - 4)
    expected = oracle.gemm_nt(a, b)

    def run(seed: int) -> bool:
        d = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
        with csrc.simulate(seed=seed, num_sms=num_sms):
            fp8_kernels.gemm_nt(*a, *b, d, config=config)
        return bool(((d.double() - expected).norm() <= 4e-3 * expected.norm()).item())

    return run


def assert_found(run: Callable[[int], bool], found: str) -> None:
    for seed in SEEDS:
        is_right, said = None, "numbers"
        try:
            is_right = run(seed)
        except RuntimeError as error:
            said = str(error)
        assert any(said.startswith(name) for name in found.split("|")), said
        assert not is_right


# Two tiles of each CTA, whose stages go round more than once.
DENSE = (TILES, 300, 240, 912, 2)
TOKENS = (FEW, 20, 264, 1712, 2)


@pytest.mark.parametrize("problem", [DENSE, TOKENS], ids=["tiles", "few-tokens"])
def test_the_kernels_as_they_are(problem: tuple[Config, int, int, int, int]) -> None:
    run = product(*problem)
    assert all(run(seed) for seed in SEEDS)


@pytest.mark.parametrize("name", LARGE)
def test_tiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, replacement, found = LARGE[name]
    broken("fp8_gemm", text, replacement, monkeypatch)
    assert_found(product(*DENSE), found)


@pytest.mark.parametrize("name", SMALL)
def test_few_tokens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, replacement, found = SMALL[name]
    broken("fp8_small_m", text, replacement, monkeypatch)
    assert_found(product(*TOKENS), found)


def test_sums_whose_scales_are_read_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is released before its scales are read."""
    release = "    fp8_gemm::release<C>(storage, at);\n"
    late = f"    __syncwarp();  // all lanes have read the scales\n{release}"
    wait = "    storage.full[at.stage].wait(at.phase);\n"
    text = changed(changed(text_of("fp8_accumulate"), late, ""), wait, wait + release)
    launch_instead(text, "fp8_accumulate", fp8_kernels, monkeypatch)
    m, n, k = 264, 136, 912
    a = torch.randn(m, k).to(E4M3), torch.ones(m, 8)
    b = torch.randn(n, k).to(E4M3), torch.ones(n, 8)
    c = torch.zeros(m, n)
    for seed in SEEDS:
        with (
            csrc.simulate(seed=seed, num_sms=2),
            pytest.raises(RuntimeError, match=r"overwrite in flight|data race"),
        ):
            fp8_kernels.accumulate_nt(*a, *b, c, c, config=SUMS)
