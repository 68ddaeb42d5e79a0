"""What stands in a scene, frame by frame: cameras, and objects by id with their poses. Ids count from 1; 0 is the background.

Array legend: V vertices, 3 coordinates (metres, in the object's frame), 23 lowest and highest corner, 44 poses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from generator.truth.view_camera import ViewCamera
from scenes.arrays import Floats
from scenes.motion import location_at, matrix_33, orientation_at
from scenes.primitives import Face, mesh
from scenes.spec import Motion, SceneSpec, Vec3


@dataclass(frozen=True, kw_only=True, eq=False)
class Thing:
    """One object: what a person calls it, its extent in its own frame, and its mesh where the spec says it."""

    name: str
    role: str
    kind: str
    color: str | None
    albedo: Vec3 | None
    extent_23: Floats
    vertices_V3: Floats | None = None
    faces: tuple[Face, ...] = ()


class Stage(Protocol):
    """Objects by id - 1, and where they and the camera are in a frame."""

    things: tuple[Thing, ...]

    def camera(self, frame: int) -> ViewCamera:
        """Return the camera of a frame."""
        ...

    def poses(self, frame: int) -> list[Floats]:
        """Return every object's pose `[4, 4]`, object to world."""
        ...


class SpecStage:
    """The stage of a scene spec: rigid objects, a camera that stands still."""

    def __init__(self, spec: SceneSpec) -> None:
        self.spec = spec
        self.things = tuple(_things(spec))
        self._camera = ViewCamera.of(spec.camera, spec.shot)

    def camera(self, frame: int) -> ViewCamera:
        """Return the camera, the same in every frame."""
        return self._camera

    def poses(self, frame: int) -> list[Floats]:
        """Return every solid's rigid pose at the frame's mid-exposure."""
        return [pose_at(solid.motion, self.spec.shot.times_s[frame]) for solid in self.spec.solids]


def pose_at(motion: Motion, time_s: float) -> Floats:
    """Return a rigid pose `[4, 4]`, object to world."""
    pose_44 = np.eye(4)
    pose_44[:3, :3] = matrix_33(orientation_at(motion, time_s))
    pose_44[:3, 3] = location_at(motion, time_s)
    return pose_44


def _things(spec: SceneSpec) -> Iterator[Thing]:
    for solid in spec.solids:
        shape = mesh(solid.kind)
        vertices_V3 = shape.vertices_V3 * np.asarray(solid.scale_m)
        yield Thing(
            name=solid.name,
            role=solid.role,
            kind=solid.kind,
            color=solid.material.color_name,
            albedo=solid.material.albedo,
            extent_23=np.stack([vertices_V3.min(axis=0), vertices_V3.max(axis=0)]),
            vertices_V3=vertices_V3,
            faces=shape.faces,
        )
