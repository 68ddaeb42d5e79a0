"""The report, opened from file:// in a real headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_support import report_of, synthetic
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from generator.media.video import decode
from trainer.control.laws import axis_control
from trainer.evaluation.results import FILE, EvaluationReport
from trainer.report import ReportParts, write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
STATES = "[...document.querySelectorAll('.cell:not([hidden])')].map((cell) => cell.dataset.state)"
DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.dataset.drawn)"
PIXELS = """canvas => {
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return [[copy.height, copy.width], [...context.getImageData(0, 0, copy.width, copy.height).data]];
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of drawn videos that move, with a report page."""
    folder = tmp_path_factory.mktemp("page")
    plan, measured = synthetic(folder, ["shutter"], 2, controls="0,0.5,1,1.5", modes=("decoupled", "joint"))
    report = report_of(plan, measured, [axis_control("shutter")])
    (folder / FILE).write_text(report.model_dump_json())
    write_report(ReportParts(title="Drawn", evaluation=folder, recipe="seed = 1"), folder / "report.html")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> EvaluationReport:
    """Its numbers."""
    return EvaluationReport.model_validate_json((folder / FILE).read_bytes())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


class Watched:
    """A page, with every complaint and every request that it makes."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 2400}} | options))
        self.context.set_default_timeout(240_000)  # a busy machine is slow and not broken
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def settle(self) -> Page:
        """Wait until every sweep in sight can be played and every plot is drawn."""
        self.page.wait_for_function(f"{STATES}.every((state) => state === 'ready' || state === 'broken')")
        self.page.wait_for_function(DRAWN)
        return self.page

    def close(self) -> None:
        """End; the page must have had nothing to complain of and asked nobody for anything."""
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def watched(browser: Browser, folder: Path) -> Iterator[Watched]:
    opened = Watched(browser, folder / "report.html")
    yield opened
    opened.close()


def shown(page: Page, number: int = 0) -> np.ndarray:
    """Return the picture of a cell [H, W, 3]."""
    size, data = page.locator(".cell:not([hidden]) canvas").nth(number).evaluate(PIXELS)
    return np.array(data).reshape(*size, 4)[..., :3].astype(int)


def test_the_slider_changes_the_frame_and_what_is_said(watched: Watched, folder: Path, report: EvaluationReport) -> None:
    page = watched.settle()
    assert set(page.evaluate(STATES)) == {"ready"}, "every video can be played"
    page.locator(".play").click()
    sweeps = [sweep for sweep in report.sweeps if sweep.arm == "decoupled"]
    slider = page.locator(".slider")
    seen = []
    for position, video in enumerate(sweeps[0].videos):
        slider.evaluate("(slider, at) => { slider.value = at; slider.dispatchEvent(new Event('input')); }", position)
        assert page.locator(".value").inner_text() == video.label
        assert slider.get_attribute("aria-valuetext") == video.label
        assert page.locator(".beyond").is_visible() == (video.control > 1)
        for number, sweep in enumerate(sweeps):
            canvas = page.locator(".cell:not([hidden]) canvas").nth(number)
            assert canvas.get_attribute("data-position") == str(position)
            frame = int(canvas.get_attribute("data-frame") or -1)
            truth_THW3 = decode(folder / sweep.videos[position].video).astype(int)
            away_T = np.abs(truth_THW3 - shown(page, number)).mean(axis=(1, 2, 3))
            assert int(away_T.argmin()) == frame and away_T[frame] < 8
            reading = page.locator(".cell:not([hidden]) .reading").nth(number).inner_text()
            measured = sweep.videos[position].measured
            assert measured is not None and reading.startswith(f"{measured:+.2f}".replace("-", "−")) and "stops" in reading
        seen.append(shown(page).tobytes())
    assert len(set(seen)) == len(seen), "each value shows another picture"


def test_prompts_play_in_step_and_keep_their_time_over_values(watched: Watched) -> None:
    page = watched.settle()
    samples = page.evaluate(
        """async () => {
            const samples = [], seen = new Set(), slider = document.querySelector(".slider");
            for (let index = 0; index < 90 || (seen.size < 5 && index < 20000); index += 1) {
                await new Promise(requestAnimationFrame);
                if (index % 20 === 10) { slider.value = (+slider.value + 1) % 4; slider.dispatchEvent(new Event("input")); }
                samples.push([...document.querySelectorAll(".cell:not([hidden]) canvas")].map((canvas) =>
                    `${canvas.dataset.frame}/${canvas.dataset.position}`));
                seen.add(samples.at(-1)[0].split("/")[0]);
            }
            return samples;
        }"""
    )
    assert all(len(set(sample)) == 1 for sample in samples)
    assert {sample[0].split("/")[0] for sample in samples} == {"0", "1", "2", "3", "4"}
    assert {sample[0].split("/")[1] for sample in samples} == {"0", "1", "2", "3"}


def test_the_slider_and_the_buttons_work_by_keyboard(watched: Watched, report: EvaluationReport) -> None:
    page = watched.settle()
    labels = [video.label for video in report.sweeps[0].videos]
    page.locator(".slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".value").inner_text() == labels[1]
    page.keyboard.press("End")
    assert page.locator(".value").inner_text() == labels[-1]
    assert page.locator(".slider").evaluate("slider => getComputedStyle(slider).outlineStyle") == "solid"
    page.locator(".play").focus()
    page.keyboard.press(" ")
    assert page.locator(".play").get_attribute("aria-pressed") == "false"
    page.locator(".chip[data-arm=joint]").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{STATES}.every((state) => state === 'ready')")
    assert set(page.locator(".cell:visible").evaluate_all("cells => cells.map((cell) => cell.dataset.arm)")) == {"joint"}


def test_arrow_keys_change_the_value_after_one_tab_and_from_anywhere(watched: Watched, report: EvaluationReport) -> None:
    page = watched.settle()
    labels = [video.label for video in report.sweeps[0].videos]
    page.keyboard.press("ArrowRight")
    assert page.locator(".value").inner_text() == labels[1]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip" and page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("ArrowRight")
    assert page.locator(".value").inner_text() == labels[2]
    assert page.evaluate("document.activeElement.className") == "slider"
    page.keyboard.press("ArrowLeft")
    assert page.locator(".value").inner_text() == labels[1], "the slider's own key counts once"
    page.locator(".wide").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".value").inner_text() == labels[1], "a table scrolls"


def test_nothing_shows_through_the_sticky_slider(watched: Watched) -> None:
    page = watched.settle()
    colour = page.locator(".dial").first.evaluate("dial => getComputedStyle(dial).backgroundColor")
    assert colour.startswith("rgb(") and page.locator(".dial").first.evaluate("dial => getComputedStyle(dial).opacity") == "1"


def test_plots_are_drawn_and_follow_the_theme(watched: Watched) -> None:
    page = watched.settle()
    assert page.locator(".plot").count() >= 2
    assert page.locator("#plot-response-shutter .scatterlayer .trace").count() >= 3
    fill = "getComputedStyle(document.querySelector('#plot-response-shutter .xtick text')).fill"
    light = page.evaluate(fill)
    page.locator("#theme").click()
    page.wait_for_function(f"({fill}) !== {light!r}")


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_both_themes_on_a_desk_and_on_a_phone(browser: Browser, folder: Path, tmp_path: Path, scheme: str, width: int) -> None:
    opened = Watched(browser, folder / "report.html", viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = opened.page
    page.wait_for_function(DRAWN)
    colors = page.evaluate("((style) => [style.color, style.backgroundColor])(getComputedStyle(document.body))")
    ink, paper = (luminance(color) for color in colors)
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
    assert (paper > 0.5) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over the edge"
    page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert (np.asarray(shot.convert("L")).mean() > 128) == (scheme == "light")
    opened.close()


def test_a_video_that_cannot_be_played_is_said(browser: Browser, folder: Path, tmp_path: Path) -> None:
    text = (folder / "report.html").read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r"data:video/mp4;base64,[A-Za-z0-9+/=]+", "data:video/mp4;base64,AAAA", text, count=1))
    opened = Watched(browser, broken)
    states = opened.settle().evaluate(STATES)
    opened.context.close()
    assert states.count("broken") == 1 and states.count("ready") == len(states) - 1


def test_without_scripts_the_verdict_and_the_tables_are_there(browser: Browser, folder: Path) -> None:
    opened = Watched(browser, folder / "report.html", java_script_enabled=False)
    words = opened.page.locator("body").inner_text()
    opened.context.close()
    assert "the control works" in words and "Control accuracy" in words and "Median distance from c = 0" in words
