"""The gallery, opened in a real headless Chromium. Real renders."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gallery_browser import CHROMIUM, FLAGS, STATES, Watched, luminance, needs_chromium, shows
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from generator.errors import DamagedError
from generator.versions.working.working_folder import WorkingFolder
from generator.web.gallery import gallery, in_order, signed
from scenes.axes import AXES
from scenes.errors import InputError


@pytest.fixture(scope="module")
def page_file(demo_dataset: WorkingFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "gallery.html"
    report = gallery(demo_dataset, path)
    assert report.embedded
    assert report.clips == len(demo_dataset)
    assert report.size_bytes == path.stat().st_size
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def watched(browser: Browser, page_file: Path) -> Iterator[Watched]:
    opened = Watched(browser, page_file)
    yield opened
    opened.context.close()
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []


# --- the file -------------------------------------------------------------------------------------------------------------


def test_file_is_self_contained_and_holds_the_clips_bytes(demo_dataset: WorkingFolder, page_file: Path) -> None:
    text = page_file.read_text()
    assert not re.search(
        r'(?:src|href)=(?!"(?:data:|#))|url\((?!data:|"\$\{strip\.src\}")|@import|https?://(?!www\.w3\.org)', text
    )
    videos = [base64.b64decode(data) for data in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", text)]
    expected = [
        demo_dataset.clip_path(clip.clip_id).read_bytes()
        for scene in demo_dataset.plan.scenes
        for clip in in_order(demo_dataset.plan, scene)
        if clip.frames > 1
    ]
    assert videos == expected


def test_text_from_the_recipe_is_escaped(page_file: Path) -> None:
    text = page_file.read_text()
    assert "&lt;b&gt;for tests&lt;/b&gt; &amp; nothing else" in text
    assert "<b>for tests" not in text


def test_stills_are_the_decoded_frame(demo_dataset: WorkingFolder, page_file: Path) -> None:
    stills = [clip for clip in demo_dataset.plan.clips if clip.frames == 1]
    assert stills
    for clip in stills:
        figure = page_file.read_text().partition(f'id="{clip.clip_id}"')[2]
        match = re.search(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", figure)
        assert match is not None
        with Image.open(io.BytesIO(base64.b64decode(match.group(1)))) as picture:
            shown_HW3 = np.asarray(picture.convert("RGB")).astype(int)
        assert np.abs(shown_HW3 - demo_dataset.frames(clip.clip_id)[0]).mean() < 4


def test_too_many_bytes_are_linked_and_said(demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "gallery.html"
    report = gallery(demo_dataset, out, embed_limit_bytes=0)
    text = out.read_text()
    assert not report.embedded
    assert "data:video" not in text
    assert "too large to embed" in text
    links = re.findall(r'data-src="([^"]+)"', text)
    assert {(out.parent / link).resolve() for link in links} == {
        demo_dataset.clip_path(clip.clip_id).resolve() for clip in demo_dataset.plan.clips if clip.frames > 1
    }


def test_progress_counts_every_clip(demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    gallery(demo_dataset, tmp_path / "g.html", lambda done, of: seen.append((done, of)))
    assert seen == [(number, len(demo_dataset)) for number in range(1, len(demo_dataset) + 1)]


def test_bad_targets_and_broken_clips(copied_dataset: Path, tmp_path: Path) -> None:
    dataset = WorkingFolder.open(copied_dataset)
    with pytest.raises(InputError, match=r"no \.html file"):
        gallery(dataset, tmp_path / "gallery.pdf")
    dataset.clip_path(dataset.plan.clips[0].clip_id).unlink()
    with pytest.raises(DamagedError, match="missing"):
        gallery(dataset, tmp_path / "gallery.html")
    assert not (tmp_path / "gallery.html").exists()


def test_signed() -> None:
    assert [signed(value, 2) for value in (0.5, -0.5, -0.001, 0.0)] == ["+0.50", "−0.50", "+0.00", "+0.00"]


# --- the page, in a browser -----------------------------------------------------------------------------------------------


@needs_chromium
def test_rows_are_scenes_in_order_of_control_with_labels_and_readings(watched: Watched, demo_dataset: WorkingFolder) -> None:
    plan, rows = demo_dataset.plan, {row["clip_id"]: row for row in demo_dataset.labels.to_pylist()}
    for scene in plan.scenes:
        clips = in_order(plan, scene)
        row = watched.page.locator(f"[id='{scene.scene_id}']")
        assert row.locator(".clip").evaluate_all("clips => clips.map((clip) => clip.id)") == [c.clip_id for c in clips]
        controls = [clip.controls[clip.axes[0]] for clip in clips]
        assert controls == sorted(controls)
        for clip in clips:
            (axis,) = clip.axes
            caption = watched.page.locator(f"[id='{clip.clip_id}'] figcaption").inner_text()
            assert AXES[axis].format(clip.values[axis]) in caption
            assert f"c {signed(clip.controls[axis], 2)}" in caption
            assert AXES[axis].format(rows[clip.clip_id][f"{axis}_measured"]) in caption


@needs_chromium
def test_every_clip_is_decoded_and_shows_the_right_frame(watched: Watched, demo_dataset: WorkingFolder) -> None:
    page = watched.settle()
    assert set(page.evaluate(f"Object.values({STATES})")) == {"ready", "still"}
    assert page.locator(".clip.is-still img").evaluate_all("images => images.every((image) => image.naturalWidth > 0)")
    for frame in (0, 3, 4):
        page.locator("#scrub").evaluate(
            "(scrub, frame) => { scrub.value = frame; scrub.dispatchEvent(new Event('input')); }", frame
        )
        for clip in (demo_dataset.plan.clips[0], demo_dataset.plan.clips[-1]):
            canvas = page.locator(f"[id='{clip.clip_id}'] canvas")
            shows(page, f"[id='{clip.clip_id}'] canvas", frame % clip.frames)
            size, data = canvas.evaluate(
                """canvas => {
                    const copy = new OffscreenCanvas(canvas.width, canvas.height);
                    const context = copy.getContext("2d", { willReadFrequently: true });
                    context.drawImage(canvas, 0, 0);
                    return [[copy.height, copy.width], [...context.getImageData(0, 0, copy.width, copy.height).data]];
                }"""
            )
            shown_HW3 = np.array(data).reshape(*size, 4)[..., :3].astype(int)
            away_T = np.abs(demo_dataset.frames(clip.clip_id).astype(int) - shown_HW3).mean(axis=(1, 2, 3))
            assert away_T[frame] < 3
            if clip.axes == ("shutter",):  # the others hardly move
                assert int(away_T.argmin()) == frame


@needs_chromium
def test_clips_play_in_step(watched: Watched) -> None:
    page = watched.settle()
    samples = page.evaluate(
        """async () => {
            const samples = [], seen = new Set(), all = [...document.querySelectorAll('.scene')]
                .reduce((sum, scene) => sum + (scene.dataset.frames > 1 ? +scene.dataset.frames : 0), 0);
            while (samples.length < 120 || (seen.size < all && samples.length < 20000)) {
                await new Promise(requestAnimationFrame);
                samples.push([...document.querySelectorAll('.scene')].map((scene) =>
                    [...scene.querySelectorAll('canvas')].map((canvas) => canvas.dataset.frame)));
                samples.at(-1).forEach((row, scene) => row.length && seen.add(`${scene}/${row[0]}`));
            }
            return samples;
        }"""
    )
    for sample in samples:
        assert all(len(set(row)) <= 1 for row in sample)
    seen = [{sample[row][0] for sample in samples} for row in range(len(samples[0])) if samples[0][row]]
    counts = page.evaluate(
        "[...document.querySelectorAll('.scene')].filter((s) => s.dataset.frames > 1).map((s) => +s.dataset.frames)"
    )
    assert seen == [{str(frame) for frame in range(count)} for count in counts]


@needs_chromium
def test_enlarged_clip_plays_natively(watched: Watched, demo_dataset: WorkingFolder) -> None:
    page = watched.settle()
    page.locator(".clip:not(.is-still) .screen").first.click()
    page.wait_for_function("document.querySelector('#viewer video').readyState >= 2")
    page.wait_for_function("document.querySelector('#viewer video').currentTime > 0.1")
    assert in_order(demo_dataset.plan, demo_dataset.plan.scenes[0])[0].clip_id in page.locator("#viewer .fine").inner_text()
    page.keyboard.press("ArrowRight")
    assert in_order(demo_dataset.plan, demo_dataset.plan.scenes[0])[1].clip_id in page.locator("#viewer .fine").inner_text()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").evaluate("viewer => viewer.open")
    page.locator(".clip.is-still .screen").first.click()
    assert page.locator("#viewer img").evaluate("image => image.complete && image.naturalWidth > 0")


@needs_chromium
def test_filters_and_search(watched: Watched, demo_dataset: WorkingFolder) -> None:
    page, plan = watched.page, demo_dataset.plan

    def shown() -> set[str]:
        return set(page.locator(".scene:visible").evaluate_all("scenes => scenes.map((scene) => scene.id)"))

    def chip(facet: str, value: str) -> None:
        page.locator(f".chip[data-facet={facet}][data-value='{value}']").click()

    def scenes(**wanted: object) -> set[str]:
        return {clip.scene_id for clip in plan.clips if all(getattr(clip, key) == value for key, value in wanted.items())}

    assert shown() == scenes()
    chip("axis", "aperture")
    assert shown() == scenes(axes=("aperture",)) != scenes()
    chip("frames", "1")
    assert shown() == scenes(axes=("aperture",), frames=1) != scenes(axes=("aperture",))
    chip("frames", "1")
    chip("axis", "aperture")
    chip("family", "flyby")
    chip("layer", "3")
    assert shown() == scenes(family="flyby", layer=3) != scenes(family="flyby")
    chip("family", "tabletop")
    assert shown() == scenes(family="flyby", layer=3) | scenes(family="tabletop", layer=3)
    page.locator("#search").fill("no such caption")
    assert shown() == set()
    assert page.locator("#nothing").is_visible()
    page.locator("#reset").click()
    assert shown() == scenes()
    word = plan.clips[-1].caption.split()[-1].strip(".")
    page.locator("#search").fill(word.upper())
    assert shown() == {clip.scene_id for clip in plan.clips if word.lower() in clip.caption.lower()}
    hits = sum(word.lower() in clip.caption.lower() for clip in plan.clips)
    assert page.locator("#count").inner_text() == (
        f"{hits} of {len(plan.clips)} clips" if hits < len(plan.clips) else f"{hits} clips"
    )


@needs_chromium
def test_reading_filter_shows_scenes_with_such_a_clip(watched: Watched, demo_dataset: WorkingFolder) -> None:
    small = {
        row["scene_id"]
        for row in demo_dataset.labels.to_pylist()
        for axis in AXES
        if row[f"{axis}_measured"] is not None and not row[f"{axis}_judged"]
    }
    watched.page.locator(".chip[data-value='too small']").click()
    assert set(watched.page.locator(".scene:visible").evaluate_all("scenes => scenes.map((scene) => scene.id)")) == small


@needs_chromium
def test_keys(watched: Watched) -> None:
    page = watched.settle()
    frame = "document.querySelector('canvas').dataset.frame"
    page.keyboard.press(" ")
    assert page.locator("#play").get_attribute("aria-pressed") == "false"
    before = int(page.evaluate(frame))
    page.wait_for_timeout(300)
    assert int(page.evaluate(frame)) == before
    for key, by in ((".", 1), ("ArrowRight", 1), (",", -1), ("ArrowLeft", -1)):
        page.keyboard.press(key)
        before = (before + by) % 9
        shows(page, "canvas", before)
    page.locator(".screen").first.focus()
    focused = "document.activeElement.closest('.clip').id"
    ids = page.locator(".clip").evaluate_all("clips => clips.map((clip) => clip.id)")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == ids[1]
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('.scene').id") != page.locator(".scene").first.get_attribute("id")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focused) == ids[0]
    assert page.locator(".screen").first.evaluate("screen => getComputedStyle(screen).outlineStyle") == "solid"
    page.keyboard.press(" ")
    assert page.locator("#play").get_attribute("aria-pressed") == "true"
    assert not page.locator("#viewer").evaluate("viewer => viewer.open")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").evaluate("viewer => viewer.open")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"


@needs_chromium
def test_a_key_pressed_before_the_close_event_keeps_its_focus(watched: Watched) -> None:
    page = watched.settle()
    page.locator(".screen").first.click()
    late = page.evaluate(
        """() => new Promise((done) => {
            viewer.addEventListener("close", () => done(document.activeElement.id));
            viewer.close();
            document.dispatchEvent(new KeyboardEvent("keydown", { key: "/" }));
        })"""
    )
    assert late == "search"


@needs_chromium
def test_arrow_keys_after_one_tab_move_between_clips(watched: Watched) -> None:
    page = watched.settle()
    focused = "document.activeElement.closest('.clip').id"
    ids = page.locator(".clip").evaluate_all("clips => clips.map((clip) => clip.id)")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == ids[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == ids[1]
    text = page.locator(".masthead").inner_text()
    assert "the largest error, or the least rank correlation, that still passes" in text and "mired" in text
    bar = page.locator(".bar").evaluate("bar => getComputedStyle(bar).backgroundColor")
    assert bar.startswith("rgb("), "nothing shows through it"


@needs_chromium
def test_clips_out_of_sight_are_not_decoded(browser: Browser, page_file: Path) -> None:
    opened = Watched(browser, page_file, viewport={"width": 1280, "height": 300})
    opened.page.wait_for_timeout(800)
    assert set(opened.page.evaluate(f"Object.values({STATES})")) <= {"poster", "still"}
    opened.page.locator(".clip:not(.is-still)").last.scroll_into_view_if_needed()
    opened.page.wait_for_function(f"Object.values({STATES}).at(-1) === 'ready'")
    opened.page.evaluate("scrollTo(0, 0)")
    opened.page.wait_for_function(f"Object.values({STATES}).at(-1) === 'poster'")
    opened.context.close()
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_themes_and_phone(browser: Browser, page_file: Path, tmp_path: Path, scheme: str, width: int) -> None:
    opened = Watched(browser, page_file, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = opened.page
    colors = "((style) => [style.color, style.backgroundColor])(getComputedStyle(document.body))"

    def contrast() -> tuple[float, float]:
        ink, paper = (luminance(color) for color in page.evaluate(colors))
        return (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05), paper

    ratio, paper = contrast()
    assert ratio > 7
    assert (paper > 0.5) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert (np.asarray(shot.convert("L")).mean() > 128) == (scheme == "light")
    page.locator("#theme").click()
    ratio, paper = contrast()
    assert ratio > 7
    assert (paper > 0.5) == (scheme == "dark")
    opened.context.close()
    assert opened.complaints == []


@needs_chromium
def test_linked_videos_play_too(browser: Browser, demo_dataset: WorkingFolder, tmp_path: Path) -> None:
    out = tmp_path / "some folder" / "gallery.html"
    gallery(demo_dataset, out, embed_limit_bytes=0)
    opened = Watched(browser, out)
    assert set(opened.settle().evaluate(f"Object.values({STATES})")) == {"ready", "still"}
    opened.context.close()
    assert opened.complaints == []


@needs_chromium
def test_a_video_that_cannot_be_played_is_said(browser: Browser, page_file: Path, tmp_path: Path) -> None:
    text = page_file.read_text()
    broken = tmp_path / "broken.html"
    broken.write_text(re.sub(r"data:video/mp4;base64,[A-Za-z0-9+/=]+", "data:video/mp4;base64,AAAA", text, count=1))
    opened = Watched(browser, broken)
    states = list(opened.settle().evaluate(f"Object.values({STATES})"))
    assert states[0] == "broken"
    assert states.count("broken") == 1
    opened.context.close()
