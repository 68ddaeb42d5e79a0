"""Which labels of a marked .blend have a closed form, and why the others have none; known before anything is rendered.

The closed forms know a camera that is still, upright and unshifted, things that move straight and evenly without turning or
changing shape, and a neutral patch that stands still. Between frames as well as in them: an exposure sees all of it.

Array legend: K places over time, 2 picture coordinates, 3 coordinates (metres).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from scenes.arrays import Floats
from scenes.camera import focal_px, project
from scenes.families.base import Laws
from scenes.families.blend_annotation import AnnotatedObject, Annotation
from scenes.spec import Camera, SceneSpec, Shot

STRAIGHT_PX = 0.1  # how far from constant velocity a thing may be seen and still be held to its closed form
STILL_M = 1e-6
MOST_FADE = 0.15  # of a light or colour a frame: as much was measured to leave shutter readings as they are
_CUT = "is cut by the edge of the picture"
NO_LIGHTS = "an annotation names no small round lights, whose blur discs would verify an f-number"


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """The frames of a file that a scene is made of: `first` counts from the file's first; exposures reach out by `reach`."""

    first: int
    reach: float
    camera: Camera
    shot: Shot

    def places(self, annotated: AnnotatedObject) -> tuple[Floats, Floats, Floats]:
        """Return times (frames) `[K]`, places (metres) `[K, 3]`, and how loose the steps between them are `[K - 1]`."""
        steps = annotated.steps
        out = 1 if steps == 1 else math.ceil(self.reach * steps - 1e-6)
        start, stop = (self.first + 1) * steps - out, (self.first + self.shot.frames) * steps + out + 1
        path_K3 = np.array(annotated.path_m[start:stop])
        loose_K = np.array(annotated.loose_m[start : stop - 1]) if annotated.loose_m else np.zeros(len(path_K3) - 1)
        return (np.arange(len(path_K3)) - out) / steps, path_K3, loose_K


def reach_frames(laws: Laws) -> float:
    """Return how far (frames) exposures may reach out of their frame; content must not hang on how long they are."""
    return 0.5 if "shutter" in laws else 0.0


def straight(annotated: AnnotatedObject, stretch: Stretch) -> tuple[Floats, Floats]:
    """Return the even, straight motion between its ends: place at time 0 (metres) and velocity (metres per second)."""
    times_K, path_K3, _ = stretch.places(annotated)
    if len(path_K3) < 2:
        return path_K3[0], np.zeros(3)
    velocity_3 = (path_K3[-1] - path_K3[0]) / (times_K[-1] - times_K[0])
    return path_K3[0] - velocity_3 * times_K[0], velocity_3 * stretch.shot.fps


def stands_still(annotated: AnnotatedObject, stretch: Stretch) -> bool:
    """Return whether nothing of a thing moves."""
    _, path_K3, loose_K = stretch.places(annotated)
    return bool(np.abs(path_K3 - path_K3[0]).max() <= STILL_M and loose_K.max(initial=0.0) <= STILL_M)


def why_uneven(annotated: AnnotatedObject, stretch: Stretch) -> str:
    """Return in words how a thing moves otherwise than straight and evenly; empty where it does not."""
    times_K, path_K3, loose_K = stretch.places(annotated)
    pixels_K2, depth_K = project(stretch.camera, stretch.shot, path_K3)
    if not (depth_K > 0).all():
        return "is not before the camera"
    px_per_m = focal_px(stretch.camera, stretch.shot) / float(depth_K.min())
    if loose_K.max(initial=0.0) * annotated.steps * px_per_m > STRAIGHT_PX:
        return annotated.how
    start_3, velocity_3 = straight(annotated, stretch)
    even_K3 = start_3 + np.outer(times_K / stretch.shot.fps, velocity_3)
    even_K2, even_depth_K = project(stretch.camera, stretch.shot, even_K3)
    gap_px = float(np.hypot(*(pixels_K2 - even_K2).T).max()) if (even_depth_K > 0).all() else math.inf
    return "" if gap_px <= STRAIGHT_PX else _kind_of_motion(pixels_K2, annotated.steps)


