"""A page in a real headless Chromium, with every complaint and every request that it makes: for tests of pages."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TIMEOUT_MS = 240_000  # a browser on a busy machine is slow and not broken; the limit of a whole test comes before
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")

STATES = "Object.fromEntries([...document.querySelectorAll('.clip')].map((clip) => [clip.id, clip.dataset.state]))"


class Watched:
    """A page, with every complaint and every request that it makes."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 5000}} | options))
        self.context.set_default_timeout(TIMEOUT_MS)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def settle(self) -> Page:
        """Wait until every clip in sight has its frames."""
        self.page.wait_for_function(f"Object.values({STATES}).every((state) => ['ready', 'still', 'broken'].includes(state))")
        return self.page


def shows(page: Page, canvas: str, frame: int) -> None:
    """Wait until a canvas shows a frame, which is at the next picture of the browser, whenever that is."""
    page.wait_for_function(
        "([canvas, frame]) => document.querySelector(canvas).dataset.frame === frame", arg=[canvas, str(frame)]
    )


def luminance(color: str) -> float:
    channels = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
