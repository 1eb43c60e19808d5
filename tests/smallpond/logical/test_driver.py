"""Programs with a command line, and plans as text."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from smallpond.errors import PlanError
from smallpond.execution.driver import Driver
from smallpond.execution.manager import JobManager
from smallpond.execution.task import ExecutionPlan, JobId, RuntimeContext
from smallpond.logical.dataset import ArrowTableDataSet, ParquetDataSet
from smallpond.logical.node import (
    Context,
    DataSetPartitionNode,
    DataSourceNode,
    HashPartitionNode,
    LogicalPlan,
    RootNode,
    SqlEngineNode,
)
from tests.smallpond.logical.conftest import Run
from tests.smallpond.logical.oracle import rows


def pipeline(input_paths: list[str], npartitions: int) -> LogicalPlan:
    ctx = Context()
    node = DataSetPartitionNode(
        ctx, (DataSourceNode(ctx, ParquetDataSet(input_paths)),), npartitions=npartitions
    )
    return LogicalPlan(ctx, SqlEngineNode(ctx, (node,), "SELECT id FROM {0}"))


def driver() -> Driver:
    made = Driver()
    made.add_argument("-i", "--input_paths", nargs="+", default=[])
    made.add_argument("--npartitions", type=int, default=10)
    return made


def test_a_program(urls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["prog", "scheduler", "-i", str(urls), "--npartitions", "3", "-j", "mine",
                 "--job_time", "2026-01-02T03:04:05", "--data_root", str(tmp_path / "root"),
                 "--output_path", str(tmp_path / "out"), "--max_retry_count", "7"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", arguments)
    program = driver()
    plan = pipeline(**program.get_arguments())
    with pytest.raises(SystemExit) as ended:
        program.run(plan)
    assert ended.value.code == 0
    found = ParquetDataSet([str(tmp_path / "out")])
    assert found.num_files == 3
    assert sorted(found.to_arrow_table()["id"].to_pylist()) == list(range(500))
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["2026-01-02-03-04-05.mine"]


def test_the_program_may_go_on(urls: Path, tmp_path: Path) -> None:
    program = driver()
    program.parse_arguments(["-D", str(tmp_path / "root"), "-F", "0.05"])
    exec_plan = program.run(pipeline([str(urls)], 2), stop_process_on_done=False)
    assert isinstance(exec_plan, ExecutionPlan)
    assert exec_plan.final_output.num_rows == 500


def test_arguments() -> None:
    program = driver()
    program.parse_arguments(["ray", "-n", "4", "--ray_address", "auto", "-i", "a", "b"])
    assert (program.mode, program.num_executors, program.job_id) == ("ray", 4, None)
    assert program.data_root is None
    assert program.get_arguments() == {"input_paths": ["a", "b"], "npartitions": 10}
    assert program.get_user_arguments(to_dict=False).npartitions == 10
    job = program.get_driver_arguments()
    assert job["ray_address"] == "auto"
    assert "npartitions" not in job


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        driver().parse_arguments(["--help"])
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--npartitions" in text
    assert "--ray_address" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["executor"], "there are no executors to start by hand"),
        (["elsewhere"], "invalid choice: 'elsewhere'"),
        (["--job_time", "noon"], "an ISO time expected, got 'noon'"),
        (["--colour=red"], "unrecognized arguments"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit):
        driver().parse_arguments(arguments)
    assert message in capsys.readouterr().err


def test_unknown_keywords(ctx: Context) -> None:
    node = DataSourceNode(ctx, ArrowTableDataSet(pa.table({"a": [1]})))
    with pytest.raises(PlanError, match=r"JobManager\.run: unknown keyword 'retries'"):
        JobManager().run(LogicalPlan(ctx, node), retries=3)
    with pytest.raises(PlanError, match=r"JobManager: unknown keyword 'root'"):
        JobManager(root="x")
    with pytest.raises(PlanError, match=r"RuntimeContext: unknown keyword 'cpus'"):
        RuntimeContext(JobId.new(), datetime(2026, 1, 2), "x", cpus=2)  # noqa: DTZ001


def test_a_plan_as_text(run: Run, ctx: Context, urls: Path) -> None:
    source = DataSourceNode(ctx, ParquetDataSet([str(urls / "*.parquet")]))
    hosts = HashPartitionNode(ctx, (source,), 3, ["host"])
    counted = SqlEngineNode(ctx, (hosts,), "SELECT count(*)\n  FROM {0}", output_name="counts")
    root = RootNode(ctx, (counted, hosts))
    plan = LogicalPlan(ctx, root)
    assert plan.explain_str() == (
        "RootNode-3 [1 partition]\n"
        "  SqlEngineNode-2: SELECT count(*) FROM {0} [3 partitions; output counts]\n"
        "    HashPartitionNode-1: 3 x __data_partition__ by host [3 partitions]\n"
        f"      DataSourceNode-0: ParquetDataSet({urls}/*.parquet) [1 partition]\n"
        "  HashPartitionNode-1: 3 x __data_partition__ by host [3 partitions] (see above)"
    )
    analysed = str(run(root).analyzed_logical_plan)
    assert "[3 partitions; output counts; 3 tasks, 3 rows, " in analysed
    assert "[3 partitions; 1 tasks, 500 rows, " in analysed


def test_a_name_twice(ctx: Context) -> None:
    nodes = [SqlEngineNode(ctx, (), f"SELECT {i}", output_name="same") for i in range(2)]
    with pytest.raises(PlanError, match=r"SqlEngineNode-0 and SqlEngineNode-1 have the same"):
        LogicalPlan(ctx, RootNode(ctx, nodes))


def test_a_picture_needs_graphviz(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = LogicalPlan(ctx, SqlEngineNode(ctx, (SqlEngineNode(ctx, (), "SELECT 1"),), "FROM {0}"))
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(PlanError, match="needs graphviz"):
        plan.graph()


def test_a_picture(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    class Digraph:
        """Stands for graphviz's, which need not be installed."""

        def __init__(self, comment: str) -> None:
            self.lines = [comment]

        def node(self, name: str, label: str) -> None:
            self.lines.append(f"{name} {label.split(maxsplit=1)[0]}")

        def edge(self, tail: str, head: str) -> None:
            self.lines.append(f"{tail}->{head}")

    module = type(sys)("graphviz")
    module.Digraph = Digraph  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "graphviz", module)
    first = SqlEngineNode(ctx, (), "SELECT 1")
    plan = LogicalPlan(ctx, SqlEngineNode(ctx, (first,), "FROM {0}"))
    assert plan.graph().lines == ["smallpond", "0 SqlEngineNode-0:", "1 SqlEngineNode-1:", "0->1"]


def test_nodes_and_frames_agree(run: Run, ctx: Context, urls: Path, tmp_path: Path) -> None:
    import smallpond  # noqa: PLC0415

    source = DataSourceNode(ctx, ParquetDataSet([str(urls)]))
    hosts = HashPartitionNode(ctx, (source,), 5, ["host"], drop_partition_column=True)
    text = "SELECT host, {__data_partition__} AS part, count(*) AS c FROM {0} GROUP BY host"
    by_nodes = rows(run(SqlEngineNode(ctx, (hosts,), text)).final_output)
    with smallpond.init(data_root=str(tmp_path / "session"), progress=False) as sp:
        frame = sp.read_parquet(str(urls)).repartition(5, hash_by="host")
        assert rows(sp.partial_sql(text, frame).to_arrow()) == by_nodes
