"""The sort against Python's, and what it leaves behind when something goes wrong."""

import dataclasses
import errno
import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.graysort import sort as sort_module
from benchmarks.graysort.input_file import write_input
from benchmarks.graysort.phases import Phases
from benchmarks.graysort.plan import Plan, make_plan
from benchmarks.graysort.raw_file import opened, write_rows
from benchmarks.graysort.records import generate
from benchmarks.graysort.sort import sort_file, sort_partition, write_run
from benchmarks.graysort.tasks import CorruptedDataError, GraySortError, Item, TaskFunction
from benchmarks.graysort.validate import complaint, summarise_file
from benchmarks.graysort.workers import smallpond_workers
from tests.graysort import oracle
from tests.graysort.running import here, phases, plan, sort_bytes


def data_of(kind: str, count: int) -> bytes:
    rows = generate(3, count, skewed=kind == "skewed")
    if kind == "all equal":
        rows[:, :10] = 255
    elif kind == "8 bytes equal":
        rows[:, :8] = 9
    elif kind == "two keys":
        rows[:, :10] = np.arange(count)[:, None] % 2
    data = rows.tobytes()
    return oracle.sorted_records(data) if kind == "sorted" else data


KINDS = ["plain", "skewed", "all equal", "8 bytes equal", "two keys", "sorted"]
PLANS = {
    "one task": (1000, 1),
    "unaligned": (137, 6),
    "many runs": (10, 3),
    "many partitions": (333, 90),
    "a few records a run": (4, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("count", [0, 1, 2, 90, 700])
def test_output_is_pythons(tmp_path: Path, kind: str, sizes: tuple[int, int], count: int) -> None:
    """All bytes: the sort is stable, so that its sizes do not show in the output."""
    data = data_of(kind, count)
    assert sort_bytes(data, tmp_path, plan(count, *sizes)) == oracle.sorted_records(data)


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from([b"a" * 10, b"a" * 9 + b"b", b"\x00" * 10, b"\xff" * 10]), max_size=50
    ),
    st.integers(1, 20),
    st.integers(1, 12),
)
def test_output_is_pythons_for_any_sizes(
    tmp_path_factory: pytest.TempPathFactory, keys: list[bytes], chunk: int, partitions: int
) -> None:
    data = b"".join(key + f"{idx:090d}".encode() for idx, key in enumerate(keys))
    folder = tmp_path_factory.mktemp("sort")
    assert sort_bytes(data, folder, plan(len(keys), chunk, partitions)) == oracle.sorted_records(
        data
    )


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sort_module, "_BLOCK_RECORDS", 3)
    monkeypatch.setattr(sort_module, "_SAMPLES_PER_TASK", 5)
    data = data_of("skewed", 200)
    assert sort_bytes(data, tmp_path, plan(200, 64, 5)) == oracle.sorted_records(data)


def test_costs_are_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = phases()
    monkeypatch.setattr(time, "process_time", itertools.count().__next__)  # each task takes 1 s
    sort_bytes(data_of("plain", 500), tmp_path, plan(500, 100, 4), run)
    assert list(run.costs) == ["sample", "partition", "sort"]
    for name, tasks in (("partition", 5), ("sort", 4)):
        cost = run.costs[name]
        assert (cost.num_tasks, cost.bytes_read, cost.bytes_written) == (tasks, 50_000, 50_000)
        assert cost.cpu_s == tasks
    assert run.total("partition", "sort").cpu_s == 9
    assert min(run.peaks.values()) > 2**20


def test_in_processes(tmp_path: Path) -> None:
    data = data_of("skewed", 20_000)
    (tmp_path / "data").mkdir()
    with smallpond_workers(2, tmp_path / "tasks") as run_all:
        run, sizes = Phases(run_all), plan(20_000, 3001, 7)
        assert sort_bytes(data, tmp_path / "data", sizes, run) == oracle.sorted_records(data)
    assert 1 <= len(run.peaks) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True], ids=["plain", "skewed"])
def test_memory_limit_holds_with_four_times_the_data(tmp_path: Path, skewed: bool) -> None:
    limit, num_records = 200_000_000, 8_000_000
    with smallpond_workers(1, tmp_path / "tasks") as run_all:
        run = Phases(run_all)
        expected = write_input(tmp_path / "input", num_records, run, skewed=skewed)
        sizes = make_plan(num_records, limit, 1)
        sort_file(tmp_path / "input", tmp_path / "output", tmp_path / "runs", sizes, run)
        assert complaint(summarise_file(tmp_path / "output", run), expected) is None
    assert sum(run.peaks.values()) <= limit
    for name in ("input", "output"):  # 1.6 GB, which would stay on the disk for the next runs
        (tmp_path / name).unlink()


