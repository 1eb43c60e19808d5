"""What the tests that compare the simulator with silicon share."""

from collections.abc import Iterator

import pytest

from tests.simulator.gpu_process import GpuProcess
from tests.simulator.silicon_probes import Ask, ask, ask_simulator

# Starting CUDA takes a while; a kernel does not.
_TIMEOUT_S = 40


@pytest.fixture(scope="session")
def gpu_process() -> Iterator[GpuProcess]:
    """The process in which kernels run on the GPU; started by its first call."""
    process = GpuProcess()
    yield process
    process.close()


@pytest.fixture
def ask_silicon(gpu_process: GpuProcess) -> Ask:
    return lambda probe: gpu_process.call(_TIMEOUT_S, ask, probe, "cuda")


@pytest.fixture(name="ask", params=["simulator", pytest.param("silicon", marks=pytest.mark.gpu)])
def _ask(request: pytest.FixtureRequest) -> Ask:
    """Asks the simulator and, where there is one, a GPU."""
    if request.param == "simulator":
        return ask_simulator
    answers: Ask = request.getfixturevalue("ask_silicon")
    return answers
