"""Runs an axis's blind probe on a clip; on a custom .blend, what reads a neutral sees its neutral patch.

A custom .blend may hold anything, a large wall that looks like a neutral under another light too, and says where its
neutral is. The probe itself stays blind: it sees the patch's pixels and nothing else.

Array legend: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scenes.axes import AXES, Reading
from scenes.camera import focal_px, project
from scenes.families.blend import SEEN_SQUARE
from scenes.spec import SceneSpec

LEAST_PX = 4  # side of a patch from which it is read


def read(axis: str, frames_THW3: NDArray[np.uint8], fps: float, where: tuple[int, int, int, int] | None) -> Reading:
    """Return what an axis's probe reads; `where` is the region (left, top, right, bottom) of the neutral, or None."""
    if where is None or not AXES[axis].reads_neutral:
        return AXES[axis].probe(frames_THW3, fps)
    left, top, right, bottom = where
    reading = AXES[axis].probe(np.ascontiguousarray(frames_THW3[:, top:bottom, left:right]), fps)
    return replace(
        reading,
        detections=tuple(
            replace(detection, x_px=detection.x_px + left, y_px=detection.y_px + top) for detection in reading.detections
        ),
    )


def neutral_region(scene: SceneSpec) -> tuple[int, int, int, int] | None:
    """Return the pixels (left, top, right, bottom) of a marked neutral patch that was seen, or None where there is none."""
    patches = [solid for solid in scene.with_role("patch") if solid.kind == SEEN_SQUARE]
    if scene.blend is None or not patches:
        return None
    (patch, *_) = patches
    pixels_12, depth_1 = project(scene.camera, scene.shot, np.array([patch.motion.location_m]))
    half_px = patch.scale_m[0] * focal_px(scene.camera, scene.shot) / float(depth_1[0]) / 2
    (x_px, y_px), shot = pixels_12[0], scene.shot
    left, right = max(0, round(x_px - half_px)), min(shot.width, round(x_px + half_px))
    top, bottom = max(0, round(y_px - half_px)), min(shot.height, round(y_px + half_px))
    return (left, top, right, bottom) if min(right - left, bottom - top) >= LEAST_PX else None