class Failing:
    """A sort of 300 records; after a phase of it something happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "input").write_bytes(data_of("plain", 300))

    def run(self, after: TaskFunction, happens: object, sizes: Plan | None = None) -> None:
        def hook(function: TaskFunction) -> None:
            if function is after and callable(happens):
                happens()

        names = ("input", "output", "runs")
        source, target, runs = (self.folder / name for name in names)
        sort_file(source, target, runs, sizes or plan(300, 100, 4), Phases(here(hook)))

    def assert_nothing_is_left(self) -> None:
        assert [path.name for path in self.folder.iterdir()] == ["input"]


@pytest.fixture
def failing(tmp_path: Path) -> Failing:
    return Failing(tmp_path)


@pytest.mark.parametrize("byte", [0, 5_000, 9_999])
def test_run_that_changed_on_the_disk_is_found(failing: Failing, byte: int) -> None:
    def flip_a_bit() -> None:
        path = failing.folder / "runs/run-000001"
        data = bytearray(path.read_bytes())
        data[byte] ^= 16
        path.write_bytes(data)

    with pytest.raises(CorruptedDataError, match=r"run-000001: records \d+ to \d+, of partition"):
        failing.run(write_run, flip_a_bit)
    failing.assert_nothing_is_left()


def test_run_that_is_cut_off_is_found(failing: Failing) -> None:
    def cut() -> None:
        path = failing.folder / "runs/run-000002"
        path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(CorruptedDataError, match=r"run-000002: .* the file ends after"):
        failing.run(write_run, cut)
    failing.assert_nothing_is_left()


def test_run_that_is_gone_is_found(failing: Failing) -> None:
    with pytest.raises(GraySortError, match=r"No such file or directory: .*run-000000"):
        failing.run(write_run, (failing.folder / "runs/run-000000").unlink)
    failing.assert_nothing_is_left()


def test_interrupt_leaves_nothing(failing: Failing) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for phase in (write_run, sort_partition):
        with pytest.raises(KeyboardInterrupt):
            failing.run(phase, interrupt)
        failing.assert_nothing_is_left()


def test_input_that_shrank_is_found(failing: Failing) -> None:
    (failing.folder / "input").write_bytes(data_of("plain", 299))
    with pytest.raises(CorruptedDataError, match=r"input: .* the file ends after"):
        failing.run(write_run, None)
    failing.assert_nothing_is_left()


def test_partition_that_is_too_large_is_refused(failing: Failing) -> None:
    with pytest.raises(GraySortError, match=r"a partition must fit into 50 records, got"):
        failing.run(write_run, None, dataclasses.replace(plan(300, 100, 4), capacity_records=50))
    failing.assert_nothing_is_left()


def test_an_older_output_stays_until_a_new_one_is_whole(failing: Failing) -> None:
    older = failing.folder / "output"
    older.write_bytes(b"older")

    def check_it() -> None:
        assert older.read_bytes() == b"older"

    failing.run(sort_partition, check_it)
    assert older.read_bytes() == oracle.sorted_records(data_of("plain", 300))


def test_full_disk_names_the_file() -> None:
    with (
        opened("/dev/full", 1) as descriptor,
        pytest.raises(OSError, match="No space left") as full,
    ):
        write_rows(descriptor, generate(0, 3), 5, "/dev/full")
    assert full.value.errno == errno.ENOSPC
    assert "writing at byte 500" in str(full.value)
    assert full.value.filename == "/dev/full"


def test_failures_are_handed_on_as_values(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    cut_off = {"source": str(tmp_path / "empty"), "first": 0, "num_records": 1}
    assert "the file ends after 0" in write_run(cut_off | {"run": "", "splits": b""})["corrupted"]
    item: Item = {"source": str(tmp_path / "none"), "positions": np.array([0]).tobytes()}
    result = sort_module.sample_keys(item)
    assert "No such file" in result["failed"]
    with pytest.raises(GraySortError, match="No such file"):
        Phases(here()).run("sample", sort_module.sample_keys, [item], 10)
