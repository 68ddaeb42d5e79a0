"""The app: served on loopback, driven as a page drives it; values in units, readings, bad input.

Array legend: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import base64
import contextlib
import html
import http.client
import importlib.util
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from evaluation_support import clip
from generation_support import run, save_random, small_config
from playwright.sync_api import expect as playwright_expect
from playwright.sync_api import sync_playwright

from generator.media.video import decode
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import load_backbone
from trainer.commands.play import command
from trainer.control.laws import AxisControl, MiredLaw, NoLaw, axis_control
from trainer.generation.load_pipeline import Loading, load_controlled, resolved
from trainer.generation.sampler import Sampling
from trainer.play.form import FURTHEST, REACH, control_of, single_points, slider_ends
from trainer.play.play_session import Session
from trainer.play.same_origin import MOST_BYTES
from trainer.play.serve import is_loopback, require_app, serving
from trainer.probing.single import HEADINGS, read_axis

needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="gradio is not installed: pip install 'stopdown[app]'"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
TINY = Sampling(width=32, height=32, frames=5, steps=1, guidance=1.0, text_tokens=12)
SHUTTER, TEMPERATURE = axis_control("shutter"), axis_control("temperature")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A served session and a client of its page."""

    session: Session
    address: str
    client: Any

    def generate(
        self, shutter: str = "1/80", temperature: str = "6500K", *, api_name: str = "/generate", **changed: Any
    ) -> Any:
        """Press a button with the form filled in, as the page's own script does."""
        fields: dict[str, Any] = {"prompt": "a red ball", "shutter": shutter}
        fields |= {"temperature": temperature, "mode": "decoupled", "seed": 3, "strength": 1.0, "negative": "", "steps": 1}
        fields |= {"guidance": 1.0, "compare": False} | changed
        return self.client.predict(*fields.values(), api_name=api_name)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """An adapter of two axes on tiny-random, loaded."""
    folder = tmp_path_factory.mktemp("play")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        adapter = save_random(load_backbone("tiny-random"), folder / "two", small_config("shutter", "temperature"))
        saved = SavedAdapter.open(adapter)
        loading = resolved(Loading(device="cpu"), saved.card)
        pipe = load_controlled(saved, loading)
        yield Session(pipe=pipe, adapter=saved, loading=loading, sampling=TINY, folder=folder / "videos")


