"""A custom .blend, marked by `stopdown mark`, rendered over the axes like a family.

Its annotation, which `stopdown mark` writes, holds what only Blender knows and the plan needs: the camera, the focus, where
the moving object is at every moment, where a neutral patch is. A scene is a stretch of the file's frames, drawn at random. The
closed forms hold where the annotation allows them (`blend_proof`); elsewhere a label has no proof, and the label table says so.

Array legend: K frames, 3 coordinates (metres).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scenes.camera import project
from scenes.errors import SceneError
from scenes.families.base import Family, Laws
from scenes.families.blend_annotation import AnnotatedObject, Annotation
from scenes.families.blend_proof import Stretch, reach_frames, stands_still, straight, why_uneven, why_unproven
from scenes.spec import Background, BlendSource, Camera, Light, Material, Motion, Role, SceneSpec, Shot, Solid, Vec3

AXES_SHOWN = frozenset({"shutter", "aperture", "temperature"})
SEEN_SQUARE = "plane"  # the kind of a patch whose place and size are those of a square of it that the camera sees
MOST_TRIED = 50  # stretches, in search of one with closed forms
_UNSEEN = Material(color_name="grey", albedo=(0.5, 0.5, 0.5))  # the file has materials of its own


def blend_family(annotation: Annotation) -> Family:
    """Return the family of a marked file."""

    def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
        return draw_stretch(annotation, rng, shot, laws)

    return Family(name="blend", summary=BLEND.summary, shows=AXES_SHOWN, draw=draw, rules=(_in_sight,), max_tries=50)


def draw_stretch(annotation: Annotation, rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw which of the file's frames a scene is made of, among those that can be verified where there are any.

    Raises SceneError where the file cannot serve the recipe.
    """
    starts = annotation.last_frame - annotation.first_frame + 2 - shot.frames
    if annotation.fps != shot.fps:
        raise SceneError(
            f"{annotation.file} runs at {annotation.fps} frames a second, the recipe at {shot.fps}; "
            f"write video.fps = {annotation.fps}"
        )
    if starts < 1:
        raise SceneError(
            f"{annotation.file} has the frames {annotation.first_frame} to {annotation.last_frame}, and a clip needs "
            f"{shot.frames}; ask for fewer frames or lengthen the scene's range and mark it again"
        )
    if "shutter" in laws and annotation.subject is None:
        raise SceneError(
            f"{annotation.file} marks nothing that moves, so it shows no shutter; mark it again with --subject OBJECT"
        )
    if annotation.format == 1:
        return _stretch(annotation, int(rng.integers(starts)), shot, laws)
    order = [int(first) for first in rng.permutation(starts)[:MOST_TRIED]]
    drawn = (_stretch(annotation, first, shot, laws) for first in order)
    found = next((scene for scene in drawn if _is_verified(annotation, scene, laws)), None)
    return found if found is not None else _stretch(annotation, order[0], shot, laws)


def _is_verified(annotation: Annotation, scene: SceneSpec, laws: Laws) -> bool:
    """Return whether a stretch allows whatever closed forms a file can have at all."""
    return not any(why_unproven(annotation, scene, axis, laws) for axis in laws if axis != "aperture")


def _stretch(annotation: Annotation, first: int, shot: Shot, laws: Laws) -> SceneSpec:
    """Return the scene of a file's frames from the one that is `first` counted from its first."""
    camera = Camera(
        location_m=annotation.location_m,
        target_m=annotation.target_m,
        focal_length_mm=annotation.focal_length_mm,
        sensor_width_mm=annotation.horizontal_sensor_mm(shot),
        focus_distance_m=annotation.focus_distance_m,
    )
    stretch = Stretch(first=first, reach=reach_frames(laws), camera=camera, shot=shot)
    things: list[tuple[Role, AnnotatedObject]] = [("subject", annotated) for annotated in annotation.subjects]
    things += [("patch", annotation.patch)] if annotation.patch is not None else []
    solids = [] if annotation.unproven else [as_solid(role, annotated, stretch) for role, annotated in things]
    return SceneSpec(
        family="blend",
        shot=shot,
        camera=camera,
        light=Light(direction=(0.0, 0.0, 1.0)),
        background=Background(name="its own", bottom=(0.0, 0.0, 0.0), top=(0.0, 0.0, 0.0)),
        solids=tuple(solid for solid in solids if solid is not None),
        blend=BlendSource(
            sha256=annotation.sha256,
            scene=annotation.scene,
            camera=annotation.camera,
            first_frame=annotation.first_frame + first,
        ),
    )


def as_solid(role: Role, annotated: AnnotatedObject, stretch: Stretch) -> Solid | None:
    """Return a marked object as the closed forms know solids, or None where it moves otherwise than they do.

    A subject must move straight and evenly, a patch must stand still.
    """
    still = stands_still(annotated, stretch)
    if (role == "patch" and not still) or why_uneven(annotated, stretch):
        return None
    if role == "patch" and annotated.spot_m is not None:
        size_m = _vec3(np.full(3, max(annotated.spot_size_m, 1e-6)))
        seen = Motion(location_m=annotated.spot_m)
        return Solid(name=annotated.name, role=role, kind=SEEN_SQUARE, scale_m=size_m, material=_UNSEEN, motion=seen)
    start_3, velocity_3 = straight(annotated, stretch)
    motion = Motion(location_m=_vec3(start_3), velocity_m_per_s=(0.0, 0.0, 0.0) if still else _vec3(velocity_3))
    size_m = _vec3(np.maximum(annotated.size_m, 1e-6))
    return Solid(name=annotated.name, role=role, kind="cube", scale_m=size_m, material=_UNSEEN, motion=motion)


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
    summary="a custom .blend, marked by `stopdown mark`",
    shows=AXES_SHOWN,
    draw=_draw_unmarked,
    rules=(),
    max_tries=1,
)
