"""What a worker of a build tells about itself: a small file beside the dataset, overwritten every few seconds.

A heartbeat is for people (`stopdown monitor`): a build decides nothing by it, and a store that refuses one does not stop the
build. A thread of its own writes it, so that neither a long render nor a slow store delays it or is delayed by it.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import AwareDatetime, Field, ValidationError

from generator.console.progress import Progress
from generator.io.atomic import write_atomic
from scenes.spec import Spec

HEARTBEATS = "farm"  # the folder of heartbeats beside the records
WRITE_EVERY_S = 3.0  # at most, where there is news
BEAT_EVERY_S = 10.0  # at least, so that a worker in a long render is seen to live
STALE_S = 30.0  # without a heartbeat for so long, a worker is likely gone
END_S = 5.0  # how long the end of a worker may wait for its last heartbeat to be written

RECENT = 64
FAILURES = 20
MESSAGE_CHARACTERS = 300
CURRENT = 256

State = Literal["running", "finished", "failed", "interrupted"]
Count = Annotated[int, Field(ge=0)]


class Heartbeat(Spec):
    """One worker, as it last said it was.

    `slots` are the clips it renders at once; `assigned`, `done` and `failed` count clips; `current` says since when each clip
    at hand is being rendered; `recent` holds when the last clips were done; `failures` the messages of the last clips that
    failed for good, by id; `blender` is the version that renders, where nothing else beside the dataset tells it.
    """

    name: str
    kind: str
    host: str
    pid: int
    shard: str | None = None
    blender: str | None = None
    slots: int = Field(ge=1)
    state: State
    started_at: AwareDatetime
    beat_at: AwareDatetime
    assigned: Count
    done: Count
    failed: Count
    cpu_s: float = Field(ge=0, allow_inf_nan=False)
    current: dict[str, AwareDatetime] = Field(default_factory=dict)
    recent: tuple[AwareDatetime, ...] = ()
    failures: dict[str, str] = Field(default_factory=dict)

    def age_s(self, now: datetime) -> float:
        """Return the seconds since the heartbeat, by the clocks of two machines; never negative."""
        return max(0.0, (now - self.beat_at).total_seconds())

    def clips_per_min(self, now: datetime, window_s: float = 600.0) -> float:
        """Return the rate over the last `window_s` seconds, or over as many of them as the heartbeat remembers."""
        span_s = min(window_s, (now - self.started_at).total_seconds())
        if len(self.recent) == RECENT:  # there were more before, of which the heartbeat says nothing
            span_s = min(span_s, (now - self.recent[0]).total_seconds())
        inside = sum(1 for at in self.recent if (now - at).total_seconds() <= span_s)
        return 60.0 * inside / max(1.0, span_s)


def read_heartbeats(files: Mapping[str, bytes]) -> tuple[tuple[Heartbeat, ...], tuple[str, ...]]:
    """Return the heartbeats in files by name, in order of worker name, and the names of files that are none."""
    heartbeats, unreadable = [], []
    for name, data in sorted(files.items()):
        try:
            heartbeats.append(Heartbeat.model_validate_json(data))
        except ValidationError:
            unreadable.append(name)
    return tuple(heartbeats), tuple(unreadable)


class HeartbeatStore(Protocol):
    """Where heartbeats go, such as a `generator.farm.target.Target`."""

    def write_heartbeat(self, name: str, data: bytes) -> bool:
        """Overwrite the heartbeat of a worker; return whether it could be written."""
        ...


class HeartbeatFolder:
    """Heartbeats in the `.stopdown` of a dataset that one machine builds, where a `Target` of that folder finds them."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write_heartbeat(self, name: str, data: bytes) -> bool:
        """Write the heartbeat by temporary file and rename."""
        write_atomic(self._root / HEARTBEATS / f"{name}.json", data)
        return True


