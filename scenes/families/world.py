"""World: what a small backbone is trained on, so that it knows what the axes do without being told.

One part of the scenes has large things that cross the picture fast, one has rows in depth among soft lights, one has still or
slow things on a mostly neutral table, and one is drawn by the control families' own builders. Things may enter and leave
the picture and hide each other: no probe reads these clips, a model looks at them. Sizes are given in shares of `unit_px`, the
picture's shorter side, speeds in `unit_px` per frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from scenes.camera import focal_px, unproject
from scenes.errors import SceneError
from scenes.families import depth_row, flyby, studio, tabletop
from scenes.families.base import Check, Family, Laws
from scenes.families.depth_row import Circle
from scenes.families.world_parts import (
    Look,
    Place,
    camera_rand,
    color_rand,
    heading_rand,
    light_rand,
    look_rand,
    material_rand,
    scene_of,
    spin_rand,
    thing_rand,
    vec3,
    wall_rand,
)
from scenes.motion import axis_angle, matrix_33, random_orientation
from scenes.palette import COLORS
from scenes.primitives import SOLID_KINDS
from scenes.rules import bounds_px, center_px, none_hidden
from scenes.spec import Camera, Motion, SceneSpec, Shot, Solid

Layout = Callable[[np.random.Generator, Shot, Laws], SceneSpec]

FAST = (0.125, 0.22)  # a frame interval's exposure smears over 8 to 14 px at 64 px
SLOW = (0.04, 0.125)
FAST_SHARE = 0.65
DISCS = (0.09, 0.17)  # the widest discs
WALL_SHARE = 0.25
DRAW_TRIES = 20
LEAST_FRAMES_SEEN = 1 / 3
LARGEST = 0.85  # of the picture
MOST_HIDDEN = 0.3


def flight(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw one to three things that cross the picture beside each other, in eight directions, sometimes before a wall."""
    look = look_rand(rng, shot, laws)
    unit = look.unit_px
    camera = camera_rand(rng, look, float(rng.uniform(*DISCS)) * unit)
    light = light_rand(rng, camera, look.strength)
    count = int(rng.choice([1, 2, 3], p=[0.7, 0.25, 0.05]))
    heading = heading_rand(rng)
    solids: list[Solid] = []
    names: list[str] = []
    for index in range(count):
        low, high = {1: (0.19, 0.29), 2: (0.16, 0.21), 3: (0.12, 0.15)}[count]
        speed = float(rng.uniform(*(FAST if rng.random() < FAST_SHARE else SLOW))) * unit
        turn = heading + (math.pi if rng.random() < 0.3 and index else 0.0)
        lane = (index - (count - 1) / 2) * 0.9 / count + float(rng.uniform(-1, 1)) * (0.22 if count == 1 else 0.02)
        along = float(rng.uniform(-0.3, 0.3))
        middle_2 = np.array([shot.width, shot.height]) / 2 + unit * np.array(
            [along * math.cos(heading) - lane * math.sin(heading), along * math.sin(heading) + lane * math.cos(heading)]
        )
        place = Place(
            middle_2=(float(middle_2[0]), float(middle_2[1])),
            depth_m=camera.focus_distance_m * float(rng.uniform(0.97, 1.03)),
            radius_px=float(rng.uniform(low, high)) * unit,
            velocity_2=(speed * math.cos(turn), speed * math.sin(turn)),
            spin_rad_per_s=spin_rand(rng, 0.3),
        )
        names.append(color_rand(rng, look, names))
        solids.append(thing_rand(rng, look, camera, place, index, names[-1]))
    if rng.random() < WALL_SHARE:
        solids.append(wall_rand(rng, look, camera))
    return scene_of(look, camera, light, solids)


