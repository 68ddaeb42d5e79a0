"""One scene outside a build, in a render process of its own: a .blend for an artist, or stills."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ParamSpec

from generator.errors import RenderProcessDied
from generator.io.atomic import write_atomic
from generator.media.images import png_bytes
from generator.recipe.blend_file import file_sha256, write_annotation
from generator.recipe.render_settings import RenderSettings
from generator.render.engine.start import start_blender, use_own_settings
from generator.render.executable import render_python
from scenes.axes import AXES
from scenes.palette import to_bytes
from scenes.spec import Optics, SceneSpec

P = ParamSpec("P")


def in_render_process(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Run a top-level function in a fresh spawned process, where it may load Blender; its errors are raised here.

    Raises RenderProcessDied where it ended without one.
    """
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(folder / "blender",)) as pool:
            try:
                with render_python(folder):
                    waiting = pool.submit(function, *args, **kwargs)
                waiting.result()
            except BrokenProcessPool:
                raise RenderProcessDied("the render process died (out of memory?); try a smaller size") from None


def save_blend(spec: SceneSpec, settings: RenderSettings, values: dict[str, float], path: Path, threads: int) -> None:
    """Save a scene at physical values (by axis) as a .blend file. Loads Blender: run it through `in_render_process`."""
    from generator.render.scene_renderer import SceneRenderer

    renderer = SceneRenderer(spec, settings, threads)
    renderer.save_blend(path.resolve(), optics_at(values), values.get("temperature"))


def mark_file(file: Path, caption: str, named: Mapping[str, Any]) -> None:
    """Write the annotation of a .blend file; `named` is what `generator.render.custom_blend.annotations.Names` holds.

    Runs no script of the file. Raises InputError. Loads Blender: run it through `in_render_process`.
    """
    _silence(2)  # what Blender says of drivers that it does not run
    start_blender(1)
    from generator.render.custom_blend.annotations import Names, annotation_of  # imports bpy, so only now

    made = annotation_of(file, file_sha256(file), caption, Names(**named))
    write_annotation(file, made.annotation, made.cost, made.notes)


def optics_at(values: dict[str, float]) -> Optics:
    """Return the optics at physical values (by axis); an axis that acts on the picture changes nothing."""
    optics = Optics()
    for axis, value in values.items():
        optics = AXES[axis].apply_optics(optics, value)
    return optics


def save_stills(spec: SceneSpec, settings: RenderSettings, values: dict[str, float], folder: Path, threads: int) -> None:
    """Render a scene at physical values (by axis) to `0000.png` …, 8-bit sRGB. Run it through `in_render_process`."""
    from generator.render.scene_renderer import SceneRenderer

    linear_THW3 = SceneRenderer(spec, settings, threads).frames(optics_at(values))
    for axis, value in values.items():
        linear_THW3 = AXES[axis].apply_image(linear_THW3, value)
    for number, frame_HW3 in enumerate(to_bytes(linear_THW3)):
        write_atomic(folder / f"{number:04d}.png", png_bytes(frame_HW3))


def _prepare(user_files: Path) -> None:
    """Keep Blender from the person's settings, and its chatter off the terminal; its errors come back as exceptions."""
    use_own_settings(user_files)
    _silence(1)


def _silence(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
