"""The page of `trace html`, used in a headless Chromium as a reader uses it."""

import dataclasses
import re

import numpy as np
import pytest

from benchmarks.trace.analysis import Analysis, analyse
from benchmarks.trace.model import NONE, Trace
from tests.trace import made_traces
from tests.trace.browser import Opener

expect = pytest.importorskip("playwright.sync_api", reason="page (no playwright)").expect

EMPTY = made_traces.Sketch().trace("nothing")
ONE = made_traces.Sketch(work=[(5.0, 2.0, made_traces.NAMES["gemm"], 0, NONE, 8)]).trace("one")
INSTANT = made_traces.Sketch(work=[(5.0, 0.0, "Memset", 0, NONE, 0)]).trace("instant")

TRACES = {
    "training": [made_traces.training_step()],
    "simulated over measured": [made_traces.schedule_step(), made_traces.training_step()],
    "decode": [made_traces.decode_step()],
    "empty": [EMPTY],
    "one event": [ONE],
    "an instant": [INSTANT],
    "empty beside full": [EMPTY, ONE],
    "nine ranks": [made_traces.training_step(2, seed) for seed in range(9)],
}
UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}


@pytest.fixture
def training() -> Analysis:
    return analyse(made_traces.training_step())


def shown_us(text: str) -> float:
    """The time that a text says: "1.234 ms" or "0", with what follows ignored."""
    found = re.match(r"([\d.e+]+) (s|ms|us|ns)\b", text)
    return float(found[1]) * UNITS[found[2]] if found else float(text[:1])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("traces", TRACES.values(), ids=TRACES)
def test_opens_without_problems_or_requests(
    open_page: Opener, traces: list[Trace], scheme: str
) -> None:
    opened = open_page([analyse(trace) for trace in traces], scheme=scheme)
    assert opened.problems == []
    assert len(opened.requests) == 1
    assert opened.requests[0].endswith("/page.html")
    assert [rank["title"] for rank in opened.state("ranks")] == [trace.title for trace in traces]
    # A page that could be drawn is a picture of many colours, not a blank one.
    assert len(opened.page.screenshot()) > 10_000


def test_figures_are_those_of_the_analysis(open_page: Opener) -> None:
    analyses = [analyse(trace) for traces in TRACES.values() for trace in traces]
    opened = open_page(analyses)
    for row, analysis in enumerate(analyses):
        cells = opened.page.locator(".figures tbody tr").nth(row).locator("td[data-figure]")
        figures = analysis.figures
        expected = {
            "span": figures.span_us,
            "compute": figures.compute_us,
            "communication": figures.communication_us,
            "of it waiting": figures.waiting_us,
            "hidden": figures.hidden_us,
            "exposed": figures.exposed_us,
            "copy alone": figures.copy_alone_us,
            "idle": figures.idle_us,
        }
        for cell in cells.all():
            label, text = str(cell.get_attribute("data-figure")), cell.inner_text()
            if label == "overlap speed-up":
                assert text == f"{figures.overlap_speedup:.3f}×"
                continue
            wanted = expected.pop(label)
            assert shown_us(text) == pytest.approx(wanted, rel=6e-4, abs=1e-9)
            if label != "span" and figures.span_us:
                assert text.endswith(f"{wanted / figures.span_us:.1%}")
        assert not any(expected.values())  # what is left out is nothing


def test_bar_is_the_span(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    parts = opened.page.locator(".bar rect").all()
    widths = {str(p.get_attribute("class")): float(p.get_attribute("width") or 0) for p in parts}
    figures = training.figures
    assert sum(widths.values()) == pytest.approx(1000, abs=0.05)
    assert widths["exposed"] == pytest.approx(1000 * figures.exposed_us / figures.span_us, abs=0.01)
    assert widths["hidden"] == pytest.approx(1000 * figures.hidden_us / figures.span_us, abs=0.01)


def test_notes_are_shown(open_page: Opener) -> None:
    analyses = [analyse(made_traces.schedule_step()), analyse(made_traces.training_step())]
    (note,) = analyses[0].notes
    opened = open_page(analyses)
    expect(opened.page.locator(".notes")).to_have_text(f"simulated rank 0: {note}")


HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "--><svg onload=alert(3)>",
    "\"'><b onmouseover=alert(4)>&lt;",
    "$title ${alert(5)} `${alert(6)}` \\u003c",
    "__proto__",
    "constructor",
    "line\u2028separator\nand\ttab\0nul",
    "half a pair \ud800",
    "right-to-left \u202e gpj.exe",
    "<!--",
    "",
]


