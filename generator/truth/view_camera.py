"""A pinhole camera as matrices, in the conventions that people meet: OpenCV's and Blender's.

Pixels: x right, y down, the centre of the first pixel at (0.5, 0.5), as everywhere in Stopdown.
Array legend: N points, 3 coordinates (metres), 2 pixel coordinates, 33 and 44 matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenes.arrays import Floats
from scenes.camera import focal_px, rotation_33
from scenes.spec import Camera, Shot

FLIP_44 = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenCV looks along +Z with Y down, Blender along -Z with Y up


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewCamera:
    """Intrinsics `[3, 3]` (pixels) and world-to-camera `[4, 4]` (metres) in OpenCV's convention: X right, Y down, Z forward."""

    intrinsics_33: Floats
    world_to_camera_44: Floats

    @classmethod
    def of(cls, camera: Camera, shot: Shot) -> ViewCamera:
        """Return the pinhole of a spec's camera."""
        matrix_44 = np.eye(4)
        matrix_44[:3, :3], matrix_44[:3, 3] = rotation_33(camera), camera.location_m
        focal = focal_px(camera, shot)
        intrinsics_33 = np.array([[focal, 0.0, shot.width / 2], [0.0, focal, shot.height / 2], [0.0, 0.0, 1.0]])
        return cls.of_blender(matrix_44, intrinsics_33)

    @classmethod
    def of_blender(cls, matrix_world_44: Floats, intrinsics_33: Floats) -> ViewCamera:
        """Return the camera of a Blender object's `matrix_world` (without scale)."""
        return cls(intrinsics_33=intrinsics_33, world_to_camera_44=np.linalg.inv(matrix_world_44 @ FLIP_44))

    @property
    def camera_to_world_44(self) -> Floats:
        """The camera's pose in OpenCV's convention."""
        return np.linalg.inv(self.world_to_camera_44)

    @property
    def matrix_world_44(self) -> Floats:
        """The camera's pose as Blender's `matrix_world`: X right, Y up, looking along -Z."""
        return self.camera_to_world_44 @ FLIP_44

    @property
    def location_3(self) -> Floats:
        """Where the camera stands, in world metres."""
        return self.camera_to_world_44[:3, 3]

    @property
    def rotation_33(self) -> Floats:
        """World directions to camera directions (OpenCV)."""
        return self.world_to_camera_44[:3, :3]

    def local(self, points_N3: Floats) -> Floats:
        """Return world points in camera coordinates `[N, 3]`."""
        return points_N3 @ self.rotation_33.T + self.world_to_camera_44[:3, 3]

    def pixels(self, local_N3: Floats) -> Floats:
        """Return the pixels `[N, 2]` of points in camera coordinates; not finite for points in the camera's own plane."""
        with np.errstate(divide="ignore", invalid="ignore"):
            image_N3 = (local_N3 / local_N3[:, 2:]) @ self.intrinsics_33.T
        return image_N3[:, :2]

    def rays(self, height: int, width: int) -> Floats:
        """Return the world direction `[H, W, 3]` through every pixel's centre, of length 1 along the optical axis."""
        across_W = (np.arange(width) + 0.5 - self.intrinsics_33[0, 2]) / self.intrinsics_33[0, 0]
        down_H = (np.arange(height) + 0.5 - self.intrinsics_33[1, 2]) / self.intrinsics_33[1, 1]
        local_HW3 = np.stack(np.broadcast_arrays(across_W[None, :], down_H[:, None], 1.0), axis=-1)
        return local_HW3 @ self.rotation_33
