"""Rerun: one recording (`.rrd`) per scene that opens in the Rerun viewer: cameras, boxes, depth, flow, ids, clips, labels.

Needs the extra `rerun`. The library stamps recordings with ids of its own: contents are the same every time, bytes are not.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from generator.export.base import Exporter, ExportJob, Row
from generator.export.files.entries import Entry, MadeFolder
from generator.export.truth_scenes import TruthScene, each_scene, truth_scenes
from generator.export.write_folder import verified_bytes
from generator.media.video import decode
from generator.truth.colored import flow_colors
from generator.truth.pass_files import id_colors
from scenes.axes import AXES
from scenes.errors import InputError

NAME = "rerun"
TIME = "time"


def _entries(job: ExportJob) -> Iterator[Entry]:
    if importlib.util.find_spec("rerun") is None:
        raise InputError(
            'the format rerun needs the package rerun-sdk, which is not installed; run `pip install "stopdown[rerun]"`'
        )
    for scene in each_scene(truth_scenes(job, NAME)):
        rows = [row for row in job.rows if row["scene_id"] == scene.scene_id]
        yield MadeFolder(path=scene.scene_id, write=partial(_write, job, scene, rows))


def _write(job: ExportJob, scene: TruthScene, rows: Sequence[Row], target: Path) -> None:
    import rerun as rr

    target.mkdir(parents=True)
    recording = rr.RecordingStream(f"stopdown {job.source.origin.name}", recording_id=scene.scene_id)
    recording.save(str(target / "scene.rrd"))
    recording.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    recording.log("caption", rr.TextDocument(scene.caption), static=True)
    recording.log("world/camera/picture/ids", _legend(rr, scene), static=True)
    _log_clips(rr, recording, job, rows)
    for frame, time_s in enumerate(scene.reader.scene.times_s):
        recording.set_time(TIME, duration=time_s)
        _log_camera(rr, recording, scene, frame)
        _log_boxes(rr, recording, scene, frame)
    _log_pictures(rr, recording, scene)
    recording.flush()
    recording.disconnect()


def _legend(rr: Any, scene: TruthScene) -> Any:
    colors = id_colors()
    things = [
        (thing.id, thing.name, tuple(int(part) for part in colors[thing.id % 256])) for thing in scene.reader.scene.objects
    ]
    return rr.AnnotationContext([(0, "background", (24, 24, 24)), *things])


def _log_clips(rr: Any, recording: Any, job: ExportJob, rows: Sequence[Row]) -> None:
    """Log every clip of the scene with its label."""
    for row in rows:
        frames_THW3 = decode(verified_bytes(job.source, row["clip_id"], row["sha256_bytes"]))
        said = [f"{name}: {axis.format(row[axis.column])}" for name, axis in AXES.items() if row.get(axis.column) is not None]
        recording.log(f"clips/{row['clip_id']}/label", rr.TextDocument("; ".join(said)), static=True)
        for frame, picture_HW3 in enumerate(frames_THW3):
            recording.set_time(TIME, duration=frame / row["fps"])
            recording.log(f"clips/{row['clip_id']}", rr.Image(picture_HW3).compress(jpeg_quality=92))
            for name, axis in AXES.items():
                if row.get(axis.column) is not None:
                    recording.log(f"labels/{row['clip_id']}/{name}", rr.Scalars(row[axis.column]))


def _log_camera(rr: Any, recording: Any, scene: TruthScene, frame: int) -> None:
    truth = scene.reader.scene
    camera = truth.cameras[frame]
    pose_44 = np.array(camera.camera_to_world_opencv)
    recording.log("world/camera", rr.Transform3D(translation=pose_44[:3, 3], mat3x3=pose_44[:3, :3]))
    pinhole = rr.Pinhole(
        image_from_camera=np.array(camera.intrinsics),
        resolution=[truth.width, truth.height],
        camera_xyz=rr.ViewCoordinates.RDF,
        image_plane_distance=1.0,
    )
    recording.log("world/camera/picture", pinhole)


def _log_boxes(rr: Any, recording: Any, scene: TruthScene, frame: int) -> None:
    """Log the 3-D box of every object, and the 2-D boxes of what is seen."""
    truth, colors = scene.reader.scene, id_colors()
    for thing in truth.objects:
        pose_44, (low, high) = np.array(thing.frames[frame].object_to_world), np.array(thing.extent_m)
        path = f"world/objects/{thing.id:03d}_{thing.name.replace(' ', '_')}"
        recording.log(path, rr.Transform3D(translation=pose_44[:3, 3], mat3x3=pose_44[:3, :3]))
        box = rr.Boxes3D(centers=[(low + high) / 2], half_sizes=[(high - low) / 2], labels=[thing.name], class_ids=[thing.id])
        recording.log(path, box)
    shown = [(thing, box) for thing in truth.objects if (box := thing.frames[frame].box_visible) is not None]
    boxes = rr.Boxes2D(
        array=np.array([box for _, box in shown]).reshape(-1, 4),
        array_format=rr.Box2DFormat.XYXY,
        class_ids=[thing.id for thing, _ in shown],
        colors=[colors[thing.id % 256] for thing, _ in shown],
    )
    recording.log("world/camera/picture/boxes", boxes)


def _log_pictures(rr: Any, recording: Any, scene: TruthScene) -> None:
    reader, at = scene.reader, "world/camera/picture"
    kept = reader.scene.passes
    depth_THW = reader.depth() if "depth" in kept else None
    ids_THW = reader.instances() if "instances" in kept else None
    sharp_THW3 = reader.sharp() if "sharp" in kept else None
    flow_THW3 = flow_colors(reader) if "flow" in kept else None
    normals_THW3 = (reader.normals() + 1.0) / 2.0 if "normals" in kept else None
    for frame, time_s in enumerate(reader.scene.times_s):
        recording.set_time(TIME, duration=time_s)
        if sharp_THW3 is not None:
            recording.log(f"{at}/sharp", rr.Image(sharp_THW3[frame]).compress(jpeg_quality=95))
        if depth_THW is not None:
            depth_HW = np.where(np.isinf(depth_THW[frame]), 0.0, depth_THW[frame]).astype(np.float32)
            recording.log(f"{at}/depth", rr.DepthImage(depth_HW, meter=1.0))
        if ids_THW is not None:
            recording.log(f"{at}/ids", rr.SegmentationImage(ids_THW[frame]))
        if flow_THW3 is not None:
            recording.log("flow", rr.Image(flow_THW3[min(frame, len(flow_THW3) - 1)]))
        if normals_THW3 is not None:
            recording.log("normals", rr.Image(np.rint(normals_THW3[frame] * 255).astype(np.uint8)))


RERUN = Exporter(
    summary="recordings for the Rerun viewer, one per scene: cameras, boxes, depth, flow, clips, labels (extra `rerun`)",
    entries=_entries,
    usage=lambda job: f"rerun {job.place(job.rows[0]['scene_id'])}/scene.rrd",
    several_splits=True,
    needs_truth=True,
)