@pytest.fixture(scope="module")
def served(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of that session, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch, serving(session, "127.0.0.1", port) as address:
        from gradio_client import Client

        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the client, not the app, would ask the hub
        files = str(tmp_path_factory.mktemp("client"))
        client = Client(address, verbose=False, download_files=files, analytics_enabled=False)
        yield Served(session=session, address=address, client=client)


def file_of(shown: Any) -> Path:
    """Return the file of a video that the client was given."""
    return Path(shown["video"] if isinstance(shown, dict) and "video" in shown else shown)


def table(page: str) -> list[dict[str, str]]:
    """Return the lines of the table of readings, by heading; a note belongs to the line above it."""
    lines = [[html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", line)] for line in page.split("<tr")[2:]]
    found: list[dict[str, str]] = []
    for cells in lines:
        if len(cells) == len(HEADINGS):
            found.append(dict(zip(HEADINGS, cells, strict=True)) | {"note": ""})
        else:
            found[-1]["note"] = cells[1]
    return found


@needs_gradio
def test_a_generation_is_what_the_boxes_say(served: Served) -> None:
    """The video, its label, its record and its reading are those of the value in the box, whatever the box held before."""
    seen = {}
    for written, label, control in (("1/400", "1/400", -1.0), ("20ms", "1/50", 0.292), ("c = 1", "1/16", 1.0)):
        video, words, readings, record = served.generate(written, "3200K")
        frames_THW3 = decode(file_of(video))
        assert frames_THW3.shape == (5, 32, 32, 3)
        assert words.startswith(f"shutter {label}, temperature 3200 K · seed 3 · decoupled · 1 steps")
        assert record["recipe"]["controls"]["shutter"] == pytest.approx(control, abs=1e-3)
        assert record["recipe"]["sampling"]["steps"] == 1 and record["recipe"]["prompt"] == "a red ball"
        shutter, temperature = table(readings)
        assert (shutter["asked"], temperature["asked"]) == (label, "3200 K") and shutter["c"] == f"{control:+.2f}"
        for axis, line in ((SHUTTER, shutter), (TEMPERATURE, temperature)):  # what is shown is the probe on the very file
            reading = axis.axis.probe(frames_THW3, 16)
            assert line["probe reads"] == ("refuses" if reading.value is None else axis.axis.format(reading.value))
            assert reading.note in line["note"] and (line["note"] or reading.value is not None)
        seen[label] = frames_THW3
    assert not np.array_equal(seen["1/400"], seen["1/16"])


@needs_gradio
def test_the_slider_and_the_box_follow_each_other(served: Served) -> None:
    for control in (-REACH, -1.0, 0.0, 0.37, 1.0, REACH):
        written = served.client.predict(control, api_name="/shutter_in_units")
        assert written == SHUTTER.format(control)
        moved, words = served.client.predict(written, api_name="/shutter_slider")
        assert moved == pytest.approx(control, abs=0.004) and words == ""
    kelvins = served.client.predict(1.0, api_name="/temperature_in_units")
    assert kelvins == "2000 K"


@needs_gradio
def test_comparing_reads_against_the_same_noise_at_neutral(served: Served) -> None:
    """The distance shown is the probe's between this file and the one that the neutral value alone gives."""
    video, words, readings, record = served.generate("1/80", "2000K", compare=True, seed=4)
    assert words.startswith("shutter 1/80, temperature 2000 K")
    neutral, again, *_ = served.generate("1/80", "6500K", seed=4)
    assert "made before, shown again" in again
    distance = TEMPERATURE.axis.relative(decode(file_of(video)), decode(file_of(neutral)), 16)
    assert record["readings"][1]["read_distance"] == pytest.approx(distance)
    videos = [base64.b64decode(data) for data in re.findall(r'src="data:video/mp4;base64,([^"]+)"', readings)]
    asked, other = (Path(file_of(shown)).read_bytes() for shown in (video, neutral))
    assert videos[0] == asked and other in videos[1:], "both are shown"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", readings)
    assert captions[0] == "asked: shutter 1/80, temperature 2000 K" and "temperature 6500 K (c = 0)" in captions
    line = table(readings)[1]
    assert line["read from c = 0"] == ("" if distance is None else f"{distance:+.0f} mired")
    assert line["asked from c = 0"] == "+346 mired" and (line["note"] or distance is not None)


@needs_gradio
def test_a_sweep_is_one_strip_from_one_noise(served: Served) -> None:
    sweep = {"api_name": "/sweep", "swept": "temperature", "count": 3, "seed": 5}
    video, words, readings, record = served.generate("1/16", "4000K", **sweep)
    assert decode(file_of(video)).shape[0] == 5
    assert words.startswith("3 values of temperature from the same noise · seed 5 · decoupled")
    assert [line["asked"] for line in table(readings)] == ["21125 K", "6500 K", "2000 K"]
    assert [line["asked from c = 0"] for line in table(readings)] == ["-107 mired", "+0 mired", "+346 mired"]
    recipes = [one["recipe"] for one in record["videos"]]
    assert [recipe["controls"]["temperature"] for recipe in recipes] == [-1.0, 0.0, 1.0]
    assert {recipe["controls"]["shutter"] for recipe in recipes} == {1.0} and {recipe["seed"] for recipe in recipes} == {5}
    again = served.generate("1/16", "4000K", **sweep)
    assert "made before, shown again" in again[1] and file_of(again[0]).read_bytes() == file_of(video).read_bytes()


@needs_gradio
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shutter": "fast"}, "exposure 'fast' is not a time above 0"),
        ({"shutter": "f/2"}, "'f/2' is no shutter but reads as aperture"),
        ({"shutter": ""}, "is no list of shutter values"),
        ({"shutter": "1/50,1/80"}, "'1/50,1/80' is 2 values of shutter; write one"),
        ({"shutter": "c = 1e9"}, "come nearer, -10 to 10"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"seed": None}, "seed is empty; give a number"),
        ({"seed": -1}, "seed -1 cannot be"),
        ({"steps": 0}, "steps 0 cannot be"),
        ({"steps": 1.5}, "steps 1.5 cannot be; give a whole number"),
        ({"mode": "joint", "strength": 0.0, "temperature": "0K"}, "0K"),
        ({"guidance": -2.0}, "guidance -2 cannot be"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(served: Served, changed: dict[str, Any], message: str) -> None:
    before = sorted(served.session.folder.glob("*/*.mp4"))
    video, words, readings, record = served.generate(**changed)
    assert message in words and "\n" not in words and "Traceback" not in words
    assert video == record == {"__type__": "update"} and "value" not in readings  # the page keeps what it showed
    assert sorted(served.session.folder.glob("*/*.mp4")) == before


@needs_gradio
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")
def test_the_page_in_a_browser(served: Served) -> None:
    """The slider writes the box, the video plays in a loop, a bad value leaves it, and nothing is asked of other machines."""
    complaints, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(served.address)
        box = page.locator("label:has-text('in units')").first.locator("input, textarea")
        slider = page.locator("input[type=range]").first
        for _ in range(20):  # a key pressed before the page has come alive is lost
            slider.press("Home")
            with contextlib.suppress(AssertionError):
                playwright_expect(box).to_have_value(SHUTTER.format(-REACH), timeout=2000)
                break
        playwright_expect(box).to_have_value(SHUTTER.format(-REACH))
        page.get_by_label("Prompt", exact=True).fill("a red ball")
        page.get_by_role("button", name="Generate").click()
        status = page.get_by_label("Status")
        playwright_expect(status).to_have_value(re.compile(r"^shutter 1/894.*beyond the trained range: shutter 1/894"))
        page.wait_for_function("(found => found && found.readyState === 4 && found.loop)(document.querySelector('video'))")
        playwright_expect(page.locator(".readings tbody tr").first).to_contain_text("1/894")
        shown = page.locator("video").get_attribute("src")
        box.fill("fast")
        page.get_by_role("button", name="Generate").click()
        playwright_expect(status).to_have_value(re.compile("exposure 'fast' is not a time above 0"))
        assert page.locator("video").get_attribute("src") == shown
        playwright_expect(page.locator(".readings tbody tr").first).to_contain_text("1/894")
        browser.close()
    assert not complaints
    assert requests and all(url.startswith((served.address, "data:", "blob:")) for url in requests)


@needs_gradio
def test_a_damaged_video_is_one_line(served: Served) -> None:
    *_, record = served.generate("1/100", seed=9)
    (path,) = served.session.folder.glob(f"*/{record['video']}")
    path.write_bytes(b"no video")
    assert "changed since it was made" in served.generate("1/100", seed=9)[1]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/", {"Host": "localhost"}, 200),
        ("GET", "/", {"Host": "evil.example"}, 421),
        ("GET", "/", {"Host": "127.0.0.1.evil.example:7860"}, 421),
        ("GET", "/", {"Host": ""}, 421),
        ("GET", "/", {"Host": "[::1"}, 421),
        ("GET", "/config", {"Origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/queue/join", {"Origin": "http://evil.example"}, 403),
        ("POST", "/gradio_api/queue/join", {"Origin": "null"}, 403),
        ("POST", "/gradio_api/queue/join", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/gradio_api/upload", {}, 403),
        ("POST", "/upload", {}, 403),
        ("POST", "/gradio_api/queue/join", {"Content-Length": str(300 << 20)}, 413),
    ],
)
def test_only_the_page_itself_is_answered(served: Served, method: str, path: str, headers: dict[str, str], status: int) -> None:
    place = urlsplit(served.address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=300)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": place.netloc} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == status
    if status != 200:
        assert answer.read().decode().count("\n") == 1
    connection.close()


def test_a_request_that_grows_beyond_the_limit_is_cut_off(served: Served) -> None:
    place = urlsplit(served.address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=300)
    pieces = (b"x" * 65536 for _ in range(1 + MOST_BYTES // 65536))
    with contextlib.suppress(OSError):  # the server may hang up while pieces are on their way
        connection.request("POST", "/gradio_api/queue/join", pieces, {"Host": place.netloc}, encode_chunked=True)
        assert connection.getresponse().status >= 400
    connection.close()


def test_boxes_take_units_and_plain_controls() -> None:
    plain = AxisControl(name="shutter", law=NoLaw())
    assert control_of(SHUTTER, "1/16") == pytest.approx(1.0) and control_of(SHUTTER, " c=-0.5 ") == -0.5
    assert control_of(plain, "0.3") == control_of(plain, "c = 0.3") == control_of(plain, plain.format(0.3)) == 0.3
    assert control_of(SHUTTER, f"c = {FURTHEST}") == FURTHEST
    for axis, written in ((SHUTTER, "c = nan"), (plain, "1/50"), (SHUTTER, "c = 10.1"), (SHUTTER, "-1..1:3")):
        with pytest.raises(InputError):
            control_of(axis, written)


def test_sliders_end_where_a_law_ends() -> None:
    published = AxisControl(name="temperature", law=MiredLaw(neutral_mired=275, mired_per_control=-225))
    assert slider_ends(SHUTTER) == (-REACH, REACH)
    assert slider_ends(published) == (-REACH, 1.2)
    with pytest.raises(InputError, match="mired, which no light has"):
        control_of(published, "c = 1.3")


def test_comparing_adds_each_axis_at_neutral_once() -> None:
    asked = {"shutter": 0.5, "temperature": 0.0}
    assert single_points([SHUTTER, TEMPERATURE], asked, compare=False) == (asked,)
    assert single_points([SHUTTER, TEMPERATURE], asked, compare=True) == (asked, {"shutter": 0.0, "temperature": 0.0})


@pytest.mark.parametrize("axis", [SHUTTER, axis_control("aperture"), TEMPERATURE], ids=lambda axis: axis.name)
def test_readings_are_what_was_drawn(axis: AxisControl) -> None:
    """Clips of known blur, disc and cast: the distance from c = 0 is the drawn one; without a scale there is no value."""
    neutral_THW3 = clip(axis.name, "a", 0.0)
    reading = read_axis(axis, 0.7, clip(axis.name, "a", 0.7), neutral_THW3, 16)
    assert reading.asked == axis.format(0.7) and reading.asked_distance == pytest.approx(reading.read_distance, rel=0.15)
    alone = read_axis(axis, 0.7, clip(axis.name, "a", 0.7), None, 16)
    assert alone.read_distance is None and alone.value == reading.value
    if axis.name == "aperture":
        assert alone.value is None and alone.reads == "refuses" and "no scale in the picture: compare with c = 0" in alone.note
    else:
        assert alone.value == pytest.approx(axis.law.value(0.7), rel=0.12) and alone.reads == axis.axis.format(alone.value)
    blank = read_axis(axis, 0.7, np.zeros_like(neutral_THW3), neutral_THW3, 16)
    assert blank.reads == "refuses" and blank.read_distance is None and blank.note


def test_only_loopback_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "example.org")))


def test_a_missing_gradio_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search path without any package, as on a machine without the extra."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=r"gradio not installed; .* pip install 'stopdown\[app\]'"):
        require_app()


@needs_gradio
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "64"], "size '64' is no size; write WIDTHxHEIGHT"),
        (["--port", "0"], "port 0 cannot be; give one from 1 to 65535"),
        (["--host", "203.0.113.7"], "203.0.113.7:7860 cannot be listened on"),
        ([], "adapter nowhere does not exist; give an adapter's folder"),
    ],
)
def test_a_command_that_cannot_start(words: list[str], message: str) -> None:
    result = run(command, "nowhere", *words)
    assert isinstance(result.exception, InputError) and message in str(result.exception)
    assert "\n" not in str(result.exception)


@needs_gradio
def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run(command, "nowhere", "--port", port)
    assert f"127.0.0.1:{port} cannot be listened on" in str(result.exception)


def test_no_option_shares() -> None:
    result = run(command, "nowhere", "--share")
    assert result.exit_code == 2 and "No such option" in result.output
