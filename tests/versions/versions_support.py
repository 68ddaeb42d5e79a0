"""Synthetic datasets for the version tests: the real store and the real label schema, random bytes in the place of videos."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from generator.store.labels import labels_file
from generator.store.objects import ClipRecord, Store
from generator.versions.commit import CommitOrigin, commit
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.version import Software, Version
from generator.versions.manifest.rows import RecordReference
from generator.versions.working.status import record_shown

AXES = (("shutter", "shutter_exposure_s"), ("aperture", "aperture_f_number"))
SOFTWARE = Software(stopdown="0.1.0", python="3.11.0", blender=("5.0.1",), encoder=("x",))
PLAN = '{"clips":[],"format":1,"name":"synthetic","recipe":{"name":"synthetic","render":{"samples":4}},"seed":0}'

Clips = dict[str, tuple[dict[str, object], ClipRecord]]


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def make_clips(
    store: Store, count: int, *, seed: int = 0, size: int = 300, lossless: bool = False, per_scene: int = 3
) -> Clips:
    """Store `count` clips of random bytes with their records; return label rows and records by clip id."""
    rng = np.random.default_rng(seed)
    clips: Clips = {}
    for number in range(count):
        scene_id = f"flyby-s{seed}-n{per_scene}-f5-{number // per_scene:04d}"
        clip_id = f"{scene_id}-{number % per_scene}"
        data = rng.bytes(size)
        frames = {"0000.png": store.put(rng.bytes(40)), "0001.png": store.put(rng.bytes(40))} if lossless else {}
        record = ClipRecord(
            key=sha(f"key {clip_id} {seed}"),
            sha256_bytes=store.put(data),
            sha256_frames=sha(b"frames" + data),
            size_bytes=len(data),
            frames=frames,
            blender="5.0.1",
            encoder="x",
            cpu_s=0.25,
        )
        store.put_record(record)
        clips[clip_id] = (make_row(clip_id, scene_id, number, record, rng), record)
    return clips


def make_row(clip_id: str, scene_id: str, number: int, record: ClipRecord, rng: np.random.Generator) -> dict[str, object]:
    row: dict[str, object] = {
        "clip_id": clip_id,
        "scene_id": scene_id,
        "family": "flyby",
        "layer": 3 + 6 * (number % 2),
        "index": number % 3,
        "frames": 5,
        "caption": f"a small object, number {number}, über grün",
        "sha256_bytes": record.sha256_bytes,
        "sha256_frames": record.sha256_frames,
        "size_bytes": record.size_bytes,
    }
    for position, (axis, column) in enumerate(AXES):
        labelled = number % 2 == position
        row |= {
            column: float(rng.uniform(0.002, 0.06)) if labelled else None,
            f"{axis}_control": float(rng.uniform(-1, 1)) if labelled else None,
            f"{axis}_measured": float(rng.uniform(0.002, 0.06)) if labelled else None,
            f"{axis}_error": float(rng.normal(0, 0.05)) if labelled else None,
            f"{axis}_judged": bool(number % 5) if labelled else None,
            f"{axis}_confidence": 0.9 if labelled else None,
            f"{axis}_note": "" if labelled else None,
        }
    return row


def schema() -> pa.Schema:
    text = ("clip_id", "scene_id", "family", "caption", "sha256_bytes", "sha256_frames")
    whole = ("layer", "index", "frames")
    fields = [pa.field(name, pa.string(), nullable=False) for name in text[:3]]
    fields += [pa.field(name, pa.int32(), nullable=False) for name in whole]
    fields += [pa.field(name, pa.string(), nullable=False) for name in text[3:]]
    fields.append(pa.field("size_bytes", pa.int64(), nullable=False))
    for axis, column in AXES:
        fields.append(pa.field(column, pa.float64(), metadata={"description": f"label of {axis}"}))
        fields += [pa.field(f"{axis}_{name}", pa.float64()) for name in ("control", "measured", "error", "confidence")]
        fields += [pa.field(f"{axis}_judged", pa.bool_()), pa.field(f"{axis}_note", pa.string())]
    return pa.schema(fields, metadata={"stopdown_labels_format": "1"})


def table(clips: Clips) -> pa.Table:
    return pa.Table.from_pylist([row for row, _ in clips.values()], schema=schema())


def references(clips: Clips) -> dict[str, RecordReference]:
    return {clip_id: RecordReference.of(record) for clip_id, (_, record) in clips.items()}


def origin(message: str = "a version", *, files: dict[str, bytes] | None = None, plan: str | None = PLAN) -> CommitOrigin:
    return CommitOrigin(
        message=message,
        plans=() if plan is None else (plan,),
        software=SOFTWARE,
        files={"README.md": b"# synthetic\n"} if files is None else files,
    )


def write_folder(path: Path, clips: Clips, *, plan: str = PLAN) -> None:
    """Write the working folder as a finished build does."""
    store = Store(path / INTERNAL)
    (path / "clips").mkdir(parents=True, exist_ok=True)
    for clip_id, (row, record) in clips.items():
        store.link(record.sha256_bytes, path / "clips" / f"{clip_id}.mp4")
        (path / "clips" / f"{clip_id}.txt").write_bytes(f"{row['caption']}\n".encode())
        for name, digest in record.frames.items():
            store.link(digest, path / "frames" / clip_id / name)
    (path / "README.md").write_bytes(b"# synthetic\n")
    (path / "labels.parquet").write_bytes(labels_file(table(clips)))
    (path / INTERNAL / "plan.json").write_text(plan)


def commit_clips(history: History, clips: Clips, message: str = "a version") -> Version:
    return commit(history, table(clips), references(clips), origin(message))


def built(path: Path, count: int = 12, *, seed: int = 0, lossless: bool = False) -> tuple[History, Clips, Version]:
    """Return a dataset of one version, its folder clean."""
    history = History(path)
    clips = make_clips(history.store, count, seed=seed, lossless=lossless)
    write_folder(path, clips)
    version = commit_clips(history, clips, "first")
    assert record_shown(history, version)
    return history, clips, version


def without(clips: Clips, *clip_ids: str) -> Clips:
    return {clip_id: clip for clip_id, clip in clips.items() if clip_id not in clip_ids}


def changed(clips: Clips, clip_id: str, **labels: object) -> Clips:
    row, record = clips[clip_id]
    return {**clips, clip_id: ({**row, **labels}, record)}


def folder_bytes(path: Path) -> dict[str, bytes]:
    """Return every file of the working folder by relative path, the store apart."""
    files = (file for file in path.rglob("*") if file.is_file() and INTERNAL not in file.parts)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
