"""What each of a farm's processes holds, for builds of 10^3 to 10^6 clips: the shard, the driver, the end and the monitor.

Every role runs in a process of its own, on a store that lies in one file on the disk; what is told is how far its resident
memory rose above that of the same process before it began, and the CPU seconds of a clip. The code is the farm's own, from the
claim to the report. Two things are synthetic: a scene is a copy of one that was drawn (drawing takes milliseconds), and a clip
is a few hundred bytes. The end is measured twice: while it checks, and when it commits a version too.

python benchmarks/farm_memory.py            # results/farm_memory.json
python benchmarks/farm_memory.py --clips 1000 10000
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from generator.console.progress import JsonProgress, Progress
from generator.farm import parts
from generator.farm.claim import read_claim
from generator.farm.finish import finish_target
from generator.farm.parts import StoredParts, header
from generator.farm.ray.pending import PendingWork, halved, missing_counts, one
from generator.farm.shard_build import ShardOptions, build_shard
from generator.farm.shards import Shard
from generator.farm.target import StoredKeys, Target, target_at
from generator.monitor.watch_build import BuildWatch
from generator.recipe.load import parse_recipe
from generator.recipe.plan import Plan, draw_plan, plan_of
from generator.recipe.schema import Recipe
from generator.remotes.retry import Retry
from generator.render.messages import ClipJob, SceneJob, WorkerSettings
from generator.render.pool import PoolOptions
from generator.store.objects import ClipRecord, ReadingRecord, Store

CLIPS_PER_SCENE = 10
SLOTS = 64
BLENDER = "5.0.1"
RESULTS = Path(__file__).parent / "results" / "farm_memory.json"


class DiskStore:
    """A remote in one file on the disk, so that what lies there is not in the memory that is measured."""

    name = "disk"

    def __init__(self, file: Path) -> None:
        self._base = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._alone = threading.Lock()
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -2048"):
            self._rows(f"PRAGMA {pragma}")
        self._rows("CREATE TABLE IF NOT EXISTS file (path TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID")

    def check(self) -> None:
        """It is one."""

    def prepare(self) -> None:
        """It is prepared."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        rows = self._rows("SELECT data FROM file WHERE path = ?", path)
        return rows[0][0] if rows else None

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the sizes of files under a folder."""
        query = "SELECT path, length(data) FROM file WHERE path > ? AND path < ?"
        return dict(self._rows(query, f"{folder}/", f"{folder}0"))  # "0" follows "/"

    def put(self, path: str, data: bytes | Path) -> bool:
        """Write a file where there is none."""
        if isinstance(data, Path):
            return self._put_file(path, data)
        return bool(self._rows("INSERT OR IGNORE INTO file VALUES (?, ?) RETURNING 1", path, data))

    def _put_file(self, path: str, file: Path) -> bool:
        """Write a large file beside the others, in pieces of a megabyte, as storage takes uploads in parts."""
        if self.read(path) is not None:
            return False
        with file.open("rb") as source:
            for number, piece in enumerate(iter(lambda: source.read(2**20), b"")):
                self._rows("INSERT INTO file VALUES (?, ?)", f"pieces/{path}/{number:06d}", piece)
        return self.put(path, f"in pieces: {file.stat().st_size} B".encode())

    def swap(self, path: str, expected: bytes | None, data: bytes) -> bool:
        """Write a file that still holds what is expected."""
        if self.read(path) != expected:
            return False
        self.overwrite(path, data)
        return True

    def overwrite(self, path: str, data: bytes) -> None:
        """Write a file."""
        self._rows("INSERT OR REPLACE INTO file VALUES (?, ?)", path, data)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is collected here."""
        yield

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._alone:
            return self._base.execute(query, values).fetchall()


class CopiedScenes(parts.RecipeSource):
    """Scenes that are copies of the recipe's first: equal in size to real ones, with ids of their own."""

    def draw(self, first: int, count: int) -> Plan:
        """Return the part with so many scenes from the one numbered `first`."""
        scenes, clips = [], []
        pattern = _drawn(self.recipe.model_dump_json())
        for key in (self.keys[position] for position in range(first, first + count)):
            own = {"scene_id": key.scene_id, "scene": key.number}
            ids = key.clip_ids
            tint = pattern.scenes[0].spec.light.model_copy(
                update={"strength": 1.0 + key.number * 1e-6}
            )  # no two keys are equal
            spec = pattern.scenes[0].spec.model_copy(update={"light": tint})
            scenes.append(pattern.scenes[0].model_copy(update={"scene_id": key.scene_id, "clip_ids": ids, "spec": spec}))
            clips += [clip.model_copy(update={**own, "clip_id": id}) for clip, id in zip(pattern.clips, ids, strict=True)]
        return plan_of(self.recipe, scenes, clips)


@lru_cache(maxsize=1)
def _drawn(recipe: str) -> Plan:
    return draw_plan(Recipe.model_validate_json(recipe), [parts.RecipeSource(Recipe.model_validate_json(recipe)).keys[0]])


def recipe_of(clips: int) -> Recipe:
    """Return a recipe of so many clips, ten for each scene."""
    text = f"""
name = "memory"
[video]
width = 64
height = 64
[[pyramid]]
axes = "temperature"
family = "tabletop"
layers = [{CLIPS_PER_SCENE}]
scenes_per_layer = {clips // CLIPS_PER_SCENE}
frames = 1
"""
    return parse_recipe(text, source="farm_memory")


