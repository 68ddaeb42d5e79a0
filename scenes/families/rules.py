"""Rules a drawn scene must meet, as pure checks on its spec, and the projected measures they are made of.

Every rule is a factory that returns a `Check`: None where the scene meets it, otherwise what is wrong in a few words. A
solid is outlined by the projections of up to `SUPPORT_POINTS` hull vertices, which is short of the true outline by at
most 1.5 % of its size: 1.1 % (torus) in 30,000 draws of shape, scale and pose, and nothing for solids with few vertices.

Array legend: T times, V vertices, K directions in the picture, G grid points; 3 world coordinates, 2 pixel coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from scenes.arrays import Floats
from scenes.axes import AXES, UnitLaw
from scenes.camera import focal_px, project, rotation_33
from scenes.families.base import Check, Laws
from scenes.motion import location_at, matrix_33, orientation_at, vertices_at
from scenes.palette import least_delta_e
from scenes.primitives import mesh
from scenes.spec import Background, Camera, Light, Optics, Role, SceneSpec, Shot, Solid, Vec3

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, y down

NAMED: tuple[Role, ...] = ("subject", "prop")
EVERYWHERE: Box = (-math.inf, -math.inf, math.inf, math.inf)
NEAREST_M = 0.01
SUPPORT_POINTS = 400
OUTLINE_DIRECTIONS = 32
GRID = 14


@cache
def hull_points(kind: str) -> Floats:
    """Return the vertices `[V, 3]` of a unit mesh that are outermost in some of many directions, read-only."""
    vertices_V3 = mesh(kind).vertices_V3
    if len(vertices_V3) <= SUPPORT_POINTS:
        return vertices_V3
    index = np.arange(SUPPORT_POINTS) + 0.5
    height = 1 - 2 * index / SUPPORT_POINTS
    turn = math.pi * (1 + math.sqrt(5)) * index  # Fibonacci lattice: nearly equal areas
    radius = np.sqrt(1 - height * height)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    chosen_V3: Floats = vertices_V3[np.unique((vertices_V3 @ directions.T).argmax(axis=0))]
    chosen_V3.setflags(write=False)
    return chosen_V3


@cache
def _area_vectors(kind: str) -> Floats:
    vectors_F3 = mesh(kind).area_vectors_F3
    vectors_F3.setflags(write=False)
    return vectors_F3


def depth_m(solid: Solid, camera: Camera, time_s: float) -> float:
    """Return the depth (metres along the optical axis) of a solid's origin at a time."""
    offset_3 = location_at(solid.motion, time_s) - np.asarray(camera.location_m)
    return float(-(offset_3 @ rotation_33(camera)[:, 2]))


def center_px(solid: Solid, camera: Camera, shot: Shot, time_s: float) -> tuple[float, float]:
    """Return the pixel (x, y) at which a solid's origin is seen at a time."""
    pixels_12, _ = project(camera, shot, location_at(solid.motion, time_s)[None, :])
    return float(pixels_12[0, 0]), float(pixels_12[0, 1])


def bounds_px(solid: Solid, camera: Camera, shot: Shot, time_s: float) -> Box:
    """Return the box (x0, y0, x1, y1; pixels, y down) round a solid at a time; everywhere if any is behind the lens."""
    return swept_bounds_px(solid, camera, shot, (time_s,))


def swept_bounds_px(solid: Solid, camera: Camera, shot: Shot, times_s: Sequence[float]) -> Box:
    """Return the box (pixels) round a solid over several times; everywhere if it reaches behind the lens."""
    points_TV2 = _outline_points(solid, camera, shot, times_s)
    if points_TV2 is None:
        return EVERYWHERE
    low_2, high_2 = points_TV2.min(axis=(0, 1)), points_TV2.max(axis=(0, 1))
    return float(low_2[0]), float(low_2[1]), float(high_2[0]), float(high_2[1])


def _outline_points(solid: Solid, camera: Camera, shot: Shot, times_s: Sequence[float]) -> Floats | None:
    """Return the projected outline candidates `[T, V, 2]` (pixels), or None if any lies behind the lens."""
    unit_V3 = hull_points(solid.kind)
    if solid.motion.spin_rad_per_s == 0.0:
        start_V3 = vertices_at(unit_V3, solid.scale_m, solid.motion, 0.0)
        steps_T3 = np.asarray(times_s)[:, None] * np.asarray(solid.motion.velocity_m_per_s)
        world_TV3 = start_V3[None, :, :] + steps_T3[:, None, :]
    else:
        world_TV3 = np.stack([vertices_at(unit_V3, solid.scale_m, solid.motion, time_s) for time_s in times_s])
    pixels_N2, depth_N = project(camera, shot, world_TV3.reshape(-1, 3))
    if float(depth_N.min()) < NEAREST_M:
        return None
    return pixels_N2.reshape(len(times_s), -1, 2)


