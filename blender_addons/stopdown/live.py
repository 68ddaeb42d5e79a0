"""The sliders: a scene's camera follows exposure time, f-number and colour temperature in physical units, live.

Shutter and aperture are the camera's own settings, as a build sets them. Temperature acts on the rendered picture: the
compositor multiplies it by the same matrix that a build uses. In a custom .blend, what was set before is kept in the
scene and comes back when the controls are switched off, or the extension is.
"""

from __future__ import annotations

import json
from typing import Any

import bpy

from .reports import missing

AXIS_NAMES = ("shutter", "aperture", "temperature")  # what the sliders are; other axes have none

_CAMERA_FIELDS = (
    "use_dof",
    "focus_object",
    "focus_distance",
    "aperture_fstop",
    "aperture_blades",
    "aperture_rotation",
    "aperture_ratio",
)
_RENDER_FIELDS = ("use_motion_blur", "motion_blur_position", "motion_blur_shutter", "use_compositing")


def changed(mine: Any, _context: Any) -> None:
    """Follow a slider, or say in the panel why not; Blender calls it for every change."""
    scene = mine.id_data
    if not mine.live or mine.quiet:
        return
    try:
        from scenes.errors import StopdownError
    except ModuleNotFoundError as error:
        mine.complaint = missing(error)
        return
    try:
        follow(scene)
        mine.complaint = ""
    except StopdownError as error:
        mine.complaint = str(error)


def switched(mine: Any, context: Any) -> None:
    """Begin or end live control: keep the camera's settings, or give them back."""
    if mine.quiet:
        return
    if mine.live:
        if not mine.clip_id and mine.id_data.camera is not None:
            mine.before = json.dumps(camera_settings(mine.id_data))
        changed(mine, context)
    else:
        restore(mine.id_data)


def values_of(scene: Any) -> dict[str, float]:
    """Return the physical values of the sliders that are in use, by axis."""
    mine = scene.stopdown
    return {axis: getattr(mine, axis) for axis in AXIS_NAMES if getattr(mine, f"use_{axis}")}


def words(axis: str, value: float) -> str:
    """Return a physical value as people write it, such as 1/80 or f/2.8; nothing where Stopdown's packages are missing."""
    try:
        from scenes.axes import AXES
    except ModuleNotFoundError:
        return ""
    return AXES[axis].format(value)


def set_values(scene: Any, values: dict[str, float]) -> None:
    """Set the sliders to physical values by axis; others are switched off. The camera follows once."""
    mine = scene.stopdown
    mine.quiet = True
    for axis in AXIS_NAMES:
        setattr(mine, f"use_{axis}", axis in values)
        if axis in values:
            setattr(mine, axis, values[axis])
    mine.quiet = False
    changed(mine, None)


def follow(scene: Any) -> None:
    """Set a scene's camera by its sliders; raises InputError where the scene has no camera or the values are impossible."""
    values = values_of(scene)
    check(scene, values)
    if scene.stopdown.before:
        _write(scene, json.loads(scene.stopdown.before))
    apply(scene, values)


def check(scene: Any, values: dict[str, float]) -> None:
    """Raise InputError where a scene cannot show physical values (by axis)."""
    from generator.render.scene_renderer import check_exposure
    from generator.render.single import optics_at
    from scenes.axes import AXES
    from scenes.errors import InputError

    if scene.camera is None or scene.camera.type != "CAMERA":
        raise InputError(f"scene '{scene.name}' has no camera; add one and make it the scene's")
    for axis, value in values.items():
        AXES[axis].parse(str(value))  # the axis's own limits, in its own words
    check_exposure(optics_at(values), fps_of(scene))


def apply(scene: Any, values: dict[str, float]) -> None:
    """Set a scene's camera and the cast of its picture to physical values by axis."""
    from scenes import blender

    set_camera(scene, values)
    blender.set_cast(scene, values.get("temperature"))


def set_camera(scene: Any, values: dict[str, float]) -> None:
    """Set exposure time and f-number; one that is not given is off in a drawn scene, and untouched elsewhere."""
    from scenes import blender

    drawn = bool(scene.stopdown.clip_id)
    if drawn or "shutter" in values:
        blender.set_exposure(scene, values.get("shutter"), fps_of(scene))
    if drawn or "aperture" in values:
        blender.set_lens(scene.camera, values.get("aperture"), focus_distance_m(scene))


def fps_of(scene: Any) -> float:
    """Return a scene's frames per second."""
    return float(scene.render.fps / scene.render.fps_base)


def focus_distance_m(scene: Any) -> float:
    """Return how far along the optical axis the focus is: on the marked object, the camera's own, or its distance."""
    from scenes import blender

    dof = scene.camera.data.dof
    target = scene.stopdown.focus or dof.focus_object
    return blender.depth_of(scene.camera, target) if target else float(dof.focus_distance)


def camera_settings(scene: Any) -> dict[str, Any]:
    """Return what the sliders may touch, as plain values."""
    dof, render = scene.camera.data.dof, scene.render
    settings = {f"dof.{name}": getattr(dof, name) for name in _CAMERA_FIELDS}
    focus = settings["dof.focus_object"]
    settings["dof.focus_object"] = focus.name if focus else None
    settings |= {f"render.{name}": getattr(render, name) for name in _RENDER_FIELDS}
    settings["rolling"] = scene.cycles.rolling_shutter_type
    settings["camera"] = scene.camera.name
    settings["curve"] = [list(point.location) for point in render.motion_blur_shutter_curve.curves[0].points]
    return settings


def restore(scene: Any) -> None:
    """Give a custom .blend the camera settings that it had before the sliders touched them."""
    mine = scene.stopdown
    mine.complaint = ""
    if not mine.before:
        return
    from scenes import blender

    group = scene.compositing_node_group
    if group is not None and group.name.startswith(blender.CAST):
        blender.set_cast(scene, None)
    _write(scene, json.loads(mine.before))
    mine.before = ""


def restore_all() -> None:
    """Restore every scene: the extension is about to go."""
    for scene in bpy.data.scenes:
        if scene.stopdown.before:
            restore(scene)
            scene.stopdown.quiet = True
            scene.stopdown.live = False
            scene.stopdown.quiet = False


def _write(scene: Any, settings: dict[str, Any]) -> None:
    camera = bpy.data.objects.get(settings["camera"])
    if camera is not None and camera.type == "CAMERA":
        dof = camera.data.dof
        focus = settings["dof.focus_object"]
        for name in _CAMERA_FIELDS:
            value = settings[f"dof.{name}"]
            setattr(dof, name, (bpy.data.objects.get(focus) if focus else None) if name == "focus_object" else value)
    for name in _RENDER_FIELDS:
        setattr(scene.render, name, settings[f"render.{name}"])
    scene.cycles.rolling_shutter_type = settings["rolling"]
    points = scene.render.motion_blur_shutter_curve.curves[0].points
    for point, place in zip(points, settings["curve"], strict=False):
        point.location = place
    scene.render.motion_blur_shutter_curve.update()


class STOPDOWN_OT_restore_camera(bpy.types.Operator):
    """Switch the live controls off and restore the camera settings that this scene had before"""

    bl_idname = "stopdown.restore_camera"
    bl_label = "Restore Camera"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Any) -> set[str]:
        """Switch off; that restores."""
        context.scene.stopdown.live = False
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(STOPDOWN_OT_restore_camera)


def unregister() -> None:
    """Remove the operator."""
    bpy.utils.unregister_class(STOPDOWN_OT_restore_camera)
