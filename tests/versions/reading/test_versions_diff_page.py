"""The side-by-side page of a diff: real H.264 clips of a drawn square, the page opened in a real headless Chromium."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from gallery_browser import CHROMIUM, FLAGS, STATES, Watched, luminance, needs_chromium
from numpy.typing import NDArray
from playwright.sync_api import Browser, sync_playwright
from test_versions_commands import call
from versions_support import Clips, make_row, origin, references, sha, table

from generator.errors import DamagedError
from generator.media.video import encode, frames_digest
from generator.store.objects import ClipRecord, Store
from generator.versions.commit import commit
from generator.versions.history.history import INTERNAL, History
from generator.versions.manifest.leaves import find_row
from generator.versions.reading.diff import diff
from generator.web.diff_page import diff_page, evenly, written
from scenes.errors import InputError

FRAMES, SIDE = 5, 64
SHUTTER, CAPTION, SAME = "flyby-s0-n3-f5-0000-0", "flyby-s0-n3-f5-0000-1", "flyby-s0-n3-f5-0000-2"
GONE, NEW, STILL = "flyby-s0-n3-f5-0001-0", "flyby-s0-n3-f5-0002-0", "flyby-s0-n3-f1-0003-0"


def square(frames: int, speed_px: int, width_px: int) -> NDArray[np.uint8]:
    """Return a white square that crosses a dark floor, `[T, 64, 64, 3]`."""
    frames_THW3 = np.full((frames, SIDE, SIDE, 3), 40, np.uint8)
    for t in range(frames):
        frames_THW3[t, 20:44, 4 + t * speed_px : 4 + t * speed_px + width_px] = 220
    return frames_THW3


def add(store: Store, clips: Clips, clip_id: str, frames_THW3: NDArray[np.uint8], **labels: object) -> Clips:
    """Return clips with one more (or anew): really encoded, its labels as given."""
    data = encode(frames_THW3, 16, 12, "medium")
    record = ClipRecord(
        key=sha(f"{clip_id} {sha(data)}"),
        sha256_bytes=store.put(data),
        sha256_frames=frames_digest(frames_THW3),
        size_bytes=len(data),
        blender="5.0.1",
        encoder="x",
        cpu_s=0.1,
    )
    store.put_record(record)
    row = make_row(clip_id, clip_id.rpartition("-")[0], 0, record, np.random.default_rng(0))
    row |= {"frames": len(frames_THW3), "shutter_measured": 0.0126, "shutter_error": 0.01, **labels}
    return {**clips, clip_id: (row, record)}


@dataclass(frozen=True)
class Made:
    """A dataset of two versions, and its page."""

    history: History
    page: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("diff page ü") / "data"
    history = History(path)
    first: Clips = {}
    for number, clip_id in enumerate((SHUTTER, CAPTION, SAME, GONE)):
        first = add(history.store, first, clip_id, square(FRAMES, 6 + number, 16), shutter_exposure_s=1 / 80)
    first = add(history.store, first, STILL, square(1, 6, 16), shutter_exposure_s=1 / 80)
    commit(history, table(first), references(first), origin("the <i>first</i>"))
    later = {clip_id: clip for clip_id, clip in first.items() if clip_id != GONE}
    later = add(history.store, later, SHUTTER, square(FRAMES, 6, 26), shutter_exposure_s=1 / 40, shutter_measured=0.0251)
    later = add(history.store, later, STILL, square(1, 6, 30), shutter_exposure_s=1 / 40)
    later = add(history.store, later, NEW, square(FRAMES, 9, 12), shutter_exposure_s=1 / 100)
    row, record = later[CAPTION]
    later[CAPTION] = ({**row, "caption": "<b>other</b> words & more"}, record)
    plan = '{"clips":[],"recipe":{"name":"synthetic","render":{"samples":8}}}'
    commit(history, table(later), references(later), origin("second", plan=plan))
    history.tag("v1", "latest~1")
    page = path.parent / "diff.html"
    report = diff_page(history, diff(history, "v1", "latest"), page)
    assert (report.shown, report.clips, report.size_bytes) == (5, 5, page.stat().st_size)
    return Made(history, page)


# --- the file -------------------------------------------------------------------------------------------------------------


def test_file_is_self_contained_and_holds_each_video_once(made: Made) -> None:
    text = made.page.read_text()
    assert not re.search(
        r'(?:src|href)=(?!"(?:data:|#))|url\((?!data:|"\$\{strip\.src\}")|@import|https?://(?!www\.w3\.org)', text
    )
    videos = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", text)]
    found = diff(made.history, "v1", "latest")
    manifests = [made.history.manifest(version) for version in (found.before, found.after)]

    def video(side: int, clip_id: str) -> bytes:
        row = find_row(made.history.store, manifests[side], clip_id)
        assert row is not None
        return made.history.store.read(row["sha256_bytes"])

    assert videos == [video(0, SHUTTER), video(1, SHUTTER), video(0, CAPTION), video(1, NEW), video(0, GONE)]
    assert video(0, CAPTION) == video(1, CAPTION)


def test_labels_stand_in_physical_units_and_text_is_escaped(made: Made) -> None:
    text = made.page.read_text()
    rows = dict(re.findall(r'<th scope="row">(\w[\w.]*)</th>(.*?)</tr>', text.partition(f'id="{SHUTTER}"')[2]))
    assert ">1/80<" in rows["shutter_exposure_s"] and ">1/40<" in rows["shutter_exposure_s"]
    assert "+1.00 stop" in rows["shutter_exposure_s"]
    assert "frames differ by" in text
    assert "the &lt;i&gt;first&lt;/i&gt;" in text and "&lt;b&gt;other&lt;/b&gt; words &amp; more" in text
    assert "<i>first" not in text and "<b>other" not in text
    assert re.search(r"render\.samples</th><td[^>]*>4</td><td[^>]*>8</td>", text)
    assert SAME not in text


def test_written() -> None:
    assert written("shutter_exposure_s", 0.02) == "1/50"
    assert written("aperture_measured", 2.8) == "f/2.8"
    assert "3200" in written("temperature_k", 3200.0)
    assert written("shutter_error", -0.25) == "−0.250 stop"
    assert written("aperture_control", 0.5) == "+0.500"
    assert [written("x", value) for value in (None, True, 1.5, 3, "words")] == ["nothing", "yes", "1.5", "3", "words"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_evenly_keeps_order_and_ends(count: int) -> None:
    for length in range(30):
        kept = evenly(range(length), count)
        assert len(kept) == min(length, count) == len(set(kept))
        assert kept == sorted(kept)
        if count > 1 and length:
            assert (kept[0], kept[-1]) == (0, length - 1)


def test_many_clips_are_sampled_and_it_is_said(made: Made, tmp_path: Path) -> None:
    found = diff(made.history, "v1", "latest")
    report = diff_page(made.history, found, tmp_path / "d.html", limit=1)
    assert (report.shown, report.clips) == (3, 5)
    text = (tmp_path / "d.html").read_text()
    assert "1 of 3 clips shown, evenly spaced by id" in text and text.count("evenly spaced") == 1
    assert diff_page(made.history, found, tmp_path / "e.html", embed_limit_bytes=1).shown == 3


def test_nothing_differs(made: Made, tmp_path: Path) -> None:
    assert diff_page(made.history, diff(made.history, "v1", "v1"), tmp_path / "d.html").shown == 0
    assert "hold the same clips, labels and recipe" in (tmp_path / "d.html").read_text()


def test_bad_targets_and_damaged_clips(made: Made, tmp_path: Path) -> None:
    found = diff(made.history, "v1", "latest")
    with pytest.raises(InputError, match=r"no \.html file"):
        diff_page(made.history, found, tmp_path / "diff.pdf")
    copy = History(tmp_path / "copy")
    for source in (made.history.path / INTERNAL).rglob("*"):
        if source.is_file():
            target = copy.path / source.relative_to(made.history.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    row = find_row(copy.store, copy.manifest(copy.version()), NEW)
    assert row is not None
    place = copy.store.path(row["sha256_bytes"])
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    with pytest.raises(DamagedError, match="does not match"):
        diff_page(copy, found, tmp_path / "d.html")
    assert not (tmp_path / "d.html").exists()


def test_the_command_writes_a_page(made: Made, tmp_path: Path) -> None:
    page = tmp_path / "my diff.html"
    assert "5 of 5 differing clips" in call("diff", made.history.path, "v1", "latest", "--html", page)
    assert page.read_bytes() == made.page.read_bytes()
    told = json.loads(call("diff", made.history.path, "v1", "latest", "--html", page, "--json", "-n", "1"))
    assert told["shown"] == 3 and told["size_bytes"] == page.stat().st_size and len(told["changed"]) == 3


# --- the page, in a browser -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def watched(browser: Browser, made: Made) -> Iterator[Watched]:
    opened = Watched(browser, made.page)
    yield opened
    opened.context.close()
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@needs_chromium
def test_a_stands_left_of_b_and_every_clip_decodes(watched: Watched) -> None:
    page = watched.settle()
    assert set(page.evaluate(f"Object.values({STATES})")) == {"ready", "still"}
    for clip_id in (SHUTTER, CAPTION, STILL):
        left, right = (page.locator(f"[id='{letter}-{clip_id}']").bounding_box() for letter in "AB")
        assert left is not None and right is not None
        assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
        assert left["width"] == right["width"]
    assert "1/80" in page.locator(f"[id='A-{SHUTTER}'] figcaption").inner_text()
    assert "1/40" in page.locator(f"[id='B-{SHUTTER}'] figcaption").inner_text()
    assert page.locator(f"[id='A-{NEW}'], [id='B-{GONE}']").count() == 0
    assert page.locator(f"[id='B-{NEW}'], [id='A-{GONE}']").count() == 2
    assert page.locator("#matching").inner_text() == "5 clips"


@needs_chromium
def test_both_sides_show_the_same_frame_always(watched: Watched) -> None:
    page = watched.settle()
    page.wait_for_function("[...document.querySelectorAll('canvas')].every((canvas) => 'frame' in canvas.dataset)")
    samples = page.evaluate(
        """async () => {
            const samples = [], start = performance.now();
            while (performance.now() < start + 2000) {  // thirty-two frames
                await new Promise(requestAnimationFrame);
                samples.push([...document.querySelectorAll('.rows .scene')].map((scene) =>
                    [...scene.querySelectorAll('canvas')].map((canvas) => canvas.dataset.frame)));
            }
            return samples;
        }"""
    )
    assert all(len(set(row)) <= 1 for sample in samples for row in sample)
    moving = [place for place, row in enumerate(samples[0]) if row]
    assert all({sample[place][0] for sample in samples} == {str(frame) for frame in range(FRAMES)} for place in moving), (
        samples[:: len(samples) // 9]
    )
    assert sorted(len(row) for row in samples[0]) == [0, 2, 2]


@needs_chromium
def test_sides_show_their_own_pictures(watched: Watched) -> None:
    page = watched.settle()
    page.keyboard.press(" ")
    page.locator("#scrub").evaluate("(scrub) => { scrub.value = 0; scrub.dispatchEvent(new Event('input')); }")
    page.wait_for_timeout(120)
    bright = """canvas => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height), context = copy.getContext("2d");
        context.drawImage(canvas, 0, 0);
        const data = context.getImageData(0, 0, copy.width, copy.height).data;
        return data.filter((value, place) => place % 4 === 0 && value > 128).length / (copy.width * copy.height);
    }"""
    for letter, width_px in (("A", 16), ("B", 26)):
        share = page.locator(f"[id='{letter}-{SHUTTER}'] canvas").evaluate(bright)
        assert share == pytest.approx(24 * width_px / SIDE**2, rel=0.12)


@needs_chromium
def test_filters_search_and_keys(watched: Watched) -> None:
    page = watched.settle()

    def shown() -> set[str]:
        return set(page.locator(".scene:visible").evaluate_all("scenes => scenes.map((scene) => scene.id)"))

    page.locator(".chip[data-value='labels only']").click()
    assert shown() == {CAPTION} and page.locator("#matching").inner_text() == "1 of 5 clips"
    page.locator(".chip[data-value='labels only']").click()
    page.locator(".chip[data-value='added']").click()
    assert shown() == {NEW}
    page.locator(".chip[data-value='added']").click()
    page.keyboard.press("/")
    page.keyboard.type("other words")
    assert shown() == {CAPTION}
    page.keyboard.type(" nowhere")
    assert shown() == set() and page.locator("#nothing").is_visible()
    page.locator("#reset").click()
    page.locator(".screen").first.focus()
    focused = "document.activeElement.closest('.clip').id"
    first = page.evaluate(focused)
    page.keyboard.press("ArrowRight")
    assert [first[0], page.evaluate(focused)] == ["A", "B" + first[1:]]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused).startswith("B-") and page.evaluate(focused) != "B" + first[1:]
    page.keyboard.press("Enter")
    assert page.locator("#viewer").evaluate("viewer => viewer.open")
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    assert page.locator("#play").get_attribute("aria-pressed") == "false"


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_themes_and_phone(browser: Browser, made: Made, scheme: str, width: int) -> None:
    opened = Watched(browser, made.page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for expected in (scheme, "dark" if scheme == "light" else "light"):
        colors = opened.page.evaluate("((s) => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        ink, paper = (luminance(color) for color in colors)
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
        assert (paper > 0.5) == (expected == "light")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.page.locator("#theme").click()
    opened.context.close()
    assert opened.complaints == []
