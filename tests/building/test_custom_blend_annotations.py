"""`stopdown mark`: what a custom .blend holds is rendered as it is marked, or refused with the real reason."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blender_child import run_in_blender
from custom_blend_support import FRAMES, STEP_M, curves_of, glide, make_and_mark

from generator.recipe.blend_file import read_annotation
from scenes.axes import AXES
from scenes.families import draw_scene
from scenes.families.blend import blend_family
from scenes.families.blend_annotation import Annotation
from scenes.families.blend_proof import why_unproven
from scenes.spec import Shot

LAWS = {"shutter": AXES["shutter"].default_law}
ALL = {"shutter": AXES["shutter"].default_law, "temperature": AXES["temperature"].default_law}


def plain(scene: Any) -> None:
    pass


def truncated(scene: Any) -> None:
    pass


def rigid_body(scene: Any) -> None:
    import bpy

    bpy.ops.rigidbody.world_add()
    scene.rigidbody_world.collection = bpy.data.collections.new("bodies")
    scene.rigidbody_world.collection.objects.link(bpy.data.objects["Card"])


def baked_body(scene: Any) -> None:
    import bpy

    rigid_body(scene)
    cache = scene.rigidbody_world.point_cache
    cache.frame_start, cache.frame_end = 1, FRAMES
    with bpy.context.temp_override(scene=scene, point_cache=cache):
        bpy.ops.ptcache.bake(bake=True)


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


def keyed_optics(scene: Any) -> None:
    lens = scene.camera.data
    for owner, path in ((scene, "render.motion_blur_shutter"), (lens, "dof.aperture_fstop"), (lens, "dof.focus_distance")):
        owner.keyframe_insert(path, frame=1)
    scene.cycles.keyframe_insert("samples", frame=1)
    scene.render.driver_add("film_transparent").driver.expression = "1"
    strip = lens.animation_data.nla_tracks.new().strips.new("late", 1, lens.animation_data.action)
    strip.action_slot = lens.animation_data.action_slot
    lens.animation_data.action = None


def driver_reads_shutter(scene: Any) -> None:
    import bpy

    driver = bpy.data.objects["Wall"].driver_add("location", 2).driver
    variable = driver.variables.new()
    variable.targets[0].id_type = "SCENE"
    variable.targets[0].id, variable.targets[0].data_path = scene, "render.motion_blur_shutter"
    driver.expression = "var"


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


def bright(scene: Any) -> None:
    import bpy

    bpy.data.objects["Wall"].data.materials[0].node_tree.nodes["Emission"].inputs[1].default_value = 8.0


def bright_but_exposed(scene: Any) -> None:
    bright(scene)
    scene.view_settings.exposure = -2.0


def bright_speck(scene: Any) -> None:
    import bpy

    ball = bpy.data.objects["Ball"]
    ball.scale = (0.3, 0.3, 0.3)
    ball.data.materials[0].node_tree.nodes["Emission"].inputs[1].default_value = 8.0


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


def unused_image(scene: Any) -> None:
    add_image(live=False)


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
MARKED = (plain, baked_body, keyed_optics, keyed_lens, marker_cameras, bright_but_exposed, unused_image, bezier, edge_keys,
          only_five_frames, stepped, spinning, fan, shape_key, bone, by_nodes, whole_frames, remapped,
          tiny_picture, sun_flickers, sun_sets, world_by_driver, wall_slides, lamp_swings, unused_flicker,
          brown_card)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def told(folder: Path) -> dict[str, Any]:
    spoilers = {spoil.__name__: spoil for spoil in (*REFUSED, *MARKED)}
    return run_in_blender(make_and_mark, str(folder), spoilers, {})


@pytest.mark.parametrize("spoil", REFUSED, ids=lambda spoil: spoil.__name__)
def test_what_would_render_otherwise_than_it_is_marked_is_refused_with_the_reason(told: dict[str, Any], spoil: Any) -> None:
    said = told[spoil.__name__]
    assert isinstance(said, str), "the file was marked"
    assert REFUSED[spoil] in said and "\n" not in said


@pytest.mark.parametrize("spoil", MARKED, ids=lambda spoil: spoil.__name__)
def test_what_renders_as_it_is_marked_is_marked(told: dict[str, Any], spoil: Any) -> None:
    assert not isinstance(told[spoil.__name__], str), told[spoil.__name__]


def reason(annotation: Annotation, axis: str = "shutter", seed: int = 0) -> str:
    scene = draw_scene(blend_family(annotation), np.random.default_rng(seed), Shot(width=64, height=64, fps=16, frames=5), ALL)
    return why_unproven(annotation, scene, axis, ALL)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (plain, ""),
        (baked_body, "'Card', which moves too, speeds up"),
        (bone, ""),
        (by_nodes, ""),
        (whole_frames, "moves in steps"),
        (remapped, ""),
        (marker_cameras, ""),
        (bezier, "speeds up or slows down"),
        (stepped, "moves in steps"),
        (spinning, "'Ball' turns"),
        (fan, "'Card', which moves too, turns"),
        (shape_key, "changes its shape or size"),
        (keyed_lens, "focal length is animated"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_motion_is_proven_or_the_real_reason_is_known_before_rendering(told: dict[str, Any], spoil: Any, said: str) -> None:
    annotation = told[spoil.__name__][0]
    assert said in reason(annotation) and bool(said) == bool(reason(annotation))


@pytest.mark.parametrize(
    ("spoil", "shutter", "temperature"),
    [
        (sun_flickers, "light 'Sun', energy changes by 50% a frame, which flickers", ""),
        (sun_sets, "", "the light or colour of the patch 'Card' changes, as from"),
        (world_by_driver, "world 'World', Background: Strength changes by", ""),
        (wall_slides, "material 'Wall', Mapping: Location changes", ""),
        (lamp_swings, "light 'Lamp', its place or direction changes", ""),
        (unused_flicker, "", ""),
        (brown_card, "", "the patch 'Card' looks like a neutral under"),
    ],
    ids=lambda part: getattr(part, "__name__", ""),
)
def test_a_look_that_changes_is_proven_or_named_before_rendering(
    told: dict[str, Any], spoil: Any, shutter: str, temperature: str
) -> None:
    annotation, notes = told[spoil.__name__]
    for axis, said in (("shutter", shutter), ("temperature", temperature)):
        assert said in reason(annotation, axis) and bool(said) == bool(reason(annotation, axis))
    assert any("its look changes" in note for note in notes) == bool(annotation.changing)
    assert any("no temperature can be verified" in note for note in notes) == bool(temperature)


def test_keys_on_the_edge_of_the_range_spoil_a_clip_that_reaches_it_and_others_are_drawn(told: dict[str, Any]) -> None:
    assert {reason(told["edge_keys"][0], seed=seed) for seed in range(20)} == {""}
    assert "'Ball' starts or stops inside an exposure" in reason(told["only_five_frames"][0])


@pytest.mark.parametrize("spoil", [plain, bone, by_nodes, remapped], ids=lambda spoil: spoil.__name__)
def test_places_are_those_of_the_evaluated_thing(told: dict[str, Any], spoil: Any) -> None:
    ball = told[spoil.__name__][0].subject
    step_m = STEP_M / (2 if spoil is remapped else 1) / ball.steps
    np.testing.assert_allclose(np.diff(np.array(ball.path_m), axis=0), [[step_m, 0.0, 0.0]] * (len(ball.path_m) - 1), atol=2e-6)
    assert len(ball.path_m) == (FRAMES + 1) * ball.steps + 1 and not any(ball.loose_m)


def test_a_patch_is_marked_by_what_the_camera_sees_of_it(told: dict[str, Any]) -> None:
    annotation = told["plain"][0]
    x_m, _, z_m = annotation.patch.spot_m
    assert abs(x_m) < 0.1 and abs(z_m + 1.6) < 0.15 and 0.9 < annotation.patch.spot_size_m < 1.6
    assert reason(annotation, "temperature") == "" and "round lights" in reason(annotation, "aperture")


def test_what_was_switched_off_is_said(told: dict[str, Any]) -> None:
    (said,) = told["keyed_optics"][1]
    for path in (
        "render.motion_blur_shutter",
        "dof.aperture_fstop",
        "dof.focus_distance",
        "cycles.samples",
        "film_transparent",
    ):
        assert path in said
    assert any("timeline markers" in note for note in told["marker_cameras"][1])
    assert any("-2 stops" in note for note in told["bright_but_exposed"][1])


def test_marks_are_read_back_and_old_ones_are_not_trusted(told: dict[str, Any], folder: Path) -> None:
    from scenes.errors import InputError

    annotation, cost = read_annotation(folder / "plain.blend")
    assert annotation == told["plain"][0] and cost.of_frame(0.01, 32) > 0
    path = folder / "plain.marks.json"
    text = path.read_text()
    path.write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match="earlier Stopdown"):
        read_annotation(folder / "plain.blend")
    path.write_text(text)
