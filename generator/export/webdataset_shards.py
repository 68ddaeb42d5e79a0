"""WebDataset: tar shards of `ID.json` (all labels), `ID.mp4` and `ID.txt` (caption), in the dataset's order; and
of ground truth by scene, where there is any: `SCENE.depth.0000.exr`, `SCENE.scene.json`, … in shards of their own.

A sample's files stand together and share the name up to the first dot, as the format asks. What varies between machines in a
header (time, owner) is fixed, so a shard has the same bytes everywhere.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from generator.export.base import Exporter, ExportJob, Row
from generator.export.files.entries import Entry, MadeFile
from generator.export.source import ExportSource
from generator.export.truth_scenes import TruthScene, has_truth, truth_scenes
from generator.export.write_folder import verified_bytes
from scenes.errors import InputError

CLIPS_PER_SHARD = 1000
BYTES_PER_SHARD = 500_000_000
_BLOCK = 512


def _entries(job: ExportJob) -> Iterator[Entry]:
    dotted = next((row["clip_id"] for row in job.rows if "." in row["clip_id"]), None)
    if dotted is not None:
        raise InputError(f"clip '{dotted}' has a dot in its id, and WebDataset ends a sample's name there; use another format")
    if has_truth(job):
        yield from _truth_entries(job)
    for split, rows in job.splits.items():
        for number, part in enumerate(_shards(rows)):
            yield MadeFile(
                path=f"{split}/{split}-{number:06d}.tar", write=partial(_write, job.source, part), size_bytes=_tar_size(part)
            )


def _truth_entries(job: ExportJob) -> Iterator[Entry]:
    """Yield shards of ground truth, by scene: `SCENE.depth.0000.exr` and so on; a clip's labels name its scene."""
    for split, scenes in truth_scenes(job, "webdataset").items():
        part: list[TruthScene] = []
        number = size = 0
        for scene in [*scenes, None]:
            its_size = 0 if scene is None else sum(scene.reader.size(path) for path in scene.reader.paths)
            if part and (scene is None or size + its_size > BYTES_PER_SHARD):
                path = f"{split}-truth/{split}-truth-{number:06d}.tar"
                sizes = [one.reader.size(path) for one in part for path in one.reader.paths]
                yield MadeFile(path=path, write=partial(_write_truth, tuple(part)), size_bytes=_tar_bytes(sizes))
                part, size, number = [], 0, number + 1
            if scene is not None:
                part.append(scene)
                size += its_size


def _write_truth(scenes: tuple[TruthScene, ...], target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for scene in scenes:
            for path in scene.reader.paths:
                _add(tar, f"{scene.scene_id}.{path.replace('/', '.')}", scene.reader.file(path))


def _shards(rows: tuple[Row, ...]) -> Iterator[tuple[Row, ...]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and (len(part) == CLIPS_PER_SHARD or size + row["size_bytes"] > BYTES_PER_SHARD):
            yield tuple(part)
            part, size = [], 0
        part.append(row)
        size += row["size_bytes"]
    if part:
        yield tuple(part)


def _texts(row: Row) -> dict[str, bytes]:
    return {
        "json": json.dumps(dict(row), ensure_ascii=False, sort_keys=True).encode(),
        "txt": row["caption"].encode(),
    }


def _write(source: ExportSource, rows: tuple[Row, ...], target: Path) -> None:
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            members = _texts(row) | {"mp4": verified_bytes(source, row["clip_id"], row["sha256_bytes"])}
            for ending in ("json", "mp4", "txt"):
                _add(tar, f"{row['clip_id']}.{ending}", members[ending])


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size, header.mode, header.mtime = len(data), 0o644, 0
    tar.addfile(header, io.BytesIO(data))


def _tar_size(rows: tuple[Row, ...]) -> int:
    return _tar_bytes([size for row in rows for size in (row["size_bytes"], *(len(text) for text in _texts(row).values()))])


def _tar_bytes(sizes: Sequence[int]) -> int:
    content = sum(_BLOCK + -(-size // _BLOCK) * _BLOCK for size in sizes) + 2 * _BLOCK
    return -(-content // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _usage(job: ExportJob) -> str:
    split = next(iter(job.splits))
    return f'wds.WebDataset(sorted(glob.glob("{job.place(split)}/*.tar")), shardshuffle=False)'


WEBDATASET = Exporter(
    summary="tar shards of clip, caption and labels, by split",
    entries=_entries,
    usage=_usage,
    several_splits=True,
    holds_labels=True,
)
