"""`depth_row`: a near, a middle and a far object, one of them in focus, among round lights in front of and behind the focus.

Distances follow from the blur discs wanted at the widest aperture of the axis's law, so that a picture of any size shows the
axis over its whole range. Every light is a flat disc that faces the camera and is seen wider than its own blur disc: its rim
is then exactly as soft as the lens makes it, its brightness stays within the display's range at every aperture, and its
edge costs few samples, which a point of light would not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from scenes.axes.aperture.axis import Aperture, expected_discs
from scenes.camera import circle_of_confusion_px, focal_px, image_plane_velocity, rotation_33, unproject
from scenes.families.base import Check, Family, Laws
from scenes.families.rules import (
    NAMED,
    contrast,
    depth_m,
    hull_points,
    in_frame,
    min_size,
    none_hidden,
    shutter_times_s,
    swept_bounds_px,
)
from scenes.motion import random_orientation
from scenes.palette import BACKGROUNDS, color, pick
from scenes.primitives import SOLID_KINDS
from scenes.spec import Background, Camera, Light, Material, Motion, Quaternion, SceneSpec, Shot, Solid, Vec3
from scenes.white import peak_gain

DARK = ("dark slate", "dark grey", "deep teal", "midnight blue")
FULL_SIDE_PX = 512
DISC_SHARE = 0.074  # of the picture's shorter side, at 512 px: 2.4 px at f/22.4 for 38 px at f/1.4
LIGHT_OVER_DISC = (1.22, 1.45)
LIGHTS = (6, 8)
TRIES = 300
LEAST_DISC_PX = 4.0


@dataclass(frozen=True, kw_only=True)
class Circle:
    """A circle of the picture that one thing needs: centre, radius, and its own blur disc at the widest aperture (pixels)."""

    x_px: float
    y_px: float
    reach_px: float
    size_px: float
    disc_px: float
    behind: bool


def least_lights(shot: Shot) -> int:
    """Return how many lights a scene must have: six, or three where the picture's shorter side is below 256 px."""
    return 6 if min(shot.width, shot.height) >= FULL_SIDE_PX // 2 else 3


def widest_f_number(laws: Laws) -> float:
    """Return the smallest f-number of the `aperture` law's trained range (the default law where the axis is absent)."""
    law = laws.get("aperture", Aperture().default_law)
    return min(law.value(-1.0), law.value(1.0))


def widest_disc_px(shot: Shot) -> float:
    """Return the usual disc diameter (pixels) at the widest aperture; in small pictures a larger share of the side."""
    side = min(shot.width, shot.height)
    return DISC_SHARE * side * float((FULL_SIDE_PX / side) ** 0.1)


def disc_depth_m(camera: Camera, shot: Shot, circle: Circle, f_number: float) -> float:
    """Return the depth (metres) at which a circle's blur disc at an f-number is as wide as it says, in front or behind."""
    opening_m = camera.focal_length_mm / 1000.0 / f_number
    shift = circle.disc_px / (opening_m * focal_px(camera, shot))
    return 1.0 / (1.0 / camera.focus_distance_m + (-shift if circle.behind else shift))


