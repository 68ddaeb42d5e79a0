"""Projection of a thin-lens camera, in closed form: world metres to pixels, speed and circle of confusion.

Array legend: N points, 3 coordinates (metres), 2 pixel coordinates (x right, y down; pixel centres at half-integers).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from scenes.arrays import Floats
from scenes.spec import Camera, Shot


def rotation_33(camera: Camera) -> Floats:
    """Return the camera's rotation, columns = right, up, backward in world axes (Blender's convention, looks along -Z)."""
    return _rotation_33(camera.location_m, camera.target_m)


@lru_cache(maxsize=16)  # drawing a scene asks for one camera's some hundred times
def _rotation_33(location_m: tuple[float, float, float], target_m: tuple[float, float, float]) -> Floats:
    backward_3 = np.subtract(location_m, target_m)
    backward_3 = backward_3 / np.linalg.norm(backward_3)
    up_hint_3 = np.array([0.0, 0.0, 1.0]) if abs(backward_3[2]) < 0.999 else np.array([0.0, 1.0, 0.0])
    right_3 = np.cross(up_hint_3, backward_3)
    right_3 = right_3 / np.linalg.norm(right_3)
    rotation_33 = np.stack([right_3, np.cross(backward_3, right_3), backward_3], axis=1)
    rotation_33.flags.writeable = False  # it is shared
    return rotation_33


def focal_px(camera: Camera, shot: Shot) -> float:
    """Return the focal length in pixels."""
    return camera.focal_length_mm / camera.sensor_width_mm * shot.width


def project(camera: Camera, shot: Shot, points_N3: Floats) -> tuple[Floats, Floats]:
    """Project world points (metres) to pixels `[N, 2]` and depths along the optical axis `[N]` in metres."""
    local_N3 = (np.asarray(points_N3, dtype=np.float64) - np.asarray(camera.location_m)) @ rotation_33(camera)
    depth_N = -local_N3[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        scale_N = focal_px(camera, shot) / depth_N
        pixels_N2 = np.stack([shot.width / 2 + local_N3[:, 0] * scale_N, shot.height / 2 - local_N3[:, 1] * scale_N], axis=1)
    return pixels_N2, depth_N


def unproject(camera: Camera, shot: Shot, x_px: float, y_px: float, depth_m: float) -> Floats:
    """Return the world point (metres) seen at a pixel and a depth along the optical axis."""
    metres_per_px = depth_m / focal_px(camera, shot)
    local_3 = np.array([(x_px - shot.width / 2) * metres_per_px, (shot.height / 2 - y_px) * metres_per_px, -depth_m])
    return np.asarray(camera.location_m) + rotation_33(camera) @ local_3


def image_plane_velocity(camera: Camera, shot: Shot, velocity_px_per_s: tuple[float, float], depth_m: float) -> Floats:
    """Return the world velocity (m/s), parallel to the image plane, that shows as the given pixel velocity at a depth."""
    metres_per_px = depth_m / focal_px(camera, shot)
    local_3 = np.array([velocity_px_per_s[0] * metres_per_px, -velocity_px_per_s[1] * metres_per_px, 0.0])
    return rotation_33(camera) @ local_3


def circle_of_confusion_px(camera: Camera, shot: Shot, f_number: float, depth_m: float) -> float:
    """Return the blur-disc diameter in pixels of a point at a depth (thin lens, focus set by `focus_distance_m`).

    Blender's camera keeps the image distance at the focal length when it focuses (no breathing), so the magnification is
    f / S1 and not f / (S1 - f) as on a real lens; the difference is f / S1, about 2 % at 50 mm and 2.5 m.
    """
    aperture_m = camera.focal_length_mm / 1000.0 / f_number
    focus_m = camera.focus_distance_m
    return aperture_m * abs(depth_m - focus_m) / (depth_m * focus_m) * focal_px(camera, shot)
