"""The yardstick: what a plain Blender script costs for the same scenes.

Principled materials, a sun, 16 samples, no denoiser, every other render setting as Blender ships it; one
`render(write_still=True)` a frame to PNG, then H.264. Nothing is cached, cropped or measured.
Run: python benchmarks/baseline_blender.py examples/shutter.toml --frames 9 [--set KEY=VALUE]; prints the frames rendered.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

import bpy
import imageio.v3 as iio
import numpy as np
from mathutils import Matrix, Quaternion, Vector

from generator.media.video import encode
from generator.recipe.load import load_recipe
from generator.recipe.plan import ClipPlan, make_plan
from scenes.camera import rotation_33
from scenes.motion import location_at, orientation_at
from scenes.primitives import mesh
from scenes.spec import Optics, SceneSpec, Solid

FRAMES_PER_CLIP = 3  # cost per frame is what counts; a few of each clip show more clips


def main() -> None:
    """Render clips spread evenly over the plan until enough frames are made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    plan = make_plan(load_recipe(options.recipe, options.overrides))
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        for clip in _spread(list(plan.clips), options.frames):
            count = min(clip.frames, FRAMES_PER_CLIP, options.frames - done)
            if count <= 0:
                break
            spec = plan.scene_by_id[clip.scene_id].spec
            _render_clip(spec, clip.optics, count, Path(folder))
            done += count
    print(f"frames {done}")


def _spread(clips: list[ClipPlan], most: int) -> list[ClipPlan]:
    picks = np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int)
    return [clips[index] for index in np.random.default_rng(0).permutation(picks)]


def _render_clip(spec: SceneSpec, optics: Optics, frames: int, folder: Path) -> None:
    scene = _build(spec, optics)
    pictures = []
    for frame in range(frames):
        scene.frame_set(frame)
        scene.render.filepath = str(folder / f"{frame:04d}.png")
        with _quiet():
            bpy.ops.render.render(write_still=True)
        pictures.append(iio.imread(scene.render.filepath)[..., :3])
    (folder / "clip.mp4").write_bytes(encode(np.stack(pictures), spec.shot.fps, 12, "medium"))


def _build(spec: SceneSpec, optics: Optics) -> bpy.types.Scene:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 16
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = spec.shot.width, spec.shot.height
    scene.render.fps = spec.shot.fps
    if optics.exposure_s is not None:
        scene.render.use_motion_blur = True
        scene.render.motion_blur_shutter = optics.exposure_s * spec.shot.fps
    _add_camera(scene, spec, optics)
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy = 3.0
    sun.rotation_mode = "QUATERNION"
    sun.rotation_quaternion = Vector(spec.light.direction).to_track_quat("Z", "Y")
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("world")
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (*spec.background.top, 1.0)
    for solid in spec.solids:
        _add_solid(scene, solid, spec)
    return scene


def _add_camera(scene: bpy.types.Scene, spec: SceneSpec, optics: Optics) -> None:
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = spec.camera.focal_length_mm
    camera.matrix_world = Matrix.LocRotScale(Vector(spec.camera.location_m), Matrix(rotation_33(spec.camera).tolist()), None)
    if optics.f_number is not None:
        camera.data.dof.use_dof = True
        camera.data.dof.focus_distance = spec.camera.focus_distance_m
        camera.data.dof.aperture_fstop = optics.f_number
    scene.collection.objects.link(camera)
    scene.camera = camera


def _add_solid(scene: bpy.types.Scene, solid: Solid, spec: SceneSpec) -> None:
    shape = mesh(solid.kind)
    data = bpy.data.meshes.new(solid.name)
    data.from_pydata(shape.vertices_V3.tolist(), [], [list(face) for face in shape.faces])
    material = bpy.data.materials.new(solid.name)
    principled = material.node_tree.nodes["Principled BSDF"]
    principled.inputs["Base Color"].default_value = (*solid.material.albedo, 1.0)
    principled.inputs["Emission Color"].default_value = (*solid.material.albedo, 1.0)
    principled.inputs["Emission Strength"].default_value = solid.material.emission
    data.materials.append(material)
    thing = bpy.data.objects.new(solid.name, data)
    thing.scale = solid.scale_m
    thing.rotation_mode = "QUATERNION"
    for frame in range(-1, spec.shot.frames + 1):
        thing.location = location_at(solid.motion, frame / spec.shot.fps)
        thing.rotation_quaternion = Quaternion(orientation_at(solid.motion, frame / spec.shot.fps))
        thing.keyframe_insert("location", frame=frame)
        thing.keyframe_insert("rotation_quaternion", frame=frame)
    scene.collection.objects.link(thing)


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Drop what Blender prints, as any script that runs for hours does."""
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


if __name__ == "__main__":
    main()
