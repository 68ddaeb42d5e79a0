"""Tabletop: a few primitives on a ground with a grey card and a grey ball, for the colour temperature of the light.

The layout is drawn in the picture, as discs that neither touch nor leave it, and then put on the ground along the camera's
rays, so nothing hides the card. The card's squares and the ball are neutral at many luminances, which tells a blind probe
that they, and not a coloured thing, show the light. Colours that imitate a neutral under another light are left out
(`unmistakable`): a picture with an exactly warm-white thing in it has two answers, and no probe could choose.

Legend: `unit_px` is the shorter side of the picture; places are (x, y) in pixels, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from scenes.arrays import Floats
from scenes.axes.temperature.probe import imitates_neutral
from scenes.camera import focal_px, rotation_33
from scenes.errors import SceneError
from scenes.families.base import Family, Laws
from scenes.families.rules import contrast, in_frame, min_size, none_hidden
from scenes.motion import axis_angle, matrix_33, multiply, random_orientation
from scenes.palette import BACKGROUNDS, COLORS, pick
from scenes.primitives import SOLID_KINDS, mesh
from scenes.spec import Background, Camera, Light, Material, Motion, Quaternion, Role, SceneSpec, Shot, Solid, Vec3
from scenes.white import REFERENCE_KELVIN, peak_gain

CARD_GREYS = (0.9, 0.59, 0.36, 0.19, 0.09, 0.045)  # the neutral row of a colour chart, in albedo
CARD_LAYOUTS = ((3, 2, 0.09), (2, 3, 0.09), (2, 2, 0.11), (4, 1, 0.09))  # columns, rows, square side in patch_px
GAP = 0.1  # between squares, in sides
BALL_ALBEDO = 0.6
PEAK = 0.9  # the most that a white thing facing the light may reach, linear, at the strongest cast
NEUTRAL_GROUNDS = ("white", "grey")
FINISHES: tuple[Literal["matte", "gloss", "metal"], ...] = ("matte", "matte", "gloss", "metal")
TEXTURES: tuple[Literal["none", "noise", "checker"], ...] = ("none", "none", "noise", "checker")
STRETCHED = ("cube", "cylinder", "cone", "pyramid", "hex_prism")
LAYOUT_TRIES = 40


@dataclass(frozen=True, kw_only=True)
class TabletopStage:
    """What a layout is put into: camera, format, and the discs already taken (x, y, radius in pixels)."""

    camera: Camera
    shot: Shot
    taken: list[tuple[float, float, float]]

    @property
    def unit_px(self) -> float:
        """The shorter side of the picture."""
        return float(min(self.shot.width, self.shot.height))

    @property
    def patch_px(self) -> float:
        """The shorter side, enlarged in small pictures, where 4:2:0 chroma spoils two pixels along every edge."""
        return self.unit_px * min(1.4, max(1.0, 10.0 / (0.09 * self.unit_px)))


def exposure(laws: Laws) -> float:
    """Return the light strength at which white stays below clipping at both ends of the trained temperatures."""
    law = laws.get("temperature")
    kelvins = [law.value(-1.0), law.value(0.0), law.value(1.0)] if law is not None else [REFERENCE_KELVIN]
    return PEAK / (max(CARD_GREYS) * max(1.0, *(peak_gain(kelvin) for kelvin in kelvins)))


def cast_range(laws: Laws) -> tuple[float, ...]:
    """Return kelvins across the trained range of the temperature law, or 6500 K alone."""
    law = laws.get("temperature")
    return tuple(law.value(control / 4) for control in range(-4, 5)) if law is not None else (REFERENCE_KELVIN,)


@lru_cache(maxsize=64)
def unmistakable(kelvins: tuple[float, ...], strength: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the named colours, and the backdrops, that are neutral or look so under no light of the given kelvins."""

    def plain(linear: Vec3) -> bool:
        lit = (linear[0] * strength, linear[1] * strength, linear[2] * strength)
        return not imitates_neutral(lit, kelvins)

    colors = tuple(name for name, linear in COLORS.items() if plain(linear))
    backdrops = tuple(name for name, back in BACKGROUNDS.items() if plain(back.bottom) and plain(back.top))
    return colors, backdrops


