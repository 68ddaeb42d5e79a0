"""Studio: things cross the picture in focus, among soft round lights and beside a grey card, for all three axes at once.

Each axis has content of its own, built as its own family builds it. What moves (`flyby`) stays in the plane of focus, so that
its edges are soft by motion alone; the lights (`depth_row`) stand still, out of focus, so that their rims are soft by the lens
alone; the card (`tabletop`) is still, in focus and neutral. Nothing touches anything else at the strongest of every axis: each
thing needs a capsule of the picture, its path and its blur included. Light, backdrop and lamps are dimmed so that the warmest
cast clips no channel, and colours are those that neither look neutral nor fade into the backdrop under any cast.

Legend: 2 picture coordinates (pixels, y down), 3 world coordinates; V vertices; `unit_px` is the picture's shorter side.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from scenes.arrays import Floats
from scenes.axes.aperture.axis import expected_discs
from scenes.camera import circle_of_confusion_px, focal_px, project, unproject
from scenes.errors import SceneError
from scenes.families import depth_row, flyby, tabletop
from scenes.families.base import Check, Family, Laws
from scenes.families.depth_row import DARK, Circle, disc_depth_m, light_spots, widest_disc_px, widest_f_number
from scenes.families.flyby import MIN_LUMA_CONTRAST, Capsule, FlybyStage, luma_gap
from scenes.families.rules import center_px, contrast, hull_points, in_frame, min_size, none_hidden, strongest_exposure_s
from scenes.motion import vertices_at
from scenes.palette import BACKGROUNDS, COLORS
from scenes.spec import Background, Light, Role, SceneSpec, Shot, Solid, Vec3
from scenes.white import adaptation_33

FOCAL_LENGTHS_MM = (100.0, 135.0)  # long, and the lights far behind: then a thing's own depth blurs it least
DISC_SHARES = (0.8, 0.9)  # of a point at infinity
CARD_LAYOUTS = ((4, 1), (1, 4), (2, 2))
CARD_SIDE = 0.06  # of `FlybyStage.patch_px` of the tabletop
LEAST_LIGHTS = (5, 3)  # from 256 px of the shorter side, and below
MOST_THINGS = 9  # movers and lights: what a blind probe need tell apart
GAP = 0.02  # of the shorter side, between a light and whatever else
LEAST_GAP_PX = 2.0
TWO_MOVERS = 0.35
LAYOUT_TRIES = 40


@lru_cache(maxsize=256)
def plain_colors(backdrop: Background, light: Light, kelvins: tuple[float, ...]) -> tuple[str, ...]:
    """Return the colours that imitate no neutral and differ in luma from a (dimmed) backdrop under each of the casts."""
    names, _ = tabletop.unmistakable(kelvins, light.strength)
    return tuple(name for name in names if _least_luma_gap(COLORS[name], light, backdrop, kelvins) >= MIN_LUMA_CONTRAST)


def _least_luma_gap(albedo: Vec3, light: Light, backdrop: Background, kelvins: tuple[float, ...]) -> float:
    gaps = []
    colors_33 = np.array([albedo, backdrop.bottom, backdrop.top])
    for kelvin in kelvins:
        mine, bottom, top = (_vec3(cast_3) for cast_3 in np.maximum(colors_33 @ adaptation_33(kelvin).T, 0.0))
        gaps.append(luma_gap(mine, light, (bottom, top)))
    return min(gaps)


def _vec3(values: Floats) -> Vec3:
    red, green, blue = (float(part) for part in values)
    return (red, green, blue)


def stage_rand(rng: np.random.Generator, shot: Shot, laws: Laws) -> FlybyStage:
    """Draw camera, light, dark backdrop and the colours that show before it.

    Raises SceneError where no backdrop is plain under the casts.
    """
    kelvins, strength = tabletop.cast_range(laws), tabletop.exposure(laws)
    camera = depth_row.camera_rand(
        rng,
        shot,
        1.08 * widest_disc_px(shot),  # the widest that `light_spots` draws
        widest_f_number(laws),
        focal_lengths_mm=FOCAL_LENGTHS_MM,
        disc_shares=DISC_SHARES,
    )
    light = flyby.light_rand(rng, camera).model_copy(update={"strength": strength})
    names = [name for name in tabletop.unmistakable(kelvins, strength)[1] if name in DARK]
    if not names:
        casts = f"{min(kelvins):.0f} to {max(kelvins):.0f} K"
        raise SceneError(f"none of the backdrops {', '.join(DARK)} is plain from {casts}; narrow the temperature axis")
    backdrop = tabletop.dimmed(BACKGROUNDS[names[int(rng.integers(len(names)))]], strength)
    blur_frames = strongest_exposure_s(laws) * shot.fps
    return FlybyStage(
        shot=shot,
        camera=camera,
        light=light,
        background=backdrop,
        path_frames=shot.frames - 1 + blur_frames,
        blur_frames=blur_frames,
        color_names=plain_colors(backdrop, light, kelvins),
        depth_spread=0.0,
    )


def movers_rand(rng: np.random.Generator, stage: FlybyStage, taken: list[Capsule]) -> list[Solid]:
    """Draw one thing that crosses the picture, or two along paths that do not meet; raises SceneError where none fits."""
    count = 2 if stage.unit_px >= 200 and rng.random() < TWO_MOVERS else 1
    heading_rad = float(rng.integers(4)) * math.pi / 2 + float(rng.uniform(-0.2, 0.2))
    movers: list[Solid] = []
    for index in range(count):
        turn_rad = float(rng.integers(2)) * math.pi + float(rng.uniform(-0.1, 0.1))
        solid = flyby.placed(rng, stage, index, count, heading_rad + turn_rad, taken)
        if solid is not None:
            movers.append(solid)
    if not movers:
        raise SceneError("no room for a single thing")
    return movers


def card_rand(rng: np.random.Generator, stage: FlybyStage, taken: list[Capsule]) -> list[Solid]:
    """Draw a grey card in the plane of focus, facing the camera, apart from what is taken; raises SceneError without room."""
    shot, camera = stage.shot, stage.camera
    columns, rows = CARD_LAYOUTS[int(rng.integers(len(CARD_LAYOUTS)))]
    side_px = CARD_SIDE * tabletop.TabletopStage(camera=camera, shot=shot, taken=[]).patch_px
    reach_2 = 0.5 * (1 + tabletop.GAP) * side_px * np.array([columns, rows])
    gap_px = max(LEAST_GAP_PX, GAP * stage.unit_px)
    size_2 = np.array([shot.width, shot.height], dtype=np.float64)
    for place_2 in rng.uniform(reach_2 + gap_px, size_2 - reach_2 - gap_px, (60, 2)):
        along_2 = reach_2 - reach_2.min()
        capsule = Capsule(start_2=place_2 - along_2, stop_2=place_2 + along_2, radius_px=float(reach_2.min()) * math.sqrt(2))
        if all(capsule.apart(other, gap_px) for other in taken):
            taken.append(capsule)
            depth_m = camera.focus_distance_m
            center_3 = unproject(camera, shot, float(place_2[0]), float(place_2[1]), depth_m)
            side_m = side_px * depth_m / focal_px(camera, shot)
            return tabletop.card_squares(center_3, side_m, (columns, rows), depth_row.facing(camera))
    raise SceneError("no room for the card")


def lights_rand(rng: np.random.Generator, stage: FlybyStage, laws: Laws, taken: list[Capsule], most: int) -> list[Solid]:
    """Draw round lights, in front of and behind the plane of focus, where their discs touch nothing."""
    shot, camera = stage.shot, stage.camera
    gap_px = max(LEAST_GAP_PX, GAP * stage.unit_px)
    row = [circle for capsule in taken for circle in _circles(capsule, gap_px)]
    peak = depth_row.light_gain(laws)
    lights = []
    for index, spot in enumerate(light_spots(rng, shot, widest_disc_px(shot), row)[:most]):
        depth_m = disc_depth_m(camera, shot, spot, widest_f_number(laws))
        place = _vec3(unproject(camera, shot, spot.x_px, spot.y_px, depth_m))
        glow = float(rng.uniform(0.5, 0.75)) / peak
        diameter_m = spot.size_px * depth_m / focal_px(camera, shot)
        lights.append(depth_row.lamp(index, place, diameter_m, depth_row.facing(camera), glow))
    return lights


def _circles(capsule: Capsule, gap_px: float) -> list[Circle]:
    """Return circles that cover a capsule and a gap (pixels) around it."""
    length_px = float(np.hypot(*(capsule.stop_2 - capsule.start_2)))
    count = 1 + math.ceil(length_px / capsule.radius_px)
    step_px = length_px / max(1, count - 1)
    reach_px = math.hypot(capsule.radius_px + gap_px, step_px / 2)
    ways_N1 = np.linspace(0.0, 1.0, count)[:, None]
    places_N2 = capsule.start_2 + ways_N1 * (capsule.stop_2 - capsule.start_2)
    blank = Circle(x_px=0.0, y_px=0.0, reach_px=reach_px, size_px=0.0, disc_px=0.0, behind=False)
    return [replace(blank, x_px=float(x), y_px=float(y)) for x, y in places_N2]


def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a studio; raises SceneError where none of `LAYOUT_TRIES` layouts has room for a mover, a card and the lights."""
    reason = ""
    for _ in range(LAYOUT_TRIES):
        try:
            return _draw_once(rng, shot, laws)
        except SceneError as error:
            reason = str(error)
    raise SceneError(f"family 'studio' found no layout at {shot.width}x{shot.height}: {reason}; make the picture larger")