def image_velocity_px_per_s(solid: Solid, camera: Camera, shot: Shot, time_s: float) -> tuple[float, float]:
    """Return the velocity (px/s; x right, y down) at which a solid's origin moves over the picture at a time."""
    rotation = rotation_33(camera)
    x, y, z = (location_at(solid.motion, time_s) - np.asarray(camera.location_m)) @ rotation
    vx, vy, vz = np.asarray(solid.motion.velocity_m_per_s) @ rotation
    focal = focal_px(camera, shot)
    return float(focal * (x * vz - vx * z) / (z * z)), float(focal * (vy * z - y * vz) / (z * z))


def shaded_albedo(solid: Solid, light: Light, camera: Camera | None = None, time_s: float = 0.0) -> Vec3:
    """Return the mean scene-linear colour of a solid under the analytic Lambert of the `flat` fidelity.

    The mean of `albedo * strength * (ambient + (1 - ambient) * max(0, n.l))` is over the surface, or over what the
    camera sees of it (shadows and occlusion left out). A highlight's mean is `albedo * emission`.
    """
    albedo_3 = np.asarray(solid.material.albedo)
    if solid.material.emission > 0:
        return _vec3(albedo_3 * solid.material.emission)
    scale = np.asarray(solid.scale_m)
    stretched_F3 = _area_vectors(solid.kind) * (scale.prod() / scale)  # cofactors: how areas stretch
    areas_F3 = stretched_F3 @ matrix_33(orientation_at(solid.motion, time_s)).T
    weight_F = size_F = np.linalg.norm(areas_F3, axis=1)
    if camera is not None:
        view_3 = np.asarray(camera.location_m) - location_at(solid.motion, time_s)
        facing_F = areas_F3 @ (view_3 / np.linalg.norm(view_3))
        if (facing_F <= 0).all():  # a flat solid seen from behind: its normal turns to the viewer
            areas_F3, facing_F = -areas_F3, -facing_F
        if (facing_F > 0).any():
            weight_F = np.maximum(0.0, facing_F)
    towards_3 = np.asarray(light.direction) / np.linalg.norm(light.direction)
    lambert_F = np.maximum(0.0, areas_F3 @ towards_3) / size_F
    shade = light.ambient + (1 - light.ambient) * float((lambert_F * weight_F).sum() / weight_F.sum())
    return _vec3(albedo_3 * light.strength * shade)


def background_at(background: Background, shot: Shot, y_px: float) -> Vec3:
    """Return the backdrop's scene-linear colour at a height in the picture (pixels, y down)."""
    share = min(1.0, max(0.0, 1.0 - y_px / shot.height))
    return _vec3(np.asarray(background.bottom) * (1 - share) + np.asarray(background.top) * share)


def _vec3(values: Floats) -> Vec3:
    red, green, blue = (float(part) for part in values)
    return (red, green, blue)


def strongest_exposure_s(laws: Mapping[str, UnitLaw]) -> float:
    """Return the longest exposure (seconds) in the trained ranges of the laws; 0 where no axis sets an exposure."""
    ends = ((AXES[axis], law.value(control)) for axis, law in laws.items() for control in (-1.0, 1.0))
    return max((axis.apply_optics(Optics(), value).exposure_s or 0.0 for axis, value in ends), default=0.0)


def shutter_times_s(shot: Shot, laws: Mapping[str, UnitLaw]) -> tuple[float, ...]:
    """Return the shutter's opening, middle and closing time (seconds) of every frame at the longest exposure."""
    half_s = strongest_exposure_s(laws) / 2
    return tuple(sorted({round(middle + step, 9) for middle in shot.times_s for step in (-half_s, 0.0, half_s)}))


def contrast(min_delta_e: float = 15.0, roles: tuple[Role, ...] = NAMED) -> Check:
    """Ask that each solid's mean lit colour differ (CIEDE2000) from the backdrop at its place and from any ground."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        times_s = scene.shot.times_s
        for solid in scene.with_role(*roles):
            middle_s, last_s = (times_s[len(times_s) // 2], times_s[-1]) if solid.motion.moves else times_s[:1] * 2
            for time_s in dict.fromkeys((times_s[0], middle_s, last_s)):
                lit = shaded_albedo(solid, scene.light, scene.camera, time_s)
                _, top, _, bottom = bounds_px(solid, scene.camera, scene.shot, time_s)
                heights = (top, (top + bottom) / 2, bottom) if math.isfinite(top) else (0.0, scene.shot.height)
                behind = [background_at(scene.background, scene.shot, y_px) for y_px in heights]
                behind += [shaded_albedo(ground, scene.light, scene.camera) for ground in scene.with_role("ground")]
                if least_delta_e(lit, behind) < min_delta_e:
                    return f"{solid.role} within {min_delta_e:g} CIEDE2000 of what is behind it"
        return None

    return check


def in_frame(margin_px: float = 0.0, roles: tuple[Role, ...] = NAMED) -> Check:
    """Ask that each solid stay inside the picture by a margin, from first shutter opening to last closing."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        times_s = shutter_times_s(scene.shot, laws)
        for solid in scene.with_role(*roles):
            x0, y0, x1, y1 = swept_bounds_px(solid, scene.camera, scene.shot, times_s)
            right, lower = scene.shot.width - margin_px, scene.shot.height - margin_px
            if x0 < margin_px or y0 < margin_px or x1 > right or y1 > lower:
                return f"{solid.role} leaves the frame (margin {margin_px:g} px)"
        return None

    return check


