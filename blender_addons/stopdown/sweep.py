"""Preview Sweep: the scene at several control values, rendered small, side by side as one picture in the image editor."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from . import live
from .choices import recipe_of
from .kept import kept
from .reports import reporting

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = "Stopdown sweep"
GAP_PX = 2


class STOPDOWN_OT_preview_sweep(bpy.types.Operator):
    """Render a small picture of this frame at each control value, and show them side by side in the image editor"""

    bl_idname = "stopdown.preview_sweep"
    bl_label = "Preview Sweep"

    @reporting
    def execute(self, context: Any) -> Set[str]:
        """Render, put the strip together, and leave the scene's settings as they were."""
        session, scene = context.window_manager.stopdown, context.scene
        values = sweep_values(session, scene)
        for one in values:
            live.check(scene, one)
        strip_HW3 = render_strip(scene, values, session.sweep_width, session.sweep_samples)
        image = strip_image(strip_HW3)
        shown = show_image(context, image)
        where = "in the image editor" if shown else f"as image '{image.name}': open an Image Editor to see it"
        self.report({"INFO"}, f"{len(values)} values ({sweep_words(values)}), {where}")
        return {"FINISHED"}


def sweep_values(session: Any, scene: Any) -> list[dict[str, float]]:
    """Return the values by axis: those of the drawn scene's clips, or even steps from c = -1 to 1 of the panel's axes."""
    from scenes.errors import InputError

    if scene.stopdown.sweep:
        clips: list[dict[str, float]] = json.loads(scene.stopdown.sweep)
        return clips
    recipe = recipe_of(session)
    axes = recipe.pyramid[session.pyramid].axes
    blind = [axis for axis in axes if axis not in live.AXIS_NAMES]
    if blind:
        raise InputError(f"axis {', '.join(blind)} cannot be swept in a scene; axes: {', '.join(live.AXIS_NAMES)}")
    controls = np.linspace(-1.0, 1.0, session.sweep_count).tolist()
    return [{axis: recipe.law(axis).value(control) for axis in axes} for control in controls]


def sweep_words(values: list[dict[str, float]]) -> str:
    """Return the values as people write them."""
    from scenes.axes import AXES

    return "; ".join(" ".join(AXES[axis].format(value) for axis, value in one.items()) for one in values)


def render_strip(scene: Any, values: list[dict[str, float]], width_px: int, samples: int) -> NDArray[np.uint8]:
    """Return 8-bit sRGB pictures `[H, W, 3]` of the current frame, side by side, one per set of values; restores the scene."""
    from generator.recipe.render_settings import RenderSettings
    from generator.render.engine import cycles
    from generator.render.engine.regions import Box
    from scenes.axes import AXES
    from scenes.palette import to_bytes

    frame = scene.frame_current
    pictures = []
    with kept(scene), cycles.Scratch() as scratch:
        scene.render.engine = "CYCLES"
        height_px = max(2, round(width_px * scene.render.resolution_y / scene.render.resolution_x))
        scene.render.resolution_x, scene.render.resolution_y = width_px, height_px
        scene.render.resolution_percentage = 100
        cycles.set_output(scene, RenderSettings(), seed=0, threads=1)
        scene.render.threads_mode = "AUTO"
        scene.render.use_compositing = scene.render.use_sequencer = False
        whole = Box(left=0, top=0, right=width_px, bottom=height_px)
        for one in values:
            live.set_camera(scene, one)
            linear_1HW3 = cycles.render_frame(scene, frame, whole, samples, scratch)[None]
            for axis, value in one.items():
                linear_1HW3 = AXES[axis].apply_image(linear_1HW3, value)
            pictures.append(to_bytes(linear_1HW3)[0])
    gap = np.full((height_px, GAP_PX, 3), 255, dtype=np.uint8)
    strip = [part for picture in pictures for part in (picture, gap)][:-1]
    return np.concatenate(strip, axis=1)


def strip_image(strip_HW3: NDArray[np.uint8]) -> Any:
    """Return the Blender image `Stopdown sweep` of 8-bit sRGB pixels `[H, W, 3]`, made anew."""
    height, width = strip_HW3.shape[:2]
    old = bpy.data.images.get(IMAGE)
    if old is not None:
        bpy.data.images.remove(old)
    image = bpy.data.images.new(IMAGE, width, height, alpha=False)
    rgba_HW4 = np.ones((height, width, 4), dtype=np.float32)
    rgba_HW4[..., :3] = strip_HW3[::-1] / np.float32(255)
    image.pixels.foreach_set(rgba_HW4.ravel())
    image.pack()
    return image


def show_image(context: Any, image: Any) -> bool:
    """Show an image in an image editor that is open, or in a new window; return False where there is none to be had."""
    windows = context.window_manager.windows
    editors = [area for window in windows for area in window.screen.areas if area.type == "IMAGE_EDITOR"]
    if not editors and not bpy.app.background:
        bpy.ops.wm.window_new()
        editors = [windows[-1].screen.areas[0]]
        editors[0].type = "IMAGE_EDITOR"
    if not editors:
        return False
    editors[0].spaces.active.image = image
    editors[0].tag_redraw()
    return True


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(STOPDOWN_OT_preview_sweep)


def unregister() -> None:
    """Remove the operator."""
    bpy.utils.unregister_class(STOPDOWN_OT_preview_sweep)
