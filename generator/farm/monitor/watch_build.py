"""Looking at a build from any machine that sees its store: records say what is done, beats say who works and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from generator.farm.claim import FARM_FILE
from generator.farm.heartbeat import STALE_S, Beat, read_beats
from generator.farm.patience import Patience
from generator.farm.target import ClipKeys, Target, look_at
from generator.plan import ClipPlan
from generator.versions.remote import RemoteOptions, open_remote
from generator.versions.remote_folder import FolderRemote
from generator.working_folder import stored_plan
from scenes.errors import InputError

AT_ONCE = Patience(attempts=1)  # a person looks again

State = Literal["complete", "building", "waiting", "stopped"]


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """A worker as seen now: its beat, the seconds since it, whether it is likely gone, and its rate."""

    beat: Beat
    age_s: float
    clips_per_min: float

    @property
    def stale(self) -> bool:
        """Whether it says that it runs and has said nothing for too long."""
        return self.beat.state == "running" and self.age_s > STALE_S

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.beat.state == "running" and not self.stale


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
        done = sum(worker.beat.done for worker in self.workers)
        return sum(worker.beat.cpu_s for worker in self.workers) / done if done else None


@dataclass(kw_only=True)
class BuildWatch:
    """Looks at one build again and again; what was there once is not asked for again.

    A worker's silence is measured by this machine's clock once a beat of it was seen to come in, before that by both clocks.
    """

    target: Target
    clock_s: Callable[[], float] = time.monotonic
    _missing: list[ClipPlan] | None = None
    _seen: dict[str, tuple[datetime, float, bool]] = field(default_factory=dict)  # beat, when it was first seen, seen to come

    def look(self, now: datetime | None = None) -> BuildStatus:
        """Return the state of the build; raises InputError where the store cannot be reached."""
        at = now if now is not None else datetime.now(UTC)
        beats, unreadable = read_beats(self.target.beats())
        self._missing = self.target.missing(self._missing)
        lacking = {clip.clip_id for clip in self._missing}
        workers = tuple(self._worker(beat, at) for beat in beats)
        return BuildStatus(
            where=self.target.where,
            name=self.target.plan.name,
            blender=self.target.blender,
            clips=len(self.target.plan.clips),
            missing=len(lacking),
            workers=workers,
            failed={name: words for beat in beats for name, words in beat.failures.items() if name in lacking},
            unreadable=unreadable,
            at=at,
        )

    def _worker(self, beat: Beat, now: datetime) -> WorkerStatus:
        clock_s = self.clock_s()
        before = self._seen.get(beat.name)
        if before is None or before[0] != beat.beat_at:
            before = self._seen[beat.name] = (beat.beat_at, clock_s, before is not None)
        _, seen_s, came = before
        age_s = clock_s - seen_s if came else beat.age_s(now)
        there = beat.beat_at + timedelta(seconds=age_s)  # what the worker's own clock says now
        return WorkerStatus(beat=beat, age_s=age_s, clips_per_min=beat.clips_per_min(there))


def watch_build(where: str, options: RemoteOptions | None = None) -> BuildWatch:
    """Return what looks at the build in a folder or at s3://BUCKET/PREFIX; raises InputError where none ever was."""
    remote = open_remote(where, options)
    if isinstance(remote, FolderRemote):
        if not remote.path.exists():
            raise InputError(f"{where} does not exist; give the folder of a dataset or of a run, or s3://BUCKET/PREFIX")
        if not (remote.root / FARM_FILE).is_file():
            return BuildWatch(target=_own_build(remote))
    return BuildWatch(target=look_at(where, options, patience=AT_ONCE))


def _own_build(remote: FolderRemote) -> Target:
    """Return the target of a build that one machine makes in its own folder."""
    plan = stored_plan(remote.path)
    if plan is None:
        raise InputError(
            f"{remote.path} is neither a dataset nor a run (no .stopdown/plan.json, no run.json); give the folder of one"
        )
    target = Target(where=remote.name, remote=remote, plan=plan, blender="", keys={}, patience=AT_ONCE)
    beats, _ = read_beats(target.beats())
    told = max((beat for beat in beats if beat.blender is not None), key=lambda beat: beat.beat_at, default=None)
    if told is None or told.blender is None:
        raise InputError(
            f"{remote.path}: no build is in progress and none was ever recorded; `stopdown status` and `stopdown log` tell "
            "about a dataset that is finished"
        )
    return Target(
        where=remote.name, remote=remote, plan=plan, blender=told.blender, keys=ClipKeys(plan, told.blender), patience=AT_ONCE
    )
