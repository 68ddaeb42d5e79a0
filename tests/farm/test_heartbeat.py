"""The heartbeat of a worker: what it says, how seldom it is written, and that no store can stop a build through it."""

from __future__ import annotations

import io
import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from monitor_support import heartbeat_of

from generator.building import heartbeat
from generator.building.heartbeat import FAILURES, RECENT, Heartbeat, HeartbeatProgress, HeartbeatWriter, read_heartbeats
from generator.console.progress import JsonProgress
from generator.errors import RemoteError

NEVER_S = 3600.0


class Kept:
    """A store that keeps every heartbeat it was given, and tells when the first came."""

    def __init__(self) -> None:
        self.written: list[Heartbeat] = []
        self.first = threading.Event()

    def write_heartbeat(self, name: str, data: bytes) -> bool:
        self.written.append(Heartbeat.model_validate_json(data))
        self.first.set()
        return True


def seldom(store: heartbeat.HeartbeatStore, **more: object) -> HeartbeatWriter:
    """Return a writer that writes at its start and at its end only."""
    return HeartbeatWriter(
        store, "shard-1-of-2", "shard", shard="1/2", write_every_s=NEVER_S, heartbeat_every_s=NEVER_S, **more
    )


def test_a_thousand_clips_are_two_writes_and_the_last_one_tells_all() -> None:
    store = Kept()
    with seldom(store, slots=3) as writer:
        assert store.first.wait(60)
        writer.assign(1001)
        for number in range(1000):
            writer.started(f"clip-{number}")
            writer.done(f"clip-{number}", 0.25)
        writer.started("bad")
        writer.failed("bad", "mesh of\n two   lines")
        writer.started("at hand")
    first, last = store.written
    assert (first.state, first.done, first.slots, first.shard) == ("running", 0, 3, "1/2")
    assert (last.state, last.done, last.failed, last.cpu_s, last.assigned) == ("failed", 1000, 1, 250.0, 1001)
    assert last.failures == {"bad": "mesh of two lines"} and last.current == {} and len(last.recent) == RECENT
    assert last.started_at == first.started_at <= first.beat_at <= last.beat_at


def test_news_is_written_while_the_worker_goes_on() -> None:
    store = Kept()
    with HeartbeatWriter(store, "build", "build", write_every_s=0.01, heartbeat_every_s=NEVER_S) as writer:
        writer.done("a", 1.0)
        while not any(one.done for one in store.written):
            time.sleep(0.01)
        writer.started("b")
        while "b" not in store.written[-1].current:
            time.sleep(0.01)
    assert store.written[-1].state == "finished" and [one.done for one in store.written][-1] == 1


def test_a_worker_in_a_long_render_is_seen_to_live() -> None:
    store = Kept()
    with HeartbeatWriter(store, "build", "build", write_every_s=0.01, heartbeat_every_s=0.02):
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
        def write_heartbeat(self, name: str, data: bytes) -> bool:
            raise error

    with seldom(Failing()) as writer:
        writer.done("a", 1.0)
    assert writer.heartbeat().done == 1 and writer.trouble is not None and str(error) in writer.trouble


def test_a_store_that_refuses_is_trouble_until_it_takes_a_beat() -> None:
    answers = iter([False, True])

    class Refusing(Kept):
        def write_heartbeat(self, name: str, data: bytes) -> bool:
            super().write_heartbeat(name, data)
            return next(answers)

    store = Refusing()
    with seldom(store) as writer:
        while writer.trouble is None:
            time.sleep(0.01)
    assert writer.trouble is None and len(store.written) == 2


def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "END_S", 0.05)
    free = threading.Event()

    class Hanging:
        def write_heartbeat(self, name: str, data: bytes) -> bool:
            return free.wait(600)

    with seldom(Hanging()) as writer:
        for number in range(100):
            writer.done(str(number), 1.0)
    assert writer.heartbeat().done == 100 and not free.is_set()
    free.set()


def test_failures_are_bounded_to_the_last() -> None:
    writer = seldom(Kept())
    for number in range(FAILURES + 30):
        writer.failed(f"clip-{number}", "x" * 5000)
    told = writer.heartbeat()
    assert told.failed == FAILURES + 30 and len(told.failures) == FAILURES and f"clip-{FAILURES + 29}" in told.failures
    assert len(told.model_dump_json()) < 20_000


def test_a_progress_tells_the_beater_what_is_at_hand() -> None:
    stream, writer = io.StringIO(), seldom(Kept())
    progress = HeartbeatProgress(JsonProgress(stream), writer)
    progress.start(10, 4)
    progress.worker(0, "loading Blender")
    progress.worker(0, "rendering a-1")
    progress.worker(1, "rendering b-1")
    assert set(writer.heartbeat().current) == {"a-1", "b-1"} and writer.heartbeat().assigned == 6
    progress.done("a-1")
    writer.done("a-1", 0.5)
    progress.worker(0, "rendering a-2")
    progress.worker(0, "idle")
    progress.failed("b-1", "no such mesh")
    progress.close()
    told = writer.heartbeat()
    assert told.current == {} and (told.done, told.failed) == (1, 1) and told.failures == {"b-1": "no such mesh"}
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["start", "worker", "worker", "worker", "done", "worker", "worker", "failed"]


def test_a_rate_is_of_the_time_that_it_speaks_of() -> None:
    now = datetime.now(UTC)
    recent = tuple(now - timedelta(seconds=6 * number) for number in reversed(range(10)))
    young = heartbeat_of("a", started_at=now - timedelta(minutes=1), recent=recent, done=10)
    assert young.clips_per_min(now) == pytest.approx(10.0)
    old = heartbeat_of("a", started_at=now - timedelta(hours=5), recent=recent, done=10)
    assert old.clips_per_min(now) == pytest.approx(1.0)  # ten in the last ten minutes
    full = tuple(now - timedelta(seconds=number) for number in reversed(range(RECENT)))
    assert heartbeat_of("a", started_at=now - timedelta(hours=5), recent=full).clips_per_min(now) == pytest.approx(
        61.0, abs=0.1
    )
    assert heartbeat_of("a", started_at=now - timedelta(hours=5), recent=full).clips_per_min(now + timedelta(hours=1)) == 0.0


def test_what_is_no_beat_is_named_and_the_others_are_read() -> None:
    good = heartbeat_of("shard-2-of-9").model_dump_json().encode()
    torn, other = good[:-20], json.dumps({**json.loads(good), "speed": 3}).encode()
    heartbeats, unreadable = read_heartbeats({"b": good, "a": torn, "c": other, "d": b"\xff\x00", "e": b""})
    assert [one.name for one in heartbeats] == ["shard-2-of-9"] and unreadable == ("a", "c", "d", "e")
