"""Times measured on a run, as the simulator takes them."""

import pytest
import torch

from benchmarks.ranks import Rank
from dualpipe.actions import Schedule
from dualpipe.measure import half_stage_times, medians
from dualpipe.schedules import dualpipe, dualpipev
from dualpipe.simulate import Times, simulate
from tests.dualpipe.training import Stage, build, criterion, own_data
from tests.forked_pool import ForkedPool


def recorded_tables(schedule: Schedule, times: Times) -> torch.Tensor:
    """What ranks would record if every step took exactly its time."""
    timeline = simulate(schedule, times)
    return torch.stack(
        [
            medians([(s.step, s.end - s.start) for s in spans], schedule.num_stages)
            for spans in timeline.spans
        ]
    )


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_recovers_the_times_of_half_stages(num_ranks: int) -> None:
    stages = range(2 * num_ranks)
    times = Times(
        tuple(1 + 0.1 * s for s in stages),
        tuple(2 + 0.1 * s for s in stages),
        tuple(3 - 0.1 * s for s in stages),
        0.75,
    )
    found = half_stage_times(
        recorded_tables(dualpipev(num_ranks, 4 * num_ranks), times), two_per_rank=True
    )
    for name in ("forward", "input_grad", "weight_grad"):
        assert getattr(found, name) == pytest.approx(getattr(times, name))
    assert found.overlap_factor == pytest.approx(0.75)


def test_halves_the_stages_of_dualpipe() -> None:
    times = Times((1.0, 2.0, 3.0, 4.0), 2.0, 3.0, 0.5)
    found = half_stage_times(recorded_tables(dualpipe(4, 12), times), two_per_rank=False)
    assert found.forward == pytest.approx((0.5, 0.5, 1, 1, 1.5, 1.5, 2, 2))
    assert found.input_grad == pytest.approx((1.0,) * 8)
    assert found.merged().forward == pytest.approx(times.forward)


def test_unsplit_backwards_get_the_share_of_the_others() -> None:
    # On one rank DualPipeV splits only one backward of its first stage.
    times = Times((1.0, 2.0), (1.0, 2.0), (3.0, 6.0))
    found = half_stage_times(recorded_tables(dualpipev(1, 2), times), two_per_rank=True)
    assert found.input_grad == pytest.approx((1.0, 2.0))
    assert found.weight_grad == pytest.approx((3.0, 6.0))


def test_nothing_recorded() -> None:
    with pytest.raises(ValueError, match="got no F of stage 0"):
        half_stage_times(medians([], 2)[None], two_per_rank=True)


def measure(_: Rank, seed: int) -> Times:
    pipe, _ = build("dualpipe", Stage, seed)
    pipe.record_times = True
    inputs, labels = own_data(pipe, 8, seed)
    pipe.step(*inputs, num_chunks=8, criterion=criterion, labels=labels)
    return pipe.measured_times()


def test_on_a_run(ranks: ForkedPool) -> None:
    first, second = ranks.run(measure, 2, 1)
    assert first == second
    assert len(first.forward) == 4
    assert min(first.forward + first.input_grad + first.weight_grad) > 0
