"""The one module of `scenes` that touches bpy: a scene spec becomes a Blender scene, with every property set that it relies on.

Blender's frame number is the clip's frame index, so frame k is time k / fps. Import it only in a process that renders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import bpy  # noqa: TID251 - the one module of scenes/ that may
import numpy as np
from mathutils import Matrix, Vector  # noqa: TID251

from scenes.camera import rotation_33
from scenes.errors import InputError
from scenes.motion import location_at, orientation_at
from scenes.primitives import mesh
from scenes.shading import ANALYTIC, Fidelity, Nodes, shade, sky
from scenes.spec import Camera, Light, Optics, SceneSpec, Shot, Solid
from scenes.white import REFERENCE_KELVIN, adaptation_33

# Motion is keyed beyond the clip on both sides, so that an exposure centred on the first or last frame stays inside.
MARGIN_FRAMES = 2
CAST = "Stopdown cast"  # the compositor's node group that shows a colour temperature
SPIN_STEP_RAD = 0.1  # Cycles interpolates quaternions between keys linearly: 0.1 rad keeps the angle within 1e-4 rad.


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A built scene: the Blender scene, its camera object, and its objects by the name of their solid."""

    spec: SceneSpec
    fidelity: Fidelity
    scene: Any
    camera: Any
    objects: dict[str, Any]


def build(spec: SceneSpec, fidelity: Fidelity) -> Handle:
    """Empty Blender and build a scene in it: meshes, materials, motion, camera, light and backdrop.

    Main thread only (Blender crashes when reset elsewhere). The optics are those of a pinhole without exposure time
    until `set_optics` is called.
    """
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return place(bpy.context.scene, spec, fidelity)


def place(scene: Any, spec: SceneSpec, fidelity: Fidelity) -> Handle:
    """Build a scene into an empty Blender scene and touch no other; data whose names are taken get others."""
    set_format(scene, spec.shot)
    scene.render.frame_map_old = scene.render.frame_map_new = 100
    set_color(scene)
    camera = _add_camera(scene, spec.camera)
    objects = {solid.name: _add_solid(scene, solid, spec, fidelity) for solid in spec.solids}
    if fidelity != "flat":
        _add_sun(scene, spec.light)
    _add_world(scene, spec, fidelity)
    _set_light_transport(scene, fidelity)
    handle = Handle(spec=spec, fidelity=fidelity, scene=scene, camera=camera, objects=objects)
    set_optics(handle, Optics())
    return handle


def set_optics(handle: Handle, optics: Optics) -> None:
    """Set exposure time (true motion blur, centred on the frame) and f-number (true thin lens); None switches one off."""
    set_exposure(handle.scene, optics.exposure_s, handle.spec.shot.fps)
    set_lens(handle.camera, optics.f_number, handle.spec.camera.focus_distance_m)


def set_exposure(scene: Any, exposure_s: float | None, fps: float) -> None:
    """Set a scene's exposure time in seconds, by an ideal shutter centred on the frame; None: no motion blur."""
    render = scene.render
    render.use_motion_blur = exposure_s is not None
    render.motion_blur_position = "CENTER"
    if exposure_s is not None:
        render.motion_blur_shutter = exposure_s * fps
    for point in render.motion_blur_shutter_curve.curves[0].points:  # an ideal shutter: open all the time
        point.location.y = 1.0
    render.motion_blur_shutter_curve.update()
    scene.cycles.rolling_shutter_type = "NONE"


def set_lens(camera: Any, f_number: float | None, focus_distance_m: float) -> None:
    """Set a camera's f-number, as an ideal thin lens, and its plane of focus; None: a pinhole."""
    dof = camera.data.dof
    dof.use_dof = f_number is not None
    dof.focus_object = None
    dof.focus_distance = focus_distance_m
    dof.aperture_blades = 0
    dof.aperture_rotation = 0.0
    dof.aperture_ratio = 1.0
    if f_number is not None:
        dof.aperture_fstop = f_number


def depth_of(camera: Any, thing: Any) -> float:
    """Return how far (metres) an object's origin lies along a camera's optical axis, in the current frame."""
    return -float((camera.matrix_world.normalized().inverted() @ thing.matrix_world.translation).z)


