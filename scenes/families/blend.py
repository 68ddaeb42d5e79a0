"""A scene of one's own: a marked .blend file, rendered over the axes like a family.

Its marks (`stopdown mark`) say what Blender knows of it and the plan cannot ask: the camera, the focus, where the moving object
is in every frame, where a neutral patch is. A scene is a stretch of the file's frames, drawn at random. The closed forms hold
where the marks allow them: constant velocity before a still, upright, unshifted camera; elsewhere a label has no proof, and the
label table says so.

Array legend: K frames, 3 coordinates (metres).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from scenes.camera import project
from scenes.errors import SceneError
from scenes.families.base import Family, Laws
from scenes.spec import Background, BlendSource, Camera, Light, Material, Motion, Role, SceneSpec, Shot, Solid, Spec, Vec3

MARKS_FORMAT = 1
AXES_SHOWN = frozenset({"shutter", "aperture", "temperature"})
STRAIGHT_PX = 0.1  # how far from constant velocity an object may be seen and still be held to its closed form
STILL_M = 1e-6
_UNSEEN = Material(color_name="grey", albedo=(0.5, 0.5, 0.5))  # the file has materials of its own


class Marked(Spec):
    """An object of the file: its name, its size (metres, along the world's axes), and its centre in every frame."""

    name: str
    size_m: Vec3
    path_m: tuple[Vec3, ...] = Field(min_length=3, description="from one frame before the first to one after the last")


class Marks(Spec):
    """What is known of a .blend file whose bytes have this sha256. Frames are Blender's, first and last included."""

    format: Literal[1] = 1
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    file: str
    scene: str
    camera: str
    caption: str = Field(min_length=1)
    fps: int = Field(gt=0)
    first_frame: int
    last_frame: int
    location_m: Vec3
    target_m: Vec3
    focal_length_mm: float = Field(gt=0)
    sensor_fit: Literal["AUTO", "HORIZONTAL", "VERTICAL"]
    sensor_width_mm: float = Field(gt=0)
    sensor_height_mm: float = Field(gt=0)
    focus_distance_m: float = Field(gt=0)
    unproven: str = Field(default="", description="why the camera allows no closed form; empty: it does")
    subject: Marked | None = None
    patch: Marked | None = None

    def horizontal_sensor_mm(self, shot: Shot) -> float:
        """Return the width of sensor that a shot's width shows, as Blender fits it."""
        if self.sensor_fit == "HORIZONTAL" or (self.sensor_fit == "AUTO" and shot.width >= shot.height):
            return self.sensor_width_mm
        upright_mm = self.sensor_width_mm if self.sensor_fit == "AUTO" else self.sensor_height_mm
        return upright_mm * shot.width / shot.height


def blend_family(marks: Marks) -> Family:
    """Return the family of a marked file."""

    def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
        return draw_stretch(marks, rng, shot, laws)

    return Family(name="blend", summary=BLEND.summary, shows=AXES_SHOWN, draw=draw, rules=(_in_sight,), max_tries=50)


def draw_stretch(marks: Marks, rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw which of the file's frames a scene is made of; raises SceneError where the file cannot serve the recipe."""
    starts = marks.last_frame - marks.first_frame + 2 - shot.frames
    if marks.fps != shot.fps:
        raise SceneError(
            f"{marks.file} runs at {marks.fps} frames a second, the recipe at {shot.fps}; write video.fps = {marks.fps}"
        )
    if starts < 1:
        raise SceneError(
            f"{marks.file} has the frames {marks.first_frame} to {marks.last_frame}, a clip needs {shot.frames}; "
            "ask for fewer frames or lengthen the scene's range and mark it again"
        )
    if "shutter" in laws and marks.subject is None:
        raise SceneError(f"{marks.file} marks nothing that moves, so it shows no shutter; mark it again with --subject OBJECT")
    first = int(rng.integers(starts))
    camera = Camera(
        location_m=marks.location_m,
        target_m=marks.target_m,
        focal_length_mm=marks.focal_length_mm,
        sensor_width_mm=marks.horizontal_sensor_mm(shot),
        focus_distance_m=marks.focus_distance_m,
    )
    solids: list[Solid] = []
    things: tuple[tuple[Role, Marked | None], ...] = (("subject", marks.subject), ("patch", marks.patch))
    for role, marked in things:
        solid = None if marked is None or marks.unproven else as_solid(role, marked, first, camera, shot)
        solids += [solid] if solid is not None else []
    return SceneSpec(
        family="blend",
        shot=shot,
        camera=camera,
        light=Light(direction=(0.0, 0.0, 1.0)),
        background=Background(name="its own", bottom=(0.0, 0.0, 0.0), top=(0.0, 0.0, 0.0)),
        solids=tuple(solids),
        blend=BlendSource(sha256=marks.sha256, scene=marks.scene, camera=marks.camera, first_frame=marks.first_frame + first),
    )


def as_solid(role: Role, marked: Marked, first: int, camera: Camera, shot: Shot) -> Solid | None:
    """Return a marked object as the closed forms know solids, or None where it moves otherwise than they do.

    `first` counts from the file's first frame. A subject must move straight and evenly, a patch must stand still.
    """
    path_K3 = np.array(marked.path_m[first : first + shot.frames + 2])  # one frame more on both sides: exposures reach there
    velocity_3 = (path_K3[-1] - path_K3[0]) * shot.fps / (len(path_K3) - 1)
    times_K = (np.arange(len(path_K3)) - 1) / shot.fps
    straight_K3 = path_K3[0] + np.outer(times_K - times_K[0], velocity_3)
    moves = bool(np.abs(path_K3 - path_K3[0]).max() > STILL_M)
    if (role == "patch" and moves) or _largest_gap_px(path_K3, straight_K3, camera, shot) > STRAIGHT_PX:
        return None
    motion = Motion(location_m=_vec3(straight_K3[1]), velocity_m_per_s=_vec3(velocity_3) if moves else (0.0, 0.0, 0.0))
    size_m = _vec3(np.maximum(marked.size_m, 1e-6))
    return Solid(name=marked.name, role=role, kind="cube", scale_m=size_m, material=_UNSEEN, motion=motion)


def _largest_gap_px(one_K3: NDArray[np.float64], other_K3: NDArray[np.float64], camera: Camera, shot: Shot) -> float:
    one_K2, depth_K = project(camera, shot, one_K3)
    other_K2, _ = project(camera, shot, other_K3)
    return float(np.hypot(*(one_K2 - other_K2).T).max()) if float(depth_K.min()) > 0 else math.inf


def _vec3(values_3: NDArray[np.float64]) -> Vec3:
    x, y, z = (float(value) for value in values_3)
    return (x, y, z)


def _in_sight(scene: SceneSpec, laws: Laws) -> str | None:
    """Ask that the centre of the moving object be in the picture in every frame."""
    for solid in scene.with_role("subject"):
        steps_K1 = np.array(scene.shot.times_s)[:, None]
        path_K3 = np.asarray(solid.motion.location_m) + steps_K1 * np.asarray(solid.motion.velocity_m_per_s)
        pixels_K2, depth_K = project(scene.camera, scene.shot, path_K3)
        inside_K = (pixels_K2 >= 0).all(axis=1) & (pixels_K2 <= (scene.shot.width, scene.shot.height)).all(axis=1)
        if not (inside_K & (depth_K > 0)).all():
            return f"'{solid.name}' leaves the picture"
    return None


def _draw_unmarked(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    raise SceneError(
        'family \'blend\' needs a marked file; write [scene] family = "blend" and file = "YOUR.blend" in the recipe'
    )


BLEND = Family(
    name="blend",
    summary="a .blend file of your own, marked by `stopdown mark`",
    shows=AXES_SHOWN,
    draw=_draw_unmarked,
    rules=(),
    max_tries=1,
)
