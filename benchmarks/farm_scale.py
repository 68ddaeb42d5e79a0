"""What a clip costs a farm as its dataset grows: publishing, looking for what lacks, committing, and memory of a coordinator.

    python benchmarks/farm_scale.py [--only memory disk commit coordinator] [--sizes 1000 10000 100000 1000000] [--prefill]

1,000 simulated workers share one store that holds so many clips already; the code is the farm's own (`Target.publish`,
`Target.missing`, `Work`, `extend`), the renderer is synthetic (a clip is a few hundred bytes).

memory       a store in memory that counts requests: every clip goes through `publish`, the workers in turn, and at each size
             some look for their shard of a thousand (`--prefill` puts the earlier clips there directly, which is quicker)
disk         a folder on the disk, whose earlier clips are written directly and without fsync
commit       versions of so many rows, to which 1,000 of a new seed are added
coordinator  what the driver of a cluster holds: its plan, keys and list of work, and what it needs to hand out every clip

`--only` measures some of these and keeps the rest of the file. CPU seconds are of this process; on a busy machine the wall
clock says less.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from versions import _labels, _names

from generator.farm.patience import Patience
from generator.farm.ray_work import Work
from generator.farm.target import Target
from generator.plan import ClipPlan, Plan, make_plan
from generator.recipe_io import parse_recipe
from generator.sealed import sealed
from generator.store import ClipRecord
from generator.versions.commit import Origin, commit, extend
from generator.versions.history import History
from generator.versions.remote import Remote, object_file, record_file
from generator.versions.remote_folder import FolderRemote
from generator.versions.rows import Evidence

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
WORKERS, SHARD, LOOKS, DISK_CLIPS = 1_000, 1_000, 3, 30


class Keys(Mapping[str, str]):
    """Record keys by clip id, as a plan's would be: a sha256."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __getitem__(self, clip_id: str) -> str:
        return sha(f"key {clip_id}")

    def __iter__(self) -> Iterator[str]:
        return (name(number) for number in range(self._count))

    def __len__(self) -> int:
        return self._count


class Memory:
    """A remote in memory, by folder, that counts requests and the entries of its lists."""

    name = "memory"

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.counts: Counter[str] = Counter()

    def put(self, path: str, data: bytes) -> bool:
        """Put a file where there is none."""
        self.counts["requests"] += 1
        folder = self.folders[path.rpartition("/")[0]]
        return folder.setdefault(path, data) is data

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None."""
        self.counts["requests"] += 1
        return self.folders[path.rpartition("/")[0]].get(path)

    def sizes(self, folder: str) -> dict[str, int]:
        """Return sizes by path; a list of storage has a thousand entries a request."""
        found = {path: len(data) for path, data in self.folders[folder].items()}
        self.counts["requests"] += 1 + len(found) // 1000
        self.counts["listed"] += len(found)
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is collected here."""
        yield


class Rendered:
    """A scratch store of synthetic clips, which are made when they are read."""

    root = Path("memory")

    def __init__(self, names: Mapping[str, str]) -> None:
        self._clips = {key: f"clip {clip_id}".encode() * 8 for clip_id, key in names.items()}
        self._objects = {hashlib.sha256(data).hexdigest(): data for data in self._clips.values()}

    def record(self, key: str) -> ClipRecord:
        """Return a clip's record."""
        return record(key, self._clips[key])

    def read(self, digest: str) -> bytes:
        """Return an object."""
        return self._objects[digest]


def sha(text: str) -> str:
    """Return the sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def name(number: int) -> str:
    """Return a clip id."""
    return f"flyby-s1-n9-f9-{number // 9:06d}-{number % 9}"


def record(key: str, data: bytes) -> ClipRecord:
    """Return the record of a synthetic clip."""
    return ClipRecord(
        key=key,
        sha256_bytes=hashlib.sha256(data).hexdigest(),
        sha256_frames=sha(f"frames {key}"),
        size_bytes=len(data),
        blender="5.0.1",
        encoder="synthetic",
        cpu_s=1.0,
    )


def target(remote: Any, count: int) -> Target:
    """Return a target of a plan of so many clips, of which the code under test asks the number only."""
    nothing = small_plan(1)
    sized = nothing.model_construct(**{**nothing.__dict__, "clips": range(count)})
    return Target(where="memory", remote=remote, plan=sized, blender="5.0.1", keys=Keys(count), patience=Patience(attempts=1))


def small_plan(scenes: int) -> Plan:
    """Return a real plan of 25 clips for each scene of a layer."""
    text = f'name = "scale"\n[[pyramid]]\naxes = "shutter"\nfamily = "flyby"\nframes = 5\nscenes_per_layer = {scenes}\n'
    return make_plan(parse_recipe(text, source="farm_scale"))


def cpu(action: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of an action, and what it returns."""
    cpu_s = time.process_time()
    result = action()
    return time.process_time() - cpu_s, result


