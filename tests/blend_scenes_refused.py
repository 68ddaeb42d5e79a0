"""Scenes that `stopdown mark` refuses: functions that spoil a plain one in Blender; `REFUSED` has the reason of each."""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def truncated(scene: Any) -> None:
    pass


def rigid_body(scene: Any) -> None:
    import bpy

    bpy.ops.rigidbody.world_add()
    scene.rigidbody_world.collection = bpy.data.collections.new("bodies")
    scene.rigidbody_world.collection.objects.link(bpy.data.objects["Card"])


def particles(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].modifiers.new("Rain", "PARTICLE_SYSTEM")


def cloth(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].modifiers.new("Cloth", "CLOTH")


def disk_cache(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].modifiers.new("Soft", "SOFT_BODY").point_cache.use_disk_cache = True


def mesh_cache(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].modifiers.new("Cache", "MESH_CACHE")


def hair_dynamics(scene: Any) -> None:
    import bpy

    wall = bpy.data.objects["Wall"]
    wall.modifiers.new("Grass", "PARTICLE_SYSTEM")
    wall.particle_systems[0].settings.type = "HAIR"
    wall.particle_systems[0].use_hair_dynamics = True


def dynamic_paint(scene: Any) -> None:
    import bpy

    wall = bpy.data.objects["Wall"]
    wall.modifiers.new("Paint", "DYNAMIC_PAINT")
    with bpy.context.temp_override(object=wall, active_object=wall):
        bpy.ops.dpaint.type_toggle(type="CANVAS")


def linked_library(scene: Any) -> None:
    import bpy

    path = bpy.data.filepath.replace(".blend", ".library.blend")
    thing = bpy.data.objects.new("Far", bpy.data.meshes.new("Far"))
    bpy.data.libraries.write(path, {thing})
    bpy.data.objects.remove(thing)
    with bpy.data.libraries.load(path, link=True) as (there, here):
        here.objects = there.objects
    scene.collection.objects.link(bpy.data.objects["Far"])


def simulation_zone(scene: Any) -> None:
    import bpy

    tree = bpy.data.node_groups.new("G", "GeometryNodeTree")
    for side in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=side, socket_type="NodeSocketGeometry")
    nodes = {name: tree.nodes.new(name) for name in ("NodeGroupInput", "NodeGroupOutput", "GeometryNodeTransform")}
    start, end = tree.nodes.new("GeometryNodeSimulationInput"), tree.nodes.new("GeometryNodeSimulationOutput")
    start.pair_with_output(end)
    nodes["GeometryNodeTransform"].inputs["Translation"].default_value = (0.1, 0.0, 0.0)
    way = [nodes["NodeGroupInput"], start, nodes["GeometryNodeTransform"], end, nodes["NodeGroupOutput"]]
    for one, other in pairwise(way):
        tree.links.new(
            next(socket for socket in one.outputs if socket.type == "GEOMETRY"),
            next(socket for socket in other.inputs if socket.type == "GEOMETRY"),
        )
    bpy.data.objects["Card"].modifiers.new("Drift", "NODES").node_group = tree


def driver_reads_shutter(scene: Any) -> None:
    import bpy

    driver = bpy.data.objects["Wall"].driver_add("location", 2).driver
    variable = driver.variables.new()
    variable.targets[0].id_type = "SCENE"
    variable.targets[0].id, variable.targets[0].data_path = scene, "render.motion_blur_shutter"
    driver.expression = "var"


def bright(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].data.materials[0].node_tree.nodes["Emission"].inputs[1].default_value = 8.0


