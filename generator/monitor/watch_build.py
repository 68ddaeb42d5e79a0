"""Looking at a build from any machine that sees its store: records say what is done, heartbeats say who works and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from generator.building.heartbeat import STALE_S, Heartbeat, read_heartbeats
from generator.errors import DamagedError
from generator.farm.claim import FARM_FILE
from generator.farm.missing import LISTED_FROM, lookup, record_paths
from generator.farm.parts import HeldParts
from generator.farm.target import ClipKeys, Target, look_at
from generator.recipe.plan import ClipPlan
from generator.remotes.base import RemoteOptions, open_remote
from generator.remotes.folder import FolderRemote
from generator.remotes.retry import Retry
from generator.versions.working.working_folder import stored_plan
from scenes.errors import InputError

AT_ONCE = Retry(attempts=1)  # a person looks again

State = Literal["complete", "building", "waiting", "stopped"]


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker as seen now: its heartbeat, the seconds since it, whether it is likely gone, and its rate."""

    heartbeat: Heartbeat
    age_s: float
    clips_per_min: float

    @property
    def stale(self) -> bool:
        """Whether it says that it runs and has said nothing for too long."""
        return self.heartbeat.state == "running" and self.age_s > STALE_S

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.heartbeat.state == "running" and not self.stale


