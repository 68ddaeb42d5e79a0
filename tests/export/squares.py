"""A finished dataset for the exports: a real plan, moving squares in place of renders, the real store and finish."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from generator.export import EXPORTS, DatasetSource
from generator.media.video import encode, frames_digest
from generator.recipe.load import parse_recipe
from generator.recipe.plan import ClipPlan, Plan, make_plan
from generator.store.objects import ClipRecord, ReadingRecord, Store
from generator.versions.working.working_folder import WorkingFolder, create_or_resume, finish

FORMATS = [name for name, format in EXPORTS.items() if not format.takes_pairs and not format.needs_truth]

RECIPE = """
name = "squares"
description = "Squares, “quoted”, and a comma"
seed = 5
[video]
width = 64
height = 48
[[pyramid]]
axes = ["shutter"]
family = "flyby"
layers = [3, 1]
scenes_per_layer = 2
frames = [5, 9]
[[pyramid]]
axes = ["aperture"]
family = "depth_row"
layers = [3]
scenes_per_layer = 2
frames = [1]
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3]
scenes_per_layer = 1
frames = [5]
"""


def squares(clip: ClipPlan, number: int, size: tuple[int, int]) -> np.ndarray:
    """Return frames `[T, H, W, 3]` of one square that moves over noise."""
    rng = np.random.default_rng(number)
    frames = rng.integers(40, 90, (1, *size, 3), dtype=np.uint8).repeat(clip.frames, 0)
    color, x, y = rng.integers(120, 255, 3), *rng.integers(0, 20, 2)
    for index in range(clip.frames):
        frames[index, y : y + 16, x + 2 * index : x + 2 * index + 16] = color
    return frames


def record_of(plan: Plan, clip: ClipPlan, number: int, store: Store) -> ClipRecord:
    """Store a clip as a render process would and return its record."""
    video = plan.recipe.video
    frames = squares(clip, number, (video.height, video.width))
    data = encode(frames, fps=video.fps, crf=20, preset="ultrafast")
    return ClipRecord(
        key=hashlib.sha256(clip.clip_id.encode()).hexdigest(),
        sha256_bytes=store.put(data),
        sha256_frames=frames_digest(frames),
        size_bytes=len(data),
        readings={axis: ReadingRecord(value=clip.values[axis] * 1.001, confidence=1.0) for axis in clip.axes},
        blender="5.0.1",
        encoder="PyAV 18, libx264",
        cpu_s=0.1,
    )


def build(path: Path, *overrides: str) -> WorkingFolder:
    """Make the dataset in a folder."""
    plan = make_plan(parse_recipe(RECIPE, source="squares.toml", overrides=overrides))
    store = create_or_resume(path, plan)
    records = {clip.clip_id: record_of(plan, clip, number, store) for number, clip in enumerate(plan.clips)}
    for record in records.values():
        store.put_record(record)
    return finish(path, plan, records)


class SplitSource:
    """A dataset with a split column, as a committed version has it: whole scenes, every split taken."""

    def __init__(self, source: DatasetSource) -> None:
        self._source = source
        self.path, self.license, self.origin = source.path, source.license, source.origin
        scenes = sorted(set(source.labels["scene_id"].to_pylist()))
        names = {scene: ("train", "train", "validation", "test")[n % 4] for n, scene in enumerate(scenes)}
        column = pa.array([names[scene] for scene in source.labels["scene_id"].to_pylist()], pa.string())
        self.labels = source.labels.append_column(pa.field("split", pa.string()), column)

    def clip_path(self, clip_id: str) -> Path:
        return self._source.clip_path(clip_id)


def tree(path: Path) -> dict[str, bytes]:
    """Return every file below a folder by relative path."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}
