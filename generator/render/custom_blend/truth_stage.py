"""What stands in a .blend of one's own, for its ground truth: objects by id, their poses and the camera, frame by frame.

What is rigid has flow; what deforms, or is scattered by an instancer, has not, and is refused in words when flow is asked for.
Array legend: 33 and 44 matrices, 23 lowest and highest corner of an object's own box.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bpy
import numpy as np

from generator.recipe.truth_section import Pass
from generator.truth.stage import Thing
from generator.truth.view_camera import ViewCamera
from scenes.arrays import Floats
from scenes.errors import InputError
from scenes.spec import SceneSpec

GEOMETRY = ("MESH", "CURVE", "SURFACE", "META", "FONT")
MOST_IDS = 65_535
SAME_M = 1e-6


class BlendStage:
    """The objects of a .blend that are rendered, in order of name, with the ids of the pictures."""

    def __init__(self, scene: Any, camera: Any, spec: SceneSpec, first_frame: int) -> None:
        self._scene, self._camera, self._spec, self._first = scene, camera, spec, first_frame
        shown = (thing for thing in scene.objects if thing.type in GEOMETRY and not thing.hide_render)
        self.objects = sorted(shown, key=lambda thing: thing.name)
        if len(self.objects) > MOST_IDS:
            raise InputError(f"truth has ids for {MOST_IDS} objects, the file has {len(self.objects)}; join some of them")
        self._seek(0)
        self.things = tuple(_thing(thing) for thing in self.objects)

    def camera(self, frame: int) -> ViewCamera:
        """Return the camera of a frame."""
        self._seek(frame)
        width, height = self._spec.shot.width, self._spec.shot.height
        projection_44 = np.array(self._camera.calc_matrix_camera(bpy.context.evaluated_depsgraph_get(), x=width, y=height))
        intrinsics_33 = np.array(
            [
                [width / 2 * projection_44[0, 0], 0.0, width / 2 * (1.0 - projection_44[0, 2])],
                [0.0, height / 2 * projection_44[1, 1], height / 2 * (1.0 + projection_44[1, 2])],
                [0.0, 0.0, 1.0],
            ]
        )
        return ViewCamera.of_blender(np.array(self._camera.matrix_world.normalized()), intrinsics_33)

    def poses(self, frame: int) -> list[Floats]:
        """Return every object's `matrix_world` in a frame; it may hold a scale."""
        self._seek(frame)
        graph = bpy.context.evaluated_depsgraph_get()
        return [np.array(thing.evaluated_get(graph).matrix_world) for thing in self.objects]

    def check(self, passes: tuple[Pass, ...]) -> None:
        """Raise InputError where flow is asked for of what is not rigid."""
        if "flow" in passes and (reason := next(self._without_flow(), None)) is not None:
            raise InputError(f"truth has no flow for this .blend: {reason}; take 'flow' out of truth.passes")

    def _without_flow(self) -> Iterator[str]:
        for thing in self._scene.objects:
            if not thing.hide_render and (thing.is_instancer or len(thing.particle_systems)):
                yield f"'{thing.name}' scatters instances, which have no pose of their own"
        for thing in self.objects:
            if thing.modifiers or getattr(thing.data, "shape_keys", None) or thing.type == "META":
                first = self._vertices(thing, 0)
                for frame in range(1, self._spec.shot.frames):
                    now = self._vertices(thing, frame)
                    if now.shape != first.shape or not np.allclose(now, first, rtol=0.0, atol=SAME_M):
                        yield f"'{thing.name}' changes its shape"
                        break

    def _vertices(self, thing: Any, frame: int) -> Floats:
        self._seek(frame)
        evaluated = thing.evaluated_get(bpy.context.evaluated_depsgraph_get())
        shape = evaluated.to_mesh()
        places = np.empty(len(shape.vertices) * 3)
        shape.vertices.foreach_get("co", places)
        evaluated.to_mesh_clear()
        return places

    def _seek(self, frame: int) -> None:
        if self._scene.frame_current != self._first + frame:
            self._scene.frame_set(self._first + frame)


def _thing(thing: Any) -> Thing:
    corners_83 = np.array(thing.bound_box)
    return Thing(
        name=thing.name,
        role="prop",
        kind=thing.type.lower(),
        color=None,
        albedo=None,
        extent_23=np.stack([corners_83.min(axis=0), corners_83.max(axis=0)]),
    )
