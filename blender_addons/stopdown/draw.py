"""Draw Scene: a clip of the plan becomes a real Blender scene beside the open ones, to look at and to edit."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import StringProperty

from . import live
from .choices import plan_of
from .reports import reporting

if TYPE_CHECKING:
    from generator.recipe.plan import ClipPlan, Plan


class STOPDOWN_OT_draw_scene(bpy.types.Operator):
    """Add a clip of the plan as a new scene: objects, materials, keyframes, and a camera with physical settings"""

    bl_idname = "stopdown.draw_scene"
    bl_label = "Draw Scene"
    bl_options = {"REGISTER", "UNDO"}

    clip: StringProperty(name="Clip", description="the clip's id; if empty, the panel's clip or else the plan's first")

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Make the plan, find the clip, draw its scene and show it through the camera."""
        from generator.versions.working.working_folder import find_clip
        from scenes.errors import InputError

        session = context.window_manager.stopdown
        plan = plan_of(session)
        clip_id = self.clip or session.clip or plan.clips[0].clip_id
        clip = find_clip(plan, clip_id)
        if clip.family == "blend":
            raise InputError(f"clip '{clip_id}' is of a custom .blend; open that file instead")
        scene = draw(plan, clip)
        session.clip = clip.clip_id
        if context.window is not None:
            context.window.scene = scene
            look_through_camera(context.window)
        self.report({"INFO"}, f"{clip.clip_id}: {clip.caption}")
        return {"FINISHED"}


def draw(plan: Plan, clip: ClipPlan) -> Any:
    """Return a new Blender scene of a clip at its own control values."""
    from generator.render.engine import cycles
    from generator.render.scene_renderer import content_seed
    from scenes import blender

    spec, settings = plan.scene_by_id[clip.scene_id].spec, plan.recipe.render
    scene = bpy.data.scenes.new(clip.clip_id)
    blender.place(scene, spec, settings.fidelity)
    cycles.set_output(scene, settings, content_seed(spec, settings), threads=1)
    scene.cycles.samples = settings.samples_for("sharp")
    scene.render.threads_mode = "AUTO"
    scene.render.filepath = "//frame_####.exr"
    mine = scene.stopdown
    mine.clip_id = clip.clip_id
    siblings = plan.scene_by_id[clip.scene_id].clip_ids
    mine.sweep = json.dumps([plan.clip_by_id[clip_id].values for clip_id in siblings])
    mine.live = True
    live.set_values(scene, {axis: value for axis, value in clip.values.items() if axis in live.AXIS_NAMES})
    scene.frame_set(0)
    return scene


def look_through_camera(window: Any) -> None:
    """Let a window's 3D views look through the scene's camera."""
    for area in window.screen.areas:
        if area.type == "VIEW_3D":
            for space in area.spaces:
                if space.type == "VIEW_3D" and space.region_3d is not None:
                    space.region_3d.view_perspective = "CAMERA"


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(STOPDOWN_OT_draw_scene)


def unregister() -> None:
    """Remove the operator."""
    bpy.utils.unregister_class(STOPDOWN_OT_draw_scene)