def min_size(min_px: float, roles: tuple[Role, ...] = NAMED) -> Check:
    """Ask that the shorter side of each solid's box be at least so many pixels in every frame."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        for solid in scene.with_role(*roles):
            points_TV2 = _outline_points(solid, scene.camera, scene.shot, scene.shot.times_s)
            if points_TV2 is None:
                return f"{solid.role} reaches behind the lens"
            if float((points_TV2.max(axis=1) - points_TV2.min(axis=1)).min()) < min_px:
                return f"{solid.role} smaller than {min_px:g} px"
        return None

    return check


def speed_px_per_frame(low: float, high: float, roles: tuple[Role, ...] = ("subject",)) -> Check:
    """Ask that each solid cross the picture at a speed in [low, high] pixels per frame interval, in every frame."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        for solid in scene.with_role(*roles):
            for time_s in dict.fromkeys((scene.shot.times_s[0], scene.shot.times_s[-1])):
                velocity = image_velocity_px_per_s(solid, scene.camera, scene.shot, time_s)
                if not low <= math.hypot(*velocity) / scene.shot.fps <= high:
                    return f"{solid.role} speed outside {low:g} to {high:g} px per frame"
        return None

    return check


def none_hidden(max_share: float = 0.2, roles: tuple[Role, ...] = NAMED) -> Check:
    """Ask that nearer solids (all but the ground) hide at most a share of each solid's outline, in every frame.

    Outlines are convex (a torus hides what shows through its hole), depths those of the origins, and shares are counted
    on a grid of points over the farther solid.
    """

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        solids = [solid for solid in scene.solids if solid.role != "ground"]
        supports = [_support(solid, scene) for solid in solids]
        depths_T = [[depth_m(solid, scene.camera, time_s) for time_s in scene.shot.times_s] for solid in solids]
        for index, solid in enumerate(solids):
            if solid.role not in roles:
                continue
            for frame in range(scene.shot.frames):
                nearer = [
                    supports[other][frame]
                    for other in range(len(solids))
                    if other != index and depths_T[other][frame] < depths_T[index][frame]
                ]
                if _hidden_share(supports[index][frame], nearer) > max_share:
                    return f"{solid.role} more than {max_share:.0%} hidden"
        return None

    return check


def _directions_K2() -> Floats:
    angles_K = np.arange(OUTLINE_DIRECTIONS) * (2 * math.pi / OUTLINE_DIRECTIONS)
    return np.stack([np.cos(angles_K), np.sin(angles_K)], axis=1)


def _support(solid: Solid, scene: SceneSpec) -> Floats:
    """Return how far (pixels) a solid reaches in each direction, per frame `[T, K]`; infinite behind the lens."""
    points_TV2 = _outline_points(solid, scene.camera, scene.shot, scene.shot.times_s)
    if points_TV2 is None:
        return np.full((scene.shot.frames, OUTLINE_DIRECTIONS), math.inf)
    reach_TK: Floats = (points_TV2 @ _directions_K2().T).max(axis=1)
    return reach_TK


def _hidden_share(reach_K: Floats, nearer: Sequence[Floats]) -> float:
    """Return the share of a convex outline, given by its reach in each direction, that lies inside nearer outlines."""
    quarter = OUTLINE_DIRECTIONS // 4
    x1, y1, x0, y0 = reach_K[0], reach_K[quarter], -reach_K[2 * quarter], -reach_K[3 * quarter]
    touching = [
        other
        for other in nearer
        if other[0] > x0 and -other[2 * quarter] < x1 and other[quarter] > y0 and -other[3 * quarter] < y1
    ]
    if not touching:
        return 0.0
    if not np.isfinite(reach_K).all():
        return 1.0
    steps = (np.arange(GRID) + 0.5) / GRID
    grid_G2 = np.stack(np.meshgrid(x0 + (x1 - x0) * steps, y0 + (y1 - y0) * steps), axis=-1).reshape(-1, 2)
    along_GK = grid_G2 @ _directions_K2().T
    inside_G = (along_GK <= reach_K).all(axis=1)
    covered_G = np.any([(along_GK <= other).all(axis=1) for other in touching], axis=0)
    return float((inside_G & covered_G).sum() / max(1, inside_G.sum()))
