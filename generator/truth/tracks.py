"""Boxes and tracks: where every object is in every frame, from its pose, its mesh and the ids that pixels show.

Array legend: H rows, W columns; V vertices, F triangles; 2 pixels, 3 coordinates (metres).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from generator.truth.flow import Moment
from generator.truth.raster import clipped, depth_of_mesh, triangles
from generator.truth.scene_file import Box, FrameCamera, ObjectFrame, SceneObject, matrix
from generator.truth.stage import Stage, Thing
from generator.truth.view_camera import ViewCamera
from scenes.arrays import Floats


class Tracks:
    """Gathers objects and cameras frame by frame; what stands still before a camera that stands still is drawn once."""

    def __init__(self, stage: Stage, height: int, width: int) -> None:
        self._stage = stage
        self._size = height, width
        self._shapes = [None if t.vertices_V3 is None else triangles(t.vertices_V3, t.faces) for t in stage.things]
        self._alone: dict[int, tuple[Floats, Floats, int, Box | None]] = {}
        self._frames: list[list[ObjectFrame]] = [[] for _ in stage.things]
        self._cameras: list[FrameCamera] = []

    def add(self, moment: Moment) -> None:
        """Take in the next frame."""
        camera = moment.camera
        self._cameras.append(
            FrameCamera(
                intrinsics=matrix(camera.intrinsics_33),
                world_to_camera_opencv=matrix(camera.world_to_camera_44),
                camera_to_world_opencv=matrix(camera.camera_to_world_44),
                matrix_world_blender=matrix(camera.matrix_world_44),
            )
        )
        boxes = visible_boxes(moment.geometry.ids_HW, len(self._frames))
        counts = np.bincount(moment.geometry.ids_HW.ravel(), minlength=len(self._frames) + 1)
        for place, pose_44 in enumerate(moment.poses):
            self._frames[place].append(self._frame(place, pose_44, camera, int(counts[place + 1]), boxes[place]))

    def objects(self) -> tuple[SceneObject, ...]:
        """Return every object with its track."""
        return tuple(
            _object(place + 1, thing, frames)
            for place, (thing, frames) in enumerate(zip(self._stage.things, self._frames, strict=True))
        )

    def cameras(self) -> tuple[FrameCamera, ...]:
        """Return the camera of every frame."""
        return tuple(self._cameras)

    def _frame(self, place: int, pose_44: Floats, camera: ViewCamera, pixels: int, box: Box | None) -> ObjectFrame:
        local_3 = camera.local(pose_44[None, :3, 3])[0]
        center_2 = camera.pixels(local_3[None])[0] if local_3[2] > 0 else None
        alone, full = self._drawn_alone(place, pose_44, camera)
        return ObjectFrame(
            object_to_world=matrix(pose_44),
            center_px=None if center_2 is None else (float(center_2[0]), float(center_2[1])),
            center_depth_m=float(local_3[2]),
            pixels=pixels,
            visibility=None if alone is None else min(1.0, pixels / alone) if alone else 0.0,
            box_visible=box,
            box_full=full,
        )

    def _drawn_alone(self, place: int, pose_44: Floats, camera: ViewCamera) -> tuple[int | None, Box | None]:
        """Return how many pixels an object has where nothing stands before it, and the box of its whole outline."""
        shape_F33 = self._shapes[place]
        if shape_F33 is None:
            return None, None
        known = self._alone.get(place)
        if known is not None and np.array_equal(known[0], pose_44) and np.array_equal(known[1], camera.world_to_camera_44):
            return known[2], known[3]
        world_F33 = shape_F33 @ pose_44[:3, :3].T + pose_44[:3, 3]
        pixels = int(np.isfinite(depth_of_mesh(world_F33, camera, *self._size)).sum())
        box = full_box(world_F33, camera)
        self._alone[place] = pose_44, camera.world_to_camera_44, pixels, box
        return pixels, box


def visible_boxes(ids_HW: NDArray[np.uint16], count: int) -> list[Box | None]:
    """Return the box around every object's visible pixels, by id - 1; None where it has none."""
    from scipy.ndimage import find_objects

    found = find_objects(ids_HW.astype(np.int32), max_label=count)
    return [
        None
        if slices is None
        else (float(slices[1].start), float(slices[0].start), float(slices[1].stop), float(slices[0].stop))
        for slices in found
    ]


def full_box(world_F33: Floats, camera: ViewCamera) -> Box | None:
    """Return the box around a mesh's outline, whatever hides it; None where all of it is behind the camera."""
    local_F33 = clipped(camera.local(world_F33.reshape(-1, 3)).reshape(-1, 3, 3))
    if not len(local_F33):
        return None
    image_N2 = camera.pixels(local_F33.reshape(-1, 3))
    (left, top), (right, bottom) = image_N2.min(axis=0), image_N2.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _object(number: int, thing: Thing, frames: list[ObjectFrame]) -> SceneObject:
    low, high = matrix(thing.extent_23)
    return SceneObject(
        id=number,
        name=thing.name,
        role=thing.role,
        kind=thing.kind,
        color=thing.color,
        albedo=thing.albedo,
        extent_m=((low[0], low[1], low[2]), (high[0], high[1], high[2])),
        frames=tuple(frames),
    )
