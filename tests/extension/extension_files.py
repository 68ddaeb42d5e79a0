"""Scenarios with .blend files: one with embedded scripts, marked and built; and one opened as an artist would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from extension_inside import complaint, enabled, session


def as_an_artist_would(blend: str, picture: str) -> dict[str, Any]:
    """Open a .blend and render a frame to PNG, with Blender's own colour management."""
    import bpy

    bpy.ops.wm.open_mainfile(filepath=blend)
    scene = bpy.context.scene
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = picture
    scene.frame_set(2)
    bpy.ops.render.render(write_still=True)
    return {"cast": scene.compositing_node_group.name}


def hostile_file(path: str, folder: str) -> dict[str, Any]:
    """Save a .blend whose text block and driver would write files if they ran; a ball crosses before a grey card."""
    import bpy
    from mathutils import Vector

    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start, scene.frame_end = 16, 1, 12
    text = bpy.data.texts.new("run_me.py")
    text.from_string(f"open({folder + '/from_text'!r}, 'w').close()")
    text.use_module = True
    ball, card, wall = (thing_of(kind) for kind in ("ball", "card", "wall"))
    for frame in (1, 12):
        ball.location = (-2.0 + 0.35 * (frame - 1), 0.0, 0.35)
        ball.keyframe_insert("location", frame=frame)
    for curve in ball.animation_data.action.layers[0].strips[0].channelbags[0].fcurves:
        curve.extrapolation = "LINEAR"
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"
    driver = card.driver_add("hide_render").driver
    driver.expression = f"open({folder + '/from_driver'!r}, 'w').close() or 0"
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = Vector((0.0, -5.0, 0.0)), (1.5707963, 0.0, 0.0)
    camera.data.lens = 60.0
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.world = bpy.data.worlds.new("world")
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.04, 0.04, 0.04, 1.0)
    bpy.ops.wm.save_as_mainfile(filepath=path)
    return {"wall": wall.name}


def thing_of(kind: str) -> Any:
    """Return a new glowing object: a red ball, a grey card or a dark wall."""
    import bpy

    color, size, place = {
        "ball": ((0.9, 0.2, 0.15), 0.5, (0.0, 0.0, 0.35)),
        "card": ((0.2, 0.2, 0.2), 1.2, (0.5, 0.0, -0.75)),
        "wall": ((0.04, 0.04, 0.04), 12.0, (0.0, 3.0, 0.0)),
    }[kind]
    if kind == "ball":
        bpy.ops.mesh.primitive_uv_sphere_add(radius=size / 2, location=place)
    else:
        bpy.ops.mesh.primitive_plane_add(size=size, location=place, rotation=(1.5707963, 0.0, 0.0))
    thing = bpy.context.object
    thing.name = kind
    material = bpy.data.materials.new(kind)
    nodes = material.node_tree.nodes
    nodes.clear()
    glow, out = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    glow.inputs[0].default_value = (*color, 1.0)
    material.node_tree.links.new(glow.outputs[0], out.inputs[0])
    thing.data.materials.append(material)
    return thing


def custom_blend(path: str, out: str, folder: str) -> dict[str, Any]:
    """Mark an open .blend in the panel, save its recipe and build it."""
    import bpy

    enabled()
    seen: dict[str, Any] = {"unsaved": complaint(bpy.ops.stopdown.mark_scene)}
    bpy.ops.wm.open_mainfile(filepath=path, use_scripts=False)
    mine, scene = session(), bpy.context.scene
    seen["no_caption"] = complaint(bpy.ops.stopdown.mark_scene)
    scene.stopdown.caption = "A red ball flies past a grey card"
    scene.stopdown.subject = scene.stopdown.focus = bpy.data.objects["ball"]
    scene.stopdown.patch = bpy.data.objects["card"]
    bpy.ops.wm.save_mainfile()
    seen["marked"] = sorted(bpy.ops.stopdown.mark_scene())
    mine.axes, mine.layers, mine.frames, mine.scenes_per_layer = {"shutter", "temperature"}, "3", "5", 1
    mine.width = mine.height = 64
    mine.dataset_name, mine.out = "own", out
    seen["cannot_draw"] = complaint(bpy.ops.stopdown.draw_scene)
    seen["saved"] = sorted(bpy.ops.stopdown.save_recipe(filepath=f"{folder}/own.toml"))
    text = Path(folder, "own.toml").read_text().replace("[render]", "[render]\nsamples = 16")
    Path(folder, "own.toml").write_text(text)
    seen["built"] = sorted(bpy.ops.stopdown.build())
    seen["words"] = mine.build_words
    return seen
