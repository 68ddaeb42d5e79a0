"""Scenes that `stopdown mark` takes: functions that change a plain one in Blender, one way each; `MARKED` has them all."""

from __future__ import annotations

from typing import Any

from blend_scenes_refused import add_image, bright, rigid_body
from custom_blend_support import FRAMES, STEP_M, curves_of, glide


def plain(scene: Any) -> None:
    pass


def baked_body(scene: Any) -> None:
    import bpy

    rigid_body(scene)
    cache = scene.rigidbody_world.point_cache
    cache.frame_start, cache.frame_end = 1, FRAMES
    with bpy.context.temp_override(scene=scene, point_cache=cache):
        bpy.ops.ptcache.bake(bake=True)


def keyed_optics(scene: Any) -> None:
    lens = scene.camera.data
    for owner, path in ((scene, "render.motion_blur_shutter"), (lens, "dof.aperture_fstop"), (lens, "dof.focus_distance")):
        owner.keyframe_insert(path, frame=1)
    scene.cycles.keyframe_insert("samples", frame=1)
    scene.render.driver_add("film_transparent").driver.expression = "1"
    strip = lens.animation_data.nla_tracks.new().strips.new("late", 1, lens.animation_data.action)
    strip.action_slot = lens.animation_data.action_slot
    lens.animation_data.action = None


def keyed_lens(scene: Any) -> None:
    for frame, lens_mm in ((1, 36.0), (FRAMES, 50.0)):
        scene.camera.data.lens = lens_mm
        scene.camera.data.keyframe_insert("lens", frame=frame)


def marker_cameras(scene: Any) -> None:
    import bpy

    other = bpy.data.objects.new("Other", scene.camera.data.copy())
    scene.collection.objects.link(other)
    for frame, camera in ((1, scene.camera), (6, other)):
        scene.timeline_markers.new(str(frame), frame=frame).camera = camera


def bright_but_exposed(scene: Any) -> None:
    bright(scene)
    scene.view_settings.exposure = -2.0


def lit(scene: Any) -> Any:
    """Light the scene by a sun and a grey world, and let what glowed scatter light; return the sun."""
    import bpy

    for material in bpy.data.materials:
        nodes = material.node_tree.nodes
        glow = nodes["Emission"]
        matt = nodes.new("ShaderNodeBsdfDiffuse")
        matt.inputs[0].default_value = glow.inputs[0].default_value
        material.node_tree.links.new(matt.outputs[0], nodes["Material Output"].inputs[0])
        nodes.remove(glow)
    scene.world = bpy.data.worlds.new("World")
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.5, 0.5, 0.5, 1.0)
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 1.0, (1.0, 0.0, 0.3)
    scene.collection.objects.link(sun)
    return sun


def keyed(owner: Any, path: str, values: dict[int, Any]) -> None:
    for frame, value in values.items():
        setattr(owner, path, value)
        owner.keyframe_insert(path, frame=frame)
    for curve in curves_of(owner.id_data):
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"


def sun_flickers(scene: Any) -> None:
    keyed(lit(scene).data, "energy", {frame: 1.0 + frame % 2 for frame in range(-1, FRAMES + 3)})


def sun_sets(scene: Any) -> None:
    sun = lit(scene).data
    keyed(sun, "energy", {0: 1.0, FRAMES + 1: 1.4})
    keyed(sun, "color", {0: (1.0, 1.0, 1.0), FRAMES + 1: (1.0, 0.7, 0.4)})


def world_by_driver(scene: Any) -> None:
    lit(scene)
    scene.world.node_tree.nodes["Background"].inputs[1].driver_add("default_value").driver.expression = "1 + sin(2 * frame) / 2"


def wall_slides(scene: Any) -> None:
    import bpy

    tree = bpy.data.objects["Wall"].data.materials[0].node_tree
    place, checker = tree.nodes.new("ShaderNodeMapping"), tree.nodes.new("ShaderNodeTexChecker")
    tree.links.new(place.outputs[0], checker.inputs[0])
    tree.links.new(checker.outputs[0], tree.nodes["Emission"].inputs[0])
    keyed(place.inputs["Location"], "default_value", {0: (0.0, 0.0, 0.0), FRAMES + 1: (0.4, 0.0, 0.0)})


def lamp_swings(scene: Any) -> None:
    import bpy

    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "POINT"))
    lamp.parent = bpy.data.objects["Ball"]
    scene.collection.objects.link(lamp)


