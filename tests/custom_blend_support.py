"""A small custom .blend, made and spoiled in Blender by one child process for a whole module, then marked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FRAMES = 12
STEP_M = 0.25  # a frame; 64 px wide, at 36 mm and 6 m: 2.7 px


def make_and_mark(folder: str, spoilers: dict[str, Callable[[Any], Any]], named: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Save the scene once for each spoiler, mark each file, and return the error, or annotation and notes, by name."""
    from generator.recipe.blend_file import file_sha256, write_annotation
    from generator.render.engine.start import start_blender

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    start_blender(1)
    import bpy

    from generator.render.custom_blend.annotations import Names, annotation_of
    from scenes.errors import InputError

    told: dict[str, Any] = {}
    for name, spoil in spoilers.items():
        file = Path(folder) / f"{name}.blend"
        scene = plain_scene()
        bpy.ops.wm.save_as_mainfile(filepath=str(file), check_existing=False)  # a disk cache needs a saved file
        spoil(scene)
        bpy.ops.wm.save_as_mainfile(filepath=str(file), check_existing=False)
        if name == "truncated":
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        who = {"subjects": ("Ball",), "patch": "Card"} | named.get(name, {})
        try:
            made = annotation_of(file, file_sha256(file), "A ball", Names(**who))
        except InputError as error:
            told[name] = str(error)
            continue
        write_annotation(file, made.annotation, made.cost, made.notes)
        told[name] = (made.annotation, made.notes)
    return told


def plain_scene() -> Any:
    """Return a scene that is verified: a red cube glides before a grey card and a blue wall, in even light."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start, scene.frame_end = 16, 1, FRAMES
    scene.render.resolution_x = scene.render.resolution_y = 64
    scene.view_settings.view_transform = "Standard"
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location, camera.rotation_euler = (0.0, -6.0, 0.0), (math.pi / 2, 0.0, 0.0)
    camera.data.lens = 36.0
    scene.collection.objects.link(camera)
    scene.camera = camera
    box("Wall", (14.0, 0.2, 14.0), (0.0, 3.0, 0.0), (0.05, 0.1, 0.4))
    box("Card", (1.6, 0.2, 1.6), (0.0, 0.5, -1.6), (0.4, 0.4, 0.4))
    glide(box("Ball", (0.9, 0.9, 0.9), (0.0, 0.0, 0.8), (0.8, 0.1, 0.05)))
    return scene


def box(name: str, size: tuple[float, ...], place: tuple[float, ...], color: tuple[float, float, float]) -> Any:
    """Return a new box that glows evenly."""
    import bpy

    bpy.ops.mesh.primitive_cube_add(size=1.0, location=place)
    thing = bpy.context.object
    thing.name, thing.scale = name, size
    material = bpy.data.materials.new(name)
    nodes = material.node_tree.nodes
    nodes.clear()
    glow, out = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    glow.inputs[0].default_value = (*color, 1.0)
    material.node_tree.links.new(glow.outputs[0], out.inputs[0])
    thing.data.materials.append(material)
    return thing


def glide(
    thing: Any, first: int = -3, last: int = FRAMES + 4, kind: str = "LINEAR", curves: Callable[[], Any] | None = None
) -> None:
    """Key a thing's even way across the picture, from one frame to another."""
    for frame in (first, last):
        thing.location.x = STEP_M * (frame - (FRAMES + 1) / 2)
        thing.keyframe_insert("location", frame=frame)
    for curve in curves() if curves is not None else curves_of(thing):
        for point in curve.keyframe_points:
            point.interpolation = kind


def curves_of(owner: Any) -> Any:
    """Return the curves of a data-block's action."""
    return owner.animation_data.action.layers[0].strips[0].channelbags[0].fcurves