def set_cast(scene: Any, color_temperature_k: float | None) -> None:
    """Show the rendered picture under a cast, by the compositor: the temperature axis's own matrix and clipping.

    None or 6500 K takes the cast away. Raises InputError where the scene has a compositor of its own.
    """
    mine = scene.compositing_node_group
    wanted = color_temperature_k is not None and color_temperature_k != REFERENCE_KELVIN
    if mine is not None and not mine.name.startswith(CAST):
        if not wanted:
            return
        raise InputError(
            f"scene '{scene.name}' has a compositor of its own, '{mine.name}'; unlink it there to see a colour temperature"
        )
    if mine is not None:
        scene.compositing_node_group = None
        bpy.data.node_groups.remove(mine)
    if color_temperature_k is not None and wanted:
        scene.compositing_node_group = _cast_group(scene, adaptation_33(color_temperature_k))
    scene.render.use_compositing = scene.compositing_node_group is not None


def _cast_group(scene: Any, matrix_33: Any) -> Any:
    """Return a compositor group of nine products: each channel is a row of the matrix with the pixel, not below 0."""
    group = bpy.data.node_groups.new(CAST, "CompositorNodeTree")
    group.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    nodes = Nodes(group)
    layers = nodes.add("CompositorNodeRLayers")
    layers.scene = scene
    parts = nodes.add("CompositorNodeSeparateColor", {0: layers.outputs["Image"]}, mode="RGB").outputs
    rows = []
    for row_3 in matrix_33.tolist():
        total = nodes.math("MULTIPLY", parts[0], row_3[0])
        for index in (1, 2):
            total = nodes.math("MULTIPLY_ADD", parts[index], row_3[index], total)
        rows.append(nodes.math("MAXIMUM", total, 0.0))
    whole = nodes.add("CompositorNodeCombineColor", {0: rows[0], 1: rows[1], 2: rows[2], 3: parts[3]}, mode="RGB")
    nodes.add("NodeGroupOutput", {0: whole.outputs[0]})
    return group


def set_format(scene: Any, shot: Shot) -> None:
    """Set size, frame rate, frames and engine, and switch off what would draw on the picture or cut it."""
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y = shot.width, shot.height
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    render.fps, render.fps_base = shot.fps, 1.0
    scene.frame_start, scene.frame_end, scene.frame_step = 0, shot.frames - 1, 1
    render.use_compositing = False
    render.use_sequencer = False
    render.use_simplify = False
    render.use_freestyle = False
    render.use_multiview = False
    render.use_stamp = False
    render.use_border = render.use_crop_to_border = False
    render.film_transparent = False


def set_color(scene: Any) -> None:
    """Show linear Rec.709 as plain sRGB; frames are read as linear floats, so this is for artists who open the file."""
    scene.display_settings.display_device = "sRGB"
    view = scene.view_settings
    view.view_transform, view.look = "Standard", "None"
    view.exposure, view.gamma = 0.0, 1.0
    view.use_curve_mapping = False
    view.use_white_balance = False


def _add_camera(scene: Any, spec: Camera) -> Any:
    data = bpy.data.cameras.new("camera")
    data.type = "PERSP"
    data.lens_unit = "MILLIMETERS"
    data.lens = spec.focal_length_mm
    data.sensor_fit = "HORIZONTAL"
    data.sensor_width = spec.sensor_width_mm
    data.shift_x = data.shift_y = 0.0
    data.clip_start, data.clip_end = 1e-3, 1e5
    camera = bpy.data.objects.new("camera", data)
    matrix_44 = np.eye(4)
    matrix_44[:3, :3] = rotation_33(spec)
    matrix_44[:3, 3] = spec.location_m
    camera.matrix_world = Matrix(matrix_44.tolist())
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def _add_sun(scene: Any, light: Light) -> None:
    """Add the sun; a white Lambert surface facing it gets the share of radiance that `flat` gives it."""
    data = bpy.data.lights.new("sun", "SUN")
    data.color = (1.0, 1.0, 1.0)
    data.energy = math.pi * light.strength * (1.0 - light.ambient)
    data.angle = light.angle_rad
    data.cycles.use_multiple_importance_sampling = True
    data.use_shadow = True
    sun = bpy.data.objects.new("sun", data)
    sun.rotation_mode = "QUATERNION"
    sun.rotation_quaternion = Vector(light.direction).to_track_quat("Z", "Y")
    scene.collection.objects.link(sun)