def depth_row(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw one scene; the caller checks the family's rules."""
    side = min(shot.width, shot.height)
    disc_px = widest_disc_px(shot)
    drift_px = float(rng.uniform(0.03, 0.07)) * side
    row = _row_spots(rng, shot, disc_px, drift_px)
    spots = (*row, *light_spots(rng, shot, disc_px, row))
    camera = camera_rand(rng, shot, max(spot.disc_px for spot in spots), widest_f_number(laws))
    background = BACKGROUNDS[DARK[int(rng.integers(len(DARK)))]]
    focal = focal_px(camera, shot)
    light = _light(rng, camera)
    turn = facing(camera)
    peak = light_gain(laws)
    solids: list[Solid] = []
    taken: list[str] = []
    for index, spot in enumerate(spots):
        depth = disc_depth_m(camera, shot, spot, widest_f_number(laws))
        place = unproject(camera, shot, spot.x_px, spot.y_px, depth)
        if index < len(row):
            solids.append(_object(rng, camera, shot, spot, depth, index, drift_px, background, taken))
            taken.append(solids[-1].material.color_name)
        else:
            glow = float(rng.uniform(0.5, 0.75)) / peak
            solids.append(lamp(index - len(row), _vec3(place), spot.size_px * depth / focal, turn, glow))
    return SceneSpec(family="depth_row", shot=shot, camera=camera, light=light, background=background, solids=tuple(solids))


def _row_spots(rng: np.random.Generator, shot: Shot, disc_px: float, drift_px: float) -> tuple[Circle, ...]:
    """Place the three objects from left to right in any order of depth, one of them in focus (it comes first)."""
    side = min(shot.width, shot.height)
    focus = int(rng.integers(3))
    blur_3 = [0.0, 0.0, 0.0]
    for place in range(3):
        steps = abs(place - focus)
        low, high = ((0.0, 0.0), (0.45, 0.65) if focus != 1 else (0.6, 1.0), (0.8, 1.0))[steps]
        blur_3[place] = float(rng.uniform(low, high)) * disc_px
    row_y = float(rng.uniform(0.36, 0.64)) * shot.height
    columns = rng.permutation(3)
    spots = []
    for place in range(3):
        radius = float(rng.uniform(0.09, 0.13)) * side
        x = shot.width * (1 + 2 * int(columns[place])) / 6 + float(rng.uniform(-0.02, 0.02)) * side
        y = row_y + float(rng.uniform(-0.06, 0.06)) * side
        reach = radius + blur_3[place] / 2 + 1.0 + (drift_px / 2 if place == focus else 0.0)
        spots.append(Circle(x_px=x, y_px=y, reach_px=reach, size_px=2 * radius, disc_px=blur_3[place], behind=place > focus))
    return (spots[focus], *(spot for place, spot in enumerate(spots) if place != focus))


def light_spots(rng: np.random.Generator, shot: Shot, disc_px: float, row: Sequence[Circle]) -> tuple[Circle, ...]:
    """Place lights at random where their blurred outlines touch nothing; as many as fit of the number drawn."""
    spots: list[Circle] = []
    for _ in range(int(rng.integers(LIGHTS[0], LIGHTS[1] + 1))):
        own = disc_px * float(rng.uniform(0.92, 1.08))
        size = own * float(rng.uniform(*LIGHT_OVER_DISC))
        reach = (own + size) / 2 + 1.0 + 0.005 * min(shot.width, shot.height)
        blank = Circle(x_px=0.0, y_px=0.0, reach_px=reach, size_px=size, disc_px=own, behind=bool(rng.random() < 0.6))
        for x, y in rng.uniform(reach, [shot.width - reach, shot.height - reach], (TRIES, 2)):
            if all(math.hypot(x - other.x_px, y - other.y_px) > reach + other.reach_px for other in (*row, *spots)):
                spots.append(replace(blank, x_px=float(x), y_px=float(y)))
                break
    return tuple(spots)


def camera_rand(
    rng: np.random.Generator,
    shot: Shot,
    widest_disc_px: float,
    f_number: float,
    *,
    focal_lengths_mm: tuple[float, float] = (70.0, 135.0),
    disc_shares: tuple[float, float] = (0.5, 0.72),
) -> Camera:
    """Draw a pose and a lens; the widest disc wanted is a share, drawn from `disc_shares`, of that of a point at infinity."""
    focal_length_mm = float(rng.uniform(*focal_lengths_mm))
    focal = focal_length_mm / 36.0 * shot.width
    shift = widest_disc_px * f_number / (focal_length_mm / 1000.0 * focal)
    focus_m = float(rng.uniform(*disc_shares)) / shift
    target_3 = np.array([float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1)), float(rng.uniform(0.8, 1.6))])
    yaw, pitch = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-0.25, 0.3))
    back_3 = np.array([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), math.sin(pitch)])
    return Camera(
        location_m=_vec3(target_3 + focus_m * back_3),
        target_m=_vec3(target_3),
        focal_length_mm=focal_length_mm,
        focus_distance_m=focus_m,
    )


def _light(rng: np.random.Generator, camera: Camera) -> Light:
    """Draw a distant light from the camera's side of the scene."""
    right_3, up_3, backward_3 = rotation_33(camera).T
    toward_3 = backward_3 + float(rng.uniform(-0.9, 0.9)) * right_3 + float(rng.uniform(0.1, 1.0)) * up_3
    return Light(direction=_vec3(toward_3 / np.linalg.norm(toward_3)), strength=float(rng.uniform(0.85, 1.05)))


def light_gain(laws: Laws) -> float:
    """Return by how much the trained temperatures may raise a channel: lights stay below display white all the same."""
    law = laws.get("temperature")
    return max(1.0, *(peak_gain(law.value(control)) for control in (-1.0, 0.0, 1.0))) if law is not None else 1.0


def facing(camera: Camera) -> Quaternion:
    """Return the orientation in which a disc's +Z looks along the optical axis towards the camera."""
    x, y, z, w = Rotation.from_matrix(rotation_33(camera)).as_quat()
    return (float(w), float(x), float(y), float(z))