def bright_speck(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.scale = (0.3, 0.3, 0.3)
    ball.data.materials[0].node_tree.nodes["Emission"].inputs[1].default_value = 8.0


def other_space(scene: Any) -> None:
    import bpy

    bpy.ops.wm.set_working_color_space(working_space="ACEScg", convert_colors=True)


def hidden(scene: Any) -> None:
    import bpy

    bpy.data.objects["Ball"].hide_render = True


def hidden_by_keys(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    for frame, value in ((1, False), (6, True)):
        ball.hide_render = value
        ball.keyframe_insert("hide_render", frame=frame)
    scene.frame_set(1)


def in_a_collection(scene: Any) -> Any:
    import bpy

    ball, collection = bpy.data.objects["Ball"], bpy.data.collections.new("kept")
    scene.collection.children.link(collection)
    collection.objects.link(ball)
    scene.collection.objects.unlink(ball)
    return collection


def collection_hidden(scene: Any) -> None:
    in_a_collection(scene).hide_render = True


def collection_excluded(scene: Any) -> None:
    in_a_collection(scene)
    scene.view_layers[0].layer_collection.children["kept"].exclude = True


def holdout(scene: Any) -> None:
    in_a_collection(scene)
    scene.view_layers[0].layer_collection.children["kept"].holdout = True


def indirect_only(scene: Any) -> None:
    in_a_collection(scene)
    scene.view_layers[0].layer_collection.children["kept"].indirect_only = True


def no_camera_rays(scene: Any) -> None:
    import bpy

    bpy.data.objects["Ball"].visible_camera = False


def behind_the_wall(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].location.y = -3.0


def no_layer(scene: Any) -> None:
    scene.view_layers[0].use = False


def no_blur(scene: Any) -> None:
    import bpy

    bpy.data.objects["Ball"].cycles.use_motion_blur = False


def python_driver(scene: Any) -> None:
    import bpy

    rail = bpy.data.objects.new("Rail", None)
    scene.collection.objects.link(rail)
    bpy.data.objects["Ball"].parent = rail
    rail.driver_add("location", 0).driver.expression = "bpy.context.scene.frame_current / 4"


def missing_image(scene: Any) -> None:
    add_image(live=True)


def add_image(live: bool) -> None:
    import bpy

    image = bpy.data.images.new("gone", 4, 4)
    image.source, image.filepath = "FILE", "//gone.png"
    image.use_fake_user = True
    tree = bpy.data.objects["Wall"].data.materials[0].node_tree
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    if live:
        tree.links.new(node.outputs[0], tree.nodes["Emission"].inputs[0])


REFUSED = {
    truncated: "Blender cannot read truncated.blend",
    rigid_body: "rigid body 'Card' is simulated and not baked",
    particles: "particle system 'Rain' of 'Wall'",
    cloth: "cloth, 'Cloth' of 'Wall', is simulated and not baked",
    disk_cache: "outside the .blend",
    mesh_cache: "a mesh cache, 'Cache' of 'Wall', keeps its cache in a folder",
    hair_dynamics: "particle system 'Grass' of 'Wall'",
    dynamic_paint: "dynamic paint, 'Paint' of 'Wall'",
    linked_library: "linked_library.library.blend",
    indirect_only: "indirect-only collection",
    simulation_zone: "simulation zone in 'Drift' of 'Card'",
    driver_reads_shutter: "reads render.motion_blur_shutter",
    bright: "of the picture is clipped",
    bright_speck: "set Color Management > Exposure to about -",
    other_space: "working colour space is ACEScg",
    hidden: "'Ball' is hidden in renders",
    hidden_by_keys: "'Ball' has keys on hide_render",
    collection_hidden: "'Ball' lies only in collections that are hidden in renders",
    collection_excluded: "'Ball' is not in view layer 'ViewLayer'",
    holdout: "'Ball' is a holdout",
    no_camera_rays: "'Ball' is hidden from the camera",
    behind_the_wall: "'Ball' is nowhere to be seen",
    no_layer: "no view layer of scene 'Scene' is rendered",
    no_blur: "motion blur of 'Ball' is off",
    python_driver: "driver of Rail: location is Python",
    missing_image: "gone.png",
}