def test_names_are_only_text(open_page: Opener) -> None:
    sketch = made_traces.Sketch()
    for number, name in enumerate(HOSTILE):
        phase = sketch.phase(10.0 * number, 9.0, name)
        sketch.work.append((10.0 * number, 3.0, name, number, phase, 4))
        sketch.work.append((10.0 * number + 4.0, 3.0, f"nccl {name}", number, phase, 4))
    trace = sketch.trace(HOSTILE[0], HOSTILE)
    opened = open_page([analyse(trace)] * 2, title=HOSTILE[0])
    page = opened.page
    assert page.title() == HOSTILE[0]
    assert page.locator("h1").inner_text() == HOSTILE[0]
    for name in HOSTILE[:7]:
        page.fill("#search", name)
        page.click("#next")
        assert page.locator("#selection code").inner_text() == name
        moment = opened.state("selection")["begin"] + 1000
        page.mouse.move(*opened.point(0, "compute · 4 SMs", moment))
        expect(page.locator("#tooltip strong")).to_have_text(name)
    assert page.locator("img, b, body svg[onload]").count() == 0
    assert opened.problems == []
    assert len(opened.requests) == 1


def test_no_other_script_runs(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    failed = []
    opened.page.on("requestfailed", lambda request: failed.append((request.url, request.failure)))
    opened.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.body.append(script);
          document.body.insertAdjacentHTML("beforeend", "<img src='data:,' onerror='ran = true'>");
          new Image().src = "https://example.org/picture.png";
          fetch("https://example.org/data").catch(() => {});
        }"""
    )
    opened.page.wait_for_timeout(100)
    assert opened.page.evaluate("window.ran") is None
    refused = [problem for problem in opened.problems if "Content Security Policy" in problem]
    assert len(refused) >= 4
    # Playwright tells of a request also where the policy stops it before the network.
    assert set(opened.requests[1:]) <= {"https://example.org/picture.png", "data:,"}
    assert dict(failed)["https://example.org/picture.png"] == "csp"


def test_wheel_zooms_around_the_pointer(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    lane = "compute · 112 SMs"
    before = opened.view()
    left, y = opened.point(0, lane, before[0])
    right, _ = opened.point(0, lane, before[1])
    moment = before[0] + (500 - left) / (right - left) * (before[1] - before[0])
    opened.page.mouse.move(500, y)
    for _ in range(5):
        opened.page.mouse.wheel(0, -200)
        opened.state("frame")
    after = opened.view()
    assert after[1] - after[0] == pytest.approx((before[1] - before[0]) * np.exp(-2.0), rel=1e-6)
    assert opened.point(0, lane, moment)[0] == pytest.approx(500, abs=0.1)
    for _ in range(9):
        opened.page.mouse.wheel(0, 200)
        opened.state("frame")
    assert opened.view() == pytest.approx(before)  # no farther than the whole


def test_drag_moves_with_the_pointer(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    opened.page.mouse.move(*opened.point(0, "stream 7", 2_000_000))
    for _ in range(4):
        opened.page.mouse.wheel(0, -250)
        opened.state("frame")
    x, y = opened.point(0, "stream 7", 2_000_000)
    begin, end = opened.view()
    width = opened.page.locator("section.rank canvas").bounding_box()
    assert width is not None
    opened.page.mouse.move(x, y)
    opened.page.mouse.down()
    opened.page.mouse.move(x - 150, y, steps=4)
    opened.page.mouse.up()
    moved = 150 * (end - begin) / width["width"]
    assert opened.view() == pytest.approx((begin + moved, end + moved), rel=1e-6)
    assert opened.state("selection") is None


def test_keys(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    begin, end = whole = opened.view()
    length = end - begin
    press = opened.page.keyboard.press
    press("+")
    assert opened.view() == pytest.approx((begin + 0.15 * length, end - 0.15 * length))
    press("ArrowRight")
    middle = opened.view()
    assert middle[0] == pytest.approx(begin + 0.15 * length + 0.15 * 0.7 * length)
    press("a")
    press("-")
    assert opened.view() == pytest.approx(whole)
    press("w")
    press("ArrowUp")
    press("d")
    assert opened.view()[1] - opened.view()[0] == pytest.approx(0.49 * length)
    press("0")
    assert opened.view() == pytest.approx(whole)
    for _ in range(60):
        press("+")
    assert opened.view()[1] - opened.view()[0] == pytest.approx(20)  # ns, and no less
    press("0")
    press("/")
    opened.page.keyboard.type("swd+0")  # into the search box, not to the view
    assert opened.view() == pytest.approx(whole)
    assert opened.page.input_value("#search") == "swd+0"


def test_what_is_clicked_is_selected(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    work, names = training.trace.work, training.trace.names
    for item in (3, 40, 90):
        begin, length = work.begin_us[item] * 1e3, work.duration_us[item] * 1e3
        opened.page.evaluate("() => document.getElementById('all').click()")
        stream = training.trace.streams[work.stream[item]]
        opened.page.mouse.click(*opened.point(0, stream, begin + length / 2))
        selection = opened.state("selection")
        assert selection["name"] == names[work.name[item]]
        assert selection["begin"] == pytest.approx(begin, abs=1)
        assert selection["end"] == pytest.approx(begin + length, abs=1)
        opened.page.keyboard.press("f")
        shown = opened.view()
        assert shown[0] < begin < begin + length < shown[1]
        assert shown[1] - shown[0] == pytest.approx(1.8 * length, rel=1e-3)
    panel = opened.page.locator("#selection").inner_text()
    assert f"{work.num_blocks[item]} on {work.num_blocks[item]} of 132 SMs" in panel
    phase = names[training.trace.phases.name[work.phase[item]]]
    assert re.search(rf"1F1B › layer \d › {re.escape(phase)}", panel)
    opened.page.keyboard.press("Escape")
    assert opened.state("selection") is None


def test_everything_found_is_what_the_trace_holds(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    work, names = training.trace.work, training.trace.names
    wanted = [i for i in range(len(work)) if "dispatch_sm90" in names[work.name[i]]]
    opened.page.fill("#search", "DISPATCH_sm90")
    found = opened.state("found")
    assert (found["numWork"], found["numPhases"]) == (len(wanted), 0)
    assert found["workTime"] == pytest.approx(work.duration_us[wanted].sum() * 1e3, abs=len(wanted))
    opened.page.locator("#search").press("Escape")
    for item in [*wanted, wanted[0]]:  # after the last comes the first
        opened.page.keyboard.press("n")
        selection = opened.state("selection")
        assert selection["name"] == names[work.name[item]]
        assert selection["begin"] == pytest.approx(work.begin_us[item] * 1e3, abs=1)
        begin, end = opened.view()
        assert begin <= selection["begin"] <= selection["end"] <= end
    opened.page.keyboard.press("N")
    assert opened.state("selection")["begin"] == pytest.approx(
        work.begin_us[wanted[-1]] * 1e3, abs=1
    )
    expect(opened.page.locator("#found")).to_contain_text(f"{len(wanted)} / {len(wanted)} events")


def test_search_by_regular_expression(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    opened.page.fill("#search", "/^(attn|mlp)\\(F\\)$/")
    assert opened.state("found")["numPhases"] == 8
    opened.page.fill("#search", "/(/")
    assert opened.state("found") is None
    expect(opened.page.locator("#search")).to_have_attribute("aria-invalid", "true")
    expect(opened.page.locator("#found")).to_contain_text("not a regular expression")
    opened.page.fill("#search", "(")  # without slashes it is text
    assert opened.state("found")["numWork"] > 0
    opened.page.fill("#search", "no such name")
    assert opened.state("found")["count"] == 0
    opened.page.fill("#search", "")
    assert opened.state("found") is None
    assert opened.problems == []


def test_a_listed_gap_is_shown(open_page: Opener, training: Analysis) -> None:
    title = "measured.json: rank 0"
    trace = dataclasses.replace(training.trace, title=title)
    opened = open_page([dataclasses.replace(training, trace=trace)])
    gap = training.gaps[0]
    button = opened.page.locator("#gaps button").first
    assert shown_us(button.inner_text()) == pytest.approx(gap.duration_us, rel=6e-4)
    button.click()
    zero = training.trace.phases.begin_us[0]
    wanted = ((gap.begin_us - zero) * 1e3, (gap.end_us - zero) * 1e3)
    selection = opened.state("selection")
    assert (selection["begin"], selection["end"]) == pytest.approx(wanted, abs=1)
    begin, end = opened.view()
    assert begin < wanted[0] < wanted[1] < end
    middle = sum(wanted) / 2
    assert opened.colour(0, "compute · 112 SMs", middle) != opened.style_colour("compute")
    names, work = training.trace.names, training.trace.work
    row = opened.page.locator("#gaps tbody tr").first
    titles = [cell.get_attribute("title") for cell in row.locator("td[title]").all()]
    assert titles[0] == names[work.name[gap.communicator]]
    assert titles[1] == names[work.name[gap.waiter]]
    assert title in [cell.inner_text() for cell in row.locator("td").all()]


def test_shift_and_drag_measure(open_page: Opener, training: Analysis) -> None:
    opened = open_page([training])
    (x, y), (to, _) = (opened.point(0, "stream 7", t) for t in (1_000_000, 3_000_000))
    opened.page.keyboard.down("Shift")
    opened.page.mouse.move(to, y)
    opened.page.mouse.down()
    opened.page.mouse.move(x, y, steps=3)
    opened.page.mouse.up()
    opened.page.keyboard.up("Shift")
    selection = opened.state("selection")
    assert selection["begin"] == pytest.approx(1_000_000, abs=6_000)
    assert selection["end"] == pytest.approx(3_000_000, abs=6_000)
    expect(opened.page.locator("#measure")).to_contain_text("ms")
    opened.page.keyboard.press("f")
    assert opened.view() == pytest.approx((200_000, 3_800_000), abs=15_000)


def test_ranks_fold_and_share_the_axis(open_page: Opener) -> None:
    traces = [made_traces.training_step(2, seed, f"rank {seed}") for seed in range(2)]
    opened = open_page([analyse(trace) for trace in traces])
    first, second = (opened.point(rank, "stream 7", 1_000_000) for rank in (0, 1))
    assert first[0] == pytest.approx(second[0])
    fold = opened.page.get_by_role("button", name="rank 0")
    fold.click()
    shown = {t["kind"] for t in opened.state("ranks")[0]["tracks"] if t["shown"]}
    assert shown == {"lane", "gap"}
    assert fold.get_attribute("aria-expanded") == "false"
    assert opened.point(1, "stream 7", 0)[1] < second[1]
    fold.click()
    streams = opened.page.get_by_role("button", name="streams").first
    streams.click()
    tracks = opened.state("ranks")[0]["tracks"]
    assert not any(track["shown"] for track in tracks if track["kind"] == "stream")


def test_colours_tell_steps_and_kinds(open_page: Opener) -> None:
    opened = open_page([analyse(made_traces.schedule_step())])
    wanted = {45e3: "F", 495e3: "I", 605e3: "W", 2_030e3: "B"}
    for moment, name in wanted.items():
        assert opened.colour(0, "compute", moment) == opened.style_colour(name), name
    training = made_traces.training_step()
    opened = open_page([analyse(training)], scheme="dark")
    work, names = training.work, training.names
    longest = {}
    for item in np.argsort(work.duration_us):
        longest[names[work.name[item]]] = item
    item = longest[made_traces.NAMES["combine"]]
    moment = (work.begin_us[item] + 0.9 * work.duration_us[item]) * 1e3
    label = "communication · 20 SMs"
    assert opened.colour(0, label, moment) == opened.style_colour("payload")


def test_the_middle_of_a_long_event_is_drawn(open_page: Opener) -> None:
    sketch = made_traces.Sketch(work=[(100.0, 900_000.0, "gemm", 0, NONE, 0)])
    sketch.work += [(0.1 * number, 0.01, "gemm", 0, NONE, 0) for number in range(100)]
    opened = open_page([analyse(sketch.trace())])
    for _ in range(9):
        for _ in range(4):
            opened.page.keyboard.press("+")
        begin, end = opened.view()
        middle = (begin + end) / 2
        assert opened.colour(0, "stream 7", middle) == opened.style_colour("compute"), middle


def test_of_what_overlaps_nothing_is_lost(open_page: Opener) -> None:
    sketch = made_traces.Sketch()
    sketch.work = [
        (0.0, 100.0, "outer", 0, NONE, 0),
        (10.0, 30.0, "first", 0, NONE, 0),
        (20.0, 60.0, "second", 0, NONE, 0),
        (50.0, 10.0, "third", 0, NONE, 0),
    ]
    opened = open_page([analyse(sketch.trace())])
    tracks = [t for t in opened.state("ranks")[0]["tracks"] if t["kind"] == "stream"]
    assert len(tracks) == 3
    canvas = opened.page.locator("section.rank canvas").bounding_box()
    assert canvas is not None
    for name, row, moment in [
        ("outer", 0, 5),
        ("first", 1, 15),
        ("third", 1, 55),
        ("second", 2, 45),
    ]:
        x, _ = opened.point(0, "stream 7", moment * 1e3)
        opened.page.mouse.click(x, canvas["y"] + tracks[row]["y"] + 5)
        assert opened.state("selection")["name"] == name


def test_what_is_drawn_is_bounded_by_pixels(open_page: Opener) -> None:
    trace = made_traces.many_events(100_000)
    opened = open_page([analyse(trace)])
    tracks = [track for track in opened.state("ranks")[0]["tracks"] if track["shown"]]
    opened.page.mouse.move(700, opened.point(0, "stream 7", 0)[1])
    counts = []
    for _ in range(24):  # from seconds to nanoseconds
        counts.append(opened.state("frame")["rectangles"])
        opened.page.mouse.wheel(0, -300)
        opened.page.mouse.wheel(0, -150)
    # A bin is one to two pixels, and holds payload and waiting at most; wide events come to it.
    assert max(counts) <= 2 * 1280 * len(tracks)
    assert min(counts) > 0
    assert counts[-1] < 10 * len(tracks)
    assert opened.problems == []


def test_a_single_event_among_many_is_seen_and_found(open_page: Opener) -> None:
    sketch = made_traces.Sketch()
    for number in range(5000):
        sketch.work.append((1000.0 * number, 900.0, "gemm", 0, NONE, 8))
    sketch.work.append((2_500_950.0, 0.02, "ncclDevKernel_AllReduce", 1, NONE, 8))
    opened = open_page([analyse(sketch.trace(streams=("stream 7", "stream 9")))])
    x, y = opened.point(0, "stream 9", 2_500_950_010)
    height = next(t for t in opened.state("ranks")[0]["tracks"] if t["label"] == "stream 9")
    opened.page.mouse.click(x + 1, y)
    assert opened.state("selection")["name"] == "ncclDevKernel_AllReduce"
    opened.page.keyboard.press("Escape")
    opened.state("frame")
    foot = opened.page.evaluate(
        """([x, y]) => {
          const canvas = document.querySelector("section.rank canvas");
          const left = canvas.getBoundingClientRect().left;
          const row = canvas.getContext("2d").getImageData(x - left - 3, y, 7, 1).data;
          return Array.from({ length: 7 }, (_, i) => [...row.slice(4 * i, 4 * i + 3)].join());
        }""",
        [x, height["y"] + height["height"] - 2],
    )
    payload = opened.style_colour("payload")
    rgb = ",".join(str(int(payload[i : i + 2], 16)) for i in (1, 3, 5))
    assert foot.count(rgb) == 1
