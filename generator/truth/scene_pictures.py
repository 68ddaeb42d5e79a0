"""The files of a scene's truth, made frame by frame from what its pixels show: two frames are held at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from generator.recipe.truth_section import Pass
from generator.truth.flow import Geometry, Moment, flow_between
from generator.truth.pass_files import depth_bytes, flow_bytes, instances_bytes, normals_bytes
from generator.truth.scene_file import CONVENTIONS, SceneTruth
from generator.truth.stage import Stage
from generator.truth.tracks import Tracks
from generator.truth.truth_names import SCENE_FILE, frame_file
from scenes.spec import SceneSpec


def truth_pictures(
    spec: SceneSpec, stage: Stage, geometries: Iterable[Geometry], passes: tuple[Pass, ...], blender: str
) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of every file but the sharp clip; scene.json comes last."""
    shot = spec.shot
    tracks = Tracks(stage, shot.height, shot.width)
    before: Moment | None = None
    for frame, geometry in enumerate(geometries):
        now = Moment(geometry=geometry, camera=stage.camera(frame), poses=stage.poses(frame))
        tracks.add(now)
        if "depth" in passes:
            yield frame_file("depth", frame), depth_bytes(geometry.depth(now.camera))
        if "instances" in passes:
            yield frame_file("instances", frame), instances_bytes(geometry.ids_HW)
        if "normals" in passes:
            yield frame_file("normals", frame), normals_bytes(geometry.normals_HW3)
        if "flow" in passes and before is not None:
            yield frame_file("flow_forward", frame - 1), flow_bytes(*flow_between(before, now))
            yield frame_file("flow_backward", frame), flow_bytes(*flow_between(now, before))
        before = now
    scene = SceneTruth(
        family=spec.family,
        width=shot.width,
        height=shot.height,
        fps=shot.fps,
        times_s=shot.times_s,
        passes=passes,
        blender=blender,
        conventions=CONVENTIONS,
        cameras=tracks.cameras(),
        objects=tracks.objects(),
    )
    yield SCENE_FILE, scene.data()
