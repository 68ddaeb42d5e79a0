"""scene.json: cameras, objects, boxes and tracks of one scene, as frozen models that name every unit and convention.

A box is (left, top, right, bottom) in pixels, edges not centres: the whole first pixel is (0, 0, 1, 1).
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from generator.errors import DamagedError
from generator.recipe.truth_section import Pass
from generator.truth.truth_names import TRUTH_FORMAT
from scenes.errors import InputError
from scenes.spec import Spec, Vec3

Matrix = tuple[tuple[float, ...], ...]
Box = tuple[float, float, float, float]
SIGNIFICANT_DIGITS = 9

CONVENTIONS = {
    "pixels": "x right, y down, the first pixel's centre at (0.5, 0.5); where it is at (0, 0), take 0.5 from cx and cy",
    "world": "metres, Z up, right-handed",
    "opencv": "camera axes: X right, Y down, Z forward",
    "blender": "camera axes: X right, Y up, looking along -Z; matrix_world is camera to world",
    "depth": "depth/*.exr, channel Z: metres along the optical axis, inf where nothing is",
    "flow": "flow_*/*.png as KITTI: (value - 32768) / 64 pixels; blue 0: unknown, 1: its end is seen, 2: hidden or outside",
    "normals": "normals/*.exr, channels X Y Z: unit normal in world axes, as shaded, (0, 0, 0) where nothing is",
    "instances": "instances/*.png: the object's id, 0 where nothing is",
    "box": "left, top, right, bottom in pixels, edges",
}


class FrameCamera(Spec):
    """The camera of one frame: a pinhole."""

    intrinsics: Matrix
    world_to_camera_opencv: Matrix
    camera_to_world_opencv: Matrix
    matrix_world_blender: Matrix


class ObjectFrame(Spec):
    """One object in one frame.

    `box_visible` bounds its visible pixels (None: none); `box_full` its whole outline, whatever hides it or lies outside the
    picture (None: behind the camera, or its shape is not known). `visibility`: visible pixels as a share of those it would
    have in the picture alone (None: not known; 0 also where it would have none).
    """

    object_to_world: Matrix
    center_px: tuple[float, float] | None
    center_depth_m: float
    pixels: int
    visibility: float | None
    box_visible: Box | None
    box_full: Box | None


class SceneObject(Spec):
    """One object, with its track. `extent_m`: lowest and highest corner of its box in its own frame, in metres."""

    id: int
    name: str
    role: str
    kind: str
    color: str | None
    albedo: Vec3 | None
    extent_m: tuple[Vec3, Vec3]
    frames: tuple[ObjectFrame, ...]


class SceneTruth(Spec):
    """Everything that is known of a scene but its pictures."""

    format: int = TRUTH_FORMAT
    family: str
    width: int
    height: int
    fps: int
    times_s: tuple[float, ...]
    passes: tuple[Pass, ...]
    blender: str
    conventions: dict[str, str]
    cameras: tuple[FrameCamera, ...]
    objects: tuple[SceneObject, ...]

    def data(self) -> bytes:
        """Return the file's bytes: equal truths have equal bytes."""
        return json.dumps(_rounded(self.model_dump(mode="json")), sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_scene_file(data: bytes) -> SceneTruth:
    """Read scene.json; raises DamagedError, or InputError for truth that a newer Stopdown wrote."""
    try:
        version = json.loads(data)["format"]
        if version != TRUTH_FORMAT:
            raise InputError(f"the truth has format {version}, this Stopdown reads {TRUTH_FORMAT}; use the one that made it")
        return SceneTruth.model_validate_json(data)
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"scene.json is no truth of a scene ({type(error).__name__}); restore the version") from None


def matrix(rows: Any) -> Matrix:
    """Return an array as rows of plain numbers."""
    return tuple(tuple(float(value) for value in row) for row in rows)


def _rounded(tree: Any) -> Any:
    if isinstance(tree, float):
        return float(f"{tree:.{SIGNIFICANT_DIGITS}g}") + 0.0
    if isinstance(tree, dict):
        return {key: _rounded(value) for key, value in tree.items()}
    return [_rounded(value) for value in tree] if isinstance(tree, list) else tree
