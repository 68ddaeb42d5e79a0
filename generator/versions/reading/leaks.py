"""The leak check of a version: no scene, and no near-identical first frame, in two splits."""

from __future__ import annotations

from generator.store.splits import Leak, frame_leaks, scene_leaks
from generator.versions.reading.dataset import Dataset


def leaks(snapshot: Dataset, *, frames: bool = True) -> list[Leak]:
    """Return what stands in two splits; without `frames` only scenes are compared, and nothing is decoded."""
    clips = snapshot.labels.select(["clip_id", "scene_id", "split"]).to_pylist()
    found = scene_leaks(clips)
    if frames:
        found += frame_leaks(clips, lambda clip_id: snapshot.frames(clip_id)[0])
    return found