def _object(
    rng: np.random.Generator,
    camera: Camera,
    shot: Shot,
    spot: Circle,
    depth: float,
    index: int,
    drift_px: float,
    background: Background,
    taken: Sequence[str],
) -> Solid:
    """Draw one of the three objects; the one in focus (index 0) turns, and drifts half of the time (a ball always)."""
    kind = SOLID_KINDS[int(rng.integers(len(SOLID_KINDS)))]
    reach = float(np.linalg.norm(hull_points(kind), axis=1).max())
    scale = spot.size_px / 2 / reach * depth / focal_px(camera, shot)
    away = [color(name) for name in taken] + [background.bottom, background.top]
    name = pick(rng, away_from=away)
    velocity: Vec3 = (0.0, 0.0, 0.0)
    x_px, y_px, spin = spot.x_px, spot.y_px, 0.0
    if index == 0:
        spin = float(rng.uniform(0.4, 1.6)) * (1 if rng.random() < 0.5 else -1)
        if kind == "sphere" or rng.random() < 0.5:
            duration_s = shot.frames / shot.fps
            heading = float(rng.uniform(0, 2 * math.pi))
            step_2 = (drift_px * math.cos(heading), drift_px * math.sin(heading))
            speed_2 = (step_2[0] / duration_s, step_2[1] / duration_s)
            velocity = _vec3(image_plane_velocity(camera, shot, speed_2, depth))
            x_px, y_px = x_px - step_2[0] / 2, y_px - step_2[1] / 2
    motion = Motion(
        location_m=_vec3(unproject(camera, shot, x_px, y_px, depth)),
        velocity_m_per_s=velocity,
        orientation=random_orientation(rng),
        spin_axis=(1.0, 0.0, 0.0),
        spin_rad_per_s=spin,
    )
    return Solid(
        name=f"{name} {kind} {index}",
        role="subject" if index == 0 else "prop",
        kind=kind,
        scale_m=(scale, scale, scale),
        material=Material(color_name=name, albedo=color(name)),
        motion=motion,
    )


def lamp(index: int, place: Vec3, diameter_m: float, turn: Quaternion, glow: float) -> Solid:
    """Return one neutral light of a given radiance."""
    return Solid(
        name=f"light {index}",
        role="highlight",
        kind="disc",
        scale_m=(diameter_m, diameter_m, diameter_m),
        material=Material(color_name="white", albedo=(1.0, 1.0, 1.0), emission=glow),
        motion=Motion(location_m=place, orientation=turn),
    )


def _vec3(values: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Vec3:
    x, y, z = (float(part) for part in values)
    return (x, y, z)


def lights_enough() -> Check:
    """Ask for enough lights to pool over."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        least = least_lights(scene.shot)
        return None if len(scene.with_role("highlight")) >= least else f"fewer than {least} lights found room"

    return check


def discs_clear() -> Check:
    """Ask that at the widest aperture every light's blurred outline be plain, in frame, and clear of every other thing.

    A light is further asked to be seen wider than its blur disc, which is what its rim is measured by.
    """

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        discs = expected_discs(scene, widest_f_number(laws))
        circles = [(disc.x_px, disc.y_px, (disc.outline_px + disc.disc_px) / 2) for disc in discs]
        for index, (disc, (x, y, radius)) in enumerate(zip(discs, circles, strict=True)):
            if disc.disc_px < LEAST_DISC_PX or disc.outline_px < 1.15 * disc.disc_px:
                return f"a light's disc is below {LEAST_DISC_PX:g} px or wider than the light"
            if min(x, y) < radius or x > scene.shot.width - radius or y > scene.shot.height - radius:
                return "a light's disc leaves the frame"
            if any(math.hypot(x - a, y - b) < radius + r for a, b, r in circles[:index]):
                return "two lights' discs overlap"
        for solid in scene.with_role(*NAMED):
            if any(_gap_px(solid, scene, laws, circle) < 0 for circle in circles):
                return "a light's disc touches an object"
        return None

    return check


def _gap_px(solid: Solid, scene: SceneSpec, laws: Laws, circle: tuple[float, float, float]) -> float:
    """Return the distance (pixels) between a blurred light and the box of a blurred object over the whole clip."""
    x0, y0, x1, y1 = swept_bounds_px(solid, scene.camera, scene.shot, shutter_times_s(scene.shot, laws))
    disc_px = circle_of_confusion_px(scene.camera, scene.shot, widest_f_number(laws), depth_m(solid, scene.camera, 0.0))
    x, y, radius = circle
    across, down = max(x0 - x, x - x1, 0.0), max(y0 - y, y - y1, 0.0)
    return math.hypot(across, down) - radius - disc_px / 2


DEPTH_ROW = Family(
    name="depth_row",
    summary="near, middle and far objects, one in focus, among round lights before a dark backdrop",
    shows=frozenset({"aperture"}),
    draw=depth_row,
    rules=(
        lights_enough(),
        in_frame(0.0, (*NAMED, "highlight")),
        min_size(5.0),
        none_hidden(0.02),
        contrast(12.0),
        discs_clear(),
    ),
)
