"""The one module of `generator` that touches bpy: samples, threads, render borders, and linear pixels out of Cycles.

Array legend: H rows (top first), W columns, 3 channels (scene-linear Rec.709).
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import bpy
import numpy as np

from generator.errors import RenderError
from generator.recipe.render_settings import RenderSettings
from generator.render.engine.regions import Box
from scenes.arrays import Floats32

CHANNELS = 4  # Blender's images have four


def set_output(scene: Any, settings: RenderSettings, seed: int, threads: int) -> None:
    """Set everything about adaptive sampling, threads and output that a render relies on."""
    cycles = scene.cycles
    cycles.device = "CPU"
    cycles.use_adaptive_sampling = settings.adaptive_threshold > 0.0
    cycles.adaptive_threshold = settings.adaptive_threshold
    cycles.adaptive_min_samples = settings.adaptive_min_samples
    cycles.sampling_pattern = "TABULATED_SOBOL"
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", 1.5
    cycles.use_sample_subset = False
    cycles.time_limit = 0.0
    cycles.auto_scrambling_distance = False
    cycles.scrambling_distance = 1.0
    cycles.use_denoising = False
    cycles.seed, cycles.use_animated_seed = seed, False
    cycles.use_auto_tile = False
    cycles.debug_use_spatial_splits = False
    cycles.debug_bvh_time_steps = 0
    render = scene.render
    render.threads_mode, render.threads = "FIXED", threads
    render.use_persistent_data = False
    render.use_file_extension = False
    render.use_overwrite, render.use_placeholder = True, False
    image = render.image_settings
    image.media_type = "IMAGE"
    image.file_format, image.color_mode, image.color_depth = "OPEN_EXR", "RGBA", "32"
    image.exr_codec = "NONE"
    image.color_management = "FOLLOW_SCENE"
    image.use_preview = False


class Scratch:
    """A file for Blender to write a picture to: in memory on Linux (gone with the process), temporary elsewhere."""

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            self._descriptor = os.memfd_create("stopdown-frame")
            self.path = f"/proc/self/fd/{self._descriptor}"
        else:
            self._descriptor, self.path = tempfile.mkstemp(prefix="stopdown-", suffix=".exr")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        if sys.platform != "linux":
            os.unlink(self.path)


def render_frame(scene: Any, frame: int, box: Box, samples: int, scratch: Scratch) -> Floats32:
    """Render one box of one frame and return its scene-linear pixels `[H, W, 3]`.

    A box is cropped on whole pixels, so its pixels are those of the whole frame up to the sampling pattern. Raises
    RenderError with what Blender printed.
    """
    scene.frame_set(frame)
    scene.cycles.samples = samples
    set_border(scene.render, box)
    scene.render.filepath = scratch.path
    with blender_errors():
        bpy.ops.render.render(write_still=True)
    return _read_linear(scratch.path, box)


def save_blend(path: Path) -> None:
    """Write the scene as it stands to a .blend file."""
    with blender_errors():
        bpy.ops.wm.save_as_mainfile(filepath=str(path.resolve()), copy=True, compress=True, check_existing=False)


def set_border(render: Any, box: Box) -> None:
    """Crop to a box. Blender truncates border * size to pixels: a quarter pixel more keeps that exact in float32."""
    width, height = render.resolution_x, render.resolution_y
    whole = box.area == width * height
    render.use_border = render.use_crop_to_border = not whole
    render.border_min_x, render.border_max_x = (box.left + 0.25) / width, (box.right + 0.25) / width
    render.border_min_y, render.border_max_y = (height - box.bottom + 0.25) / height, (height - box.top + 0.25) / height


def _read_linear(path: str, box: Box) -> Floats32:
    image = bpy.data.images.load(path)
    try:
        image.colorspace_settings.is_data = True  # the file is linear already: no conversion of any kind
        width, height = image.size
        if (width, height) != (box.right - box.left, box.bottom - box.top):
            raise RenderError(f"Blender rendered {width}x{height} pixels for {box}; report this with the recipe")
        flat = np.empty(width * height * CHANNELS, dtype=np.float32)
        image.pixels.foreach_get(flat)
    finally:
        bpy.data.images.remove(image)
    return np.ascontiguousarray(flat.reshape(height, width, CHANNELS)[::-1, :, :3])


@contextmanager
def blender_errors() -> Iterator[None]:
    """Catch what Blender prints at the level of file descriptors; raise RenderError for errors, drop the rest."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            complaint = None
            try:
                yield
            except RuntimeError as error:  # how bpy.ops passes on a report of kind ERROR
                complaint = str(error)
        finally:
            flush(None)
            for number, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, number)
                os.close(copy)
        log.seek(0)
        text = log.read().decode(errors="replace")
    lines = [line.strip() for line in (complaint or text).splitlines() if complaint or _is_error(line)]
    if lines:
        raise RenderError(f"Blender failed: {' | '.join(lines[:3])}")


def _is_error(line: str) -> bool:
    return line.startswith("Error:") or " ERROR " in line
