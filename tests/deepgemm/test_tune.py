"""Tuning: the fastest is kept, and found again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import csrc
from deepgemm import per_block_cast_to_fp8, per_token_cast_to_fp8
from deepgemm.plan import Config, FewTokens, Problem, Tiles, candidates, cycles
from deepgemm.tune import fastest, tune
from deepgemm.tuned import recall, remember, tuned

TILES = Tiles(block_m=128, block_n=192, num_stages=4, share="b")
FEW = FewTokens(tokens=16, num_stages=8, split=2)
PROBLEM = Problem(m=96, n=264, k=400)


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENWEEK_CACHE", str(tmp_path))


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("config", [TILES, FEW])
def test_what_is_remembered_is_recalled(config: Config) -> None:
    assert recall(PROBLEM, "H200") is None
    remember(PROBLEM, "H200", config)
    assert recall(PROBLEM, "H200") == config
    assert recall(PROBLEM, "H100") is None
    assert recall(Problem(m=97, n=264, k=400), "H200") is None
    remember(PROBLEM, "H200", TILES)
    assert recall(PROBLEM, "H200") == TILES


@pytest.mark.usefixtures("_cache")
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "tiles"}', '{"kind": "x", "y": 1}'])
def test_a_damaged_file_is_as_none(text: str, tmp_path: Path) -> None:
    remember(PROBLEM, "H200", TILES)
    (path,) = tmp_path.glob("tuned/*/config.json")
    path.write_text(text)
    assert recall(PROBLEM, "H200") is None
    remember(PROBLEM, "H200", FEW)
    assert recall(PROBLEM, "H200") == FEW


@pytest.mark.usefixtures("_cache")
def test_nothing_is_tuned_for_a_cpu() -> None:
    remember(PROBLEM, "cpu", TILES)
    assert tuned(PROBLEM, torch.device("cpu")) is None


def operands(m: int, n: int, k: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
    return per_token_cast_to_fp8(torch.randn(m, k)), per_block_cast_to_fp8(torch.randn(n, k))


@pytest.mark.compile
def test_the_fastest_wins() -> None:
    a, b = operands(96, 264, 400)
    d = torch.empty(96, 264, dtype=torch.bfloat16)
    called = []

    def seconds(call: Callable[[], None], device: torch.device) -> float:
        call()
        called.append(device)
        return {3: 0.5}.get(len(called), 1.0)

    with csrc.simulate():
        best = fastest(PROBLEM, a, b, d, 4, seconds)
    assert len(called) == 4
    rated = sorted(candidates(PROBLEM), key=lambda config: cycles(PROBLEM, config, 8))
    assert best == rated[2]


@pytest.mark.compile
def test_another_result_is_an_error() -> None:
    a, b = operands(96, 264, 400)
    d = torch.empty(96, 264, dtype=torch.bfloat16)

    def spoil(call: Callable[[], None], device: torch.device) -> float:
        del call, device
        a[1].mul_(1.5)
        return 1.0

    with csrc.simulate(), pytest.raises(RuntimeError, match="gives another result than"):
        fastest(PROBLEM, a, b, d, 4, spoil)


def test_only_a_gpu_has_a_time() -> None:
    a, b = operands(96, 264, 400)
    d = torch.empty(96, 264, dtype=torch.bfloat16)
    with pytest.raises(NotImplementedError, match="tune: a must be on a GPU, got cpu"):
        tune(a, b, d)
    with pytest.raises(ValueError, match="tune: m must be between 1 and"):
        tune((a[0][:0], a[1][:0]), b, d[:0])
    with pytest.raises(ValueError, match="tune: most must be between 1 and 1000, got 0"):
        tune(a, b, d, most=0)


@pytest.mark.gpu
@pytest.mark.compile
@pytest.mark.usefixtures("_cache")
def test_on_a_gpu() -> None:
    a, b = ((data.cuda(), scale.cuda()) for data, scale in operands(96, 264, 400))
    d = torch.empty(96, 264, dtype=torch.bfloat16, device="cuda")
    best = tune(a, b, d, most=3)
    assert tuned(PROBLEM, d.device) == best
