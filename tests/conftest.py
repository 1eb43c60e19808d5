"""What every test may ask for: a backend, a seed, ranks; and what the machine must offer for it."""

import contextlib
import os
import random
import shutil
import zlib
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import csrc
from tests.forked_pool import ForkedPool

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Test tensors are small: on busy cores the threads' barriers cost a hundred times their work.
torch.set_num_threads(1)

_POOL = pytest.StashKey[ForkedPool]()


@dataclass(frozen=True, slots=True)
class Backend:
    """One of the ways in which the same public function runs.

    Attributes:
        name: "cpu", "simulator" or "cuda".
        device: where the test creates its tensors.
    """

    name: str
    device: torch.device

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Inside this context a call on tensors of ``device`` is run by this backend."""
        if self.name == "simulator":
            with csrc.simulate():
                yield
        else:
            yield


@pytest.fixture(
    scope="module",  # a function-scoped fixture would not go with hypothesis
    params=[
        "cpu",
        pytest.param("simulator", marks=pytest.mark.compile),
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.compile]),
    ],
)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Runs the test once per backend that this machine has."""
    name: str = request.param
    return Backend(name, torch.device("cuda" if name == "cuda" else "cpu"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of the test's own, already given to torch and random; shown when the test fails.

    The environment variable OPENWEEK_TEST_SEED takes its place.
    """
    name: str = request.node.nodeid
    value = int(os.environ.get("OPENWEEK_TEST_SEED", zlib.crc32(name.encode())))
    torch.manual_seed(value)
    random.seed(value)
    return value


@pytest.fixture(scope="session")
def ranks(request: pytest.FixtureRequest) -> ForkedPool:
    """``ranks.run(fn, world_size, *args, timeout_s=60)``: results of ``fn(rank, *args)``."""
    return request.config.stash[_POOL]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run, and says why."""
    lacking = {mark: reason for mark, reason in _machine_lacks().items() if reason}
    for item in items:
        for mark in item.iter_markers():
            if mark.name in lacking:
                item.add_marker(pytest.mark.skip(reason=f"{mark.name} ({lacking[mark.name]})"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Forks the pool: the test modules are imported, and no test has run yet."""
    wanted = any("ranks" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        session.config.stash[_POOL] = ForkedPool()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends the pool, on Ctrl-C too."""
    if _POOL in config.stash:
        config.stash[_POOL].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the seed to the report of a test that failed."""
    report = yield
    value = getattr(item, "funcargs", {}).get("seed")
    if report.failed and value is not None:
        report.sections.append(
            ("Seed", f"OPENWEEK_TEST_SEED={value} runs it with the same numbers")
        )
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts the skipped tests, one line per reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped: {count} {reason}")


def _machine_lacks() -> dict[str, str | None]:
    """What this machine lacks for each marker; None where it lacks nothing."""
    # Asks NVML, not the CUDA runtime, which must not be initialised before the ranks are forked.
    num_gpus = torch.cuda.device_count()
    return {
        "gpu": None if num_gpus >= 1 else "no CUDA GPU",
        "multigpu": None if num_gpus >= 2 else f"needs two CUDA GPUs, has {num_gpus}",
        "compile": None if _has_cuda_compiler() else "no nvcc or NVRTC",
    }


def _has_cuda_compiler() -> bool:
    if shutil.which("nvcc") or (Path(os.environ.get("CUDA_HOME", "")) / "bin/nvcc").is_file():
        return True
    wheels = find_spec("nvidia")
    roots = wheels.submodule_search_locations if wheels else None
    return any(
        next(Path(root).glob(pattern), None)
        for root in roots or ()
        for pattern in ("*/bin/nvcc", "*/lib/libnvrtc.so*")
    )
