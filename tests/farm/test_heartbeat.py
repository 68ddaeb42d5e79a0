"""The beat of a worker: what it says, how seldom it is written, and that no store can stop a build through it."""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from monitor_support import beat

from generator.building import heartbeat
from generator.building.heartbeat import FAILURES, RECENT, BeatingProgress, Heartbeat, HeartbeatWriter, read_beats
from generator.console.progress import JsonProgress
from generator.remotes.base import RemoteError

NEVER_S = 3600.0


class Kept:
    """A store that keeps every beat it was given, and tells when the first came."""

    def __init__(self) -> None:
        self.written: list[Heartbeat] = []
        self.first = threading.Event()

    def write_beat(self, name: str, data: bytes) -> bool:
        self.written.append(Heartbeat.model_validate_json(data))
        self.first.set()
        return True


def seldom(store: heartbeat.BeatStore, **more: object) -> HeartbeatWriter:
    """Return a beater that writes at its start and at its end only."""
    return HeartbeatWriter(store, "shard-1-of-2", "shard", shard="1/2", write_every_s=NEVER_S, beat_every_s=NEVER_S, **more)


def test_a_thousand_clips_are_two_writes_and_the_last_one_tells_all() -> None:
    store = Kept()
    with seldom(store, slots=3) as beater:
        assert store.first.wait(60)
        beater.assign(1001)
        for number in range(1000):
            beater.started(f"clip-{number}")
            beater.done(f"clip-{number}", 0.25)
        beater.started("bad")
        beater.failed("bad", "mesh of\n two   lines")
        beater.started("at hand")
    first, last = store.written
    assert (first.state, first.done, first.slots, first.shard) == ("running", 0, 3, "1/2")
    assert (last.state, last.done, last.failed, last.cpu_s, last.assigned) == ("failed", 1000, 1, 250.0, 1001)
    assert last.failures == {"bad": "mesh of two lines"} and last.current == {} and len(last.recent) == RECENT
    assert last.started_at == first.started_at <= first.beat_at <= last.beat_at


def test_news_is_written_while_the_worker_goes_on() -> None:
    store = Kept()
    with HeartbeatWriter(store, "build", "build", write_every_s=0.01, beat_every_s=NEVER_S) as beater:
        beater.done("a", 1.0)
        while not any(one.done for one in store.written):
            time.sleep(0.01)
        beater.started("b")
        while "b" not in store.written[-1].current:
            time.sleep(0.01)
    assert store.written[-1].state == "finished" and [one.done for one in store.written][-1] == 1


def test_a_worker_in_a_long_render_is_seen_to_live() -> None:
    store = Kept()
    with HeartbeatWriter(store, "build", "build", write_every_s=0.01, beat_every_s=0.02):
        while len(store.written) < 4:  # with nothing new to tell
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "state"), [(KeyboardInterrupt(), "interrupted"), (SystemExit(3), "interrupted"), (ValueError("x"), "failed")]
)
def test_how_it_ended_is_told(error: BaseException, state: str) -> None:
    store = Kept()
    with pytest.raises(type(error)), seldom(store):
        raise error
    assert store.written[-1].state == state


@pytest.mark.parametrize("error", [RemoteError("the store is gone"), OSError(28, "No space left"), ValueError("torn")])
def test_a_store_that_fails_stops_nothing(error: Exception) -> None:
    class Failing:
        def write_beat(self, name: str, data: bytes) -> bool:
            raise error

    with seldom(Failing()) as beater:
        beater.done("a", 1.0)
    assert beater.beat().done == 1 and beater.trouble is not None and str(error) in beater.trouble


def test_a_store_that_refuses_is_trouble_until_it_takes_a_beat() -> None:
    answers = iter([False, True])

    class Refusing(Kept):
        def write_beat(self, name: str, data: bytes) -> bool:
            super().write_beat(name, data)
            return next(answers)

    store = Refusing()
    with seldom(store) as beater:
        while beater.trouble is None:
            time.sleep(0.01)
    assert beater.trouble is None and len(store.written) == 2


def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "END_S", 0.05)
    free = threading.Event()

    class Hanging:
        def write_beat(self, name: str, data: bytes) -> bool:
            return free.wait(600)

    with seldom(Hanging()) as beater:
        for number in range(100):
            beater.done(str(number), 1.0)
    assert beater.beat().done == 100 and not free.is_set()
    free.set()


def test_failures_are_bounded_to_the_last() -> None:
    beater = seldom(Kept())
    for number in range(FAILURES + 30):
        beater.failed(f"clip-{number}", "x" * 5000)
    told = beater.beat()
    assert told.failed == FAILURES + 30 and len(told.failures) == FAILURES and f"clip-{FAILURES + 29}" in told.failures
    assert len(told.model_dump_json()) < 20_000


def test_a_progress_tells_the_beater_what_is_at_hand() -> None:
    stream, beater = io.StringIO(), seldom(Kept())
    progress = BeatingProgress(JsonProgress(stream), beater)
    progress.start(10, 4)
    progress.worker(0, "loading Blender")
    progress.worker(0, "rendering a-1")
    progress.worker(1, "rendering b-1")
    assert set(beater.beat().current) == {"a-1", "b-1"} and beater.beat().assigned == 6
    progress.done("a-1")
    beater.done("a-1", 0.5)
    progress.worker(0, "rendering a-2")
    progress.worker(0, "idle")
    progress.failed("b-1", "no such mesh")
    progress.close()
    told = beater.beat()
    assert told.current == {} and (told.done, told.failed) == (1, 1) and told.failures == {"b-1": "no such mesh"}
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["start", "worker", "worker", "worker", "done", "worker", "worker", "failed"]


def test_a_rate_is_of_the_time_that_it_speaks_of() -> None:
    now = datetime.now(UTC)
    recent = tuple(now - timedelta(seconds=6 * number) for number in reversed(range(10)))
    young = beat("a", started_at=now - timedelta(minutes=1), recent=recent, done=10)
    assert young.clips_per_min(now) == pytest.approx(10.0)
    old = beat("a", started_at=now - timedelta(hours=5), recent=recent, done=10)
    assert old.clips_per_min(now) == pytest.approx(1.0)  # ten in the last ten minutes
    full = tuple(now - timedelta(seconds=number) for number in reversed(range(RECENT)))
    assert beat("a", started_at=now - timedelta(hours=5), recent=full).clips_per_min(now) == pytest.approx(61.0, abs=0.1)
    assert beat("a", started_at=now - timedelta(hours=5), recent=full).clips_per_min(now + timedelta(hours=1)) == 0.0


def test_what_is_no_beat_is_named_and_the_others_are_read() -> None:
    good = beat("shard-2-of-9").model_dump_json().encode()
    torn, other = good[:-20], json.dumps({**json.loads(good), "speed": 3}).encode()
    beats, unreadable = read_beats({"b": good, "a": torn, "c": other, "d": b"\xff\x00", "e": b""})
    assert [one.name for one in beats] == ["shard-2-of-9"] and unreadable == ("a", "c", "d", "e")
