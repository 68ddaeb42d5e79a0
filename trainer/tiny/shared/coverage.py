"""Where things are in a clip, by cells of 8 x 8 pixels, in closed form from its scene: what a weighted loss looks at.

Most of a small picture is backdrop, and most of a plain loss with it. A weight does not change what is best anywhere.

Legend: T frames, h rows and w columns of cells, K directions, 2 picture coordinates (pixels, y down).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenes.camera import circle_of_confusion_px, project
from scenes.families.rules import bounds_px, depth_m, hull_points
from scenes.motion import vertices_at
from scenes.primitives import spoken
from scenes.spec import Role, SceneSpec, Solid

CELL_PX = 8
DIRECTIONS = 16
SHOWN: tuple[Role, ...] = ("subject", "prop", "patch", "highlight")


def covered_cells(scene: SceneSpec, values: Mapping[str, float]) -> NDArray[np.bool_]:
    """Return the cells [T, h, w] that a thing, a patch or a light touches under these values, its blur included."""
    shot = scene.shot
    angles_K = np.arange(DIRECTIONS) * (2 * math.pi / DIRECTIONS)
    ways_K2 = np.stack([np.cos(angles_K), np.sin(angles_K)], axis=1)
    rows, columns = np.mgrid[: shot.height // CELL_PX, : shot.width // CELL_PX]
    along_hwK = (np.stack([columns, rows], axis=-1) + 0.5) * CELL_PX @ ways_K2.T
    half_cell_K = CELL_PX / 2 * np.abs(ways_K2).sum(axis=1)
    covered = np.zeros((shot.frames, *rows.shape), dtype=bool)
    for solid in scene.with_role(*SHOWN):
        for frame, time_s in enumerate(shot.times_s):
            reach_K = _reach(solid, scene, values, time_s, ways_K2)
            covered[frame] |= (along_hwK <= reach_K + half_cell_K).all(axis=-1)
    return covered


def thing_boxes(scene: SceneSpec) -> list[dict[str, Any]]:
    """Return kind, colour and boxes (x0, y0, x1, y1 in each frame, pixels) of the things that a caption may name."""
    shot = scene.shot
    return [
        {
            "kind": spoken[thing.kind],
            "color": thing.material.color_name,
            "boxes": [[round(side, 1) for side in bounds_px(thing, scene.camera, shot, time_s)] for time_s in shot.times_s],
        }
        for thing in scene.with_role("subject", "prop")
        if depth_m(thing, scene.camera, 0.0) > 0
    ]


def _reach(
    solid: Solid, scene: SceneSpec, values: Mapping[str, float], time_s: float, ways_K2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far (pixels) a blurred solid reaches in each direction [K]; infinite behind the lens."""
    half_s = values.get("shutter", 0.0) / 2
    reach_K = np.full(len(ways_K2), -math.inf)
    for moment_s in dict.fromkeys((time_s - half_s, time_s + half_s)):
        points = vertices_at(hull_points(solid.kind), solid.scale_m, solid.motion, moment_s)
        pixels_V2, depth_V = project(scene.camera, scene.shot, points)
        if depth_V.min() <= 0:
            return np.full(len(ways_K2), math.inf)
        reach_K = np.maximum(reach_K, (pixels_V2 @ ways_K2.T).max(axis=0))
    if "aperture" not in values:
        return reach_K
    return (
        reach_K + circle_of_confusion_px(scene.camera, scene.shot, values["aperture"], depth_m(solid, scene.camera, time_s)) / 2
    )
