"""The forked ranks: what they return, whom they blame, and that they leave nothing behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from benchmarks.ranks import Rank, RankFailed, run_ranks
from tests.forked_pool import ForkedPool

ROOT = Path(__file__).parents[1]
FOREVER_S = 600


def children() -> set[int]:
    """Direct children of this process, zombies included."""
    pids: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        pids.update(int(pid) for pid in (task / "children").read_text().split())
    return pids


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_is_left_behind(ranks: ForkedPool, tmp_path: Path) -> Iterator[None]:
    gc.collect()  # What earlier tests dropped may close its files at any time.
    before_children, before_files = children(), open_files()
    yield
    assert children() == before_children
    assert open_files() <= before_files


def share_sum(rank: Rank, values: list[float]) -> torch.Tensor:
    mine = torch.tensor([values[rank.rank]])
    dist.all_reduce(mine)
    return mine


@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_results_come_in_rank_order(world_size: int) -> None:
    results = run_ranks(lambda rank: (rank.rank, rank.world_size), world_size, timeout_s=60)
    assert results == [(rank, world_size) for rank in range(world_size)]


def test_the_group_is_initialised_and_arguments_arrive() -> None:
    assert run_ranks(share_sum, 4, [1.0, 2.0, 3.0, 4.0], timeout_s=60) == [torch.tensor([10.0])] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_tensors_return_by_value(dtype: torch.dtype) -> None:
    expected = torch.arange(1 << 16).remainder(16).reshape(256, 256).T.to(dtype)
    (result,) = run_ranks(lambda _: {"x": expected.clone()}, 1, timeout_s=60)
    assert result["x"].dtype == dtype
    assert result["x"].stride() == expected.stride()
    assert torch.equal(result["x"].double(), expected.double())


def test_reports_reach_the_parent_before_the_results() -> None:
    def work(rank: Rank) -> None:
        for step in range(3):
            rank.report(step)

    heard: list[tuple[int, int]] = []
    run_ranks(work, 2, timeout_s=60, on_report=lambda rank, step: heard.append((rank, step)))
    assert sorted(heard) == [(rank, step) for rank in range(2) for step in range(3)]


def test_a_rank_that_raises_is_named_with_its_traceback() -> None:
    def work(rank: Rank) -> None:
        if rank.rank == 2:
            raise ValueError("no tokens")
        dist.barrier()

    with pytest.raises(RankFailed) as caught:
        run_ranks(work, 4, timeout_s=60)
    assert str(caught.value) == "rank 2 of 4 failed: ValueError: no tokens"
    assert 'raise ValueError("no tokens")' in caught.value.__notes__[0]


def test_the_cause_is_blamed_even_when_it_speaks_last() -> None:
    def work(rank: Rank) -> None:
        try:
            if rank.rank == 3:
                raise ValueError("the cause")
            dist.barrier()
        finally:
            dist.destroy_process_group()  # the others lose this rank before it has said why
            time.sleep(0.3 if rank.rank == 3 else 0)

    with pytest.raises(RankFailed, match="rank 3 of 4 failed: ValueError: the cause"):
        run_ranks(work, 4, timeout_s=60)


def test_a_lost_connection_wrapped_by_a_library_is_still_no_cause() -> None:
    def work(rank: Rank) -> None:
        if rank.rank == 1:
            dist.destroy_process_group()
            time.sleep(0.3)
            os._exit(7)
        try:
            dist.barrier()
        except RuntimeError as error:
            raise RuntimeError("dispatch: a peer of the group is gone") from error

    with pytest.raises(RankFailed, match="rank 1 of 2 exited with status 7 before"):
        run_ranks(work, 2, timeout_s=60)


def test_a_lost_peer_is_blamed_when_nobody_owns_up() -> None:
    def work(rank: Rank) -> None:
        if rank.rank == 1:
            dist.destroy_process_group()
        else:
            dist.barrier()

    with pytest.raises(RankFailed, match=r"rank 0 of 2 failed: .* by peer"):
        run_ranks(work, 2, timeout_s=60)


def test_a_killed_rank_is_named_with_its_signal() -> None:
    def work(rank: Rank) -> None:
        if rank.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()

    with pytest.raises(RankFailed, match=r"rank 0 of 4 was killed by signal 9 \(SIGKILL; often"):
        run_ranks(work, 4, timeout_s=60)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_lost_at_the_rendezvous_is_named(victim: int) -> None:
    def work(rank: Rank) -> None:
        if rank.rank == victim:  # rank 0 serves the store at which new groups meet
            os._exit(7)
        dist.new_group([0, 1])

    with pytest.raises(RankFailed, match=f"rank {victim} of 2 exited with status 7"):
        run_ranks(work, 2, timeout_s=60)


def test_a_lost_store_is_no_cause() -> None:
    def work(rank: Rank) -> None:
        if rank.rank == 0:
            raise dist.DistNetworkError("failed to recv, got 0 bytes")
        time.sleep(0.3)
        raise ValueError("the cause")

    with pytest.raises(RankFailed, match="rank 1 of 2 failed: ValueError: the cause"):
        run_ranks(work, 2, timeout_s=60)


def test_a_rank_that_exits_is_named_with_its_status() -> None:
    with pytest.raises(RankFailed, match="rank 0 of 1 exited with status 3 before it returned"):
        run_ranks(lambda _: os._exit(3), 1, timeout_s=60)
    with pytest.raises(RankFailed, match="rank 0 of 1 failed: SystemExit: 3"):
        run_ranks(lambda _: sys.exit(3), 1, timeout_s=60)


def test_a_timeout_names_the_ranks_and_their_last_reports() -> None:
    def work(rank: Rank) -> None:
        rank.report("warm-up")
        if rank.rank == 1:
            rank.report("step 12")
        if rank.rank in {1, 2}:
            time.sleep(FOREVER_S)

    with pytest.raises(RankFailed) as caught:
        run_ranks(work, 3, timeout_s=1.5)
    assert str(caught.value) == (
        "ranks 1, 2 were still running after 1.5 s"
        " (last reports: rank 1: 'step 12', rank 2: 'warm-up')"
    )


def test_a_result_that_cannot_travel_is_an_error_of_the_rank() -> None:
    with pytest.raises(RankFailed, match=r"rank 0 of 1 failed: .*pickle"):
        run_ranks(lambda _: lambda: None, 1, timeout_s=60)


def test_an_error_in_on_report_ends_the_ranks() -> None:
    def work(rank: Rank) -> None:
        rank.report("started")
        time.sleep(FOREVER_S)

    def stop(rank: int, obj: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ranks(work, 2, timeout_s=60, on_report=stop)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="run_ranks: world_size must be at least 1, got 0"):
        run_ranks(share_sum, 0, timeout_s=1)
    with pytest.raises(ValueError, match="run_ranks: timeout_s must be positive, got 0"):
        run_ranks(share_sum, 1, timeout_s=0)


def test_a_rank_leaves_ctrl_c_to_its_parent() -> None:
    def work(rank: Rank) -> int:
        signal.raise_signal(signal.SIGINT)
        return rank.rank

    assert run_ranks(work, 2, timeout_s=60) == [0, 1]


def test_a_rank_does_not_keep_its_parents_handlers() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(RankFailed, match=r"was killed by signal 15 \(SIGTERM\)"):
            run_ranks(lambda _: signal.raise_signal(signal.SIGTERM), 1, timeout_s=60)
    finally:
        signal.signal(signal.SIGTERM, before)


SLEEPERS = """
import os, time
from benchmarks.ranks import run_ranks
def work(rank):
    rank.report(os.getpid())
    time.sleep(600)
