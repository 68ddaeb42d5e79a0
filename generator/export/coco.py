"""COCO: the sharp frames as images; every object in every frame as an annotation with its mask, box and track.

Instances are what COCO's own tools read; `videos`, `tracks` and each annotation's `track_id` are as TAO adds them.
Masks are uncompressed run lengths, column by column, as `pycocotools` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from generator.export.base import Exporter, ExportJob
from generator.export.files.entries import Entry, TextFile
from generator.export.truth_scenes import TruthScene, truth_scenes
from generator.truth.truth_names import frame_file
from scenes.primitives import PRIMITIVES

NAME = "coco"


def _entries(job: ExportJob) -> Iterator[Entry]:
    for split, scenes in truth_scenes(job, NAME, "instances", "sharp").items():
        for scene in scenes:
            for frame in range(len(scene.reader.scene.times_s)):
                data = scene.reader.file(frame_file("sharp", frame))
                yield TextFile(path=f"{split}/{scene.scene_id}/{frame:04d}.png", data=data)
        tree = annotation_tree(scenes)
        yield TextFile(path=f"annotations/instances_{split}.json", data=json.dumps(tree, ensure_ascii=False).encode())


def annotation_tree(scenes: list[TruthScene]) -> dict[str, Any]:
    """Return the annotation file of some scenes as a JSON tree; ids count from 1."""
    kinds = sorted({*PRIMITIVES, *(thing.kind for scene in scenes for thing in scene.reader.scene.objects)})
    tree: dict[str, Any] = {"info": {"description": "rendered by Stopdown"}, "licenses": []}
    tree["categories"] = [{"id": number, "name": kind} for number, kind in enumerate(kinds, 1)]
    tree |= {"videos": [], "images": [], "tracks": [], "annotations": []}
    for video, scene in enumerate(scenes, 1):
        truth, ids_THW = scene.reader.scene, scene.reader.instances()
        size = {"width": truth.width, "height": truth.height}
        tree["videos"].append({"id": video, "name": scene.scene_id, "fps": truth.fps, "caption": scene.caption, **size})
        first_track = len(tree["tracks"])
        for thing in truth.objects:
            track = {"id": first_track + thing.id, "video_id": video, "category_id": kinds.index(thing.kind) + 1}
            tree["tracks"].append({**track, "name": thing.name, "role": thing.role, "color": thing.color})
        for frame, ids_HW in enumerate(ids_THW):
            image = len(tree["images"]) + 1
            place = {"file_name": f"{scene.scene_id}/{frame:04d}.png", "video_id": video, "frame_index": frame}
            tree["images"].append({"id": image, **place, **size})
            for thing in truth.objects:
                now = thing.frames[frame]
                if now.box_visible is None:
                    continue
                left, top, right, bottom = now.box_visible
                tree["annotations"].append(
                    {
                        "id": len(tree["annotations"]) + 1,
                        "image_id": image,
                        "video_id": video,
                        "track_id": first_track + thing.id,
                        "category_id": kinds.index(thing.kind) + 1,
                        "segmentation": {"size": [truth.height, truth.width], "counts": run_lengths(ids_HW == thing.id)},
                        "area": now.pixels,
                        "bbox": [left, top, right - left, bottom - top],
                        "iscrowd": 0,
                        "visibility": now.visibility,
                        "bbox_full": None if now.box_full is None else _xywh(now.box_full),
                    }
                )
    return tree


def run_lengths(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Return COCO's run lengths: down the columns, of zeros first."""
    flat = np.concatenate([[False], mask_HW.ravel(order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    lengths = np.diff(np.concatenate([[0], edges, [mask_HW.size]]))
    return [int(length) for length in (lengths[:-1] if lengths[-1] == 0 else lengths)]


def _xywh(box: tuple[float, float, float, float]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]


COCO = Exporter(
    summary="COCO: the sharp frames with masks, boxes and tracks, by split (needs [truth] instances and sharp)",
    entries=_entries,
    usage=lambda job: f'pycocotools.coco.COCO("{job.place(f"annotations/instances_{next(iter(job.splits))}.json")}")',
    several_splits=True,
    needs_truth=True,
)
