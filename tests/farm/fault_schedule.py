"""One random schedule of a small build: shards with faults, a finish with faults, a repair, and what must hold throughout."""

from __future__ import annotations

import hashlib
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from store_simulator import Faults, Killed, Scheduler, SimulatedRemote, Storage
from virtual_farm import BLENDER, Quiet, SyntheticRenderer, keys, plan, virtual

from generator.farm.finish import FinishReport, finish_target
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard
from generator.farm.target import Target, target_at
from generator.io.checksummed_json import parse_checksummed
from generator.remotes.base import object_file, record_file
from generator.store.objects import ClipRecord
from generator.versions.check import check
from generator.versions.gc import gc
from generator.versions.history.history import History
from scenes.errors import StopdownError

REPAIRS = 3  # clean runs of all shards, each with a finish, that a repaired store may take
MESSAGE_LENGTH = 500
_PATH = re.compile(r"(?:objects|records|versions)/[0-9a-f/]+(?:\.json)?|(?:plan|farm|head)\.json")


@dataclass
class Outcome:
    """What happened in one schedule."""

    seed: int
    met: Counter[str]
    requests: int
    rounds: int
    errors: Counter[str]
    kills: int
    repairs: int
    virtual_s: float
    content: str


@dataclass
class Schedule:
    """A store, its clients, and what was seen of them; `seed` says all that happens."""

    seed: int
    folder: Path
    faults: Faults
    salted: bool
    storage: Storage = field(default_factory=Storage)
    errors: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    _clients: int = 0
    _first: dict[str, bytes] = field(default_factory=dict)
    _advised: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"schedule {self.seed}")
        self.scheduler = Scheduler(self.rng)

    def remote(self, faults: Faults) -> SimulatedRemote:
        """Return a new client's way to the store."""
        self._clients += 1
        return SimulatedRemote(self.storage, self.scheduler, f"{self.seed} {self._clients}", faults, "sim://store")

    def round(self, faults: Faults, shards: list[Shard], machines: int, *, hasty: int = 0) -> None:
        """Run shards beside one another, each again when it is killed, and so many hasty clients that finish meanwhile."""
        for _ in range(hasty):
            self.scheduler.start(lambda: self._reported(lambda: self._finish(faults)), after_s=self.rng.uniform(0.0, 60.0))
        for number, shard in enumerate(shards):
            place = self.folder / f"machine-{number % machines}"
            self.scheduler.start(lambda s=shard, p=place: self._shard(faults, s, p), after_s=self.rng.uniform(0.0, 20.0))
        self.scheduler.run()
        self.check()

    def outage(self, name: str, from_s: float, for_s: float | None) -> None:
        """Let the store be full, or refuse the credentials, for some time from now on, or (None) until it is repaired."""

        def act() -> None:
            setattr(self.storage, name, True)
            if for_s is not None:
                self.scheduler.wait(for_s)
                setattr(self.storage, name, False)

        self.scheduler.start(act, after_s=from_s)

    def finish(self, faults: Faults, clients: int = 1) -> list[FinishReport]:
        """Let clients finish the build at about the same time; return the reports of those that came to an end."""
        reports: list[FinishReport] = []
        for _ in range(clients):
            act = lambda: self._reported(lambda: reports.append(self._finish(faults)))  # noqa: E731
            self.scheduler.start(act, after_s=self.rng.uniform(0.0, 5.0))
        self.scheduler.run()
        self.check()
        return reports

    def repair(self) -> None:
        """Do what an operator would: end every outage, and remove what errors said to remove, which must be torn indeed."""
        self.storage.full = self.storage.revoked = False
        for path in self._advised:
            if path in self.storage.files:
                assert path in self.storage.torn, f"an error advised to remove {path}, which is whole"
                self.storage.remove(path)
        self._advised.clear()

    def check(self) -> None:
        """Hold the laws: what records name is there and whole, and the first whole record of a clip stays as it is."""
        for key in keys().values():
            path = record_file(key)
            data = self.storage.files.get(path)
            if path in self._first:
                assert data == self._first[path], f"{path} changed"
            elif data is not None and path not in self.storage.torn:
                self._first[path] = data
            if data is not None and path not in self.storage.torn:
                record = ClipRecord.model_validate(parse_checksummed(data, path))
                for digest in (record.sha256_bytes, *record.frames.values()):
                    kept = self.storage.files.get(object_file(digest))
                    assert kept is not None, f"{path} names an object that is not there"
                    assert hashlib.sha256(kept).hexdigest() == digest, f"{path} names a torn object"

    def check_end(self, report: FinishReport) -> str:
        """Hold what a finished build must be, and return the content id of its version."""
        files = self.storage.visible()
        assert report.complete and report.version is not None
        version = json.loads(files[f"versions/{report.version}.json"])
        assert json.loads(files["head.json"])["version"] == report.version
        assert version["summary"]["clips"] == len(plan().clips)
        for digest in (version["manifest"], *version["plans"], *version["files"].values()):
            assert hashlib.sha256(files[object_file(digest)]).hexdigest() == digest
        named = {object_file(digest) for digest in _digests(self._first)}
        if not self.salted:  # every rendering made the same bytes, so nothing lies there that no record names
            assert _of_clips(files) == named
        assert _of_clips(self._collected(files)) == named  # of unlike renderings, gc takes those that came too late
        return str(version["content"])

    def _collected(self, files: dict[str, bytes]) -> dict[str, bytes]:
        """Return what is left of a store in a folder after garbage collection; its head must be whole then."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            history = History(Path(name))
            for path, data in files.items():
                file = history.root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            gc(history, grace_s=0.0)
            assert check(history, ["latest"]).damages == ()
            left = (path for path in history.root.rglob("*") if path.is_file())
            return {path.relative_to(history.root).as_posix(): path.read_bytes() for path in left}

    def _shard(self, faults: Faults, shard: Shard, place: Path) -> None:
        place.mkdir(exist_ok=True)
        salt = place.name if self.salted else ""
        render = SyntheticRenderer(self.scheduler, random.Random(f"{self.seed} {place.name} {shard}"), salt)
        options = ShardOptions(workers=1, unpublished=self.rng.randint(1, 3), scratch=place, time_limit_s=60.0)

        def act() -> None:
            report = build_shard(self.target(self.remote(faults)), shard, options=options, progress=Quiet(), render=render)
            assert report.complete

        while not self._reported(act):
            self.scheduler.wait(self.rng.uniform(0.0, 10.0))

    def _finish(self, faults: Faults) -> FinishReport:
        return finish_target(self.target(self.remote(faults)), message="a version")

    def target(self, remote: SimulatedRemote) -> Target:
        """Open the store for a client."""
        target = target_at(remote, plan(), blender=BLENDER, retry=remote.retry)
        return replace(target, keys=keys())  # computing them anew for every client would take most of the time

    def _reported(self, act: Callable[[], object]) -> bool:
        """Run a client to its end; return False where it was killed. An error must be one clear line."""
        try:
            act()
        except Killed:
            self.kills += 1
            return False
        except StopdownError as error:
            words = str(error)
            assert words and "\n" not in words and len(words) <= MESSAGE_LENGTH, words
            self.errors[type(error).__name__] += 1
            if "remove" in words:
                self._advised |= set(_PATH.findall(words))
        return True


def run_schedule(seed: int, folder: Path) -> Outcome:
    """Run the schedule of a seed in an empty folder; raises AssertionError, or what the code under test should not raise."""
    rng = random.Random(f"plan of {seed}")
    schedule = Schedule(seed, folder, draw_faults(rng), salted=rng.random() < 0.3)
    count = rng.randint(1, 4)
    rounds = rng.randint(1, 3)
    with virtual(schedule.scheduler, listing=rng.random() < 0.5):
        for _ in range(rounds):
            shards = [Shard(index, count) for index in range(1, count + 1)]
            shards += rng.choices(shards, k=rng.randint(0, 2))
            for name in ("full", "revoked"):
                if rng.random() < 0.2:
                    schedule.outage(name, rng.uniform(0.0, 60.0), rng.uniform(1.0, 60.0) if rng.random() < 0.5 else None)
            schedule.round(schedule.faults, shards, machines=rng.randint(1, len(shards)), hasty=rng.choice((0, 0, 1)))
            if rng.random() < 0.7:
                schedule.repair()
        reports = schedule.finish(schedule.faults, clients=rng.randint(1, 2))
        schedule.repair()
        repairs = 0
        while not any(report.complete for report in reports[-1:]):
            assert repairs < REPAIRS, f"seed {seed}: not complete after {repairs} clean runs"
            repairs += 1
            schedule.round(Faults(), [Shard(index, count) for index in range(1, count + 1)], machines=1)
            reports = schedule.finish(Faults())
            schedule.repair()
        content = schedule.check_end(reports[-1])
    if not schedule.salted:
        assert content == reference(), f"seed {seed}: another content than that of a build without faults"
    return Outcome(
        seed=seed,
        met=schedule.storage.met,
        requests=schedule.storage.requests.total(),
        rounds=rounds,
        errors=schedule.errors,
        kills=schedule.kills,
        repairs=repairs,
        virtual_s=schedule.scheduler.now_s,
        content=content,
    )


def draw_faults(rng: random.Random) -> Faults:
    """Return faults of some kinds, from rare to many."""
    shares = {name: rng.choice((0.0, 0.0, 0.01, 0.05, 0.15)) for name in ("before", "after", "late", "cut", "torn", "twice")}
    return Faults(**shares, kill=rng.choice((0.0, 0.0, 0.005, 0.02)), delay_s=rng.choice((0.0, 0.1, 3.0)))


@lru_cache(maxsize=1)
def reference() -> str:
    """Return the content id of the same build without faults, by one client."""
    with tempfile.TemporaryDirectory() as name:
        schedule = Schedule(0, Path(name), Faults(), salted=False)
        with virtual(schedule.scheduler, listing=False):
            schedule.round(Faults(), [Shard(1, 1)], machines=1)
            return schedule.check_end(schedule.finish(Faults())[-1])


def _of_clips(files: dict[str, bytes]) -> set[str]:
    """Return the objects that a rendering made."""
    return {path for path, data in files.items() if path.startswith("objects/") and data.startswith((b"clip ", b"frame "))}


def _digests(records: dict[str, bytes]) -> set[str]:
    """Return the objects that records name."""
    whole = [ClipRecord.model_validate(parse_checksummed(data, path)) for path, data in records.items()]
    return {digest for record in whole for digest in (record.sha256_bytes, *record.frames.values())}