def ray_to_height(camera: Camera, shot: Shot, place_px: tuple[float, float], height_m: float) -> Floats:
    """Return the world point at a height that is seen at a pixel; raises SceneError above the horizon."""
    focal = focal_px(camera, shot)
    local_3 = np.array([(place_px[0] - shot.width / 2) / focal, (shot.height / 2 - place_px[1]) / focal, -1.0])
    way_3 = rotation_33(camera) @ local_3
    drop = (camera.location_m[2] - height_m) / -way_3[2] if way_3[2] < 0 else math.inf
    if not 0 < drop < 1000:
        raise SceneError(f"pixel {place_px} does not see the ground; look further down")
    return np.asarray(np.asarray(camera.location_m) + way_3 * drop)


def camera_rand(rng: np.random.Generator) -> Camera:
    """Draw a camera that looks down at a table: 2.5 to 5 m away, 15 to 50 degrees up, 35 to 60 mm."""
    elevation, azimuth = math.radians(rng.uniform(15, 50)), rng.uniform(0, 2 * math.pi)
    distance_m = float(rng.uniform(2.5, 5.0))
    flat = distance_m * math.cos(elevation)
    location = (flat * math.cos(azimuth), flat * math.sin(azimuth), distance_m * math.sin(elevation))
    return Camera(
        location_m=location,
        target_m=(0.0, 0.0, 0.0),
        focal_length_mm=float(rng.uniform(35, 60)),
        focus_distance_m=distance_m,
    )


def light_rand(rng: np.random.Generator, camera: Camera, strength: float) -> Light:
    """Draw a light from behind or beside the camera, 25 to 65 degrees up, so that a card facing the camera is lit."""
    azimuth = math.atan2(camera.location_m[1], camera.location_m[0]) + math.radians(rng.uniform(-75, 75))
    elevation = math.radians(rng.uniform(25, 65))
    flat = math.cos(elevation)
    direction = (flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation))
    return Light(direction=direction, strength=strength, ambient=float(rng.uniform(0.3, 0.45)))


def take_place(rng: np.random.Generator, stage: TabletopStage, radius_px: float) -> tuple[float, float]:
    """Draw the centre of a free disc in the picture, well under the horizon, and take it; raises SceneError if none is."""
    width, height = stage.shot.width, stage.shot.height
    down = math.asin(stage.camera.location_m[2] / math.dist(stage.camera.location_m, stage.camera.target_m))
    horizon_px = height / 2 - focal_px(stage.camera, stage.shot) * math.tan(down)
    margin = radius_px + 0.02 * stage.unit_px
    low_y, high_y = max(margin, horizon_px + 0.15 * width), height - margin
    for _ in range(80):
        if low_y >= high_y or margin >= width - margin:
            break
        x, y = float(rng.uniform(margin, width - margin)), float(rng.uniform(low_y, high_y))
        if all(math.hypot(x - a, y - b) > radius_px + radius + 0.015 * stage.unit_px for a, b, radius in stage.taken):
            stage.taken.append((x, y, radius_px))
            return x, y
    raise SceneError("no room left in the picture")


def _vec3(values: Floats) -> Vec3:
    red, green, blue = (float(part) for part in values)
    return (red, green, blue)


def metres_at(stage: TabletopStage, place_px: tuple[float, float], radius_px: float) -> float:
    """Return the radius in metres that shows as so many pixels for a thing that stands on the ground at a pixel."""
    point_3 = ray_to_height(stage.camera, stage.shot, place_px, 0.0)
    depth_m = float(rotation_33(stage.camera)[:, 2] @ (np.asarray(stage.camera.location_m) - point_3))
    return 0.9 * radius_px * depth_m / focal_px(stage.camera, stage.shot)  # it stands nearer than the ground behind it


def facing(rng: np.random.Generator, camera: Camera, lean_rad: float) -> Quaternion:
    """Draw the orientation of a plane that faces the camera, turned by up to `lean_rad` about its upright axis."""
    rotation = rotation_33(camera)
    turn = float(rng.uniform(-lean_rad, lean_rad))
    up, right = math.asin(rotation[2, 2]), math.atan2(rotation[1, 0], rotation[0, 0])
    # A plane looks along +Z; standing it up (x by 90 degrees) and leaning it back by `up` shows it to the camera.
    lying = axis_angle((1.0, 0.0, 0.0), math.pi / 2 - up)
    return multiply(axis_angle((0.0, 0.0, 1.0), right + turn), lying)


