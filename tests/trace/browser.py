"""Pages in a headless Chromium, where one is installed: nothing is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.trace.analysis import Analysis
from benchmarks.trace.page import save_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")  # a session's event loop would be in the way of asyncio elsewhere
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where none is installed."""
    executable = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if executable is None:
        pytest.skip(f"no browser (install one of {', '.join(EXECUTABLES)})")
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser (no playwright)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, timeout=60_000)
        yield browser
        browser.close()


@dataclass(slots=True)
class Opened:
    """A page that a browser shows.

    Attributes:
        page: playwright's handle of it.
        requests: the addresses that it asked for, its own first.
        problems: what the console said and what was thrown.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def state(self, name: str) -> Any:
        """A part of `window.openweek`, after the next frame."""
        return self.page.evaluate(
            "(name) => new Promise((done) => requestAnimationFrame(() =>"
            " requestAnimationFrame(() => done(window.openweek[name]))))",
            name,
        )

    def view(self) -> tuple[float, float]:
        """Begin and end of what is seen, in ns."""
        view = self.state("view")
        return view["begin"], view["end"]

    def point(self, rank: int, label: str, moment_ns: float) -> tuple[float, float]:
        """Where on the screen a moment is, in the middle of the track of this label."""
        track = next(t for t in self.state("ranks")[rank]["tracks"] if t["label"] == label)
        canvas = self.page.locator("section.rank canvas").nth(rank)
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        assert box is not None
        begin, end = self.view()
        x = box["x"] + (moment_ns - begin) / (end - begin) * box["width"]
        return x, box["y"] + track["y"] + track["height"] / 2

    def colour(self, rank: int, label: str, moment_ns: float) -> str:
        """The colour that is drawn there, as #rrggbb."""
        x, y = self.point(rank, label, moment_ns)
        red, green, blue = self.page.evaluate(
            """([rank, x, y]) => {
              const canvas = document.querySelectorAll("section.rank canvas")[rank];
              const { left, top } = canvas.getBoundingClientRect();
              const pixel = canvas.getContext("2d").getImageData(x - left, y - top, 1, 1);
              return [...pixel.data].slice(0, 3);
            }""",
            [rank, x, y],
        )
        return f"#{red:02x}{green:02x}{blue:02x}"

    def style_colour(self, name: str) -> str:
        """A colour of the style sheet."""
        expression = "(name) => getComputedStyle(document.documentElement).getPropertyValue(name)"
        return str(self.page.evaluate(expression, f"--{name}")).strip()


@dataclass(frozen=True, slots=True)
class Opener:
    """Writes the page of some ranks and opens it in a browser."""

    browser: Browser
    folder: Path

    def __call__(
        self, analyses: Sequence[Analysis], title: str = "a title", scheme: Any = "light"
    ) -> Opened:
        file = self.folder / "page.html"
        save_page(file, analyses, title)
        page = self.browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        opened = Opened(page)
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("console", lambda message: opened.problems.append(message.text))
        page.on("pageerror", lambda error: opened.problems.append(str(error)))
        page.on("dialog", lambda dialog: opened.problems.append(dialog.message))
        page.goto(file.as_uri())
        page.wait_for_function("window.openweek && window.openweek.frame.count > 0")
        return opened


@pytest.fixture
def open_page(chromium: Browser, tmp_path: Path) -> Iterator[Opener]:
    """Opens pages, and closes them when the test is over."""
    yield Opener(chromium, tmp_path)
    for context in chromium.contexts:
        context.close()