def _draw_once(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    stage = stage_rand(rng, shot, laws)
    taken: list[Capsule] = []
    movers = movers_rand(rng, stage, taken)
    card = card_rand(rng, stage, taken)
    lights = lights_rand(rng, stage, laws, taken, MOST_THINGS - len(movers))
    if len(lights) < least_lights(shot):
        raise SceneError("no room for the lights")
    return SceneSpec(
        family="studio",
        shot=shot,
        camera=stage.camera,
        light=stage.light,
        background=stage.background,
        solids=(*movers, *card, *lights),
    )


def least_lights(shot: Shot) -> int:
    """Return how many lights a scene must have."""
    return LEAST_LIGHTS[0] if min(shot.width, shot.height) >= 256 else LEAST_LIGHTS[1]


def swept_capsule(solid: Solid, scene: SceneSpec, laws: Laws) -> Capsule:
    """Return the picture area that a solid needs from first shutter opening to last closing, out-of-focus blur included."""
    half_s = strongest_exposure_s(laws) / 2
    times_s = (scene.shot.times_s[0] - half_s, scene.shot.times_s[-1] + half_s)
    start_2, stop_2 = (np.array(center_px(solid, scene.camera, scene.shot, time_s)) for time_s in times_s)
    reach_px = 0.0
    for time_s in (times_s[0], sum(times_s) / 2, times_s[1]):
        world_V3 = vertices_at(hull_points(solid.kind), solid.scale_m, solid.motion, time_s)
        pixels_V2, depth_V = project(scene.camera, scene.shot, world_V3)
        center_2 = start_2 + (stop_2 - start_2) * ((time_s - times_s[0]) / max(times_s[1] - times_s[0], 1e-9))
        blurs_px = [
            circle_of_confusion_px(scene.camera, scene.shot, widest_f_number(laws), float(depth_m))
            for depth_m in (depth_V.min(), depth_V.max())
        ]
        reach_px = max(reach_px, float(np.hypot(*(pixels_V2 - center_2).T).max()) + max(blurs_px) / 2)
    return Capsule(start_2=start_2, stop_2=stop_2, radius_px=reach_px)


def all_apart(gap_px: float = 1.0) -> Check:
    """Ask that movers, card and lights keep apart, and in frame, over the whole clip at the strongest of every axis.

    A light is further asked to be seen wider than its blur disc, which is what its rim is measured by.
    """

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        if any(disc.outline_px < 1.15 * disc.disc_px for disc in expected_discs(scene, widest_f_number(laws))):
            return "a light's disc is wider than the light"
        free = [solid for solid in scene.solids if solid.role != "patch"]
        capsules = [swept_capsule(solid, scene, laws) for solid in free]
        if not all(capsule.inside(scene.shot, 0.0) for capsule in capsules):
            return "something leaves the frame"
        squares = [swept_capsule(solid, scene, laws) for solid in scene.with_role("patch")]
        for index, (solid, capsule) in enumerate(zip(free, capsules, strict=True)):
            if not all(capsule.apart(other, gap_px) for other in (*capsules[:index], *squares)):
                return f"{solid.role} touches something"
        return None

    return check


def plain_under_every_cast(minimum: float = MIN_LUMA_CONTRAST) -> Check:
    """Ask that every shade of each mover differ in luma from the backdrop under every cast, so that its edges are seen."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        kelvins = tabletop.cast_range(laws)
        for solid in scene.with_role("subject"):
            if _least_luma_gap(solid.material.albedo, scene.light, scene.background, kelvins) < minimum:
                return f"subject within {minimum:g} of the backdrop's luma under some cast"
        return None

    return check


def of_role(role: Role, check: Check) -> Check:
    """Apply a rule to the solids of one role alone."""
    return lambda scene, laws: check(scene.model_copy(update={"solids": scene.with_role(role)}), laws)


STUDIO = Family(
    name="studio",
    summary="one or two primitives that cross the picture in focus, among soft round lights and beside a grey card",
    shows=frozenset({"shutter", "aperture", "temperature"}),
    draw=draw,
    rules=(
        of_role("subject", flyby.something_flies()),
        plain_under_every_cast(),
        of_role("subject", flyby.blur_readable()),
        in_frame(roles=("subject", "patch", "highlight")),
        min_size(5.0, roles=("subject", "highlight")),
        min_size(3.0, roles=("patch",)),
        none_hidden(0.0, roles=("subject", "patch", "highlight")),
        contrast(12.0),
        all_apart(),
    ),
)