def _add_world(scene: Any, spec: SceneSpec, fidelity: Fidelity) -> None:
    world = bpy.data.worlds.new("world")
    world.cycles.sampling_method = "NONE" if fidelity in ANALYTIC else "AUTOMATIC"
    world.cycles.max_bounces = 1024
    world.use_sun_shadow = False
    sky(world.node_tree, spec.background, spec.light, fidelity)
    scene.world = world


def _new_material(solid: Solid, light: Light, fidelity: Fidelity) -> Any:
    material = bpy.data.materials.new(solid.name)
    material.cycles.emission_sampling = "NONE"  # what glows lights nothing: no light rays, no noise
    material.use_backface_culling = False
    shade(material.node_tree, solid.material, light, fidelity)
    return material


def _add_solid(scene: Any, solid: Solid, spec: SceneSpec, fidelity: Fidelity) -> Any:
    shape = mesh(solid.kind)
    data = bpy.data.meshes.new(solid.name)
    data.from_pydata(shape.vertices_V3.tolist(), [], [list(face) for face in shape.faces])
    data.polygons.foreach_set("use_smooth", [bool(shape.smooth)] * len(data.polygons))
    data.update()
    data.materials.append(_new_material(solid, spec.light, fidelity))
    thing = bpy.data.objects.new(solid.name, data)
    thing.scale = solid.scale_m
    thing.rotation_mode = "QUATERNION"
    thing.rotation_quaternion = solid.motion.orientation
    thing.location = solid.motion.location_m
    thing.cycles.use_motion_blur = solid.motion.moves
    thing.cycles.use_deform_motion = False
    thing.cycles.motion_steps = 1
    scene.collection.objects.link(thing)
    if solid.motion.moves:
        _animate(thing, solid, spec.shot)
    return thing


def _animate(thing: Any, solid: Solid, shot: Shot) -> None:
    """Key constant velocity by two far keys (exact) and spin by keys no further than `SPIN_STEP_RAD` apart."""
    first, last = -MARGIN_FRAMES, shot.frames - 1 + MARGIN_FRAMES
    action = bpy.data.actions.new(solid.name)
    slot = action.slots.new("OBJECT", solid.name)
    strip = action.layers.new("motion").strips.new(type="KEYFRAME")
    curves = strip.channelbag(slot, ensure=True).fcurves
    ends_K = np.array([first, last], dtype=np.float64)
    places_K3 = np.stack([location_at(solid.motion, frame / shot.fps) for frame in ends_K])
    _key(curves, "location", ends_K, places_K3)
    if solid.motion.spin_rad_per_s:
        steps = math.ceil(abs(solid.motion.spin_rad_per_s) / shot.fps / SPIN_STEP_RAD)
        frames_K = np.linspace(first, last, (last - first) * steps + 1)
        turns_K4 = np.array([orientation_at(solid.motion, frame / shot.fps) for frame in frames_K])
        _key(curves, "rotation_quaternion", frames_K, turns_K4)
    animation = thing.animation_data_create()
    animation.action = action
    animation.action_slot = slot


def _key(curves: Any, path: str, frames_K: Any, values_KD: Any) -> None:
    """Write linear keys, carried on linearly beyond both ends, one curve per component."""
    for index in range(values_KD.shape[1]):
        curve = curves.new(path, index=index)
        curve.extrapolation = "LINEAR"
        curve.keyframe_points.add(len(frames_K))
        flat = np.stack([frames_K, values_KD[:, index]], axis=1).astype(np.float32).ravel()
        curve.keyframe_points.foreach_set("co", flat)
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"
        curve.update()


def _set_light_transport(scene: Any, fidelity: Fidelity) -> None:
    """Set how far light travels: not at all (`flat`), shadows and one diffuse bounce (`lit`), three bounces (`pbr`)."""
    cycles = scene.cycles
    bounces = {"flat": 0, "textured": 0, "lit": 1, "pbr": 3}[fidelity]
    cycles.max_bounces = bounces
    cycles.diffuse_bounces = cycles.glossy_bounces = bounces
    cycles.transmission_bounces = cycles.volume_bounces = cycles.transparent_max_bounces = 0
    cycles.min_light_bounces = cycles.min_transparent_bounces = 0
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.blur_glossy = 1.0
    cycles.sample_clamp_direct = 0.0
    cycles.sample_clamp_indirect = 10.0
    cycles.use_light_tree = False
    cycles.light_sampling_threshold = 0.01
    cycles.use_fast_gi = False
    cycles.use_guiding = False
    cycles.film_exposure = 1.0
    cycles.use_camera_cull = cycles.use_distance_cull = False
