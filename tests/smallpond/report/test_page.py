"""The page about a session, used in a headless Chromium as a reader uses it."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from smallpond.events import Event, Metrics, RunFinished, RunStarted, Stage, State, TaskEvent
from smallpond.report import Recorder
from smallpond.report.stages import StageStatistics
from smallpond.report.timeline import write_html
from smallpond.report.units import count, duration, size
from smallpond.report.wire import run_document
from tests.smallpond.report.made_runs import Sketch, Step
from tests.smallpond.report.test_wire import HOSTILE, SMALL, hostile_run, recorded

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="page (no playwright)").expect

JOIN = [
    Step("read orders", 24, 0.08),
    Step("read items", 40, 0.06),
    Step("repartition(16, hash: id)", 16, 0.05, (0,)),
    Step("repartition(16, hash: id) of items", 16, 0.07, (1,)),
    Step("join on id", 16, 0.3, (2, 3)),
    Step("select id, sum(price) as revenue\nfrom {0} group by id", 16, 0.12, (4,)),
    Step("write", 4, 0.05, (5, 0)),
]
NODES = {f"node-{i}": 16 for i in range(6)}


def joined() -> list[Event]:
    lanes = {"thread": 4, "process-0": 1, "process-2": 1, "process-10": 1}
    return Sketch(JOIN, lanes, failing=0.08, copied=0.1, reused=5).events(0)


def failed() -> list[Event]:
    steps = [Step("map extract()", 40, 0.1), Step("group_by", 12, 0.06, (0,))]
    return Sketch(steps, failing=0.1, error="TaskError: group_by: no").events(1)


def large() -> list[Event]:
    steps = [
        Step("generate", 4000, 0.02),
        Step("split", 4000, 0.03, (0,)),
        Step("sort", 2000, 0.05, (1,)),
    ]
    return Sketch(steps, NODES, failing=0.01, copied=0.01).events(2)


SESSIONS = {
    "nothing": [],
    "three runs": [joined(), failed(), large()],
    "no tasks": [Sketch([Step("scan", 0, 0.0)]).events()],
    "no stages": [[RunStarted(0, 0.0, ()), RunFinished(0, 0.0)]],
    "only reused": [Sketch([Step("scan", 3, 1.0)], reused=3).events()],
    "still running": [joined()[:150]],
    "an instant": [Sketch([Step("scan", 1, 0.0)]).events()],
}


@dataclass(slots=True)
class Opened:
    """A page that a browser shows, with what it asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def state(self, expression: str) -> Any:
        """Something of `window.smallpond`, after the next frame."""
        return self.page.evaluate(
            "(text) => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame("
            "() => done(text.split('.').reduce((part, name) => part[name], window.smallpond)))))",
            expression,
        )

    def place(self, row: int) -> tuple[float, float]:
        """Where on the screen the middle of an attempt is."""
        point = self.page.evaluate("(row) => window.smallpond.place(row)", row)
        return point["x"], point["y"]

    def hover(self, row: int) -> str:
        """What the tooltip says over an attempt."""
        self.page.mouse.move(*self.place(row))
        tooltip = self.page.locator("#tooltip")
        expect(tooltip).to_be_visible()
        return str(tooltip.inner_text())

    def colour(self, row: int) -> str:
        """What is drawn at the lower middle of an attempt, as #rrggbb."""
        self.state("frame")
        x, y = self.place(row)
        red, green, blue = self.page.evaluate(
            """([x, y]) => {
              const canvas = document.querySelector("main canvas");
              const { left, top } = canvas.getBoundingClientRect();
              const pixel = canvas.getContext("2d").getImageData(x - left, y - top, 1, 1);
              return [...pixel.data].slice(0, 3);
            }""",
            [x, y + 5],
        )
        return f"#{red:02x}{green:02x}{blue:02x}"

    def style_colour(self, name: str) -> str:
        """A colour of the style sheet."""
        expression = "(name) => getComputedStyle(document.documentElement).getPropertyValue(name)"
        return str(self.page.evaluate(expression, f"--{name}")).strip()

    def column(self, label: str) -> list[str]:
        """The cells of a column of the stages' table, from the top."""
        return list(self.page.locator(f'#stages td[data-column="{label}"]').all_inner_texts())


