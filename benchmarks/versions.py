"""How long version commands take: 500 clips of 200 kB, and a synthetic manifest of a million rows.

    python benchmarks/versions.py [--json FILE] [--rows 1000000] [--repeats 3] [--dvc]

The clips are random bytes, because nothing is decoded here. Times are the best of the repeats; on a busy
machine the CPU time says more than the wall clock. os.fsync waits for the disk, which neither shows alone.
With --dvc, DVC does the same to the same clips (the one on the PATH, or one installed for the run alone).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from versions_dvc import Beside, beside_lines, find_dvc

from generator.store.labels import labels_file
from generator.store.objects import ClipRecord, Store
from generator.versions.check import check
from generator.versions.commit import CommitOrigin, commit, extend
from generator.versions.history.history import INTERNAL, History
from generator.versions.manifest.rows import RecordReference
from generator.versions.reading.dataset import Dataset
from generator.versions.reading.diff import diff
from generator.versions.working.restore import restore
from generator.versions.working.status import record_shown, status

FOLDER_CLIPS, CLIP_BYTES = 500, 200_000
NEW_CLIPS = 1000
READINGS = ("measured", "error", "confidence")


class Cost(NamedTuple):
    """Seconds by the wall clock, and of this process's CPU time."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Line:
    """One measurement: wall and CPU seconds, and the bar the wall clock is held to (None: for information)."""

    what: str
    seconds: Cost
    bar: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dvc", action="store_true", help="also run DVC on the same clips")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stopdown-versions-") as folder:
        lines = folder_lines(Path(folder) / "clips", options.repeats)
        lines += manifest_lines(Path(folder) / "manifest", options.rows, options.repeats)
        beside = _beside(Path(folder)) if options.dvc else []
    table = Table(
        title=f"versions: {FOLDER_CLIPS} clips of {CLIP_BYTES // 1000} kB; {options.rows:,} rows", title_justify="left"
    )
    for heading in ("what", "wall s", "CPU s", "bar"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for line in lines:
        colour = "" if line.bar is None else "green" if line.seconds.wall_s <= line.bar else "red"
        table.add_row(
            line.what,
            f"{line.seconds.wall_s:.4f}",
            f"{line.seconds.cpu_s:.4f}",
            "" if line.bar is None else f"{line.bar:g}",
            style=colour,
        )
    Console(width=110).print(table)
    if options.json:
        tree = {
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "lines": [{"what": line.what, **line.seconds._asdict(), "bar_s": line.bar} for line in lines],
            "dvc": [{**asdict(line), "ratio": line.ratio} for line in beside],
        }
        options.json.write_text(json.dumps(tree, indent=1) + "\n")


def _beside(folder: Path) -> list[Beside]:
    dvc = find_dvc(folder / "dvc-environment")

    def make(path: Path) -> list[bytes]:
        store, rng = History(path).store, np.random.default_rng(0)
        clips = [rng.bytes(CLIP_BYTES) for _ in range(FOLDER_CLIPS)]
        records = [_record(store, f"clip {number}", clip) for number, clip in enumerate(clips)]
        ids, scenes = _names(0, FOLDER_CLIPS)
        labels = _labels(ids, scenes, rng, [record.sha256_bytes for record in records])
        for record in records:
            store.put_record(record)
        _write_folder(path, store, labels)
        return clips

    lines = beside_lines(folder / "beside", dvc, make)
    table = Table(title="beside DVC, both as commands, wall seconds", title_justify="left")
    for heading in ("what", "Stopdown", "DVC", "DVC / Stopdown"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for line in lines:
        both = (value if isinstance(value, str) else f"{value:.2f}" for value in (line.stopdown, line.dvc))
        table.add_row(line.what, *both, "" if line.ratio is None else f"{line.ratio:.1f}")
    Console(width=110).print(table)
    return lines


def folder_lines(path: Path, repeats: int) -> list[Line]:
    history = History(path)
    store, rng = history.store, np.random.default_rng(0)
    records = [_record(store, f"clip {number}", rng.bytes(CLIP_BYTES)) for number in range(FOLDER_CLIPS)]
    ids, scenes = _names(0, FOLDER_CLIPS)
    labels = _labels(ids, scenes, rng, [record.sha256_bytes for record in records])
    references = {clip_id: RecordReference.of(record) for clip_id, record in zip(ids, records, strict=True)}
    _write_folder(path, store, labels)

    def first() -> None:
        record_shown(
            history, commit(history, labels, references, CommitOrigin(message="first", files={"README.md": b"# card\n"}))
        )

    lines = [Line("commit 500 clips", _seconds(first), 1.5)]
    kept = labels.slice(0, FOLDER_CLIPS - 50)
    edited = kept.set_column(
        kept.column_names.index("caption"), kept.schema.field("caption"), pa.array([f"new words {n}" for n in range(len(kept))])
    )
    commit(history, edited, references, CommitOrigin(message="second", files={"README.md": b"# card 2\n"}))
    lines += [
        Line("verify every byte", _best(lambda: check(history), repeats), 1.0),
        Line("diff: 50 removed, 450 changed", _best(lambda: diff(history, "latest~1", "latest"), repeats), 0.05),
        Line("status, clean", _best(lambda: status(history), repeats), None),
    ]
    back_and_forth = [_seconds(lambda ref=ref: restore(history, ref)) for _ in range(repeats) for ref in ("latest", "latest~1")]  # type: ignore[misc]
    lines.append(Line("restore to an edited version and back, the slower", max(back_and_forth[-2:]), 1.0))
    for view in (path / "clips").glob("*.mp4"):
        view.unlink()
    lines.append(Line("restore 500 missing links", _seconds(lambda: restore(history, "latest~1")), 1.0))
    snapshot = Dataset.open(path)
    order = rng.permutation(len(snapshot))
    read = _best(lambda: [snapshot[int(n)].data() for n in order], repeats)
    plain = _best(lambda: [snapshot[int(n)].path.read_bytes() for n in order], repeats)
    overhead = Cost(read.wall_s - plain.wall_s, read.cpu_s - plain.cpu_s)
    lines.append(Line(f"random access to {len(order)} clips, bytes verified: beyond plain reading", overhead, 0.1))
    return lines


def manifest_lines(path: Path, rows: int, repeats: int) -> list[Line]:
    history = History(path)
    rng = np.random.default_rng(1)
    clip = _record(history.store, "one clip for all", b"clip").sha256_bytes
    ids, scenes = _names(1, rows)
    labels = _labels(ids, scenes, rng, [clip] * rows)
    references = {clip_id: RecordReference(key=_sha(clip_id), lossless={}) for clip_id in ids}
    lines = [
        Line(
            f"commit {rows:,} rows at once",
            _seconds(lambda: commit(history, labels, references, CommitOrigin(message="all"))),
            None,
        )
    ]
    for what, seed, bar in (("of a new seed", 2, 0.5), ("scattered over all leaves", None, None)):
        times = []
        for repeat in range(repeats):
            new_ids, new_scenes = _names(seed * 10 + repeat, NEW_CLIPS) if seed is not None else _scattered(rng, rows, repeat)
            digests = [_record(history.store, f"{seed} {repeat} {n}", rng.bytes(64)).sha256_bytes for n in range(NEW_CLIPS)]
            new = _labels(new_ids, new_scenes, rng, digests)
            known = {clip_id: RecordReference(key=_sha(clip_id), lossless={}) for clip_id in new_ids}
            times.append(_seconds(lambda new=new, known=known: extend(history, new, known, CommitOrigin(message="more"))))  # type: ignore[misc]
        lines.append(Line(f"commit {NEW_CLIPS} new clips {what}", min(times), bar))
    lines += [
        Line("read all labels", _best(lambda: Dataset.open(path).labels, repeats), 2.0),
        Line("one clip by id, a cold start", _best(lambda: _one(history, ids[rows // 2]), repeats), None),
        Line("diff of the last two versions", _best(lambda: diff(history, "latest~1", "latest"), repeats), None),
        Line("log", _best(lambda: list(history.log()), repeats), 0.05),
        Line("tag", _seconds(lambda: history.tag("v1")), 0.05),
    ]
    return lines


def _one(history: History, clip_id: str) -> object:
    from generator.versions.manifest.leaves import find_row

    return find_row(history.store, history.manifest(history.version()), clip_id)


def _names(seed: int, count: int) -> tuple[list[str], list[str]]:
    scenes = [f"flyby-s{seed}-n9-f9-{number // 9:06d}" for number in range(count)]
    return [f"{scene}-{number % 9}" for number, scene in enumerate(scenes)], scenes


def _scattered(rng: np.random.Generator, rows: int, repeat: int) -> tuple[list[str], list[str]]:
    numbers = sorted(int(n) for n in rng.choice(rows // 9, NEW_CLIPS, replace=False))
    scenes = [f"flyby-s1-n9-f9-{number:06d}x{repeat}" for number in numbers]
    return [f"{scene}-0" for scene in scenes], scenes


def _labels(ids: list[str], scenes: list[str], rng: np.random.Generator, digests: list[str]) -> pa.Table:
    count = len(ids)
    columns: dict[str, Any] = {
        "clip_id": ids,
        "scene_id": scenes,
        "family": ["flyby"] * count,
        "layer": np.full(count, 9, np.int32),
        "frames": np.full(count, 9, np.int32),
        "caption": [f"a red sphere crosses the frame to the left, number {n % 997}" for n in range(count)],
        "sha256_bytes": digests,
        "sha256_frames": [_sha(clip_id) for clip_id in ids],
        "size_bytes": np.full(count, CLIP_BYTES, np.int64),
    }
    for axis, column in (
        ("shutter", "shutter_exposure_s"),
        ("aperture", "aperture_f_number"),
        ("temperature", "temperature_k"),
    ):
        columns |= {column: rng.uniform(0.1, 1, count), f"{axis}_control": rng.uniform(-1, 1, count)}
        columns |= {f"{axis}_{name}": rng.uniform(0, 1, count) for name in READINGS}
        columns |= {f"{axis}_judged": rng.uniform(0, 1, count) > 0.1, f"{axis}_note": [""] * count}
    return pa.table(columns)


def _write_folder(path: Path, store: Store, labels: pa.Table) -> None:
    for row in labels.select(["clip_id", "sha256_bytes", "caption"]).to_pylist():
        store.link(row["sha256_bytes"], path / "clips" / f"{row['clip_id']}.mp4")
        (path / "clips" / f"{row['clip_id']}.txt").write_text(f"{row['caption']}\n")
    (path / "README.md").write_text("# card\n")
    (path / "labels.parquet").write_bytes(labels_file(labels))
    assert (path / INTERNAL).is_dir()


def _record(store: Store, name: str, data: bytes) -> ClipRecord:
    digest = store.put(data)
    return ClipRecord(
        key=_sha(name),
        sha256_bytes=digest,
        sha256_frames=_sha(f"f {name}"),
        size_bytes=len(data),
        blender="5.0.1",
        encoder="x",
        cpu_s=1.0,
    )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _seconds(action: Callable[[], object]) -> Cost:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def _best(action: Callable[[], object], repeats: int) -> Cost:
    return min(_seconds(action) for _ in range(repeats))


if __name__ == "__main__":
    main()