@dataclass(frozen=True, kw_only=True)
class BuildStatus:
    """A build as seen now; `failed` are messages of clips that are not there, by id."""

    where: str
    name: str
    blender: str
    clips: int
    missing: int
    workers: tuple[WorkerStatus, ...]
    failed: dict[str, str]
    unreadable: tuple[str, ...]
    at: datetime

    @property
    def done(self) -> int:
        """Clips in the store."""
        return self.clips - self.missing

    @property
    def alive(self) -> int:
        """Workers that run."""
        return sum(worker.alive for worker in self.workers)

    @property
    def state(self) -> State:
        """How the build stands."""
        if not self.missing:
            return "complete"
        return "building" if self.alive else "stopped" if self.workers else "waiting"

    @property
    def clips_per_min(self) -> float:
        """The rate of all workers that run."""
        return sum(worker.clips_per_min for worker in self.workers if worker.alive)

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the present rate, or None where nothing moves or nothing is left."""
        return 60.0 * self.missing / self.clips_per_min if self.missing and self.clips_per_min > 0 else None

    @property
    def cpu_s_per_clip(self) -> float | None:
        """CPU seconds of a clip, over all that the workers rendered."""
        done = sum(worker.heartbeat.done for worker in self.workers)
        return sum(worker.heartbeat.cpu_s for worker in self.workers) / done if done else None


@dataclass(kw_only=True)
class BuildWatch:
    """Looks at one build again and again; it holds numbers and one part of the plan, not the plan.

    A worker's silence is measured by this machine's clock once one of its heartbeats was seen to come in, else by both clocks.
    """

    target: Target
    clock_s: Callable[[], float] = time.monotonic
    _done: int | None = None
    _records: int = 0  # in the store when `_done` clips were counted
    _whole: dict[int, int] = field(default_factory=dict)  # parts of the plan that are all there, and how many clips they have
    _keys: dict[str, str | None] = field(default_factory=dict)  # of clips that a worker says failed
    _seen: dict[str, tuple[datetime, float, bool]] = field(
        default_factory=dict
    )  # heartbeat, when it was first seen, seen to come

    def look(self, now: datetime | None = None) -> BuildStatus:
        """Return the state of the build; raises InputError where the store cannot be reached."""
        at = now if now is not None else datetime.now(UTC)
        heartbeats, unreadable = read_heartbeats(self.target.heartbeats())
        done = self._count()
        workers = tuple(self._worker(heartbeat, at) for heartbeat in heartbeats)
        return BuildStatus(
            where=self.target.where,
            name=self.target.plan.name,
            blender=self.target.blender,
            clips=self.target.of,
            missing=self.target.of - done,
            workers=workers,
            failed=self._failed({name: words for heartbeat in heartbeats for name, words in heartbeat.failures.items()}),
            unreadable=unreadable,
            at=at,
        )

    def _count(self) -> int:
        """Return how many clips are there. Of many, every one is looked up at first and at the end, and between records are
        counted: what comes in meanwhile is of this build."""
        if self.target.of < LISTED_FROM:
            return self._look_up()
        records = sum(len(paths) for paths in record_paths(self.target))
        if self._done is not None and self._done + records - self._records < self.target.of:
            return max(0, self._done + records - self._records)
        self._done, self._records = self._look_up(), records
        return self._done

    def _look_up(self) -> int:
        """Look every clip up, but for those of parts that were whole before; no one has begun a part that is not there."""
        assert self.target.parts is not None, "a target for reading has parts"
        with lookup(self.target) as missing:
            return sum(self._there(number, missing) for number in range(self.target.parts.count))

    def _there(self, number: int, missing: Callable[[Target], list[ClipPlan]]) -> int:
        """Return how many clips of a part of the plan are there."""
        part = None if number in self._whole else self.target.stored_part(number)
        if part is None:
            return self._whole.get(number, 0)
        clips = len(part.plan.clips)
        missing_clips = len(missing(part))
        if not missing_clips:
            self._whole[number] = clips
        return clips - missing_clips

    def _failed(self, told: dict[str, str]) -> dict[str, str]:
        """Return the messages of clips that are not there, of those that workers told of."""
        self._keys = {clip_id: key for clip_id, key in self._keys.items() if clip_id in told}
        self._keys |= {clip_id: self.target.keys.get(clip_id) for clip_id in told if clip_id not in self._keys}
        return {clip_id: words for clip_id, words in told.items() if not self._is_there(self._keys[clip_id])}

    def _is_there(self, key: str | None) -> bool:
        if key is None:
            return False
        try:
            return self.target.record(key) is not None
        except DamagedError:
            return False

    def _worker(self, heartbeat: Heartbeat, now: datetime) -> WorkerStatus:
        clock_s = self.clock_s()
        before = self._seen.get(heartbeat.name)
        if before is None or before[0] != heartbeat.beat_at:
            before = self._seen[heartbeat.name] = (heartbeat.beat_at, clock_s, before is not None)
        _, seen_s, came = before
        age_s = clock_s - seen_s if came else heartbeat.age_s(now)
        there = heartbeat.beat_at + timedelta(seconds=age_s)  # what the worker's own clock says now
        return WorkerStatus(heartbeat=heartbeat, age_s=age_s, clips_per_min=heartbeat.clips_per_min(there))


def watch_build(where: str, options: RemoteOptions | None = None) -> BuildWatch:
    """Return what looks at the build in a folder or at s3://BUCKET/PREFIX; raises InputError where none ever was."""
    remote = open_remote(where, options)
    if isinstance(remote, FolderRemote):
        if not remote.path.exists():
            raise InputError(f"{where} does not exist; give the folder of a dataset or of a run, or s3://BUCKET/PREFIX")
        if not (remote.root / FARM_FILE).is_file():
            return BuildWatch(target=_own_build(remote))
    return BuildWatch(target=look_at(where, options, retry=AT_ONCE))


def _own_build(remote: FolderRemote) -> Target:
    """Return the target of a build that one machine makes in its own folder."""
    plan = stored_plan(remote.path)
    if plan is None:
        raise InputError(
            f"{remote.path} is neither a dataset nor a run (no .stopdown/plan.json, no run.json); give the folder of one"
        )
    parts = HeldParts(plan, remote, AT_ONCE)
    target = Target(
        where=remote.name, remote=remote, plan=plan, blender="", keys={}, retry=AT_ONCE, parts=parts, of=parts.clips
    )
    heartbeats, _ = read_heartbeats(target.heartbeats())
    told = max(
        (heartbeat for heartbeat in heartbeats if heartbeat.blender is not None),
        key=lambda heartbeat: heartbeat.beat_at,
        default=None,
    )
    if told is None or told.blender is None:
        raise InputError(
            f"{remote.path}: no build is in progress and none was ever recorded; `stopdown status` and `stopdown log` tell "
            "about a dataset that is finished"
        )
    return replace(target, blender=told.blender, keys=ClipKeys(plan, told.blender))