def grey_card(
    stage: TabletopStage, place_px: tuple[float, float], layout: tuple[int, int, float], quat: Quaternion
) -> list[Solid]:
    """Return the squares of a card, `layout` = (columns, rows, side in patch_px), standing on the ground at a pixel."""
    columns, rows, side = layout
    side_m = metres_at(stage, place_px, side * stage.patch_px)
    rise_m = 0.5 * (rows * side_m * (1 + GAP)) * abs(matrix_33(quat)[2, 1]) + 0.02 * side_m
    center_3 = ray_to_height(stage.camera, stage.shot, place_px, rise_m)
    return card_squares(center_3, side_m, (columns, rows), quat)


def card_squares(center_3: Floats, side_m: float, layout: tuple[int, int], quat: Quaternion) -> list[Solid]:
    """Return the squares of a card, `layout` = (columns, rows), about a centre (metres). `center_3` is `[3]`, in metres."""
    columns, rows = layout
    rotation = matrix_33(quat)
    pitch_m = side_m * (1 + GAP)
    places = [((c - (columns - 1) / 2) * pitch_m, ((rows - 1) / 2 - r) * pitch_m) for r in range(rows) for c in range(columns)]
    spread = np.linspace(0, len(CARD_GREYS) - 1, len(places)).round().astype(int)
    greys = [CARD_GREYS[index] for index in spread]
    return [
        Solid(
            name=f"card_{index}",
            role="patch",
            kind="plane",
            scale_m=(side_m, side_m, side_m),
            material=Material(color_name="grey", albedo=(grey, grey, grey)),
            motion=Motion(location_m=_vec3(center_3 + rotation @ np.array([x, y, 0.0])), orientation=quat),
        )
        for index, ((x, y), grey) in enumerate(zip(places, greys, strict=True))
    ]


def card_rand(rng: np.random.Generator, stage: TabletopStage) -> list[Solid]:
    """Draw a grey card: its layout, place and turn."""
    columns, rows, side = CARD_LAYOUTS[int(rng.integers(len(CARD_LAYOUTS)))]
    reach_px = 0.5 * math.hypot(columns, rows) * (1 + GAP) * side * stage.patch_px
    place_px = take_place(rng, stage, reach_px)
    return grey_card(stage, place_px, (columns, rows, side), facing(rng, stage.camera, math.radians(25)))


def resting(
    stage: TabletopStage, place_px: tuple[float, float], radius_px: float, kind: str, shape: Vec3, quat: Quaternion
) -> tuple[Vec3, Vec3]:
    """Return scale and location (metres) of a solid that rests on the ground inside a disc of the picture."""
    points_V3 = mesh(kind).vertices_V3 * np.asarray(shape)
    size_m = metres_at(stage, place_px, radius_px) / float(np.linalg.norm(points_V3, axis=1).max())
    lowest_m = -float((points_V3 @ matrix_33(quat).T)[:, 2].min()) * size_m
    location_3 = ray_to_height(stage.camera, stage.shot, place_px, lowest_m)
    return _vec3(np.asarray(shape) * size_m), _vec3(location_3)


def grey_ball_rand(rng: np.random.Generator, stage: TabletopStage) -> Solid:
    """Draw a neutral ball: unlike a card it shows every luminance between its lit and its dark side."""
    radius_px = float(rng.uniform(0.07, 0.09)) * stage.patch_px
    place_px = take_place(rng, stage, radius_px)
    quat = (1.0, 0.0, 0.0, 0.0)
    scale_m, location_m = resting(stage, place_px, radius_px, "sphere", (1.0, 1.0, 1.0), quat)
    return Solid(
        name="grey_ball",
        role="patch",
        kind="sphere",
        scale_m=scale_m,
        material=Material(color_name="grey", albedo=(BALL_ALBEDO,) * 3),
        motion=Motion(location_m=location_m, orientation=quat),
    )


def thing_rand(rng: np.random.Generator, stage: TabletopStage, index: int, color_name: str, moves: bool) -> Solid:
    """Draw a primitive that rests on the ground; one that moves turns about the vertical or drifts over the ground."""
    kind = str(rng.choice(SOLID_KINDS))
    shape = _vec3(rng.uniform(0.75, 1.0, 3)) if kind in STRETCHED else (1.0, 1.0, 1.0)
    radius_px = float(rng.uniform(0.09, 0.15)) * stage.unit_px
    drift_px = float(rng.uniform(0.03, 0.09)) * stage.unit_px if moves and rng.random() < 0.5 else 0.0
    place_px = take_place(rng, stage, radius_px + drift_px / 2)
    tumbled = rng.random() < 0.35
    quat = random_orientation(rng) if tumbled else axis_angle((0.0, 0.0, 1.0), float(rng.uniform(0, 2 * math.pi)))
    scale_m, location_m = resting(stage, place_px, radius_px, kind, shape, quat)
    motion = Motion(location_m=location_m, orientation=quat)
    if drift_px > 0:
        motion = _drifting(rng, stage, motion, metres_at(stage, place_px, drift_px))
    elif moves:
        upright = _vec3(matrix_33(quat).T @ np.array([0.0, 0.0, 1.0]))
        turn = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.3, 1.2))
        motion = motion.model_copy(update={"spin_axis": upright, "spin_rad_per_s": turn})
    material = Material(
        color_name=color_name,
        albedo=COLORS[color_name],
        finish=FINISHES[int(rng.integers(len(FINISHES)))],
        texture=TEXTURES[int(rng.integers(len(TEXTURES)))],
    )
    role: Role = "subject" if index == 0 or moves else "prop"
    return Solid(name=f"thing_{index}", role=role, kind=kind, scale_m=scale_m, material=material, motion=motion)


