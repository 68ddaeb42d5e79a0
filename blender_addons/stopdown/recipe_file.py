"""Opening a recipe into the panel's fields, and saving the fields as a recipe."""

from __future__ import annotations

from collections.abc import Set
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import StringProperty

from .choices import absolute, recipe_of, tree_of
from .reports import reporting
from .toml_text import toml_text

if TYPE_CHECKING:
    from generator.recipe.schema import Recipe

MAX_SEED = 2**31 - 1


class STOPDOWN_OT_open_recipe(bpy.types.Operator):
    """Read a recipe's .toml file into the panel's fields"""

    bl_idname = "stopdown.open_recipe"
    bl_label = "Open Recipe"

    filepath: StringProperty(subtype="FILE_PATH")
    filter_glob: StringProperty(default="*.toml", options={"HIDDEN"})

    def invoke(self, context: Any, _event: Any) -> Set[str]:
        """Ask for the file."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Read, check and show it."""
        from generator.recipe.load import load_recipe
        from scenes.errors import InputError

        path = absolute(self.filepath)
        recipe = load_recipe(path)
        if recipe.seed > MAX_SEED:
            raise InputError(
                f"{path}: seed {recipe.seed} is more than a field of Blender holds ({MAX_SEED}); choose a smaller one"
            )
        session = context.window_manager.stopdown
        session.recipe, session.pyramid = str(path), 0
        show(session, recipe)
        self.report({"INFO"}, f"{path.name}: {len(recipe.pyramid)} pyramids over {', '.join(recipe.used_axes)}")
        return {"FINISHED"}


class STOPDOWN_OT_save_recipe(bpy.types.Operator):
    """Write the panel's fields as a recipe; keys that the panel does not show are kept, comments are lost"""

    bl_idname = "stopdown.save_recipe"
    bl_label = "Save Recipe"

    filepath: StringProperty(subtype="FILE_PATH")
    filter_glob: StringProperty(default="*.toml", options={"HIDDEN"})

    def invoke(self, context: Any, _event: Any) -> Set[str]:
        """Ask for the file."""
        self.filepath = context.window_manager.stopdown.recipe or f"{context.window_manager.stopdown.dataset_name}.toml"
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Check and write it."""
        session = context.window_manager.stopdown
        path = absolute(self.filepath or session.recipe).with_suffix(".toml")
        save(session, path)
        self.report({"INFO"}, f"{path} written")
        return {"FINISHED"}


def save(session: Any, path: Any) -> None:
    """Check the panel's fields as a recipe and write it to a file; raises InputError."""
    from generator.io.atomic import write_atomic

    text = toml_text(tree_of(session, path.parent))
    recipe_of(session)
    write_atomic(path, text.encode())
    session.recipe = str(path)


def show(session: Any, recipe: Recipe) -> None:
    """Fill the panel's fields from a recipe and the pyramid that the session shows."""
    pyramid = recipe.pyramid[session.pyramid]
    session.dataset_name, session.seed = recipe.name, recipe.seed
    session.width, session.height = recipe.video.width, recipe.video.height
    session.fidelity = recipe.render.fidelity
    session.axes, session.families = set(pyramid.axes), set(pyramid.family)
    session.layers = ", ".join(map(str, pyramid.layers))
    session.frames = ", ".join(map(str, pyramid.frames))
    session.scenes_per_layer = pyramid.scenes_per_layer
    session.scene_file = str(absolute(session.recipe).parent / recipe.scene.file) if recipe.scene is not None else ""
    session.clip = ""


_CLASSES = (STOPDOWN_OT_open_recipe, STOPDOWN_OT_save_recipe)


def register() -> None:
    """Register the operators."""
    for kind in _CLASSES:
        bpy.utils.register_class(kind)


def unregister() -> None:
    """Remove the operators."""
    for kind in reversed(_CLASSES):
        bpy.utils.unregister_class(kind)