run_ranks(work, 2, timeout_s=600, on_report=lambda rank, pid: print(pid, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_ranks_do_not_outlive_their_parent(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPERS],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as the terminal does for Ctrl-C: the ranks get it too
        else:
            parent.send_signal(how)
        _, errors = parent.communicate(timeout=30)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0)  # the parent's own


def raise_on_rank_1(rank: Rank) -> None:
    if rank.rank == 1:
        raise ValueError("from the pool")
    dist.barrier()


def sleep_until_killed(rank: Rank) -> None:
    time.sleep(FOREVER_S)


def test_the_pool_returns_results(ranks: ForkedPool) -> None:
    values = [float(value) for value in range(8)]
    assert ranks.run(share_sum, 8, values) == [torch.tensor([28.0])] * 8


def test_the_pool_raises_what_the_run_raised_and_lives_on(ranks: ForkedPool) -> None:
    with pytest.raises(RankFailed, match="rank 1 of 2 failed: ValueError: from the pool") as caught:
        ranks.run(raise_on_rank_1, 2)
    assert "raise_on_rank_1" in caught.value.__notes__[0]
    with pytest.raises(RankFailed, match=r"ranks 0, 1 were still running after 0\.5 s"):
        ranks.run(sleep_until_killed, 2, timeout_s=0.5)
    with pytest.raises(ValueError, match="world_size must be at least 1"):
        ranks.run(share_sum, 0)
    assert ranks.run(share_sum, 1, [1.0]) == [torch.tensor([1.0])]


def test_the_pool_drops_the_answer_to_a_run_that_was_given_up(ranks: ForkedPool) -> None:
    class GivenUpError(Exception):
        pass

    def give_up(number: int, frame: object) -> None:
        raise GivenUpError

    before = signal.signal(signal.SIGUSR1, give_up)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(GivenUpError):
            ranks.run(sleep_until_killed, 1, timeout_s=1)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert ranks.run(share_sum, 1, [1.0]) == [torch.tensor([1.0])]