def _kind_of_motion(pixels_K2: Floats, steps: int) -> str:
    """Return why a path in the picture is not straight and even."""
    step_K2 = np.diff(pixels_K2, axis=0)
    speed_K = np.hypot(*step_K2.T) * steps
    low, high = float(speed_K.min()), float(speed_K.max())
    moving = np.flatnonzero(speed_K > 0.02 * high)
    if len(moving) < len(speed_K):
        if len(moving) == moving[-1] - moving[0] + 1 and len(moving) > 1:
            return "starts or stops inside an exposure (its keys end there; let it move a frame longer on both sides)"
        return "moves in steps (constant keys), so that longer exposures blur no more"
    chord_2 = pixels_K2[-1] - pixels_K2[0]
    length = float(np.hypot(*chord_2))
    from_start_K2 = pixels_K2 - pixels_K2[0]
    aside_px = np.abs(from_start_K2[:, 0] * chord_2[1] - from_start_K2[:, 1] * chord_2[0]).max() / max(length, 1e-9)
    if length < 1e-6 or aside_px > STRAIGHT_PX or (step_K2 @ chord_2 < 0).any():
        return "moves along a bent path"
    return f"speeds up or slows down, {low:.2g} to {high:.2g} px a frame (make its keys linear for an even speed)"


def why_changing(annotation: Annotation, stretch: Stretch) -> str:
    """Return which look of the file changes in these frames in a way that motion is misread by; empty where none does."""
    for one in annotation.changing:
        out = math.ceil(stretch.reach * one.steps - 1e-6)
        start, stop = (stretch.first + 1) * one.steps - out, (stretch.first + stretch.shot.frames) * one.steps + out
        largest = max(one.by[max(start, 0) : stop], default=0.0) * one.steps
        if largest > (MOST_FADE if one.gentle else 0.0):
            return f"{one.name} changes{f' by {largest:.0%} a frame, which flickers' if one.gentle else ''}"
    return ""


def why_unproven(annotation: Annotation, scene: SceneSpec, axis: str, laws: Laws) -> str:
    """Return why an axis's label has no closed form in this scene of a marked file; empty where it has one."""
    assert scene.blend is not None
    if axis == "aperture":
        return NO_LIGHTS
    if annotation.unproven:
        return annotation.unproven
    stretch = Stretch(
        first=scene.blend.first_frame - annotation.first_frame,
        reach=reach_frames(laws),
        camera=scene.camera,
        shot=scene.shot,
    )
    return _why_no_exposure(annotation, stretch) if axis == "shutter" else _why_no_kelvin(annotation, stretch)


def _why_no_exposure(annotation: Annotation, stretch: Stretch) -> str:
    for annotated in annotation.subjects:
        why = why_uneven(annotated, stretch) or (_CUT if annotated.steps > 1 and not _inside(annotated, stretch) else "")
        if why:
            return f"'{annotated.name}' {why}"
    subjects, patch = annotation.subjects, annotation.patch
    if all(stands_still(annotated, stretch) for annotated in subjects):
        return f"'{subjects[0].name}' stands still in these frames" if subjects else "nothing is marked that moves"
    if why := why_changing(annotation, stretch):
        return why
    for annotated in (*annotation.others, *(() if patch is None or patch in subjects else (patch,))):
        if _in_picture(annotated, stretch) and (why := why_uneven(annotated, stretch)):
            return f"'{annotated.name}', which moves too, {why}"
    return ""


def _why_no_kelvin(annotation: Annotation, stretch: Stretch) -> str:
    patch = annotation.patch
    if patch is None:
        return "no neutral patch is marked (--patch OBJECT)"
    return annotation.patch_unproven if stands_still(patch, stretch) else f"the neutral patch '{patch.name}' moves"


def _inside(annotated: AnnotatedObject, stretch: Stretch) -> bool:
    """Return whether all of a thing's box is in the picture all the time."""
    _, path_K3, _ = stretch.places(annotated)
    corners_83 = np.array(list(product((-0.5, 0.5), repeat=3))) * annotated.size_m
    pixels_N2, depth_N = project(stretch.camera, stretch.shot, (path_K3[:, None] + corners_83).reshape(-1, 3))
    size_2 = np.array((stretch.shot.width, stretch.shot.height))
    return bool((depth_N > 0).all() and ((pixels_N2 >= 0) & (pixels_N2 <= size_2)).all())


def _in_picture(annotated: AnnotatedObject, stretch: Stretch) -> bool:
    """Return whether any of a thing's places, with its size, may be seen."""
    _, path_K3, _ = stretch.places(annotated)
    pixels_K2, depth_K = project(stretch.camera, stretch.shot, path_K3)
    margin_K1 = (max(annotated.size_m) * focal_px(stretch.camera, stretch.shot) / np.maximum(depth_K, 1e-6) / 2)[:, None]
    size_2 = np.array((stretch.shot.width, stretch.shot.height))
    inside_K = ((pixels_K2 > -margin_K1) & (pixels_K2 < size_2 + margin_K1)).all(axis=1)
    return bool((inside_K & (depth_K > 0)).any())