def _drifting(rng: np.random.Generator, stage: TabletopStage, motion: Motion, path_m: float) -> Motion:
    """Return the motion over a path of so many metres on the ground, with its middle where the motion stood."""
    last_s = max(stage.shot.times_s[-1], 1.0 / stage.shot.fps)
    heading = float(rng.uniform(0, 2 * math.pi))
    velocity_3 = np.array([math.cos(heading), math.sin(heading), 0.0]) * path_m / max(last_s, 0.5)
    start_3 = np.asarray(motion.location_m) - velocity_3 * last_s / 2
    return motion.model_copy(update={"location_m": _vec3(start_3), "velocity_m_per_s": _vec3(velocity_3)})


def ground(color_name: str) -> Solid:
    """Return a wide floor at height 0."""
    return Solid(
        name="ground",
        role="ground",
        kind="plane",
        scale_m=(80.0, 80.0, 1.0),
        material=Material(color_name=color_name, albedo=COLORS[color_name]),
        motion=Motion(location_m=(0.0, 0.0, 0.0)),
    )


def dimmed(backdrop: Background, strength: float) -> Background:
    """Return a backdrop under the same exposure as the scene."""
    return Background(
        name=backdrop.name,
        bottom=_vec3(np.asarray(backdrop.bottom) * strength),
        top=_vec3(np.asarray(backdrop.top) * strength),
    )


def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a tabletop: camera, light, ground, backdrop, grey card, grey ball and 2 to 5 things, of which few move.

    Raises SceneError where none of `LAYOUT_TRIES` layouts has room for the card, the ball and two things.
    """
    for _ in range(LAYOUT_TRIES):
        try:
            return _draw_once(rng, shot, laws)
        except SceneError as error:
            reason = str(error)
    raise SceneError(f"family 'tabletop' found no layout at {shot.width}x{shot.height}: {reason}; make the picture squarer")


def _draw_once(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    colors, backdrops = unmistakable(cast_range(laws), exposure(laws))
    strength = exposure(laws)
    camera = camera_rand(rng)
    stage = TabletopStage(camera=camera, shot=shot, taken=[])
    floor = ground(str(rng.choice(NEUTRAL_GROUNDS)) if rng.random() < 0.5 else pick(rng, colors))
    backdrop = BACKGROUNDS[str(rng.choice(backdrops))]
    patches = [*card_rand(rng, stage), grey_ball_rand(rng, stage)]
    movers = int(rng.integers(1, 3)) if shot.frames > 1 else 0
    behind = [floor.material.albedo, backdrop.bottom, backdrop.top]
    things: list[Solid] = []
    for index in range(int(rng.integers(2, 6))):
        name = pick(rng, colors, away_from=behind, min_delta_e=25.0)
        try:
            things.append(thing_rand(rng, stage, index, name, index < movers))
        except SceneError:
            if len(things) < 2:
                raise
            break  # the picture is full: a scene of fewer things is as good
    return SceneSpec(
        family="tabletop",
        shot=shot,
        camera=camera,
        light=light_rand(rng, camera, strength),
        background=dimmed(backdrop, strength),
        solids=(floor, *patches, *things),
    )


TABLETOP = Family(
    name="tabletop",
    summary="a few primitives on a table with a grey card and a grey ball",
    shows=frozenset({"temperature"}),
    draw=draw,
    rules=(
        in_frame(roles=("subject", "prop", "patch")),
        min_size(3.0, roles=("subject", "prop", "patch")),
        none_hidden(0.0, roles=("patch",)),
        none_hidden(0.25),
        contrast(10.0),
    ),
)