def target(store: Path, clips: int) -> Target:
    """Return the claimed store."""
    return target_at(DiskStore(store), recipe_of(clips), blender=BLENDER)


def record_of(store: Store, clip: ClipJob) -> ClipRecord:
    """Store a synthetic clip's object and return its record."""
    data = clip.key.encode() * 4
    return ClipRecord(
        key=clip.key,
        sha256_bytes=store.put(data),
        sha256_frames=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        readings={axis: ReadingRecord(value=value, confidence=0.9) for axis, value in clip.values.items()},
        blender=BLENDER,
        encoder="synthetic",
        cpu_s=1.0,
    )


def render(
    settings: WorkerSettings,
    options: PoolOptions,
    jobs: Iterable[SceneJob],
    progress: Progress,
    on_done: Callable[[str, float], None],
) -> dict[str, str]:
    """Render nothing: store a few bytes for every clip."""
    store = Store(settings.store)
    for job in jobs:
        for clip in job.clips:
            store.put_record(record_of(store, clip))
            on_done(clip.clip_id, 1.0)
    return {}


def shard(store: Path, clips: int) -> None:
    """Render and publish every clip, as the one shard of one."""
    options = ShardOptions(scratch=store.parent)
    report = build_shard(target(store, clips), Shard(1, 1), options=options, progress=silent(), render=render)
    assert report.rendered == clips and report.complete


def driver(store: Path, clips: int, *, left: int | None = None) -> None:
    """Hand every missing clip out to 64 slots, as the driver of a cluster does, and hear that it is there."""
    where = target(store, clips)
    counts = missing_counts(where)
    assert sum(counts.values()) == (clips if left is None else left)
    work = PendingWork(where, counts)
    slots: deque[SceneJob] = deque()
    while work.left:
        while len(slots) < SLOTS and (job := work.take()) is not None:
            parts_of_it = halved(job) or (job, None)  # as when a slot takes from another
            slots.extend(part for part in parts_of_it if part is not None)
        job = slots.popleft()
        for clip in job.clips:
            work.settle(one(job, clip).clips[0].clip_id)


def finish(store: Path, clips: int, *, message: str | None = None) -> None:
    """Check every clip; commit only where there is a message."""
    where = target(store, clips)
    report = finish_target(where, message=message)
    assert report.complete and (report.version is None) == (message is None)


def monitor(store: Path, clips: int) -> None:
    """Look twice, as a live view does."""
    remote = DiskStore(store)
    claim = read_claim(remote, Retry())
    stored = StoredParts(claim.recipe, claim.parts, claim.clips, remote, Retry())
    keys = StoredKeys(stored, BLENDER)
    where = Target(
        where="disk", remote=remote, plan=header(claim.recipe), blender=BLENDER, keys=keys, parts=stored, of=claim.clips
    )
    watch = BuildWatch(target=where)
    assert [watch.look().done for _ in range(2)] == [clips, clips]


ROLES: dict[str, Callable[[Path, int], None]] = {
    "driver": driver,
    "shard": shard,
    "driver_resumed": lambda store, clips: driver(store, clips, left=0),
    "finish": finish,
    "monitor": monitor,
    "commit": lambda store, clips: finish(store, clips, message="a version"),
}


def silent() -> Progress:
    """Return a progress that keeps nothing of what it is told."""
    return JsonProgress(open(os.devnull, "w"))


def resident_kb(name: str) -> int:
    """Return this process's resident memory: VmRSS (now) or VmHWM (the most so far)."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1])  # type: ignore[index]


def measure(role: str, store: Path, clips: int) -> dict[str, Any]:
    """Play one role in this process; return what it took."""
    parts.RecipeSource.draw = CopiedScenes.draw  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=store.parent) as folder:  # what is loaded or filled once is no part of the growth
        for other in ROLES:
            ROLES[other](Path(folder) / "warm", 20)
    gc.collect()
    before_kb, start_s = resident_kb("VmRSS"), time.process_time()
    Path("/proc/self/clear_refs").write_text("5")  # the most so far begins here
    ROLES[role](store, clips)
    cpu_s = time.process_time() - start_s
    grown_kb = resident_kb("VmHWM") - before_kb
    return {
        "role": role,
        "clips": clips,
        "before_mb": round(before_kb / 1024, 1),
        "grown_mb": round(grown_kb / 1024, 2),
        "grown_bytes_per_clip": round(1024 * grown_kb / clips, 1),
        "cpu_ms_per_clip": round(1e3 * cpu_s / clips, 3),
    }


def run(clips: list[int], roles: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what every role took at every size, each in a process of its own."""
    for size in clips:
        for role in roles:
            words = [sys.executable, __file__, "--role", role, "--store", str(folder / f"{size}.sqlite"), "--clips", str(size)]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            yield json.loads(done.stdout)


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES))
    parser.add_argument("--role", choices=ROLES, help="play one role in this process")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--folder", type=Path, help="where stores and scratch folders go")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.role is not None:
        print(json.dumps(measure(options.role, options.store, options.clips[0])))
        return 0
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for line in run(options.clips, options.roles, Path(folder)):
            print(json.dumps(line), flush=True)
            lines.append(line)
            tree = {"machine": {"python": platform.python_version(), "cores": os.cpu_count()}, "lines": lines}
            options.json.write_text(json.dumps(tree, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