@dataclass(frozen=True, slots=True)
class Opener:
    """Writes the page of a recorder and opens it."""

    browser: Browser
    folder: Path

    def __call__(self, recorder: Recorder) -> Opened:
        file = self.folder / "page.html"
        write_html(recorder, file)
        page = self.browser.new_page(viewport={"width": 1280, "height": 800})
        opened = Opened(page)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("console", lambda message: opened.problems.append(message.text))
        page.on("pageerror", lambda error: opened.problems.append(str(error)))
        page.on("dialog", lambda dialog: opened.problems.append(dialog.message))
        page.goto(file.as_uri())
        page.wait_for_function("window.smallpond && window.smallpond.frame.count > 0")
        return opened


@pytest.fixture
def open_report(chromium: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Opens pages, and closes them when the test is over."""
    yield Opener(chromium, tmp_path)
    for context in chromium.contexts:
        context.close()


@pytest.fixture
def join(open_report: Opener) -> tuple[Opened, dict[str, Any], Sequence[StageStatistics]]:
    """The page of a run with everything, what it carries, and its statistics."""
    recorder = recorded(joined())
    (run,) = recorder.runs()
    statistics = run.statistics()
    return open_report(recorder), run_document(run, statistics), statistics


Join = tuple[Opened, dict[str, Any], Sequence[StageStatistics]]


def wide(document: dict[str, Any], state: str, copy: int = 0) -> int:
    """The longest attempt of this state."""
    a = document["attempts"]
    rows = [
        row
        for row, index in enumerate(a["state"])
        if document["states"][index] == state and a["speculative"][row] == copy
    ]
    return max(rows, key=lambda row: a["end"][row] - a["begin"][row])


@pytest.mark.parametrize("streams", SESSIONS.values(), ids=SESSIONS)
def test_opens_without_problems_or_requests(
    open_report: Opener, streams: list[list[Event]]
) -> None:
    opened = open_report(recorded(*streams))
    assert opened.problems == []
    assert len(opened.requests) == 1
    assert opened.requests[0].endswith("/page.html")
    for key in "nn+f0ad":
        opened.page.keyboard.press(key)
    opened.page.keyboard.press("Escape")
    assert opened.problems == []
    if not streams:
        expect(opened.page.locator("main")).to_have_text("Nothing has run yet.")
        return
    # The longest run is shown first; the canvas is a picture of several colours, not a blank one.
    options = opened.page.locator("#runs option").all_inner_texts()
    assert [option.split(" · ")[0] for option in options] == [
        f"run {stream[0].run_idx}" for stream in streams
    ]
    if len(streams) == 3:
        assert options[1].endswith(" · 52 tasks · failed")
        assert opened.state("run") == 2
        opened.page.emulate_media(color_scheme="dark")
        opened.page.keyboard.press("[")
        assert opened.state("run") == 1
        opened.page.select_option("#runs", "0")
        assert opened.state("run") == 0
        expect(opened.page.locator("#stages tbody tr")).to_have_count(len(JOIN))


def test_the_table_is_the_statistics(join: Join) -> None:
    opened, _, statistics = join
    texts = {
        "tasks": [f"{s.num_tasks}" for s in statistics],
        "reused": [f"{s.num_reused or ''}" for s in statistics],
        "failed": [f"{s.num_failed or ''}" for s in statistics],
        "retries": [f"{s.num_retries or ''}" for s in statistics],
        "copies": [f"{s.num_speculative or ''}" for s in statistics],
        "rows in": [count(s.rows_in) for s in statistics],
        "rows out": [count(s.rows_out) for s in statistics],
        "bytes in": [size(s.bytes_in) for s in statistics],
        "bytes out": [size(s.bytes_out) for s in statistics],
        "wall": [duration(s.wall_s) for s in statistics],
        "cpu": [duration(s.cpu_s) for s in statistics],
        "p50": [duration(s.p50_s) for s in statistics],
        "p95": [duration(s.p95_s) for s in statistics],
        "longest": [duration(s.longest_s) for s in statistics],
        "time skew": [f"×{s.skew_time:.1f}" for s in statistics],
        "row skew": [f"×{s.skew_rows:.1f}" for s in statistics],
        "spilled": [],  # of nothing there is no column
        "passes": [],
    }
    assert {label: opened.column(label) for label in texts} == texts
    marks = opened.page.locator('td[data-column="time skew"] .mark').all_inner_texts()
    assert marks == [f"×{s.skew_time:.1f}" for s in statistics if s.skew_time >= 2]
    assert 0 < len(marks) < len(statistics)


def test_the_table_is_sorted_by_a_click(join: Join) -> None:
    opened, _, statistics = join
    page = opened.page
    walls = [s.wall_s for s in sorted(statistics, key=lambda s: -s.wall_s)]
    head = page.locator("#stages th", has_text=re.compile("^wall$"))
    head.locator("button").click()
    assert opened.column("wall") == [duration(wall) for wall in walls]
    assert head.get_attribute("aria-sort") == "descending"
    head.locator("button").click()
    assert opened.column("wall") == [duration(wall) for wall in reversed(walls)]
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert opened.column("wall") == [duration(s.wall_s) for s in statistics]


def test_numbers_are_written_as_elsewhere(open_report: Opener) -> None:
    rng = random.Random(1)
    values = [int(10 ** rng.uniform(0, 14)) for _ in range(40)] + [999, 1000, 999_499, 999_500]
    events: list[Event] = [
        RunStarted(0, 0.0, tuple(Stage(i, str(i), 1) for i in range(len(values))))
    ]
    for stage, value in enumerate(values):
        told = Metrics(rows_in=value, bytes_in=value, cpu_s=value * 1e-8)
        events.append(TaskEvent(0, 1.0, stage, str(stage), State.FINISHED, metrics=told))
    opened = open_report(recorded([*events, RunFinished(0, 2.0)]))
    assert opened.column("rows in") == [count(value) for value in values]
    assert opened.column("bytes in") == [size(value) for value in values]
    told_us = [round(value * 1e-2) for value in values]
    assert opened.column("cpu") == [duration(us / 1e6) if us else "" for us in told_us]


def test_totals_are_sums(join: Join) -> None:
    opened, _, statistics = join
    figures = {
        "stages": f"{len(statistics)}",
        "tasks run": f"{sum(s.num_finished for s in statistics)}",
        "tasks reused": f"{sum(s.num_reused for s in statistics)}",
        "rows handed on": count(sum(s.rows_out for s in statistics)),
        "bytes handed on": size(sum(s.bytes_out for s in statistics)),
        "processor time": duration(sum(s.cpu_s for s in statistics)),
        "attempts failed": f"{sum(s.num_failed for s in statistics)}",
    }
    for label, text in figures.items():
        expect(opened.page.locator(f'[data-figure="{label}"] dd')).to_have_text(text)


def test_the_graph_is_the_stages(join: Join) -> None:
    opened, document, _ = join
    page = opened.page
    titles = page.locator("#graph g title").all_text_contents()
    assert titles == [step.name for step in JOIN]
    edges = page.locator("#graph path[data-from]")
    drawn = {
        (int(edge.get_attribute("data-from") or -1), int(edge.get_attribute("data-to") or -1))
        for edge in edges.all()
    }
    assert drawn == {(source, node) for node, step in enumerate(JOIN) for source in step.inputs}
    assert drawn == {(source, node) for source, node, _ in document["graph"]["edges"]}
    boxes = [box.bounding_box() for box in page.locator("#graph g rect.box").all()]
    for source, node in drawn:
        left, right = boxes[source], boxes[node]
        assert left is not None
        assert right is not None
        assert left["x"] + left["width"] < right["x"]


def test_hovering_tells_what_is_known(join: Join) -> None:
    opened, document, _ = join
    a = document["attempts"]
    row = wide(document, "finished")
    text = opened.hover(row)
    wanted = {
        "state": "finished",
        "partition": document["partitions"][a["partition"][row]],
        "attempt": str(a["number"][row] + 1),
        "processor": duration(a["cpu"][row] / 1e6),
        "rows": f"{count(a['rows_in'][row])} → {count(a['rows_out'][row])}",
        "bytes": f"{size(a['bytes_in'][row])} → {size(a['bytes_out'][row])}",
        "worker": document["workers"][a["worker"][row]],
        "task": document["tasks"][a["task"][row]],
    }
    lines = text.splitlines()
    assert lines[0] == document["stages"][a["stage"][row]]["name"].replace("\n", " ")
    shown = dict(zip(lines[1::2], lines[2::2], strict=True))
    assert shown.pop("time").startswith(duration((a["end"][row] - a["begin"][row]) / 1e6))
    assert shown == wanted
    row = wide(document, "failed")
    assert dict(document["errors"])[row] in opened.hover(row)
    assert "cancelled, second copy" in opened.hover(wide(document, "cancelled", 1))
    opened.page.mouse.move(5, 5)
    expect(opened.page.locator("#tooltip")).to_be_hidden()


def test_attempts_have_the_colour_of_their_stage_or_of_failure(join: Join) -> None:
    opened, document, _ = join
    row = wide(document, "finished")
    stage = document["attempts"]["stage"][row]
    own = opened.style_colour(f"s{stage}")
    assert opened.colour(row) == own
    assert opened.colour(wide(document, "failed")) == opened.style_colour("failed")
    opened.page.locator("#graph g").nth((stage + 1) % len(JOIN)).click()
    assert opened.state("emphasised") == (stage + 1) % len(JOIN)
    assert opened.colour(row) != own
    opened.page.locator(f'#stages tr[data-stage="{stage}"]').click()
    assert opened.colour(row) == own
    opened.page.keyboard.press("Escape")
    assert opened.state("emphasised") is None


def test_troubles_lead_to_their_attempts(join: Join) -> None:
    opened, document, statistics = join
    a = document["attempts"]
    troubled = [
        row
        for row, index in enumerate(a["state"])
        if document["states"][index] in ("failed", "cancelled") or a["number"][row] > 0
    ]
    rows = opened.page.locator("#troubles tbody tr")
    shown = [int(row.get_attribute("data-row") or -1) for row in rows.all()]
    assert sorted(shown) == troubled
    num_failed = sum(s.num_failed for s in statistics)
    assert all(document["states"][a["state"][row]] == "failed" for row in shown[:num_failed])
    rows.nth(0).locator("button").click()
    assert opened.state("selected") == shown[0]
    selection = opened.page.locator("#selection")
    expect(selection).to_contain_text(dict(document["errors"])[shown[0]])
    selection.locator("button").first.click()  # another attempt at the same task
    other = opened.state("selected")
    assert other != shown[0]
    assert a["task"][other] == a["task"][shown[0]]
    opened.page.keyboard.press("n")
    opened.page.keyboard.press("N")
    assert opened.state("selected") in shown


def test_the_wheel_zooms_and_dragging_moves(join: Join) -> None:
    opened, document, _ = join
    row = wide(document, "finished")
    a = document["attempts"]
    middle = (a["begin"][row] + a["end"][row]) / 2
    x, y = opened.place(row)
    opened.page.mouse.move(x, y)
    opened.page.mouse.wheel(0, -600)
    view = opened.state("view")
    whole = opened.state("whole")
    assert view["end"] - view["begin"] < 0.6 * (whole["end"] - whole["begin"])
    assert opened.place(row)[0] == pytest.approx(x, abs=1.5)  # what is pointed at stays
    assert view["begin"] < middle < view["end"]
    opened.page.mouse.down()
    opened.page.mouse.move(x - 80, y, steps=4)
    opened.page.mouse.up()
    assert opened.place(row)[0] == pytest.approx(x - 80, abs=1.5)
    assert opened.state("selected") is None  # a drag is no click
    opened.page.mouse.click(*opened.place(row))
    assert opened.state("selected") == row
    opened.page.keyboard.press("f")
    view = opened.state("view")
    assert view["begin"] < a["begin"][row] < a["end"][row] < view["end"]
    assert view["end"] - view["begin"] < 2.5 * (a["end"][row] - a["begin"][row])
    opened.page.keyboard.press("0")
    assert opened.state("view") == pytest.approx(whole)


def test_ten_thousand_tasks_are_all_within_reach(open_report: Opener) -> None:
    recorder = recorded(large())
    (run,) = recorder.runs()
    document = run_document(run, run.statistics())
    a = document["attempts"]
    assert len(a["begin"]) > 10_000
    opened = open_report(recorder)
    frame = opened.state("frame")
    assert 1000 < frame["rectangles"] < len(a["begin"])  # what is not seen is not drawn
    expect(opened.page.locator("#troubles caption")).to_contain_text("attempts that failed")
    rng = random.Random(5)
    lowest = max(range(len(a["lane"])), key=a["lane"].__getitem__)
    for row in [*rng.sample(range(len(a["begin"])), 2), lowest]:
        opened.page.evaluate("document.querySelector('main').scrollTop = 0")
        opened.page.keyboard.press("0")
        lane = opened.page.evaluate(
            """(row) => {
              const main = document.querySelector("main");
              const { bottom } = main.getBoundingClientRect();
              main.scrollTop = Math.max(0, window.smallpond.place(row).y - bottom + 30);
              return main.scrollTop;
            }""",
            row,
        )
        assert lane >= 0
        opened.state("frame")
        x, y = opened.place(row)
        opened.page.mouse.move(x, y)
        opened.page.mouse.wheel(0, -900)
        opened.state("frame")
        text = opened.hover(row)
        assert document["tasks"][a["task"][row]] in text
        assert document["workers"][a["worker"][row]] in text
    assert opened.problems == []


def test_a_run_that_failed_tells_how_far_it_came(open_report: Opener) -> None:
    recorder = recorded(failed())
    opened = open_report(recorder)
    (_, last) = recorder.runs()[0].statistics()
    assert last.num_finished < last.num_tasks
    assert opened.column("tasks") == ["40", f"{last.num_finished} / 12"]
    expect(opened.page.locator(".notes")).to_have_text("run 1 failed: TaskError: group_by: no")
    expect(opened.page.locator("#troubles tbody")).to_contain_text("not finished")


def test_names_are_only_text(open_report: Opener) -> None:
    opened = open_report(recorded(hostile_run(), [*SMALL[:-1]]))
    opened.page.select_option("#runs", "0")
    told = opened.hover(0)
    assert told.count("onerror=alert(1)") == 4  # stage, error, partition, worker
    opened.page.mouse.click(*opened.place(0))
    assert opened.page.locator("#selection code").text_content() == HOSTILE
    assert opened.page.locator("img, body style, iframe").count() == 0
    assert opened.page.locator("script").count() == 2
    expect(opened.page.locator("#stages .name button")).to_have_count(2)
    assert opened.problems == []
    assert len(opened.requests) == 1


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_labels_can_be_read_on_each_colour(open_report: Opener) -> None:
    opened = open_report(Recorder())
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        label = luminance(opened.style_colour("label"))
        for name in (*(f"s{i}" for i in range(10)), "warn"):
            contrast = (luminance(opened.style_colour(name)) + 0.05) / (label + 0.05)
            assert contrast >= 4.5, (scheme, name)
