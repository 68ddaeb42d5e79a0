"""Reads what a .blend of one's own tells the closed forms: camera, focus, and the paths of marked objects, frame by frame.

Import it only in a process that renders. The file is opened as rendering opens it, without its scripts, so that what is marked
is what is rendered. Array legend: K frames, 3 coordinates (metres).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from scenes.blender import depth_of, load_unscripted
from scenes.errors import InputError, closest
from scenes.families.blend import Marked, Marks
from scenes.spec import Vec3

AHEAD_M = 1.0  # how far before the camera its target is put
ROLL = 1e-4  # sine of the roll from which the picture is not upright
DIGITS = 9


def marks_of(file: Path, sha256: str, caption: str, named: dict[str, str | None]) -> Marks:
    """Open a .blend and return its marks; raises InputError where it cannot serve as a scene.

    `named` holds the names of `subject`, `focus`, `patch` (objects) and `scene`, or None for each.
    """
    if not caption.strip():
        raise InputError("the caption is empty; say in one sentence what is seen")
    load_unscripted(file)
    _refuse_outside_files(file)
    scene = _scene(file, named["scene"])
    camera = scene.camera
    if camera is None or camera.type != "CAMERA" or camera.data.type != "PERSP":
        raise InputError(f"scene '{scene.name}' of {file.name} has no perspective camera; add one and make it the scene's")
    things = {role: _object(scene, file, named[role]) for role in ("subject", "focus", "patch")}
    first, last = scene.frame_start, scene.frame_end
    walked = _walk(scene, [camera, things["subject"], things["patch"]], first, last)
    _set_frame(scene, first)
    lens, dof = camera.data, camera.data.dof
    focus = things["focus"] or dof.focus_object
    place = camera.matrix_world.translation
    ahead = place - AHEAD_M * camera.matrix_world.normalized().to_3x3().col[2]
    return Marks(
        sha256=sha256,
        file=file.name,
        scene=scene.name,
        camera=camera.name,
        caption=caption.strip(),
        fps=_fps(scene, file),
        first_frame=first,
        last_frame=last,
        location_m=_vec3(place),
        target_m=_vec3(ahead),
        focal_length_mm=lens.lens,
        sensor_fit=lens.sensor_fit,
        sensor_width_mm=lens.sensor_width,
        sensor_height_mm=lens.sensor_height,
        focus_distance_m=_focus_m(camera, focus, dof.focus_distance),
        unproven=_unproven(camera, walked[0]),
        subject=_marked(things["subject"], walked[1]),
        patch=_marked(things["patch"], walked[2]),
    )


def _refuse_outside_files(file: Path) -> None:
    outside = [path for path in bpy.utils.blend_paths(absolute=False, packed=False) if path]
    if outside:
        raise InputError(
            f"{file.name} needs {len(outside)} files beside it ({outside[0]}); pack them "
            "(File > External Data > Pack Resources) or make linked data local, save, and mark it again"
        )


def _scene(file: Path, name: str | None) -> Any:
    if name is None:
        return bpy.context.window.scene if bpy.context.window else bpy.context.scene
    if name not in bpy.data.scenes:
        raise InputError(f"{file.name} has no scene '{name}'{closest(name, bpy.data.scenes.keys())}")
    bpy.context.window.scene = bpy.data.scenes[name]
    return bpy.data.scenes[name]


def _object(scene: Any, file: Path, name: str | None) -> Any:
    if name is None:
        return None
    if name not in scene.objects:
        near = closest(name, scene.objects.keys())
        raise InputError(f"scene '{scene.name}' of {file.name} has no object '{name}'{near}; name one of its objects")
    return scene.objects[name]


def _fps(scene: Any, file: Path) -> int:
    fps = scene.render.fps / scene.render.fps_base
    if fps != round(fps):
        raise InputError(f"{file.name} runs at {fps:g} frames a second; set a whole number (Output > Frame Rate) and save it")
    return round(fps)


def _walk(scene: Any, things: list[Any], first: int, last: int) -> list[Any]:
    """Return each object's world matrices `[K, 4, 4]` from one frame before the first to one after the last."""
    matrices: list[list[Any]] = [[] for _ in things]
    for frame in range(first - 1, last + 2):
        graph = _set_frame(scene, frame)
        for thing, found in zip(things, matrices, strict=True):
            if thing is not None:
                found.append(np.array(thing.evaluated_get(graph).matrix_world))
    return [np.array(found) for found in matrices]


def _set_frame(scene: Any, frame: int) -> Any:
    scene.frame_set(frame)
    return bpy.context.evaluated_depsgraph_get()


def _marked(thing: Any, matrices_K44: Any) -> Marked | None:
    """Return a marked object by the centre and the size of its bounding box."""
    if thing is None:
        return None
    corners_83 = np.array([tuple(corner) for corner in thing.bound_box])
    center_4 = np.append((corners_83.min(axis=0) + corners_83.max(axis=0)) / 2, 1.0)
    world_83 = corners_83 @ matrices_K44[0][:3, :3].T
    path_K3 = (matrices_K44 @ center_4)[:, :3]
    return Marked(
        name=thing.name,
        size_m=_vec3(world_83.max(axis=0) - world_83.min(axis=0)),
        path_m=tuple(_vec3(place_3) for place_3 in path_K3),
    )


def _focus_m(camera: Any, focus: Any, otherwise_m: float) -> float:
    distance_m = depth_of(camera, focus) if focus is not None else float(otherwise_m)
    if not distance_m > 0:
        what = f"'{focus.name}' lies behind the camera" if focus is not None else f"the focus distance is {distance_m:g} m"
        raise InputError(f"{what}; mark a focus object before it")
    return float(f"{distance_m:.{DIGITS}g}")


def _unproven(camera: Any, matrices_K44: Any) -> str:
    """Return why the closed forms do not hold for a camera: they know one that is still, upright and unshifted."""
    if float(np.abs(matrices_K44 - matrices_K44[0]).max()) > 1e-6:
        return "the camera moves"
    right_3 = matrices_K44[0][:3, 0] / np.linalg.norm(matrices_K44[0][:3, 0])
    if abs(float(right_3[2])) > ROLL:
        return "the camera is rolled"
    if camera.data.shift_x or camera.data.shift_y:
        return "the lens is shifted"
    return ""


def _vec3(values: Any) -> Vec3:
    x, y, z = (float(f"{float(value):.{DIGITS}g}") for value in values)
    return (x, y, z)
