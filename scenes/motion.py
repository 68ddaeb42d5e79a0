"""Where a solid is at a time: rigid motion with constant velocity and spin.

Array legend: V vertices, 3 coordinates (metres).
"""

from __future__ import annotations

import math

import numpy as np

from scenes.arrays import Floats
from scenes.spec import Motion, Quaternion, Vec3


def axis_angle(axis: Vec3, angle_rad: float) -> Quaternion:
    """Return the unit quaternion (w, x, y, z) of a rotation about an axis."""
    length = math.sqrt(sum(part * part for part in axis))
    scale = math.sin(angle_rad / 2) / length
    return (math.cos(angle_rad / 2), axis[0] * scale, axis[1] * scale, axis[2] * scale)


def multiply(left: Quaternion, right: Quaternion) -> Quaternion:
    """Return the Hamilton product: apply `right` first, then `left`."""
    w1, x1, y1, z1 = left
    w2, x2, y2, z2 = right
    return (
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    )


def matrix_33(quaternion: Quaternion) -> Floats:
    """Return the rotation matrix of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def random_orientation(rng: np.random.Generator) -> Quaternion:
    """Draw a uniformly distributed orientation."""
    w, x, y, z = (float(part) for part in rng.standard_normal(4))
    length = math.sqrt(w * w + x * x + y * y + z * z)
    return (w / length, x / length, y / length, z / length)


def location_at(motion: Motion, time_s: float) -> Floats:
    """Return the location (metres) at a time."""
    return np.asarray(motion.location_m) + np.asarray(motion.velocity_m_per_s) * time_s


def orientation_at(motion: Motion, time_s: float) -> Quaternion:
    """Return the orientation at a time: the spin acts in the object's own frame, before the orientation."""
    return multiply(motion.orientation, axis_angle(motion.spin_axis, motion.spin_rad_per_s * time_s))


def vertices_at(vertices_V3: Floats, scale_m: Vec3, motion: Motion, time_s: float) -> Floats:
    """Return the world positions `[V, 3]` (metres) of a unit mesh's vertices at a time."""
    scaled_V3 = vertices_V3 * np.asarray(scale_m)
    return scaled_V3 @ matrix_33(orientation_at(motion, time_s)).T + location_at(motion, time_s)
