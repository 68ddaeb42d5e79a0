"""World: what a small backbone is trained on, so that it draws what it is told and knows what the axes do untold.

A person must be able to see a named shape, colour, size, place and motion, and blur, bokeh and cast; there is little else: no
textures, no walls, one or two things in most scenes. One part of the scenes has things that cross the picture, one has rows
in depth among soft lights, one has still or slow things on a mostly neutral table, and one is drawn by the control families'
own builders. Things may enter and leave the picture: no probe reads these clips, a model looks at them. Sizes are given in
shares of `unit_px`, the picture's shorter side, speeds in `unit_px` per frame.
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
from scenes.families.rules import bounds_px, center_px, none_hidden
from scenes.families.world_parts import (
    Look,
    Place,
    camera_rand,
    color_rand,
    heading_rand,
    kind_rand,
    light_rand,
    look_rand,
    scene_of,
    size_rand,
    spin_rand,
    thing_rand,
    vec3,
)
from scenes.motion import axis_angle, matrix_33
from scenes.palette import COLORS
from scenes.spec import Camera, Material, Motion, SceneSpec, Shot, Solid

Layout = Callable[[np.random.Generator, Shot, Laws], SceneSpec]

FAST = (0.1, 0.18)  # a frame interval's exposure smears over 6 to 11 px at 64 px
SLOW = (0.01, 0.06)
FAST_SHARE = 0.65
LONGEST_BLUR = 0.75  # of a thing's size in a frame interval: a longer blur leaves no shape
DISCS = (0.09, 0.17)  # the widest discs
SPIN_SHARE = 0.12
GAP = 0.06  # between two paths
DRAW_TRIES = 20
LEAST_FRAMES_SEEN = 1 / 3
LARGEST = 0.85  # of the picture
MOST_HIDDEN = 0.3


def flight(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw one or two things that cross the picture beside each other, in eight directions."""
    look = look_rand(rng, shot, laws)
    unit = look.unit_px
    camera = camera_rand(rng, look, float(rng.uniform(*DISCS)) * unit)
    light = light_rand(rng, camera, look.strength)
    heading = heading_rand(rng)
    sizes = [size_rand(rng)]
    if rng.random() < 0.3:
        sizes.append(size_rand(rng, 0.9 - sizes[0]))
    free = 1 - sum(sizes) - GAP * (len(sizes) - 1)
    across = -0.5 + max(0.0, free) * float(rng.uniform(0.1, 0.9))
    solids: list[Solid] = []
    names: list[str] = []
    for index, size in enumerate(sizes):
        fast = rng.random() < FAST_SHARE
        speed = min(float(rng.uniform(*(FAST if fast else SLOW))), LONGEST_BLUR * size) * unit
        turn = heading + (math.pi if rng.random() < 0.3 and index else 0.0)
        lane, along = across + size / 2, float(rng.uniform(-0.2, 0.2))
        across += size + GAP
        place = Place(
            middle_2=(
                shot.width / 2 + unit * (along * math.cos(heading) - lane * math.sin(heading)),
                shot.height / 2 + unit * (along * math.sin(heading) + lane * math.cos(heading)),
            ),
            depth_m=camera.focus_distance_m * float(rng.uniform(0.97, 1.03)),
            extent_px=size * unit,
            velocity_2=(speed * math.cos(turn), speed * math.sin(turn)),
            spin_rad_per_s=spin_rand(rng, SPIN_SHARE),
        )
        names.append(color_rand(rng, look, names))
        solids.append(thing_rand(rng, look, camera, place, index, names[-1]))
    return scene_of(look, camera, light, solids)


