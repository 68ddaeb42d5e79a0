"""What a clip costs a farm as its dataset grows: publishing, looking for what is missing, committing.

    python benchmarks/farm_scale.py [--only memory disk commit] [--sizes 1000 10000 100000 1000000] [--prefill]

1,000 simulated workers share one store that holds so many clips already; the code is the farm's own (`Target.publish`,
`Target.missing`, `extend`), the renderer is synthetic (a clip is a few hundred bytes).

memory       a store in memory that counts requests: every clip goes through `publish`, the workers in turn, and at each size
             some look for their shard of a thousand (`--prefill` puts the earlier clips there directly, which is quicker)
disk         a folder on the disk, whose earlier clips are written directly and without fsync
commit       versions of so many rows, to which 1,000 of a new seed are added several times; the median, bytes written and read

`--only` measures some of these and keeps the rest of the file. CPU seconds are of this process; on a busy machine the wall
clock says less.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from farm_store import Keys, Memory, Rendered, name, record, sha
from versions import _labels, _names

from generator.farm.target import Target
from generator.io.checksummed_json import checksummed
from generator.recipe.load import parse_recipe
from generator.recipe.plan import ClipPlan, Plan, make_plan
from generator.remotes.base import Remote, object_file, record_file
from generator.remotes.folder import FolderRemote
from generator.remotes.retry import Retry
from generator.store.objects import Store
from generator.versions.commit import CommitOrigin, commit, extend
from generator.versions.history.history import History
from generator.versions.manifest.rows import RecordReference

ROOT = Path(__file__).resolve().parent.parent
RESULTS, DOCS = ROOT / "benchmarks" / "results", ROOT / "docs"
WORKERS, SHARD, LOOKS, DISK_CLIPS, COMMITS = 1_000, 1_000, 3, 30, 7


def target(remote: Any, count: int) -> Target:
    """Return a target of a plan of so many clips, of which the code under test asks the number only."""
    nothing = small_plan(1)
    sized = nothing.model_construct(**{**nothing.__dict__, "clips": range(count)})
    return Target(where="memory", remote=remote, plan=sized, blender="5.0.1", keys=Keys(count), retry=Retry(attempts=1))


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
    pattern = checksummed(record("0" * 64, data).model_dump(mode="json"))
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
        write(record_file(key), checksummed(record(key, b"one object for all").model_dump(mode="json")))


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
    spent_s, missing_clips = cpu(lambda: where.missing(clips))
    assert not missing_clips
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
            spent_s, missing_clips = cpu(lambda where=where, clips=clips: where.missing(clips))  # type: ignore[misc]
            assert not missing_clips
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
    """Measure the commit of all rows at once, and then of a thousand clips of a new seed beside them, several times over."""
    lines = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="stopdown-scale-") as folder:
            history = History(Path(folder))
            clip = history.store.put(b"clip")
            whole_s, _, _ = committed(history, clip, 1, size, commit)
            gc.collect()  # a commit has a process of its own, without what the commit of all rows leaves behind
            added = [committed(history, clip, seed, SHARD, extend) for seed in range(2, 2 + COMMITS)]
        more_s, more_bytes, more_read = (statistics.median(column) for column in zip(*added, strict=True))
        lines.append(
            {
                "clips": size,
                "all_cpu_ms_per_clip": 1e3 * whole_s / size,
                "thousand_more_cpu_s": more_s,
                "thousand_more_written_kb": more_bytes / 1024,
                "thousand_more_read_kb": more_read / 1024,
            }
        )
        print(json.dumps(lines[-1]), flush=True)
    return lines


def committed(history: History, clip: str, seed: int, count: int, act: Callable[..., object]) -> tuple[float, int, int]:
    """Commit clips of a seed; return CPU seconds, and the bytes of objects that were written and read."""
    ids, scenes = _names(seed, count)
    labels, known = _labels(ids, scenes, np.random.default_rng(seed), [clip] * count), references(ids)
    store, there = Reading(history.root), set(history.store.objects())
    history.store = store
    spent_s, _ = cpu(lambda: act(history, labels, known, CommitOrigin(message=f"seed {seed}")))
    written = sum(store.path(digest).stat().st_size for digest in set(store.objects()) - there)
    return spent_s, written, store.read_bytes


class Reading(Store):
    """A store that counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, digest: str) -> bytes:
        """Return an object's bytes."""
        data = super().read(digest)
        self.read_bytes += len(data)
        return data


def references(ids: list[str]) -> dict[str, RecordReference]:
    """Return what a store knows of clips."""
    return {clip_id: RecordReference(key=sha(clip_id), lossless={}) for clip_id in ids}


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
    parser.add_argument("--disk", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--commit", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--prefill", action="store_true", help="put earlier clips into the memory directly")
    parser.add_argument("--only", nargs="+", choices=("memory", "disk", "commit"), default=None)
    parser.add_argument("--json", type=Path, default=RESULTS / "farm_scale.json")
    options = parser.parse_args()
    measures: dict[str, Callable[[], object]] = {
        "memory": lambda: in_memory(sorted(options.sizes), options.prefill),
        "disk": lambda: on_disk(sorted(options.disk)),
        "commit": lambda: commits(sorted(options.commit)),
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
