"""The gallery lays ground truth over its clips, in step with their frames. Real headless Chromium."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from generator import Dataset
from generator.truth.colored import COLORED
from generator.versions.working.working_folder import WorkingFolder
from generator.web.gallery import gallery

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_MS = 240_000
SHOWN = """(name) => [...document.querySelectorAll('.layer')].every((layer) => !layer.hidden && layer.dataset.layer === name
    && layer.style.backgroundImage.includes('data:image/webp') && layer.dataset.frame === '2')"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
def test_each_pass_is_a_switch_and_follows_the_frame(truth_dataset: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "gallery.html"
    gallery(WorkingFolder.open(truth_dataset), page_file)
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(page_file.as_uri())
        page.evaluate("() => { const s = document.querySelector('#scrub'); s.value = 2; s.dispatchEvent(new Event('input')); }")
        for name in COLORED:
            page.click(f".chip-layer[data-layer={name}]")
            page.wait_for_function(SHOWN, arg=name)
        page.click(".chip-layer[data-layer=boxes]")
        page.wait_for_function("() => [...document.querySelectorAll('.layer')].every((layer) => layer.hidden)")
        browser.close()
    assert complaints == []


def test_colours_tell_things_apart(truth_dataset: Path) -> None:
    clip = next(clip for clip in Dataset.open(truth_dataset) if clip["family"] == "flyby")
    for name in COLORED:
        picture_THW3 = COLORED[name](clip.truth)
        assert picture_THW3.shape == (5, 64, 64, 3) and picture_THW3.dtype == np.uint8
        assert len(np.unique(picture_THW3[2].reshape(-1, 3), axis=0)) > 1
    assert (COLORED["flow"](clip.truth)[0][~(clip.flow().forward[0].any(axis=-1))][:, 0] > 100).all()  # rest is white or grey
