"""Which pixels a moving solid can touch in a frame, and which boxes to render for them. Pure numpy.

Array legend: V vertices, K moments, 2 pixel coordinates, 3 metres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Floats
from scenes.camera import circle_of_confusion_px, project
from scenes.motion import location_at, vertices_at
from scenes.spec import Optics, SceneSpec, Solid

FILTER_PX = 1.5  # half the support of the pixel filter: Cycles doubles the width it is given for Blackman-Harris
SLACK_PX = 0.5  # chords of the spin, float32 in Cycles
SPIN_STEP_RAD = 0.1
NEAR_M = 1e-2


@dataclass(frozen=True, kw_only=True, order=True)
class Box:
    """A rectangle of pixels: `left` and `top` inclusive, `right` and `bottom` exclusive, y down."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        """Pixels inside."""
        return max(0, self.right - self.left) * max(0, self.bottom - self.top)

    def around(self, other: Box) -> Box:
        """Return the smallest box that holds both."""
        return Box(
            left=min(self.left, other.left),
            top=min(self.top, other.top),
            right=max(self.right, other.right),
            bottom=max(self.bottom, other.bottom),
        )


def swept_px(scene: SceneSpec, solid: Solid, frame: int, optics: Optics) -> float:
    """Return how far a solid's centre travels over the picture during a frame's exposure, in pixels."""
    if optics.exposure_s is None:
        return 0.0
    ends_23 = np.stack([location_at(solid.motion, frame / scene.shot.fps + share * optics.exposure_s) for share in (-0.5, 0.5)])
    pixels_22, _ = project(scene.camera, scene.shot, ends_23)
    return float(np.linalg.norm(pixels_22[1] - pixels_22[0]))


def swept_box(scene: SceneSpec, solid: Solid, vertices_V3: Floats, frame: int, optics: Optics) -> Box | None:
    """Return the pixels a solid may touch in a frame, or None if it is out of the picture.

    `vertices_V3` is the unit mesh. Holds the whole exposure, the blur disc of every vertex and the pixel filter. A solid that
    comes closer to the lens than 1 cm may be anywhere: then the whole picture is returned.
    """
    shot = scene.shot
    whole = Box(left=0, top=0, right=shot.width, bottom=shot.height)
    low_2, high_2 = np.full(2, np.inf), np.full(2, -np.inf)
    for time_s in _moments(solid, frame / shot.fps, optics.exposure_s):
        pixels_V2, depths_V = project(scene.camera, shot, vertices_at(vertices_V3, solid.scale_m, solid.motion, time_s))
        if depths_V.min() < NEAR_M:
            return whole
        radii_V1 = np.zeros((len(depths_V), 1))
        if optics.f_number is not None:
            # The disc is convex in depth on each side of the focus, so its largest radii are at vertices.
            for row, depth_m in enumerate(depths_V):
                radii_V1[row] = circle_of_confusion_px(scene.camera, shot, optics.f_number, float(depth_m)) / 2
        low_2 = np.minimum(low_2, (pixels_V2 - radii_V1).min(axis=0))
        high_2 = np.maximum(high_2, (pixels_V2 + radii_V1).max(axis=0))
    margin = FILTER_PX + SLACK_PX
    box = Box(
        left=max(0, math.floor(low_2[0] - margin)),
        top=max(0, math.floor(low_2[1] - margin)),
        right=min(shot.width, math.ceil(high_2[0] + margin)),
        bottom=min(shot.height, math.ceil(high_2[1] + margin)),
    )
    return box if box.right > box.left and box.bottom > box.top else None


def _moments(solid: Solid, time_s: float, exposure_s: float | None) -> list[float]:
    """Return times whose outlines bound the sweep: the ends for straight motion, and steps of 0.1 rad for spin."""
    if exposure_s is None:
        return [time_s]
    steps = max(1, math.ceil(abs(solid.motion.spin_rad_per_s) * exposure_s / SPIN_STEP_RAD))
    return [time_s + exposure_s * (step / steps - 0.5) for step in range(steps + 1)]


def merged(boxes: Sequence[Box], overhead_px: int) -> list[Box]:
    """Join boxes while that is cheaper, where rendering a box costs its area plus `overhead_px`. Returned boxes may overlap."""
    left = sorted(boxes)
    while True:
        gains = [
            (one.area + two.area + overhead_px - one.around(two).area, first, second)
            for first, one in enumerate(left)
            for second, two in enumerate(left[first + 1 :], first + 1)
        ]
        gain, first, second = max(gains, default=(0, 0, 0))
        if gain <= 0:
            return left
        joined = left[first].around(left[second])
        left = sorted([box for index, box in enumerate(left) if index not in (first, second)] + [joined])