def unused_flicker(scene: Any) -> None:
    import bpy

    sun_flickers(scene)
    bpy.data.objects["Sun"].data = bpy.data.lights.new("Other", "SUN")
    bpy.data.objects["Sun"].data.energy = 1.0


def brown_card(scene: Any) -> None:
    import bpy

    bpy.data.objects["Card"].data.materials[0].node_tree.nodes["Emission"].inputs[0].default_value = (0.5, 0.35, 0.25, 1.0)


def tiny_picture(scene: Any) -> None:
    scene.render.resolution_x = scene.render.resolution_y = 32


def unused_image(scene: Any) -> None:
    add_image(live=False)


def bezier(scene: Any) -> None:
    rekey(1, FRAMES, "BEZIER")


def edge_keys(scene: Any) -> None:
    rekey(1, FRAMES, "LINEAR")


def only_five_frames(scene: Any) -> None:
    scene.frame_end = 5
    rekey(1, 5, "LINEAR")


def stepped(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.animation_data_clear()
    for frame in range(-1, FRAMES + 3):
        ball.location.x = STEP_M * (frame - (FRAMES + 1) / 2)
        ball.keyframe_insert("location", frame=frame)
    for curve in curves_of(ball):
        for point in curve.keyframe_points:
            point.interpolation = "CONSTANT"


def whole_frames(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.animation_data_clear()
    driver = ball.driver_add("location", 0).driver
    variable = driver.variables.new()
    variable.name, variable.type, variable.targets[0].data_path = "now", "CONTEXT_PROP", "frame_current"
    driver.expression = "(now - 6.5) * 0.25"


def by_nodes(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.animation_data_clear()
    ball.location.x = 0.0
    tree = bpy.data.node_groups.new("Glide", "GeometryNodeTree")
    for side in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=side, socket_type="NodeSocketGeometry")
    start, end, move = (tree.nodes.new(name) for name in ("NodeGroupInput", "NodeGroupOutput", "GeometryNodeTransform"))
    now, along, place = (
        tree.nodes.new(name) for name in ("GeometryNodeInputSceneTime", "ShaderNodeMath", "ShaderNodeCombineXYZ")
    )
    along.operation = "MULTIPLY_ADD"
    along.inputs[1].default_value, along.inputs[2].default_value = STEP_M / 0.9, -6.5 * STEP_M / 0.9  # the box is 0.9 m wide
    for one, other in (
        (now.outputs["Frame"], along.inputs[0]),
        (along.outputs[0], place.inputs[0]),
        (place.outputs[0], move.inputs["Translation"]),
        (start.outputs[0], move.inputs["Geometry"]),
        (move.outputs[0], end.inputs[0]),
    ):
        tree.links.new(one, other)
    ball.modifiers.new("Glide", "NODES").node_group = tree


def rekey(first: int, last: int, kind: str) -> None:
    import bpy

    bpy.data.objects["Ball"].animation_data_clear()
    glide(bpy.data.objects["Ball"], first, last, kind)


def spinning(scene: Any) -> None:
    turn("Ball")


def fan(scene: Any) -> None:
    turn("Card")


def turn(name: str) -> None:
    import bpy

    thing = bpy.data.objects[name]
    for frame in (0, FRAMES + 1):
        thing.rotation_euler.y = frame * 0.5
        thing.keyframe_insert("rotation_euler", frame=frame)


def shape_key(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.shape_key_add(name="Basis")
    big = ball.shape_key_add(name="Big")
    for point in big.data:
        point.co *= 1.5
    for frame, value in ((0, 0.0), (FRAMES + 1, 1.0)):
        big.value = value
        big.keyframe_insert("value", frame=frame)


def bone(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.animation_data_clear()
    ball.location.x = 0.0
    bpy.ops.object.armature_add(location=(0.0, 0.0, 0.0))
    rig = bpy.context.object
    glide(rig.pose.bones[0], curves=lambda: curves_of(rig))
    ball.vertex_groups.new(name="Bone").add(range(8), 1.0, "REPLACE")
    ball.modifiers.new("Rig", "ARMATURE").object = rig


def remapped(scene: Any) -> None:
    scene.render.frame_map_old, scene.render.frame_map_new = 100, 200


MARKED = (plain, baked_body, keyed_optics, keyed_lens, marker_cameras, bright_but_exposed, unused_image, bezier, edge_keys,
          only_five_frames, stepped, spinning, fan, shape_key, bone, by_nodes, whole_frames, remapped,
          tiny_picture, sun_flickers, sun_sets, world_by_driver, wall_slides, lamp_swings, unused_flicker,
          brown_card)  # fmt: skip  # fmt: skip
