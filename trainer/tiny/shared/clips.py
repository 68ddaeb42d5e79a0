"""The world's clips, decoded once: all frames in one memory-mapped file, captions and labels in a JSON beside it.

Beside them lies where things are, for a loss that looks there.

Shapes: N clips, F frames of all clips together, T frames of one, H rows, W columns, 3 channels (RGB); h, w rows and columns of
cells of 8 x 8 pixels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generator.versions.reading.dataset import Dataset
from generator.versions.working.working_folder import WorkingFolder
from trainer.tiny.shared.coverage import CELL_PX, covered_cells, thing_boxes

FRAMES, COVERED, INDEX = "frames.npy", "covered.npy", "clips.json"


@dataclass(frozen=True)
class Entry:
    """One clip: where its frames lie, its caption, split and labels, and its things with their boxes where they are known."""

    clip_id: str
    start: int
    frames: int
    caption: str
    split: str
    labels: dict[str, Any]
    things: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Clips:
    """Decoded clips; `frames_FHW3` stays on disk until it is touched. `covered_Fhw` is None where no scene is known."""

    entries: tuple[Entry, ...]
    frames_FHW3: NDArray[np.uint8]
    covered_Fhw: NDArray[np.bool_] | None = None

    def video(self, entry: Entry) -> NDArray[np.uint8]:
        """Return one clip's frames, uint8 [T, H, W, 3]."""
        return self.frames_FHW3[entry.start : entry.start + entry.frames]

    def covered(self, entry: Entry) -> NDArray[np.bool_]:
        """Return where one clip's things are, [T, h, w]; everywhere if that is not known."""
        if self.covered_Fhw is None:
            height, width = (side // CELL_PX for side in self.frames_FHW3.shape[1:3])
            return np.ones((entry.frames, height, width), dtype=bool)
        return self.covered_Fhw[entry.start : entry.start + entry.frames]

    def split(self, name: str, *, at_least: int = 1) -> tuple[Entry, ...]:
        """Return the clips of a split that have at least so many frames."""
        return tuple(entry for entry in self.entries if entry.split == name and entry.frames >= at_least)


def decode_dataset(dataset: Path, folder: Path) -> Clips:
    """Decode a dataset's newest version into `folder`, unless that version is there already; return its clips."""
    snapshot = Dataset.open(dataset)
    version = snapshot.version.short
    if (folder / INDEX).is_file() and json.loads((folder / INDEX).read_text())["version"] == version:
        return load_clips(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = snapshot.labels.to_pylist()
    total = sum(row["frames"] for row in rows)
    scratch = folder / f".{FRAMES}.{os.getpid()}"
    entries, start, covered = [], 0, []
    plan = WorkingFolder.open(dataset).plan
    stored: np.memmap[Any, np.dtype[np.uint8]] | None = None
    for clip, row in zip(snapshot, rows, strict=True):
        video_THW3 = clip.frames()
        if stored is None:
            stored = np.lib.format.open_memmap(scratch, "w+", np.uint8, (total, *video_THW3.shape[1:]))
        stored[start : start + len(video_THW3)] = video_THW3
        labels = {key: value for key, value in row.items() if isinstance(value, bool | int | float | str)}
        scene = plan.scene_by_id[row["scene_id"]].spec
        things = thing_boxes(scene)
        entries.append(Entry(row["clip_id"], start, len(video_THW3), row["caption"], row["split"], labels, things))
        covered.append(covered_cells(scene, plan.clip_by_id[row["clip_id"]].values))
        start += len(video_THW3)
    assert stored is not None
    stored.flush()
    np.save(folder / COVERED, np.concatenate(covered))
    os.replace(scratch, folder / FRAMES)
    index = {"version": version, "clips": [vars(entry) for entry in entries]}
    temporary = folder / f".{INDEX}.{os.getpid()}"
    temporary.write_text(json.dumps(index))
    os.replace(temporary, folder / INDEX)
    return load_clips(folder)


def load_clips(folder: Path) -> Clips:
    """Return the decoded clips of a folder."""
    index = json.loads((folder / INDEX).read_text())
    covered = np.load(folder / COVERED) if (folder / COVERED).is_file() else None
    return Clips(tuple(Entry(**entry) for entry in index["clips"]), np.load(folder / FRAMES, mmap_mode="r"), covered)


def draw_windows(
    clips: Clips, entries: Sequence[Entry], frames: int, count: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return `count` random stretches [B, T, H, W, 3] of `frames` frames, mirrored across, down and in time at random."""
    windows = []
    for position in rng.integers(len(entries), size=count):
        entry = entries[int(position)]
        start = int(rng.integers(entry.frames - frames + 1))
        window_THW3 = clips.video(entry)[start : start + frames]
        across, down, back = (1 if flag else -1 for flag in rng.integers(2, size=3))
        windows.append(window_THW3[::back, ::down, ::across])
    return np.stack(windows)
