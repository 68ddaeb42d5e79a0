"""Object ids, points and normals out of Cycles: one sample in the middle of every pixel, no light, no lens, no exposure time.

Array legend: H rows (top first), W columns, 3 coordinates (world metres; unit normals).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from generator.errors import RenderError
from generator.render.engine.cycles import Scratch, blender_errors, set_border
from generator.render.engine.regions import Box
from generator.truth.flow import Geometry

_LAYER_PASSES = ("use_pass_position", "use_pass_normal", "use_pass_object_index")
_CYCLES = {
    "samples": 1,
    "use_adaptive_sampling": False,
    "pixel_filter_type": "BLACKMAN_HARRIS",  # a box filter has a width of one pixel whatever it is set to
    "filter_width": 0.01,  # the least there is: samples lie within a hundredth of a pixel of its centre
    "max_bounces": 0,
}
_IMAGE = {"media_type": "MULTI_LAYER_IMAGE", "file_format": "OPEN_EXR_MULTILAYER", "color_depth": "32", "exr_codec": "NONE"}


@contextmanager
def geometry_passes(scene: Any, layer: Any, objects: Sequence[Any]) -> Iterator[None]:
    """Let a scene render ids, points and normals, and set it back after; an object's id is its place in `objects` plus 1."""
    image = scene.render.image_settings
    kept = [(scene.cycles, name, getattr(scene.cycles, name)) for name in _CYCLES]
    kept += [(layer, name, getattr(layer, name)) for name in (*_LAYER_PASSES, "use_pass_combined")]
    kept += [(thing, "pass_index", thing.pass_index) for thing in objects]
    names = ("media_type", "file_format", "color_mode", "color_depth", "exr_codec")
    kept += [(image, name, getattr(image, name)) for name in names]
    try:
        for name, value in _CYCLES.items():
            setattr(scene.cycles, name, value)
        for name in _LAYER_PASSES:
            setattr(layer, name, True)
        for index, thing in enumerate(objects, 1):
            thing.pass_index = index
        for name, text in _IMAGE.items():
            setattr(image, name, text)
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)


def render_geometry(scene: Any, frame: int, box: Box, scratch: Scratch) -> Geometry:
    """Render one box of one frame inside `geometry_passes`; raises RenderError with what Blender printed."""
    scene.frame_set(frame)
    set_border(scene.render, box)
    scene.render.filepath = scratch.path
    with blender_errors():
        bpy.ops.render.render(write_still=True)
    channels = _channels(scratch.path, box)
    points_HW3 = np.stack([channels[f"Position.{axis}"] for axis in "XYZ"], axis=-1)
    ids_HW = np.rint(channels["Object Index.X"]).astype(np.uint16)
    normals_HW3 = np.stack([channels[f"Normal.{axis}"] for axis in "XYZ"], axis=-1)
    normals_HW3[ids_HW == 0] = 0.0
    return Geometry(ids_HW=ids_HW, points_HW3=points_HW3, normals_HW3=normals_HW3)


def _channels(path: str, box: Box) -> dict[str, NDArray[np.float32]]:
    import OpenEXR

    with OpenEXR.File(path, separate_channels=True) as file:
        found = {
            ".".join(name.split(".")[-2:]): np.array(channel.pixels, dtype=np.float32)
            for part in file.parts
            for name, channel in part.channels.items()
        }
    for pixels in found.values():
        if pixels.shape != (box.bottom - box.top, box.right - box.left):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise RenderError(f"Blender rendered {size} pixels for {box}; report this with the recipe")
    return found
