"""`stopdown monitor` on builds: real ones and shards, the dead and the silent; as text, as a page and as a live view."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tiny
from farm_support import ROOT
from monitor_support import farm, heartbeat_of, publish, put_heartbeat
from rich.console import Console
from textual.widgets import DataTable, Static
from versions.versions_remote_storage import BUCKET, Storage, storage_fixture  # noqa: F401

from generator.building.heartbeat import HeartbeatWriter
from generator.building.local import build
from generator.console.progress import JsonProgress
from generator.monitor.board import Board, BoardGrid, BoardRow, Meter, board_text, in_words
from generator.monitor.board_app import MonitorApp
from generator.monitor.board_page import board_page
from generator.monitor.build_board import build_board
from generator.monitor.watch_build import BuildStatus, watch_build
from generator.remotes.base import RemoteOptions
from scenes.errors import InputError
from trainer.commands.monitor import command

LIMITS = {"endpoint": None, "region": None, "anonymous": False}


def text(board: Board, *, width: int = 200, rows: int = 24) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(board_text(board, width=width, rows=rows))
    return console.file.getvalue()  # type: ignore[attr-defined]


def monitor(place: str | Path, **options: Any) -> None:
    own: dict[str, Any] = {"once": False, "html": None, "watch": False, "every": None, "json": False, **LIMITS}
    command(str(place), **{**own, **options})


class Looking(JsonProgress):
    """The progress of a build that looks at it from outside whenever a clip is done."""

    def __init__(self, where: Path) -> None:
        super().__init__(io.StringIO())
        self.where = where
        self.seen: list[BuildStatus] = []

    def done(self, clip_id: str) -> None:
        super().done(clip_id)
        self.seen.append(watch_build(str(self.where)).look())


def test_a_build_on_one_machine_is_seen_while_it_goes_on_and_after(tmp_path: Path) -> None:
    out, progress = tmp_path / "tiny", Looking(tmp_path / "tiny")
    plan = tiny.plan(poison=1)
    plan = plan.model_copy(update={"scenes": plan.scenes[:2], "clips": plan.clips[:6]})
    report = build(plan, out, workers=1, threads=1, progress=progress, message="m")
    assert report.rendered == 3 and len(report.failed) == 3
    assert [status.done for status in progress.seen] == [1, 2, 3]
    for status in progress.seen:
        (worker,) = status.workers
        assert status.state == "building" and worker.alive and worker.heartbeat.pid == os.getpid()
        assert (worker.heartbeat.name, worker.heartbeat.slots) == ("build", 1)
        assert (
            worker.heartbeat.assigned in (0, 6) and worker.heartbeat.done <= status.done
        )  # a heartbeat is up to three seconds old
    after = watch_build(str(out)).look()
    assert (after.state, after.done, after.clips, after.alive) == ("stopped", 3, 6, 0)
    assert set(after.failed) == set(report.failed) and after.workers[0].heartbeat.state == "failed"
    assert (after.workers[0].heartbeat.assigned, after.workers[0].heartbeat.done) == (6, 3)
    assert after.cpu_s_per_clip == pytest.approx(report.cpu_s / 3, abs=0.01)
    words = text(build_board(after))
    assert "3/6" in words and "nobody works on the 3 clips" in words and "no-such-kind" in words


def test_shards_are_counted_and_trouble_comes_first(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    watch = watch_build(target.where)
    waiting = watch.look()
    assert (waiting.state, waiting.done, waiting.eta_s) == ("waiting", 0, None)
    publish(target, target.plan.clips[:6], tmp_path / "scratch")
    now = datetime.now(UTC)
    recent = tuple(now - timedelta(seconds=60 * number) for number in reversed(range(3)))
    started = now - timedelta(minutes=3)
    put_heartbeat(target, heartbeat_of("shard-10-of-12", shard="10/12", done=3, cpu_s=4.5, recent=recent, started_at=started))
    put_heartbeat(target, heartbeat_of("shard-2-of-12", shard="2/12", done=3, cpu_s=1.5, state="finished"))
    put_heartbeat(
        target,
        heartbeat_of(
            "shard-3-of-12", shard="3/12", age_s=45.0, host="node-9", current={"tiny-4-2": now - timedelta(minutes=2)}
        ),
    )
    put_heartbeat(target, heartbeat_of("shard-1-of-12", shard="1/12", age_s=20.0))
    failed = {target.plan.clips[0].clip_id: "was there in the end", target.plan.clips[-1].clip_id: "a <b>mesh</b> is missing"}
    put_heartbeat(target, heartbeat_of("shard-4-of-12", shard="4/12", state="failed", failed=2, failures=failed))
    assert target.write_heartbeat("shard-5-of-12", b"{}")
    status = watch.look()
    assert (status.state, status.done, status.missing, status.alive) == ("building", 6, 9, 2)
    assert [worker.heartbeat.name for worker in status.workers if worker.stale] == ["shard-3-of-12"]
    assert status.clips_per_min == pytest.approx(1.0, rel=0.02) and status.eta_s == pytest.approx(540.0, rel=0.02)
    assert status.failed == {target.plan.clips[-1].clip_id: "a <b>mesh</b> is missing"}
    assert status.cpu_s_per_clip == 1.0 and status.unreadable == ("shard-5-of-12",)
    board = build_board(status)
    names = [row.cells[0] for row in board.grids[0].rows]
    assert names == [f"shard-{number}-of-12" for number in (3, 4, 1, 10, 2)]
    facts = dict(board.facts)
    assert facts["workers"] == "2 at work (4 slots), 1 silent, 2 ended"
    assert facts["shards"] == "1 finished, 5 begun of 12" and facts["left"].startswith(("8 min", "9 min"))
    silent, *_ = board.grids[0].rows
    assert silent.cells[2] == "silent" and silent.cells[1] == "node-9:4242" and silent.tone == "warn"
    assert any("no heartbeat for 30 s from shard-3-of-12" in words for _, words in board.notes)
    words = text(board)
    assert "6/15  40.0 %" in words and "tiny-4-2 1 min 15 s" in words and "a <b>mesh</b>" in words
    assert "and 3 more workers" in text(board, rows=2)
    narrow = text(board, width=72)
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 72 and "node-9" not in narrow
    for name in names:  # a worker is one line
        (line,) = [line for line in narrow.splitlines() if line.startswith(f"{name} ")]
        assert any(word in line for word in ("silent", "failed", "running", "finished"))
    publish(target, target.plan.clips[6:], tmp_path / "scratch")
    assert watch.look().state == "complete" and watch.look().eta_s is None


def test_a_worker_whose_clock_is_wrong_is_judged_by_ours(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    clock = iter(float(second) for second in (0, 10, 25, 45))
    watch = watch_build(target.where)
    watch.clock_s = lambda: next(clock)
    put_heartbeat(target, heartbeat_of("a", age_s=3600.0))
    assert watch.look().workers[0].stale  # by both clocks: it may have been dead for an hour
    put_heartbeat(target, heartbeat_of("a", age_s=3595.0))
    ages = [(worker.age_s, worker.stale) for _ in range(3) for worker in watch.look().workers]
    assert ages == [(0.0, False), (15.0, False), (35.0, True)]


def test_a_beat_from_the_future_is_new(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    put_heartbeat(target, heartbeat_of("a", age_s=-500.0))
    (worker,) = watch_build(target.where).look().workers
    assert worker.alive and worker.age_s == 0.0


def test_storage_is_watched_as_a_folder_is(tmp_path: Path, storage: Storage) -> None:
    where, options = f"s3://{BUCKET}/{tmp_path.name}", RemoteOptions(endpoint=storage.endpoint)
    target = farm(where, options)
    publish(target, target.plan.clips[:2], tmp_path / "scratch")
    with HeartbeatWriter(target, "ray-head", "ray", slots=4) as writer:
        writer.assign(15)
        writer.started("tiny-3-0")
        put_heartbeat(target, writer.heartbeat())
        status = watch_build(where, options).look()
        assert (status.state, status.done, status.workers[0].heartbeat.slots) == ("building", 2, 4)
    ended = watch_build(where, options).look()
    assert writer.trouble is None and ended.workers[0].heartbeat.state == "finished" and ended.state == "stopped"


class Page(HTMLParser):
    """What a page holds: its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def board(**more: Any) -> Board:
    rows = (
        BoardRow(cells=("shard-1", "3"), tone="warn"),
        BoardRow(cells=("shard-2", "4")),
        BoardRow(cells=("<script>evil()</script>", "0"), tone="bad"),
    )
    grid = BoardGrid(name="workers", columns=("worker", "done"), rows=rows, numeric=frozenset({1}))
    meter = Meter(name="clips", done=9_999, total=10_000)
    own: dict[str, Any] = {
        "title": "a & b",
        "state": "building",
        "tone": "busy",
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return Board(
        **{
            **own,
            "meters": (meter,),
            "grids": (grid,),
            "notes": (("warn", "<i>note</i>"),),
            "facts": (("left", "3 h"),),
            **more,
        }
    )


def test_the_page_is_one_file_and_quotes_what_it_shows() -> None:
    page = board_page(board())
    parsed = Page(page)
    tags = [tag for tag, _ in parsed.tags]
    assert "script" not in tags and "i" in tags and "<script>evil()</script>" in parsed.words
    assert "http" not in page.replace("http-equiv", "") and not any("src" in attributes for _, attributes in parsed.tags)
    (meter,) = [attributes for _, attributes in parsed.tags if attributes.get("role") == "progressbar"]
    assert (meter["aria-valuenow"], meter["aria-valuemax"]) == ("9999", "10000") and "99.9 %" in parsed.words
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in parsed.tags
    assert "prefers-color-scheme: dark" in page and "refresh" not in page
    assert ("meta", {"http-equiv": "refresh", "content": "10"}) in Page(board_page(board(), refresh_s=10)).tags


def rows_of(app: MonitorApp, name: str) -> list[str]:
    table = app.query_one(f"#grid-{name}", DataTable)
    return [str(table.get_row_at(index)[0]) for index in range(table.row_count)]


def head(app: MonitorApp) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(app.query_one("#head", Static).content)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_live_view_follows_the_build_to_its_end(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    put_heartbeat(target, heartbeat_of("shard-1-of-2", shard="1/2"))
    put_heartbeat(target, heartbeat_of("shard-2-of-2", shard="2/2", age_s=300.0))
    watch = watch_build(target.where)
    app = MonitorApp(lambda: build_board(watch.look()), every_s=0.05)

    async def follow() -> None:
        async with app.run_test(size=(120, 40)) as pilot:

            async def until(looks: int) -> None:
                while app.looks < looks:
                    await pilot.pause(0.02)

            await until(1)
            assert rows_of(app, "workers") == ["shard-2-of-2", "shard-1-of-2"] and "0/15" in head(app)
            await pilot.press("t")
            assert rows_of(app, "workers") == ["shard-2-of-2"]
            await pilot.press("t")
            publish(target, target.plan.clips[:5], tmp_path / "scratch")
            await until(app.looks + 2)
            assert "5/15  33.3 %" in head(app) and rows_of(app, "workers") == ["shard-2-of-2", "shard-1-of-2"]
            publish(target, target.plan.clips[5:], tmp_path / "scratch")
            put_heartbeat(target, heartbeat_of("shard-1-of-2", shard="1/2", state="finished"))
            while app.board is None or not app.board.over:
                await pilot.pause(0.02)
            assert "complete" in head(app)
            looks = app.looks
            await pilot.press("r")
            await until(looks + 1)
            await pilot.press("q")

    asyncio.run(follow())
    assert app.return_code == 0


def test_the_live_view_outlives_a_store_that_is_gone_for_a_while() -> None:
    seen = threading.Event()

    def look() -> Board:
        if seen.is_set():
            return board(state="back again", over=True)
        if app.looks:
            raise InputError("the store [red]refuses")
        return board()

    app = MonitorApp(look, every_s=0.01)

    async def follow() -> None:
        async with app.run_test() as pilot:
            while "the store [red]refuses" not in str(app.query_one("#trouble", Static).content):
                await pilot.pause(0.01)
            assert "building" in head(app) and rows_of(app, "workers")[0] == "shard-1"
            seen.set()
            while app.board is None or not app.board.over:
                await pilot.pause(0.01)
            assert "back again" in head(app) and str(app.query_one("#trouble", Static).content) == ""

    asyncio.run(follow())


def test_one_look_as_text_as_json_and_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = farm(tmp_path / "store")
    publish(target, target.plan.clips[:4], tmp_path / "scratch")
    put_heartbeat(target, heartbeat_of("shard-1-of-2", shard="1/2", done=4))
    monitor(target.where, once=True, html=tmp_path / "pages" / "m.html")
    words = capsys.readouterr().out
    assert "4/15" in words and "shard-1-of-2" in words and "building" in words
    page = Page((tmp_path / "pages" / "m.html").read_text())
    assert "shard-1-of-2" in page.words and "26.7 %" in page.words
    monitor(target.where, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["done"], told["missing"], told["state"]) == ("build", 4, 11, "building")
    assert told["workers"][0]["name"] == "shard-1-of-2" and not told["workers"][0]["stale"]


def test_a_watched_page_is_written_until_the_build_is_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = farm(tmp_path / "store")
    publish(target, target.plan.clips, tmp_path / "scratch")
    put_heartbeat(target, heartbeat_of("shard-1-of-1", shard="1/1", done=15, state="finished"))
    monitor(target.where, html=tmp_path / "m.html", watch=True, every=0.5)
    page = Page((tmp_path / "m.html").read_text())
    assert "complete" in page.words and not any("http-equiv" in attributes for _, attributes in page.tags)
    assert "complete" in capsys.readouterr().err


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such place": (
        "nowhere/at-all",
        {"once": True},
        "nowhere/at-all does not exist; give the folder of a dataset or of a run",
    ),
    "no name": ("", {"once": True}, "a remote has no name"),
    "no dataset": ("plain", {"once": True}, "is neither a dataset nor a run"),
    "never built": ("old", {"once": True}, "no build is in progress and none was ever recorded"),
    "a file": ("file.txt", {"once": True}, "is neither a dataset nor a run"),
    "no farm": (f"s3://{BUCKET}/empty", {"once": True}, "no farm builds at s3://"),
    "no storage": ("s3://some-bucket/x", {"once": True, "endpoint": "http://127.0.0.1:9"}, "127.0.0.1:9"),
    "other scheme": ("ftp://x/y", {"once": True}, "'ftp://' is no kind of remote"),
    "no terminal": ("plain", {}, "the live view needs a terminal; give --once"),
    "watch what": ("plain", {"watch": True}, "give it a file with --html FILE"),
    "too often": ("plain", {"once": True, "every": 0.0}, "give at least 0.5 seconds"),
    "never": ("plain", {"once": True, "every": float("nan")}, "give at least 0.5 seconds"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: Storage) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain").mkdir()
    Path("file.txt").write_text("words")
    (Path("old") / ".stopdown").mkdir(parents=True)
    (Path("old") / ".stopdown" / "plan.json").write_text(tiny.plan().to_json())
    place, options, words = BAD[case]
    if case == "no farm":
        options = {**options, "endpoint": storage.endpoint}
    with pytest.raises(InputError) as caught:
        monitor(place, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_page_needs_a_name_that_a_browser_opens(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    with pytest.raises(InputError, match=r"m\.txt is no \.html file"):
        monitor(target.where, html=tmp_path / "m.txt")


def test_it_loads_neither_torch_nor_blender(tmp_path: Path) -> None:
    target = farm(tmp_path / "store")
    words = (
        f"import sys; from trainer.commands.monitor import command; command({target.where!r}, once=True);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'bpy', 'textual', 'obstore')))"
    )
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "waiting" in done.stdout, done.stderr


def test_durations_in_words() -> None:
    told = [in_words(seconds) for seconds in (-3, 0, 59.4, 60, 61, 3599, 3600, 7322, 90_000, 200_000)]
    assert told == [
        "0 s",
        "0 s",
        "59 s",
        "1 min 00 s",
        "1 min 01 s",
        "59 min 59 s",
        "1 h 00 min",
        "2 h 02 min",
        "1 d 01 h",
        "2 d 07 h",
    ]
