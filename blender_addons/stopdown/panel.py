"""The panel: the 3D view's sidebar, tab Stopdown."""

from __future__ import annotations

from typing import Any

import bpy

from .build_job import RUNNING
from .live import AXIS_NAMES, words


class _InSidebar:
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Stopdown"


class STOPDOWN_PT_recipe(_InSidebar, bpy.types.Panel):
    """The recipe at hand."""

    bl_idname = "STOPDOWN_PT_recipe"
    bl_label = "Recipe"

    def draw(self, context: Any) -> None:
        """Draw the fields."""
        layout, session = self.layout, context.window_manager.stopdown
        layout.use_property_split, layout.use_property_decorate = True, False
        row = layout.row(align=True)
        row.operator("stopdown.open_recipe", text="Open", icon="FILE_FOLDER")
        row.operator("stopdown.save_recipe", text="Save", icon="FILE_TICK")
        layout.prop(session, "recipe", text="File")
        layout.prop(session, "dataset_name")
        layout.prop(session, "seed")
        size = layout.column(align=True)
        size.prop(session, "width")
        size.prop(session, "height")
        layout.prop(session, "fidelity")
        layout.prop(session, "pyramid")
        layout.column().prop(session, "axes", expand=True)
        layout.column().prop(session, "families", expand=True)
        if "blend" in session.families:
            layout.prop(session, "scene_file")
        for name in ("layers", "scenes_per_layer", "frames"):
            layout.prop(session, name)


class STOPDOWN_PT_scene(_InSidebar, bpy.types.Panel):
    """The scene at hand: draw a clip, drive the camera, preview."""

    bl_idname = "STOPDOWN_PT_scene"
    bl_label = "Scene"

    def draw(self, context: Any) -> None:
        """Draw the fields."""
        layout, session, mine = self.layout, context.window_manager.stopdown, context.scene.stopdown
        layout.prop(session, "clip")
        layout.operator("stopdown.draw_scene", icon="OUTLINER_OB_CAMERA")
        layout.prop(mine, "live")
        column = layout.column(align=True)
        column.active = mine.live
        for axis in AXIS_NAMES:
            row = column.row(align=True)
            row.prop(mine, f"use_{axis}", text="")
            row.prop(mine, axis)
            row.label(text=words(axis, getattr(mine, axis)))
        if mine.complaint:
            layout.label(text=mine.complaint, icon="ERROR")
        if mine.before:
            layout.operator("stopdown.restore_camera", icon="LOOP_BACK")
        row = layout.row(align=True)
        row.prop(session, "sweep_width")
        row.prop(session, "sweep_samples")
        if not mine.sweep:
            layout.prop(session, "sweep_count")
        layout.operator("stopdown.preview_sweep", icon="RENDER_STILL")


class STOPDOWN_PT_custom_blend(_InSidebar, bpy.types.Panel):
    """The annotation that makes an open .blend a scene of recipes."""

    bl_idname = "STOPDOWN_PT_custom_blend"
    bl_label = "Custom .blend"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: Any) -> None:
        """Draw the fields."""
        layout, mine = self.layout, context.scene.stopdown
        layout.use_property_split, layout.use_property_decorate = True, False
        for name in ("subject", "focus", "patch", "caption"):
            layout.prop(mine, name)
        layout.operator("stopdown.mark_scene", icon="BOOKMARKS")


class STOPDOWN_PT_dataset(_InSidebar, bpy.types.Panel):
    """Build the dataset, and look at one."""

    bl_idname = "STOPDOWN_PT_dataset"
    bl_label = "Dataset"

    def draw(self, context: Any) -> None:
        """Draw the fields."""
        layout, session = self.layout, context.window_manager.stopdown
        layout.prop(session, "out")
        if RUNNING:
            layout.progress(factor=session.build_share, text=session.build_words)
            layout.operator("stopdown.cancel_build", icon="CANCEL")
        else:
            layout.prop(session, "workers")
            layout.operator("stopdown.build", icon="RENDER_ANIMATION")
            if session.build_words:
                layout.label(text=session.build_words)
        layout.separator()
        layout.prop(session, "ref")
        layout.operator("stopdown.open_dataset", icon="FILE_REFRESH")
        if len(session.rows):
            layout.template_list("STOPDOWN_UL_clips", "", session, "rows", session, "row", rows=5)
            if session.row < len(session.rows):
                layout.label(text=session.rows[session.row].caption)
            layout.operator("stopdown.open_clip", icon="FILE_MOVIE")


_CLASSES = (STOPDOWN_PT_recipe, STOPDOWN_PT_scene, STOPDOWN_PT_custom_blend, STOPDOWN_PT_dataset)


def register() -> None:
    """Register the panels."""
    for kind in _CLASSES:
        bpy.utils.register_class(kind)


def unregister() -> None:
    """Remove the panels."""
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