class HeartbeatWriter:
    """Keeps the heartbeat of one worker: `with HeartbeatWriter(target, "shard-3-of-64", "shard", slots=2) as writer: …`.

    Leaving the context writes the last heartbeat: finished, failed (after an error, or where clips failed) or interrupted.
    Safe to use from several threads. `trouble` is the last error of the store, or None.
    """

    def __init__(
        self,
        target: HeartbeatStore,
        name: str,
        kind: str,
        *,
        slots: int = 1,
        shard: str | None = None,
        assigned: int = 0,
        blender: str | None = None,
        write_every_s: float = WRITE_EVERY_S,
        heartbeat_every_s: float = BEAT_EVERY_S,
    ) -> None:
        self.name = name
        self.trouble: str | None = None
        self._target = target
        self._fixed: dict[str, Any] = {"name": name, "kind": kind, "host": socket.gethostname(), "slots": slots}
        self._fixed |= {"shard": shard, "blender": blender}
        self._write_every_s, self._beat_every_s = write_every_s, heartbeat_every_s
        self._news = threading.Condition()
        self._assigned, self._done, self._failed, self._cpu_s = assigned, 0, 0, 0.0
        self._current: dict[str, datetime] = {}
        self._recent: deque[datetime] = deque(maxlen=RECENT)
        self._failures: dict[str, str] = {}
        self._state: State = "running"
        self._changed = self._ended = False
        self._started_at = datetime.now(UTC)
        self._thread = threading.Thread(target=self._keep_writing, name=f"heartbeat-{name}", daemon=True)

    def __enter__(self) -> Self:
        self._started_at = datetime.now(UTC)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._news:
            if kind is None:
                self._state = "failed" if self._failed else "finished"
            else:
                self._state = "interrupted" if issubclass(kind, KeyboardInterrupt | SystemExit) else "failed"
            self._current.clear()
            self._ended = True
            self._news.notify_all()
        self._thread.join(END_S)  # a store that hangs is not waited for

    def assign(self, clips: int) -> None:
        """Count clips that this worker is to render."""
        with self._news:
            self._assigned += clips
            self._tell()

    def started(self, clip_id: str) -> None:
        """Say that a clip is being rendered."""
        with self._news:
            self._current[clip_id] = datetime.now(UTC)
            self._tell()

    def stopped(self, clip_id: str) -> None:
        """Say that a clip is no longer being rendered, without a result; it may be tried again."""
        with self._news:
            self._current.pop(clip_id, None)
            self._tell()

    def done(self, clip_id: str, cpu_s: float) -> None:
        """Count a clip that is in the store, and its CPU seconds."""
        with self._news:
            self._current.pop(clip_id, None)
            self._done += 1
            self._cpu_s += cpu_s
            self._recent.append(datetime.now(UTC))
            self._tell()

    def failed(self, clip_id: str, message: str) -> None:
        """Count a clip that failed for good."""
        with self._news:
            self._current.pop(clip_id, None)
            self._failed += 1
            self._failures.pop(clip_id, None)
            self._failures[clip_id] = " ".join(message.split())[:MESSAGE_CHARACTERS]
            while len(self._failures) > FAILURES:
                del self._failures[next(iter(self._failures))]
            self._tell()

    def heartbeat(self) -> Heartbeat:
        """Return what would be written now."""
        with self._news:
            return Heartbeat(
                **self._fixed,
                pid=os.getpid(),
                state=self._state,
                started_at=self._started_at,
                beat_at=datetime.now(UTC),
                assigned=self._assigned,
                done=self._done,
                failed=self._failed,
                cpu_s=round(self._cpu_s, 3),
                current=dict(list(self._current.items())[:CURRENT]),
                recent=tuple(self._recent),
                failures=dict(self._failures),
            )

    def _tell(self) -> None:
        self._changed = True
        self._news.notify_all()

    def _keep_writing(self) -> None:
        """Write at once, then where there is news but not too often, now and then without any, and at the end."""
        while True:
            with self._news:
                self._changed, last = False, self._ended
            self._write()
            written_s = time.monotonic()
            if last:
                return
            with self._news:
                self._news.wait_for(lambda: self._ended, timeout=self._write_every_s)
                left_s = written_s + self._beat_every_s - time.monotonic()
                self._news.wait_for(lambda: self._ended or self._changed, timeout=max(0.0, left_s))

    def _write(self) -> None:
        try:
            written = self._target.write_heartbeat(self.name, self.heartbeat().model_dump_json(exclude_none=True).encode())
            self.trouble = None if written else "the store refused the last heartbeat"
        except Exception as error:  # whatever a store can raise: the build goes on, and the heartbeat is the only loss
            self.trouble = f"{type(error).__name__}: {error}"


class HeartbeatProgress:
    """A `Progress` that tells a `HeartbeatWriter` what is rendered and what failed; `done` is left to the caller."""

    def __init__(self, progress: Progress, writer: HeartbeatWriter) -> None:
        self._progress = progress
        self._writer = writer
        self._at_hand: dict[int, str] = {}

    def start(self, clips: int, finished: int) -> None:
        """Begin; the clips that are left are this worker's."""
        self._progress.start(clips, finished)
        self._writer.assign(clips - finished)

    def worker(self, number: int, state: str) -> None:
        """Tell which clip a render process has at hand."""
        self._progress.worker(number, state)
        before = self._at_hand.pop(number, None)
        if before is not None:
            self._writer.stopped(before)
        if state.startswith(RENDERING):
            self._at_hand[number] = state.removeprefix(RENDERING)
            self._writer.started(self._at_hand[number])

    def done(self, clip_id: str) -> None:
        """Count a finished clip."""
        self._progress.done(clip_id)

    def failed(self, clip_id: str, message: str) -> None:
        """Tell which clip failed for good."""
        self._progress.failed(clip_id, message)
        self._writer.failed(clip_id, message)

    def note(self, words: str) -> None:
        """Say something worth knowing."""
        self._progress.note(words)

    def close(self) -> None:
        """End."""
        self._progress.close()


RENDERING = "rendering "  # how `RenderPool` begins the state of a process that renders; the clip's id follows
