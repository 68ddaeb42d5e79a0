"""One scene outside a build, in a render process of its own: a .blend for an artist, or stills."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec

from generator.files import write_atomic
from generator.render.errors import RenderError
from generator.render.settings import RenderSettings
from generator.stills import png_bytes
from scenes.axes import AXES
from scenes.palette import to_bytes
from scenes.spec import Optics, SceneSpec

P = ParamSpec("P")


def in_render_process(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a top-level function in a fresh spawned process, where it may load Blender; its errors are raised here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_be_quiet) as pool:
        try:
            pool.submit(function, *args, **kwargs).result()
        except BrokenProcessPool:
            raise RenderError("the render process died (out of memory?); try a smaller size") from None


def save_blend(spec: SceneSpec, settings: RenderSettings, optics: Optics, path: Path, threads: int) -> None:
    """Save a scene at some optics as a .blend file. Loads Blender: run it through `in_render_process`."""
    from generator.render.scene_renderer import SceneRenderer

    SceneRenderer(spec, settings, threads).save_blend(path.resolve(), optics)


def save_stills(spec: SceneSpec, settings: RenderSettings, values: dict[str, float], folder: Path, threads: int) -> None:
    """Render a scene at physical values (by axis) to `0000.png` …, 8-bit sRGB. Run it through `in_render_process`."""
    from generator.render.scene_renderer import SceneRenderer

    optics = Optics()
    for axis, value in values.items():
        optics = AXES[axis].apply_optics(optics, value)
    linear_THW3 = SceneRenderer(spec, settings, threads).frames(optics)
    for axis, value in values.items():
        linear_THW3 = AXES[axis].apply_image(linear_THW3, value)
    for number, frame_HW3 in enumerate(to_bytes(linear_THW3)):
        write_atomic(folder / f"{number:04d}.png", png_bytes(frame_HW3))


def _be_quiet() -> None:
    """Keep Blender's chatter off the terminal; its errors come back as exceptions."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
