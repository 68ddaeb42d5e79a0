"""Mark Scene: the open, saved .blend becomes a scene for recipes, by `stopdown mark` in a process of its own.

The file is read as rendering reads it, without its scripts, so that the annotation holds for what is rendered.
"""

from __future__ import annotations

import subprocess
from collections.abc import Set
from typing import Any

import bpy

from .child import child_command, child_environment
from .reports import reporting


class STOPDOWN_OT_mark_scene(bpy.types.Operator):
    """Write the annotation beside this saved .blend: the moving objects, the object in focus, the neutral patch"""

    bl_idname = "stopdown.mark_scene"
    bl_label = "Mark Scene"

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Run `stopdown mark` on the file and choose it for the panel's recipe."""
        from scenes.errors import InputError

        session, scene = context.window_manager.stopdown, context.scene
        unsaved = bpy.data.is_dirty and not bpy.app.background  # in the background, saving does not clear it
        if not bpy.data.filepath or unsaved:
            raise InputError("save the .blend first: the annotation is of the saved file")
        words = ["mark", bpy.data.filepath, "--scene", scene.name, "--caption", scene.stopdown.caption]
        for role in ("subject", "focus", "patch"):
            thing = getattr(scene.stopdown, role)
            words += [f"--{role}", thing.name] if thing is not None else []
        made = subprocess.run(child_command(words), env=child_environment(), capture_output=True, text=True, check=False)
        said = (made.stdout if made.returncode == 0 else made.stderr).strip().splitlines() or ["stopdown mark said nothing"]
        for line in said[:-1] if made.returncode == 0 else ():  # what of the file is not used
            self.report({"INFO"}, line)
        self.report({"INFO" if made.returncode == 0 else "ERROR"}, said[-1].removeprefix("stopdown: error: "))
        if made.returncode != 0:
            return {"CANCELLED"}
        session.families, session.fidelity, session.scene_file = {"blend"}, "pbr", bpy.data.filepath
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(STOPDOWN_OT_mark_scene)


def unregister() -> None:
    """Remove the operator."""
    bpy.utils.unregister_class(STOPDOWN_OT_mark_scene)