def depths(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw two or three things at different depths, one of them in focus, with up to four lights out of focus."""
    dark = rng.random() < 0.7
    look = look_rand(rng, shot, laws, depth_row.DARK) if dark else look_rand(rng, shot, laws)
    unit = look.unit_px
    disc_px = float(rng.uniform(*DISCS)) * unit
    camera = camera_rand(rng, look, 1.08 * disc_px)
    count = 2 if rng.random() < 0.85 else 3
    focus = int(rng.integers(count))
    columns = rng.permutation(count)
    names: list[str] = []
    solids: list[Solid] = []
    row: list[Circle] = []
    for index in range(count):
        extent_px = size_rand(rng, 0.42 if count == 2 else 0.28) * unit
        own_px = 0.0 if index == focus else float(rng.uniform(0.6, 1.0)) * disc_px
        x_px = shot.width * (1 + 2 * int(columns[index])) / (2 * count) + float(rng.uniform(-0.04, 0.04)) * unit
        y_px = shot.height * float(rng.uniform(0.35, 0.65))
        reach_px = extent_px / 2 + own_px / 2 + 1.0
        spot = Circle(x_px=x_px, y_px=y_px, reach_px=reach_px, size_px=extent_px, disc_px=own_px, behind=index > focus)
        row.append(spot)
        heading, drift = heading_rand(rng), float(rng.uniform(0.3, 1.0)) if index == focus and rng.random() < 0.4 else 0.0
        step = drift * 0.3 * unit / max(shot.frames, 5)
        place = Place(
            middle_2=(x_px, y_px),
            depth_m=depth_row.disc_depth_m(camera, shot, spot, depth_row.widest_f_number(laws)),
            extent_px=extent_px,
            velocity_2=(step * math.cos(heading), step * math.sin(heading)),
            spin_rad_per_s=spin_rand(rng, SPIN_SHARE if index == focus else 0.0),
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
    stage = tabletop.TabletopStage(camera=camera, shot=shot, taken=[])
    floors = tabletop.NEUTRAL_GROUNDS if rng.random() < 0.6 else tuple(COLORS)
    floor = str(floors[int(rng.integers(len(floors)))])
    solids = [tabletop.ground(floor)]
    names: list[str] = []
    count = 1 if rng.random() < 0.55 else 2
    for index in range(count):
        radius_px = 0.55 * size_rand(rng, 0.55 if count == 1 else 0.4) * look.unit_px
        names.append(color_rand(rng, look, names, floor))
        solids.append(_standing(rng, stage, index, radius_px, names[-1]))
    for extra in (tabletop.card_rand, tabletop.grey_ball_rand):
        if rng.random() < 0.3:
            made = extra(rng, stage)
            solids += made if isinstance(made, list) else [made]
    return scene_of(look, camera, tabletop.light_rand(rng, camera, look.strength), solids)


def _standing(rng: np.random.Generator, stage: tabletop.TabletopStage, index: int, radius_px: float, color_name: str) -> Solid:
    """Draw a thing that rests on the table; half of them turn about the vertical or drift a little."""
    kind = kind_rand(rng, ("star_prism",))  # it would lie flat
    place_px = tabletop.take_place(rng, stage, radius_px)
    quat = axis_angle((0.0, 0.0, 1.0), float(rng.uniform(0, 2 * math.pi)))
    scale_m, location_m = tabletop.resting(stage, place_px, radius_px, kind, (1.0, 1.0, 1.0), quat)
    motion = Motion(location_m=location_m, orientation=quat)
    chance = rng.random()
    if chance < SPIN_SHARE:
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
        material=Material(color_name=color_name, albedo=COLORS[color_name]),
        motion=motion,
    )


def control_content(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a scene as one of the control families does, unchecked by its rules."""
    builders = (flyby.draw, depth_row.depth_row, tabletop.draw, studio.draw)
    chosen = int(rng.choice(len(builders), p=(0.4, 0.3, 0.2, 0.1)))
    scene = builders[chosen](rng, shot, laws)
    changes: dict[str, object] = {"family": "world"}
    if chosen < 2:  # these builders know of no cast: dim what it would clip
        strength = float(rng.uniform(tabletop.exposure(laws), 1.0))
        changes["light"] = scene.light.model_copy(update={"strength": strength})
        changes["background"] = tabletop.dimmed(scene.background, strength)
    return scene.model_copy(update=changes)


LAYOUTS: Mapping[Layout, float] = MappingProxyType({flight: 0.5, depths: 0.2, table: 0.15, control_content: 0.15})


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
    summary="plain primitives that fly by, stand in depth among lights or on a table: what the tiny backbone is trained on",
    shows=frozenset({"shutter", "aperture", "temperature"}),
    draw=draw,
    rules=(seen(), whole(), plain_on_tables()),
)
