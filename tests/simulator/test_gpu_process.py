"""A process of its own for each GPU kernel that goes wrong, without a GPU."""

import os
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from tests.simulator.gpu_process import GpuProcess
from tests.simulator.silicon_probes import Probe, ask


@pytest.fixture(scope="module")
def process() -> Iterator[GpuProcess]:
    process = GpuProcess()
    yield process
    process.close()


def test_calls_share_a_process_that_is_not_this_one(process: GpuProcess) -> None:
    first = process.call(60, os.getpid)
    assert first == process.call(60, os.getpid)
    assert first != os.getpid()


def test_a_call_that_fails_takes_its_process_along(process: GpuProcess) -> None:
    before = process.call(60, os.getpid)
    with pytest.raises(ValueError, match="invalid literal for int"):
        process.call(60, int, "one")
    assert process.call(60, os.getpid) != before


def test_a_process_that_dies_is_an_error_and_the_next_call_works(process: GpuProcess) -> None:
    with pytest.raises(BrokenProcessPool):
        process.call(60, os._exit, 3)
    assert process.call(60, abs, -1) == 1


def test_a_call_that_hangs_is_given_up_and_its_process_killed(process: GpuProcess) -> None:
    before = process.call(60, os.getpid)
    with pytest.raises(TimeoutError):
        process.call(0.1, time.sleep, 600)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


@pytest.mark.compile
def test_questions_and_answers_travel(process: GpuProcess) -> None:
    probe = Probe(kernel="fresh_mbarrier", out=3)
    assert process.call(60, ask, probe, "cpu") == ask(probe, "cpu")
