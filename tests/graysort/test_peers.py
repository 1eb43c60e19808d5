"""Peers sort as well as we do, else their times would say nothing."""

from pathlib import Path

import pytest

from benchmarks.graysort import rounds
from benchmarks.graysort.peers import PEERS, Options, run_peer
from benchmarks.graysort.records import generate, text_keys
from benchmarks.graysort.tasks import GraySortError
from tests.graysort import oracle

OPTIONS = Options(memory_bytes=50_000_000, threads=2)


@pytest.mark.parametrize("name", PEERS)
def test_peer_sorts(tmp_path: Path, name: str) -> None:
    if PEERS[name].text and not rounds._has_gnu_sort():
        pytest.skip("no GNU sort")
    rows = generate(0, 5000, skewed=True)
    data = (text_keys(rows) if PEERS[name].text else rows).tobytes()
    (tmp_path / "input").write_bytes(data)
    PEERS[name].sort(tmp_path / "input", tmp_path / "output", OPTIONS)
    found = (tmp_path / "output").read_bytes()
    assert oracle.facts(found)._replace(num_unordered=0) == oracle.facts(
        oracle.sorted_records(data)
    )
    assert oracle.facts(found).num_unordered == 0
    assert sorted(oracle.records(found)) == sorted(oracle.records(data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["input", "output"]


def test_peer_in_a_process_is_measured(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(generate(0, 500_000).tobytes())  # many ticks of any clock
    measured = run_peer("numpy", tmp_path / "input", tmp_path / "output", OPTIONS)
    assert measured.wall_s > 0
    assert measured.cpu_s > 0
    assert measured.peak_bytes > 2**20


def test_peer_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(GraySortError, match=r"peer numpy: FileNotFoundError: .*none"):
        run_peer("numpy", tmp_path / "none", tmp_path / "output", OPTIONS)