def depths(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw two or three large things at different depths, one of them in focus, with up to four lights out of focus."""
    dark = rng.random() < 0.7
    look = look_rand(rng, shot, laws, depth_row.DARK) if dark else look_rand(rng, shot, laws)
    unit = look.unit_px
    disc_px = float(rng.uniform(*DISCS)) * unit
    camera = camera_rand(rng, look, 1.08 * disc_px)
    count = 2 if rng.random() < 0.65 else 3
    focus = int(rng.integers(count))
    columns = rng.permutation(count)
    names: list[str] = []
    solids: list[Solid] = []
    row: list[Circle] = []
    for index in range(count):
        radius_px = float(rng.uniform(*((0.15, 0.21) if count == 2 else (0.11, 0.15)))) * unit
        own_px = 0.0 if index == focus else float(rng.uniform(0.6, 1.0)) * disc_px
        x_px = shot.width * (1 + 2 * int(columns[index])) / (2 * count) + float(rng.uniform(-0.04, 0.04)) * unit
        y_px = shot.height * float(rng.uniform(0.35, 0.65))
        reach_px = radius_px + own_px / 2 + 1.0
        spot = Circle(x_px=x_px, y_px=y_px, reach_px=reach_px, size_px=2 * radius_px, disc_px=own_px, behind=index > focus)
        row.append(spot)
        heading, drift = heading_rand(rng), float(rng.uniform(0.3, 1.0)) if index == focus and rng.random() < 0.4 else 0.0
        step = drift * 0.3 * unit / max(shot.frames, 5)
        place = Place(
            middle_2=(x_px, y_px),
            depth_m=depth_row.disc_depth_m(camera, shot, spot, depth_row.widest_f_number(laws)),
            radius_px=radius_px,
            velocity_2=(step * math.cos(heading), step * math.sin(heading)),
            spin_rad_per_s=spin_rand(rng, 0.4 if index == focus else 0.0),
        )
        names.append(color_rand(rng, look, names))
        solids.append(thing_rand(rng, look, camera, place, index, names[-1]))
    if dark:
        solids += _lights(rng, look, camera, disc_px, row)
    return scene_of(look, camera, light_rand(rng, camera, look.strength), solids)


def _lights(rng: np.random.Generator, look: Look, camera: Camera, disc_px: float, row: list[Circle]) -> list[Solid]:
    """Draw up to four lights out of focus where they hide nothing."""
    focal = focal_px(camera, look.shot)
    spots = depth_row.light_spots(rng, look.shot, disc_px, row)[: int(rng.integers(1, 5))]
    lights = []
    for index, spot in enumerate(spots):
        depth_m = depth_row.disc_depth_m(camera, look.shot, spot, depth_row.widest_f_number(look.laws))
        glow = float(rng.uniform(0.5, 0.75)) / depth_row.light_gain(look.laws)
        at = vec3(unproject(camera, look.shot, spot.x_px, spot.y_px, depth_m))
        lights.append(depth_row.lamp(index, at, spot.size_px * depth_m / focal, depth_row.facing(camera), glow))
    return lights


def table(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw one or two large still or slow things on a table, sometimes beside a grey card or ball."""
    look = look_rand(rng, shot, laws)
    far = tabletop.camera_rand(rng)
    shrink = math.exp(float(rng.uniform(math.log(0.08), math.log(0.8))))  # the nearer the focus, the more the lens blurs
    camera = far.model_copy(
        update={
            "location_m": vec3(np.asarray(far.location_m) * shrink),
            "focus_distance_m": far.focus_distance_m * shrink,
        }
    )
    stage = tabletop.Stage(camera=camera, shot=shot, taken=[])
    floors = tabletop.NEUTRAL_GROUNDS if rng.random() < 0.6 else tuple(COLORS)
    floor = str(floors[int(rng.integers(len(floors)))])
    solids = [_floor(rng, floor, camera.focus_distance_m)]
    names: list[str] = []
    count = 1 if rng.random() < 0.55 else 2
    for index in range(count):
        radius_px = float(rng.uniform(*((0.2, 0.3) if count == 1 else (0.15, 0.2)))) * look.unit_px
        names.append(color_rand(rng, look, names, floor))
        solids.append(_standing(rng, stage, index, radius_px, names[-1]))
    for extra in (tabletop.card_rand, tabletop.grey_ball_rand):
        if rng.random() < 0.3:
            made = extra(rng, stage)
            solids += made if isinstance(made, list) else [made]
    return scene_of(look, camera, tabletop.light_rand(rng, camera, look.strength), solids)


def _floor(rng: np.random.Generator, color_name: str, distance_m: float) -> Solid:
    """Draw a floor: endless and plain, or a table top with a texture that shows."""
    floor = tabletop.ground(color_name)
    if rng.random() < 0.5:
        return floor
    side_m = distance_m * float(rng.uniform(1.5, 3.0))
    texture = "checker" if rng.random() < 0.3 else "noise"
    return floor.model_copy(
        update={"scale_m": (side_m, side_m, 1.0), "material": floor.material.model_copy(update={"texture": texture})}
    )


def _standing(rng: np.random.Generator, stage: tabletop.Stage, index: int, radius_px: float, color_name: str) -> Solid:
    """Draw a thing that rests on the table; half of them turn about the vertical or drift a little."""
    kind = SOLID_KINDS[int(rng.integers(len(SOLID_KINDS)))]
    place_px = tabletop.take_place(rng, stage, radius_px)
    quat = random_orientation(rng) if rng.random() < 0.3 else axis_angle((0.0, 0.0, 1.0), float(rng.uniform(0, 2 * math.pi)))
    scale_m, location_m = tabletop.resting(stage, place_px, radius_px, kind, (1.0, 1.0, 1.0), quat)
    motion = Motion(location_m=location_m, orientation=quat)
    chance = rng.random()
    if chance < 0.25:
        upright = vec3(matrix_33(quat).T @ np.array([0.0, 0.0, 1.0]))
        motion = motion.model_copy(update={"spin_axis": upright, "spin_rad_per_s": spin_rand(rng, 1.0)})
    elif chance < 0.5:
        last_s = max(stage.shot.times_s[-1], 0.25)
        heading = float(rng.uniform(0, 2 * math.pi))
        path_m = tabletop.metres_at(stage, place_px, float(rng.uniform(0.08, 0.25)) * stage.unit_px)
        velocity_3 = np.array([math.cos(heading), math.sin(heading), 0.0]) * path_m / last_s
        start_3 = np.asarray(location_m) - velocity_3 * stage.shot.times_s[-1] / 2
        motion = motion.model_copy(update={"location_m": vec3(start_3), "velocity_m_per_s": vec3(velocity_3)})
    return Solid(
        name=f"thing_{index}",
        role="subject" if index == 0 else "prop",
        kind=kind,
        scale_m=scale_m,
        material=material_rand(rng, color_name),
        motion=motion,
    )


def control_content(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a scene as one of the control families does, unchecked by its rules, with textures and finishes."""
    builders = (flyby.draw, depth_row.depth_row, tabletop.draw, studio.draw)
    chosen = int(rng.choice(len(builders), p=(0.4, 0.3, 0.2, 0.1)))
    scene = builders[chosen](rng, shot, laws)
    solids = tuple(
        solid.model_copy(update={"material": material_rand(rng, solid.material.color_name)})
        if solid.role in ("subject", "prop")
        else solid
        for solid in scene.solids
    )
    changes: dict[str, object] = {"family": "world", "solids": solids}
    if chosen < 2:  # these builders know of no cast: dim what it would clip
        strength = float(rng.uniform(tabletop.exposure(laws), 1.0))
        changes["light"] = scene.light.model_copy(update={"strength": strength})
        changes["background"] = tabletop.dimmed(scene.background, strength)
    return scene.model_copy(update=changes)


LAYOUTS: Mapping[Layout, float] = MappingProxyType({flight: 0.4, depths: 0.2, table: 0.2, control_content: 0.2})


def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a scene of one of the layouts; raises SceneError where none of `DRAW_TRIES` finds room."""
    layout = tuple(LAYOUTS)[int(rng.choice(len(LAYOUTS), p=tuple(LAYOUTS.values())))]
    reason = ""
    for _ in range(DRAW_TRIES):
        try:
            return layout(rng, shot, laws)
        except SceneError as error:
            reason = str(error)
    raise SceneError(f"family 'world' found no layout at {shot.width}x{shot.height}: {reason}; make the picture squarer")


def seen() -> Check:
    """Ask that there be a thing, and that each be seen with its centre in the picture in a third of the frames."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        things = scene.with_role("subject", "prop")
        for thing in things:
            places = [center_px(thing, scene.camera, scene.shot, time_s) for time_s in scene.shot.times_s]
            inside = sum(0 <= x <= scene.shot.width and 0 <= y <= scene.shot.height for x, y in places)
            if inside < LEAST_FRAMES_SEEN * scene.shot.frames:
                return f"{thing.role} out of the picture for most of the clip"
        return None if things else "no room for a single thing"

    return check


def whole() -> Check:
    """Ask that no thing be wider or higher than most of the picture: what stands at the lens shows as a bare colour."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        most_px = LARGEST * min(scene.shot.width, scene.shot.height)
        for thing in scene.with_role("subject", "prop", "patch"):
            for time_s in dict.fromkeys((scene.shot.times_s[0], scene.shot.times_s[-1])):
                x0, y0, x1, y1 = bounds_px(thing, scene.camera, scene.shot, time_s)
                if max(x1 - x0, y1 - y0) > most_px:
                    return f"{thing.role} larger than {LARGEST:.0%} of the picture"
        return None

    return check


def plain_on_tables() -> Check:
    """Ask that what is named on a table be hidden by little; what flies or stands in depth may cross for a moment."""
    clear = none_hidden(MOST_HIDDEN)
    return lambda scene, laws: clear(scene, laws) if scene.with_role("ground") else None


WORLD = Family(
    name="world",
    summary="large primitives that fly by, stand in depth among lights or on a table: what the tiny backbone is trained on",
    shows=frozenset({"shutter", "aperture", "temperature"}),
    draw=draw,
    rules=(seen(), whole(), plain_on_tables()),
)