def fill(write: Callable[[str, bytes], object], first: int, last: int) -> None:
    """Put records of clips numbered from `first`, and one object for all."""
    data = b"one object for all"
    write(object_file(hashlib.sha256(data).hexdigest()), data)
    pattern = sealed(record("0" * 64, data).model_dump(mode="json"))
    for number in range(first, last):
        write(record_file(sha(f"key {name(number)}")), pattern)


def published(where: Target, numbers: list[int]) -> list[float]:
    """Publish clips, each by a worker of its own; return the CPU seconds of each."""
    keys = {name(number): where.keys[name(number)] for number in numbers}
    scratch: Any = Rendered(keys)
    seconds = []
    for key in keys.values():
        spent_s, new = cpu(lambda key=key: where.publish(scratch, key))  # type: ignore[misc]
        assert new
        seconds.append(spent_s)
    return seconds


def mend(write: Callable[[str, bytes], object], clips: list[ClipPlan]) -> None:
    """Give clips of a store that was filled records of their own, for they will be looked for."""
    for clip in clips:
        key = sha(f"key {clip.clip_id}")
        write(record_file(key), sealed(record(key, b"one object for all").model_dump(mode="json")))


def shard(number: int, clips: int) -> list[ClipPlan]:
    """Return the clips of a shard as far as looking for them goes: their ids, every so many of the plan."""
    step = max(1, clips // SHARD)
    return [ClipPlan.model_construct(clip_id=name(number + step * position)) for position in range(min(SHARD, clips))]


def in_memory(sizes: list[int], prefill: bool) -> list[dict[str, Any]]:
    """Measure a store in memory as it grows."""
    remote, there, lines = Memory(), 0, []
    for size in sizes:
        where = target(remote, size)
        if prefill:
            fill(remote.put, there, size)
            there = size
        while there < size:
            last = min(there + WORKERS, size)
            published(where, list(range(there, last)))
            there = last
        remote.counts.clear()
        seconds = published(where, list(range(size, size + WORKERS)))
        there += WORKERS
        requests = remote.counts["requests"] / WORKERS
        looks = [look(where, remote, shard(number, size), prefill) for number in range(LOOKS)]
        lines.append(
            {
                "clips": size,
                "prefilled": prefill,
                "publish_cpu_ms": 1e3 * statistics.median(seconds),
                "publish_requests": requests,
                "missing_cpu_ms_per_clip": 1e3 * statistics.median(look[0] for look in looks),
                "missing_requests_per_clip": statistics.median(look[1] for look in looks),
                "missing_listed_per_clip": statistics.median(look[2] for look in looks),
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def look(where: Target, remote: Memory, clips: list[ClipPlan], prefilled: bool) -> tuple[float, float, float]:
    """Look for a shard whose clips are all there; return CPU seconds, requests and listed entries for each."""
    if prefilled:
        mend(lambda path, data: remote.folders[path.rpartition("/")[0]].update({path: data}), clips)
    remote.counts.clear()
    spent_s, lacking = cpu(lambda: where.missing(clips))
    assert not lacking
    return spent_s / len(clips), remote.counts["requests"] / len(clips), remote.counts["listed"] / len(clips)


def on_disk(sizes: list[int]) -> list[dict[str, Any]]:
    """Measure a folder on the disk as it grows; publishing flushes, so its wall time is the disk's."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="stopdown-scale-") as folder:
        remote: Remote = FolderRemote(Path(folder))
        remote.prepare()
        there = 0

        def write(path: str, data: bytes) -> None:
            file = Path(folder) / ".stopdown" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)

        for size in sizes:
            fill(write, there, size)
            where = target(remote, size)
            wall_s = time.perf_counter()
            seconds = published(where, list(range(size, size + DISK_CLIPS)))
            wall_s = (time.perf_counter() - wall_s) / DISK_CLIPS
            clips = shard(0, size)
            mend(write, clips)
            spent_s, lacking = cpu(lambda where=where, clips=clips: where.missing(clips))  # type: ignore[misc]
            assert not lacking
            there = size + DISK_CLIPS
            lines.append(
                {
                    "clips": size,
                    "publish_cpu_ms": 1e3 * statistics.median(seconds),
                    "publish_wall_ms": 1e3 * wall_s,
                    "missing_cpu_ms_per_clip": 1e3 * spent_s / len(clips),
                }
            )
            print(json.dumps(lines[-1]), flush=True)
    return lines


def commits(sizes: list[int]) -> list[dict[str, Any]]:
    """Measure the commit of a thousand clips of a new seed beside so many rows, and of all rows at once."""
    lines = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="stopdown-scale-") as folder:
            history, rng = History(Path(folder)), np.random.default_rng(0)
            clip = history.store.put(b"clip")
            ids, scenes = _names(1, size)
            labels, known = _labels(ids, scenes, rng, [clip] * size), evidence(ids)
            whole_s, _ = cpu(lambda: commit(history, labels, known, Origin(message="all")))  # noqa: B023
            new_ids, new_scenes = _names(2, SHARD)
            new, more = _labels(new_ids, new_scenes, rng, [clip] * SHARD), evidence(new_ids)
            added_s, _ = cpu(lambda: extend(history, new, more, Origin(message="more")))  # noqa: B023
            lines.append({"clips": size, "all_cpu_ms_per_clip": 1e3 * whole_s / size, "thousand_more_cpu_s": added_s})
            print(json.dumps(lines[-1]), flush=True)
    return lines


def evidence(ids: list[str]) -> dict[str, Evidence]:
    """Return what a store knows of clips."""
    return {clip_id: Evidence(key=sha(clip_id), lossless={}) for clip_id in ids}


def memory(scenes: list[int]) -> list[dict[str, Any]]:
    """Measure what the driver of a cluster holds: the plan, its list of work, and beside them while it hands out every clip."""
    lines = []
    small_plan(1)  # what is loaded with the first plan is no part of one
    for count in scenes:
        tracemalloc.start()
        plan = small_plan(count)
        plan_bytes, _ = tracemalloc.get_traced_memory()
        keys = {clip.clip_id: sha(clip.clip_id) for clip in plan.clips}
        with tempfile.TemporaryDirectory() as folder:
            where = Target(where="x", remote=FolderRemote(Path(folder)), plan=plan, blender="5.0.1", keys=keys)
            with_keys, _ = tracemalloc.get_traced_memory()
            work = Work(where, plan.clips)
            with_work, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            while (job := work.take()) is not None:
                for _ in job.clips:
                    work.settle()
            _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        clips = len(plan.clips)
        lines.append(
            {
                "clips": clips,
                "plan_bytes_per_clip": plan_bytes / clips,
                "keys_bytes_per_clip": (with_keys - plan_bytes) / clips,
                "work_bytes_per_clip": (with_work - with_keys) / clips,
                "handing_out_kb": (peak - with_work) / 1024,
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def draw(tree: dict[str, Any]) -> None:
    """Draw costs against clips there, from zero upwards, so that flat looks flat."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 3), dpi=150)
    curves = (
        ("publishing a clip, CPU ms", (("memory", "publish_cpu_ms"), ("disk", "publish_cpu_ms"))),
        ("looking for a clip, CPU ms", (("memory", "missing_cpu_ms_per_clip"), ("disk", "missing_cpu_ms_per_clip"))),
        ("committing 1,000 more, CPU s", (("commit", "thousand_more_cpu_s"),)),
    )
    for axes, (title, lines) in zip(panels, curves, strict=True):
        for kind, key in lines:
            rows = tree[kind]
            axes.plot([row["clips"] for row in rows], [row[key] for row in rows], marker="o", markersize=3, label=kind)
        axes.set(
            xscale="log",
            xlabel="clips there already",
            ylim=(0, 1.4 * max(row[key] for kind, key in lines for row in tree[kind])),
        )
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / "farm-scale.svg")
    plt.close(figure)


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--disk", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--commit", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument(
        "--scenes", type=int, nargs="+", default=[4, 16], help="scenes per layer of the plans whose memory is read"
    )
    parser.add_argument("--prefill", action="store_true", help="put earlier clips into the memory directly")
    parser.add_argument("--only", nargs="+", choices=("memory", "disk", "commit", "coordinator"), default=None)
    parser.add_argument("--json", type=Path, default=RESULTS / "farm_scale.json")
    options = parser.parse_args()
    measures: dict[str, Callable[[], object]] = {
        "memory": lambda: in_memory(sorted(options.sizes), options.prefill),
        "disk": lambda: on_disk(sorted(options.disk)),
        "commit": lambda: commits(sorted(options.commit)),
        "coordinator": lambda: memory(sorted(options.scenes)),
    }
    wanted = options.only or list(measures)
    tree: dict[str, Any] = (
        json.loads(options.json.read_text(encoding="utf-8")) if options.only and options.json.exists() else {}
    )
    tree["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    tree["workers"] = WORKERS
    for kind in wanted:
        tree[kind] = measures[kind]()
    options.json.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    if all(kind in tree for kind in ("memory", "disk", "commit")):
        draw(tree)


if __name__ == "__main__":
    main()
