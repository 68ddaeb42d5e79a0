"""A small dataset for the trainer's tests: a real plan, labels, store and version; drawn pictures in the place of renders.

What a control does is drawn plainly: shutter smears a bar along its motion, temperature tints, aperture softens.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from generator.media.video import decode, encode, frames_digest
from generator.recipe.load import parse_recipe
from generator.recipe.plan import ClipPlan, Plan, make_plan
from generator.store.labels import label_table
from generator.store.objects import ClipRecord, ReadingRecord, Store
from generator.store.splits import SplitRatios
from generator.versions.commit import CommitOrigin, commit
from generator.versions.history.history import INTERNAL, History
from generator.versions.history.version import Software, Version
from generator.versions.manifest.rows import RecordReference

SIDE = 32
SPLITS = SplitRatios(train=0.6, validation=0.3, test=0.1)
ONE_AXIS = """
name = "tints"
seed = 3
[video]
width = 32
height = 32
[axes.temperature]
neutral = 6000
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3, 1]
scenes_per_layer = 3
frames = [1, 5]
"""
TWO_AXES = """
name = "two"
seed = 4
[video]
width = 80
height = 64
[[pyramid]]
axes = ["shutter", "temperature"]
family = "studio"
layers = [5]
scenes_per_layer = 3
frames = [5]
[[pyramid]]
axes = ["temperature"]
family = "tabletop"
layers = [3]
scenes_per_layer = 3
frames = [1, 9]
"""


def draw(clip: ClipPlan, height: int, width: int) -> NDArray[np.uint8]:
    """Return a clip's frames [T, H, W, 3]."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(clip.scene_id.encode()).digest()[:4], "big"))
    base, colour = rng.uniform(60, 120, 3), rng.uniform(120, 220, 3)
    speed, start, thickness = rng.uniform(1, 3), rng.uniform(2, 10), rng.uniform(5, 9)
    columns = np.arange(width, dtype=np.float64)
    frames = np.empty((clip.frames, height, width, 3))
    smear = 0.5 + 2.0 * (1 + clip.controls.get("shutter", -1.0))
    warm = clip.controls.get("temperature", 0.0)
    tint = np.array([1 + 0.3 * warm, 1.0, 1 - 0.3 * warm])
    for index in range(clip.frames):
        middle = start + speed * index
        profile_W = np.clip((thickness / 2 - np.abs(columns - middle)) / smear + 0.5, 0, 1)
        frames[index] = (base + profile_W[None, :, None] * (colour - base)) * tint
    return np.clip(frames, 0, 255).astype(np.uint8)


def record_of(plan: Plan, clip: ClipPlan, store: Store) -> ClipRecord:
    """Store a clip as a render process would and return its record."""
    video = plan.recipe.video
    data = encode(draw(clip, video.height, video.width), fps=video.fps, crf=12, preset="ultrafast")
    record = ClipRecord(
        key=hashlib.sha256(f"{plan.name} {clip.clip_id}".encode()).hexdigest(),
        sha256_bytes=store.put(data),
        sha256_frames=frames_digest(decode(data)),
        size_bytes=len(data),
        readings={axis: ReadingRecord(value=clip.values[axis], confidence=1.0) for axis in clip.axes},
        blender="5.0.1",
        encoder="x",
        cpu_s=0.1,
    )
    store.put_record(record)
    return record


def make_dataset(path: Path, recipe: str = ONE_AXIS, splits: SplitRatios = SPLITS) -> Version:
    """Make a dataset of one version in a folder, or commit the next version to the one that is there."""
    plan = make_plan(parse_recipe(recipe, source="test.toml", overrides=()))
    history = History(path)
    store = Store(path / INTERNAL)
    records = {clip.clip_id: record_of(plan, clip, store) for clip in plan.clips}
    origin = CommitOrigin(
        message="made for tests",
        plans=(plan.to_json(),),
        software=Software(stopdown="0", python="3.11"),
        splits=splits,
    )
    return commit(history, label_table(plan, records), {name: RecordReference.of(r) for name, r in records.items()}, origin)
