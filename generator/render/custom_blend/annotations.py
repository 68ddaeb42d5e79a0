"""Reads what a custom .blend tells the closed forms: camera, focus, and the paths of marked objects, between frames too.

Import it only in a process that renders. The file is opened as rendering opens it, without its scripts, so that what is marked
is what is rendered; what cannot be rendered as it is marked is refused. Array legend: K moments.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from generator.render.custom_blend.animation import refuse_content_that_reads_controls
from generator.render.custom_blend.camera_view import CameraLook, Viewer, look, spot_of
from generator.render.custom_blend.external_files import refuse_outside_files
from generator.render.custom_blend.frame_walk import MESH, SHAPE, STEPS, ObjectTrack, Walk, all_things, set_moment, vec3, walk
from generator.render.custom_blend.object_checks import blocked_words, refuse_blocked_drivers, refuse_unblurred, refuse_unseen
from generator.render.custom_blend.opening import NormalisedScene, load_unscripted, normalise
from generator.render.custom_blend.simulations import refuse_unbaked
from scenes.blender import depth_of, set_exposure, set_lens
from scenes.camera import project
from scenes.errors import InputError, closest
from scenes.families.blend_annotation import ANNOTATION_FORMAT, Annotation, RenderCost, check_caption
from scenes.families.blend_proof import STILL_M
from scenes.spec import Camera, Shot

AHEAD_M = 1.0  # how far before the camera its target is put
ROLL = 1e-4  # sine of the roll from which the picture is not upright
DIGITS = 9
MOST_EXTREMES = 8  # frames in which the patch is looked at because something changes
TRIED_F_NUMBER, TRIED_SHARE = 3.21, 0.123  # of a frame: values that no animation has by chance


@dataclass(frozen=True, kw_only=True)
class Names:
    """What a person named: the moving objects, the focus, the patch, the scene and the camera; None or empty: not named."""

    subjects: tuple[str, ...] = ()
    focus: str | None = None
    patch: str | None = None
    scene: str | None = None
    camera: str | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotationResult:
    """The annotation of a file, what rendering a frame costs, and what a person should know of the file, one line each."""

    annotation: Annotation
    cost: RenderCost
    notes: tuple[str, ...]


def annotation_of(file: Path, sha256: str, caption: str, names: Names) -> AnnotationResult:
    """Open a .blend and return its annotation; raises InputError where it cannot serve as a scene."""
    words = _caption(caption)
    start_s = time.process_time()
    load_unscripted(file)
    open_s = time.process_time() - start_s
    scene = _scene(file, names.scene)
    camera = _camera(scene, file, names.camera)
    normalised = normalise(scene, camera)
    refuse_outside_files(scene, file.name)
    subjects = [_object(scene, file, name) for name in dict.fromkeys(names.subjects)]
    patch = _object(scene, file, names.patch) if names.patch is not None else None
    focus = _object(scene, file, names.focus) if names.focus is not None else camera.data.dof.focus_object
    first, last, fps = scene.frame_start, scene.frame_end, _fps(scene, file)
    named = [*subjects, *([patch] if patch is not None and patch not in subjects else [])]
    _refuse_what_renders_otherwise(normalised, named, [*subjects, camera, focus], (first, last))
    _try_optics(normalised, fps)
    walked = walk(scene, normalised.layer, camera, named, first, last)
    _refuse_overruled_optics(normalised, fps)
    _refuse_hidden_between(normalised, named, first, last)
    for track in walked.named[: len(subjects)]:
        refuse_unblurred(track.thing, track.how in (SHAPE, MESH))
    set_moment(scene, first)
    annotation = _annotation(file, sha256, words, normalised, walked, focus, fps, (first, last), len(subjects), patch)
    viewer = Viewer(normalised, fps, annotation.focus_distance_m)
    still = [patch] if patch is not None else []
    seen = look(viewer, subjects, still, _frames(annotation, viewer), open_s, _extremes(walked, (first, last)))
    annotation = _with_spot(annotation, seen)
    notes = (*normalised.notes, *blocked_words(), *_notes(annotation, seen))
    return AnnotationResult(annotation=annotation, cost=seen.cost, notes=notes)


def _annotation(
    file: Path, sha256: str, caption: str, normalised: NormalisedScene, walked: Walk, focus: Any, fps: int,
    frames: tuple[int, int], subjects: int, patch: Any,
) -> Annotation:  # fmt: skip
    camera, lens = normalised.camera, normalised.camera.data
    place = camera.matrix_world.translation
    ahead = place - AHEAD_M * camera.matrix_world.normalized().to_3x3().col[2]
    found = {track.thing.name: track.annotated() for track in walked.named}
    named = [track.thing.name for track in walked.named[:subjects]]
    return Annotation(
        format=ANNOTATION_FORMAT,
        sha256=sha256,
        file=file.name,
        scene=normalised.scene.name,
        camera=camera.name,
        caption=caption,
        fps=fps,
        first_frame=frames[0],
        last_frame=frames[1],
        location_m=vec3(place),
        target_m=vec3(ahead),
        focal_length_mm=lens.lens,
        sensor_fit=lens.sensor_fit,
        sensor_width_mm=lens.sensor_width,
        sensor_height_mm=lens.sensor_height,
        focus_distance_m=_focus_m(camera, focus, lens.dof.focus_distance),
        unproven=_unproven(walked.camera_K),
        subject=found[named[0]] if named else None,
        patch=found[patch.name] if patch is not None else None,
        also=tuple(found[name] for name in named[1:]),
        others=tuple(track.annotated() for track in walked.others if _moves(track)),
        changing=tuple(one for change in walked.changes if (one := change.changing(STEPS)) is not None),
    )


def _refuse_what_renders_otherwise(
    normalised: NormalisedScene, named: list[Any], leading: list[Any], frames: tuple[int, int]
) -> None:
    """Raise InputError for what would not be in the clips as it is in the file: hidden, not run, not baked."""
    refuse_content_that_reads_controls(normalised.scene, normalised.camera)
    for thing in named:
        refuse_unseen(thing, normalised.scene, normalised.layer)
    refuse_blocked_drivers(leading)
    things = [thing for thing in all_things(normalised.scene) if not thing.hide_render]
    refuse_unbaked(normalised.scene, things, *frames)


def _try_optics(normalised: NormalisedScene, fps: int) -> None:
    set_exposure(normalised.scene, TRIED_SHARE / fps, fps)
    dof = normalised.camera.data.dof
    kept = (dof.focus_object, dof.focus_distance)
    set_lens(normalised.camera, TRIED_F_NUMBER, dof.focus_distance)
    dof.focus_object, dof.focus_distance = kept


def _refuse_overruled_optics(normalised: NormalisedScene, fps: int) -> None:
    """Raise InputError where going through the frames changed what was set: a label would not hold."""
    graph = bpy.context.evaluated_depsgraph_get()
    render, dof = graph.scene_eval.render, normalised.camera.evaluated_get(graph).data.dof
    for what, value, wanted in (
        ("the shutter", render.motion_blur_shutter, TRIED_SHARE),
        ("the f-number", dof.aperture_fstop, TRIED_F_NUMBER),
    ):
        if abs(value - wanted) > 1e-5:
            raise InputError(
                f"something in the file moves {what} (to {value:g}) and cannot be switched off; remove its animation, save, "
                "and mark the file again"
            )


def _refuse_hidden_between(normalised: NormalisedScene, named: Sequence[Any], first: int, last: int) -> None:
    for frame in range(first, last + 1) if any(thing.animation_data for thing in named) else ():
        graph = set_moment(normalised.scene, frame)
        for thing in named:
            if thing.evaluated_get(graph).hide_render:
                raise InputError(
                    f"'{thing.name}' is hidden in renders in frame {frame}; show it in all, or mark another object"
                )


def _caption(caption: str) -> str:
    try:
        return check_caption(caption)
    except ValueError as error:
        raise InputError(str(error)) from None


def _scene(file: Path, name: str | None) -> Any:
    if name is None:
        return bpy.context.window.scene if bpy.context.window else bpy.context.scene
    if name not in bpy.data.scenes:
        raise InputError(f"{file.name} has no scene '{name}'{closest(name, bpy.data.scenes.keys())}")
    return bpy.data.scenes[name]


def _camera(scene: Any, file: Path, name: str | None) -> Any:
    camera = scene.camera if name is None else _object(scene, file, name)
    if camera is None or camera.type != "CAMERA" or camera.data.type != "PERSP":
        raise InputError(f"scene '{scene.name}' of {file.name} has no perspective camera; add one and make it the scene's")
    return camera


def _object(scene: Any, file: Path, name: str) -> Any:
    if name not in scene.objects:
        near = closest(name, scene.objects.keys())
        raise InputError(f"scene '{scene.name}' of {file.name} has no object '{name}'{near}; name one of its objects")
    return scene.objects[name]


def _fps(scene: Any, file: Path) -> int:
    fps = scene.render.fps / scene.render.fps_base
    if fps != round(fps):
        raise InputError(f"{file.name} runs at {fps:g} frames a second; set a whole number (Output > Frame Rate) and save it")
    return round(fps)


def _moves(track: ObjectTrack) -> bool:
    center_K3 = np.array(track.center_K3)
    return bool(np.abs(center_K3 - center_K3[0]).max() > 1e-5 or max(track.loose_K, default=0.0) > 1e-5)


def _focus_m(camera: Any, focus: Any, otherwise_m: float) -> float:
    distance_m = depth_of(camera, focus) if focus is not None else float(otherwise_m)
    if not distance_m > 0:
        what = f"'{focus.name}' lies behind the camera" if focus is not None else f"the focus distance is {distance_m:g} m"
        raise InputError(f"{what}; mark a focus object before it")
    return float(f"{distance_m:.{DIGITS}g}")


def _unproven(camera_K: Sequence[tuple[Any, Any]]) -> str:
    """Return why the closed forms do not hold for a camera: they know one that is still, upright and unshifted."""
    matrices_K44, lenses_KN = (np.array(part) for part in zip(*camera_K, strict=True))
    if not lenses_KN[:, 5].all():
        return "the camera is not a perspective one all the time"
    if float(np.abs(matrices_K44 - matrices_K44[0]).max()) > 1e-6:
        return "the camera moves"
    for what, column in (("focal length", 0), ("sensor width", 1), ("sensor height", 2), ("shift", 3), ("shift", 4)):
        if float(np.ptp(lenses_KN[:, column])) > 1e-6:
            return f"the camera moves: its {what} is animated"
    right_3 = matrices_K44[0][:3, 0] / np.linalg.norm(matrices_K44[0][:3, 0])
    if abs(float(right_3[2])) > ROLL:
        return "the camera is rolled"
    return "the lens is shifted" if lenses_KN[0, 3:5].any() else ""


def _frames(annotation: Annotation, viewer: Viewer) -> list[int]:
    """Return the frames to look at: the middle, both ends, and where the first subject is most central."""
    first, last = annotation.first_frame, annotation.last_frame
    frames = [(first + last) // 2, first, last]
    if annotation.subject is not None:
        path_K3 = np.array(annotation.subject.path_m)[annotation.subject.steps : -1 : annotation.subject.steps]
        pixels_K2, depth_K = project(_spec_camera(annotation, viewer.shot), viewer.shot, path_K3)
        size_2 = np.array((viewer.shot.width, viewer.shot.height))
        away_K = np.where(depth_K > 0, np.abs(pixels_K2 / size_2 - 0.5).max(axis=1), np.inf)
        frames.insert(0, min(first + int(np.argmin(away_K)), last))
    return list(dict.fromkeys(frames))


def _extremes(walked: Walk, frames: tuple[int, int]) -> list[int]:
    """Return the frames in which animated looks are at their least and most, a few."""
    found = [
        frames[0] - 1 + round(place / STEPS)
        for change in walked.changes
        if change.changing(STEPS) is not None
        for place in change.extremes()
    ]
    return [min(max(frame, frames[0]), frames[1]) for frame in dict.fromkeys(found)][:MOST_EXTREMES]


def _spec_camera(annotation: Annotation, shot: Shot) -> Camera:
    return Camera(
        location_m=annotation.location_m,
        target_m=annotation.target_m,
        focal_length_mm=annotation.focal_length_mm,
        sensor_width_mm=annotation.horizontal_sensor_mm(shot),
        focus_distance_m=annotation.focus_distance_m,
    )


def _with_spot(annotation: Annotation, seen: CameraLook) -> Annotation:
    patch = annotation.patch
    if patch is None or annotation.unproven:
        return annotation
    camera = _spec_camera(annotation, seen.shot)
    _, depth_1 = project(camera, seen.shot, np.array([patch.path_m[0]]))
    if not depth_1[0] > 0:
        return annotation
    spot = spot_of(patch, seen.seen[patch.name], camera, seen.shot, float(depth_1[0]))
    moves = float(np.ptp(np.array(patch.path_m), axis=0).max()) > STILL_M  # one that does was not looked at in its place
    return annotation.model_copy(update={"patch": spot, "patch_unproven": "" if moves else seen.coloured})


def _notes(annotation: Annotation, seen: CameraLook) -> list[str]:
    notes = [f"{seen.clipped:.1%} of the picture is clipped"] if seen.clipped > 0.001 else []
    if annotation.unproven:
        notes.append(f"no label can be verified: {annotation.unproven}")
    if annotation.changing:
        more = f" and {len(annotation.changing) - 3} more" if len(annotation.changing) > 3 else ""
        words = ", ".join(one.name for one in annotation.changing[:3])
        notes.append(f"its look changes ({words}{more}): the shutter is verified in frames without, or with slow fades only")
    if annotation.patch_unproven:
        notes.append(f"no temperature can be verified: {annotation.patch_unproven}")
    return notes
