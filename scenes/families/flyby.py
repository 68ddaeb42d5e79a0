"""Flyby: one to four primitives cross the picture at constant image-plane speed, for the exposure time.

The layout is drawn in the picture: each thing sweeps a capsule (its path at the longest exposure, as wide as the thing) that
stays in the frame and apart from the others. Speeds are as high as that allows, so that the shortest exposure still shows,
but no blur is longer than most of the thing's own chord, so that its edges stay readable.

Legend: `unit_px` is the shorter side of the picture; 2 picture coordinates (pixels, y down), 3 world coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import ConvexHull

from scenes.arrays import Floats
from scenes.camera import focal_px, image_plane_velocity, project, rotation_33, unproject
from scenes.families.base import Check, Family, Laws
from scenes.families.rules import (
    background_at,
    contrast,
    hull_points,
    image_velocity_px_per_s,
    in_frame,
    min_size,
    none_hidden,
    strongest_exposure_s,
)
from scenes.motion import random_orientation, vertices_at
from scenes.palette import BACKGROUNDS, COLORS, srgb_encode
from scenes.primitives import SOLID_KINDS
from scenes.spec import Background, Camera, Light, Material, Motion, SceneSpec, Shot, Solid, Vec3

KINDS = tuple(kind for kind in SOLID_KINDS if kind != "torus")  # a ring's tube is thinner than a readable blur
CHORD_SHARE = 0.75  # the longest blur, as a share of the mean chord along the motion
CHORD_LIMIT = 0.85  # the same, as the rule
MIN_LUMA_CONTRAST = 0.1  # encoded luma, lit and shaded side alike: what the codec keeps at full resolution
LUMA_3 = np.array([0.2126, 0.7152, 0.0722])  # ITU-R BT.709
READABLE_PX = 2.0  # at the longest exposure; a clip of very many frames leaves no room for such a speed
SPIN_SHARE = 0.04  # the rim turns at most at this share of the speed
GENTLE_SPEED = (0.01, 0.04)  # unit_px per frame, where shutter is not an axis
PLACE_TRIES = 30
PATH_STEPS = np.linspace(0.0, 1.0, 60)[:, None]
COARSE = 6


@dataclass(frozen=True, kw_only=True)
class FlybyStage:
    """What things are put into: format, camera, light, backdrop, and the frame intervals that a path lasts and a blur lasts."""

    shot: Shot
    camera: Camera
    light: Light
    background: Background
    path_frames: float
    blur_frames: float
    color_names: tuple[str, ...] = tuple(COLORS)
    depth_spread: float = 0.1  # of the focus distance, to either side of it

    @property
    def unit_px(self) -> float:
        """The shorter side of the picture."""
        return float(min(self.shot.width, self.shot.height))


@dataclass(frozen=True, kw_only=True)
class Capsule:
    """The picture area a thing sweeps: all within `radius_px` of a path from `start_2` to `stop_2` (pixels)."""

    start_2: Floats
    stop_2: Floats
    radius_px: float

    def inside(self, shot: Shot, margin_px: float) -> bool:
        """Return whether the capsule keeps a margin (pixels) from the frame."""
        keep = self.radius_px + margin_px
        ends = np.stack([self.start_2, self.stop_2])
        return bool((ends >= keep).all() and (ends <= np.array([shot.width, shot.height]) - keep).all())

    def apart(self, other: Capsule, gap_px: float) -> bool:
        """Return whether two capsules keep a gap (pixels), to a hundredth of their paths."""
        least_px = self.radius_px + other.radius_px + gap_px
        mine, theirs = (one.start_2 + PATH_STEPS * (one.stop_2 - one.start_2) for one in (self, other))
        # A few points of the same paths refuse most pairs, and cost a thirtieth of all of them.
        return _nearest_px(mine[::COARSE], theirs[::COARSE]) > least_px and _nearest_px(mine, theirs) > least_px


def _nearest_px(mine_2: Floats, theirs_2: Floats) -> float:
    """Return the least distance between points of two paths."""
    return float(np.hypot(*(mine_2[:, None, :] - theirs_2[None, :, :]).transpose(2, 0, 1)).min())


def camera_rand(rng: np.random.Generator) -> Camera:
    """Draw a camera that looks at the origin: 4 to 8 m away, any azimuth, -15 to 55 degrees up, 50 to 100 mm."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(-15, 55))
    distance_m = float(rng.uniform(4.0, 8.0))
    flat = distance_m * math.cos(elevation)
    return Camera(
        location_m=(flat * math.cos(azimuth), flat * math.sin(azimuth), distance_m * math.sin(elevation)),
        target_m=(0.0, 0.0, 0.0),
        focal_length_mm=float(rng.uniform(50, 100)),
        focus_distance_m=distance_m,
    )


def light_rand(rng: np.random.Generator, camera: Camera) -> Light:
    """Draw a light from the camera's side, up to 65 degrees off its axis."""
    lean, turn = math.radians(rng.uniform(10, 65)), rng.uniform(0, 2 * math.pi)
    local_3 = np.array([math.sin(lean) * math.cos(turn), math.sin(lean) * math.sin(turn), math.cos(lean)])
    return Light(direction=_vec3(rotation_33(camera) @ local_3), ambient=float(rng.uniform(0.35, 0.55)))


def _vec3(values: Floats) -> Vec3:
    red, green, blue = (float(part) for part in values)
    return (red, green, blue)


@lru_cache(maxsize=64)  # one scene asks for the same colours at every try
def luma_gap(albedo: Vec3, light: Light, behind: tuple[Vec3, ...]) -> float:
    """Return the least encoded luma (in [0, 1]) between any shade of an albedo and any of the backdrop's colours.

    0 where some shade is darker and another brighter than some colour behind it.
    """
    shades = np.array([light.ambient * light.strength, light.strength])[:, None] * np.asarray(albedo)
    gaps = (srgb_encode(shades) @ LUMA_3)[:, None] - (srgb_encode(np.asarray(behind)) @ LUMA_3)[None, :]
    return 0.0 if gaps.min() < 0 < gaps.max() else float(np.abs(gaps).min())


def mean_chord_px(solid: Solid, camera: Camera, shot: Shot, time_s: float) -> float:
    """Return the mean length (pixels) of a thing's outline along its motion: area over extent across it."""
    world_V3 = vertices_at(hull_points(solid.kind), solid.scale_m, solid.motion, time_s)
    pixels_V2, _ = project(camera, shot, world_V3)
    vx, vy = image_velocity_px_per_s(solid, camera, shot, time_s)
    across_V = (pixels_V2 @ np.array([-vy, vx])) / max(math.hypot(vx, vy), 1e-9)
    return float(ConvexHull(pixels_V2).volume / max(float(np.ptp(across_V)), 1e-9))  # in the plane, `volume` is the area


def speed_floor_px(shot: Shot, blur_frames: float) -> float:
    """Return the least speed (pixels per frame) at which the exposure shows well for this format."""
    unit_px = min(shot.width, shot.height)
    longest_blur_px = min(0.125 * unit_px, 0.6 * unit_px * blur_frames / (shot.frames - 1 + blur_frames))
    return longest_blur_px / blur_frames


def _radius_px(rng: np.random.Generator, stage: FlybyStage, count: int) -> float:
    """Draw a circumscribed radius: large enough that the chord holds the longest blur, small where there are many."""
    still = stage.shot.frames == 1
    low, high = (0.15, 0.22) if still else (0.1, 0.13)
    if count > 2:
        low, high = 0.85 * low, 0.75 * high
    if stage.unit_px < 200:
        low, high = 1.15 * low, 1.2 * high
    return float(rng.uniform(low, max(low, high))) * stage.unit_px


def thing_rand(rng: np.random.Generator, stage: FlybyStage, index: int, radius_px: float, heading_rad: float) -> Solid | None:
    """Draw a thing at rest at the picture's centre: kind, colour, shape, orientation, spin; None if no colour shows."""
    behind = (stage.background.bottom, stage.background.top)
    names = [name for name in stage.color_names if luma_gap(COLORS[name], stage.light, behind) >= MIN_LUMA_CONTRAST]
    if not names:
        return None
    name = names[int(rng.integers(len(names)))]
    kind = KINDS[int(rng.integers(len(KINDS)))]
    round_thing = kind in ("sphere", "icosphere", "star_prism")
    shape = np.ones(3) if round_thing else rng.uniform(0.75, 1.0, 3)
    depth_m = stage.camera.focus_distance_m * float(rng.uniform(1 - stage.depth_spread, 1 + stage.depth_spread))
    reach = float(np.linalg.norm(hull_points(kind) * shape, axis=1).max())
    size_m = radius_px * depth_m / focal_px(stage.camera, stage.shot) / reach
    center_3 = unproject(stage.camera, stage.shot, stage.shot.width / 2, stage.shot.height / 2, depth_m)
    heading = image_plane_velocity(stage.camera, stage.shot, (math.cos(heading_rad), math.sin(heading_rad)), depth_m)
    return Solid(
        name=f"flyer_{index}",
        role="subject",
        kind=kind,
        scale_m=_vec3(shape * size_m),
        material=Material(color_name=name, albedo=COLORS[name]),
        motion=Motion(
            location_m=_vec3(center_3),
            velocity_m_per_s=_vec3(heading),  # one pixel per second, until `launched`
            orientation=random_orientation(rng),
            spin_axis=_vec3(rng.standard_normal(3)),
            spin_rad_per_s=float(rng.choice((-1.0, 1.0)) * rng.uniform(0.3, 1.0)) if rng.random() < 0.4 else 0.0,
        ),
    )


def launched(solid: Solid, stage: FlybyStage, middle_2: Floats, velocity_2: Floats, radius_px: float) -> Solid:
    """Return the thing moved so that it passes a pixel in mid-clip at a velocity (pixels per frame); its spin becomes slow.

    `middle_2` and `velocity_2` are `[x, y]`, in pixels and pixels per frame.
    """
    shot, camera = stage.shot, stage.camera
    depth_m = -float((np.subtract(solid.motion.location_m, camera.location_m)) @ rotation_33(camera)[:, 2])
    start_2 = middle_2 - velocity_2 * (shot.frames - 1) / 2
    per_s = velocity_2 * shot.fps
    spin = solid.motion.spin_rad_per_s * SPIN_SHARE * float(np.hypot(*per_s)) / radius_px
    motion = solid.motion.model_copy(
        update={
            "location_m": _vec3(unproject(camera, shot, float(start_2[0]), float(start_2[1]), depth_m)),
            "velocity_m_per_s": _vec3(image_plane_velocity(camera, shot, (float(per_s[0]), float(per_s[1])), depth_m)),
            "spin_rad_per_s": spin,
        }
    )
    return solid.model_copy(update={"motion": motion})


def _fastest_px(stage: FlybyStage, radius_px: float, heading_rad: float) -> float:
    """Return the greatest speed (pixels per frame) at which the path fits into the frame in this direction."""
    room_x, room_y = (side - 2 * radius_px - 0.02 * stage.unit_px for side in (stage.shot.width, stage.shot.height))
    length = min(room_x / max(abs(math.cos(heading_rad)), 1e-6), room_y / max(abs(math.sin(heading_rad)), 1e-6))
    return length / max(stage.path_frames, 1e-6)


def _speed_px(rng: np.random.Generator, stage: FlybyStage, solid: Solid, radius_px: float, heading_rad: float) -> float:
    """Draw a speed (pixels per frame) near the fastest that the frame and the thing's chord allow."""
    fastest = _fastest_px(stage, radius_px, heading_rad)
    if stage.blur_frames == 0.0:
        return min(fastest, float(rng.uniform(*GENTLE_SPEED)) * stage.unit_px)
    chord_px = mean_chord_px(solid, stage.camera, stage.shot, 0.0)
    return min(fastest, CHORD_SHARE * chord_px / stage.blur_frames) * float(rng.uniform(0.85, 0.99))


def placed(
    rng: np.random.Generator, stage: FlybyStage, index: int, count: int, heading_rad: float, taken: list[Capsule]
) -> Solid | None:
    """Draw a thing and a free path for it, which is added to those taken; None where none is found."""
    margin_px = 0.01 * stage.unit_px
    for _ in range(PLACE_TRIES):
        radius_px = _radius_px(rng, stage, count)
        solid = thing_rand(rng, stage, index, radius_px, heading_rad)
        if solid is None:
            return None
        speed_px = _speed_px(rng, stage, solid, radius_px, heading_rad)
        if stage.blur_frames > 0.0 and speed_px < speed_floor_px(stage.shot, stage.blur_frames):
            continue
        velocity_2 = speed_px * np.array([math.cos(heading_rad), math.sin(heading_rad)])
        half_2 = velocity_2 * stage.path_frames / 2
        keep_2 = np.abs(half_2) + radius_px + margin_px
        size_2 = np.array([stage.shot.width, stage.shot.height], dtype=np.float64)
        if (2 * keep_2 > size_2).any():
            continue
        for _ in range(PLACE_TRIES):
            middle_2 = rng.uniform(keep_2, size_2 - keep_2)
            capsule = Capsule(start_2=middle_2 - half_2, stop_2=middle_2 + half_2, radius_px=radius_px)
            if all(capsule.apart(other, max(4.0, 0.03 * stage.unit_px)) for other in taken):
                taken.append(capsule)
                return launched(solid, stage, middle_2, velocity_2, radius_px)
    return None


def draw(rng: np.random.Generator, shot: Shot, laws: Laws) -> SceneSpec:
    """Draw a flyby: camera, light, backdrop and 1 to 4 things on paths that do not meet, fewer where there is no room."""
    camera = camera_rand(rng)
    names = tuple(BACKGROUNDS)
    blur_frames = strongest_exposure_s(laws) * shot.fps
    stage = FlybyStage(
        shot=shot,
        camera=camera,
        light=light_rand(rng, camera),
        background=BACKGROUNDS[names[int(rng.integers(len(names)))]],
        path_frames=shot.frames - 1 + blur_frames,
        blur_frames=blur_frames,
    )
    count = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.35, 0.2, 0.15]))
    heading_rad = float(rng.uniform(0, 2 * math.pi))
    if count > 1 and shot.frames > 1:  # long paths fit beside each other along the sides
        heading_rad = float(rng.integers(4)) * math.pi / 2 + float(rng.uniform(-0.2, 0.2))
    solids: list[Solid] = []
    taken: list[Capsule] = []
    for index in range(count):
        own = heading_rad + float(rng.integers(2)) * math.pi + float(rng.uniform(-0.1, 0.1))
        if shot.frames == 1:
            own = float(rng.uniform(0, 2 * math.pi))
        solid = placed(rng, stage, index, count, own, taken)
        if solid is not None:
            solids.append(solid)
    return SceneSpec(
        family="flyby", shot=shot, camera=camera, light=stage.light, background=stage.background, solids=tuple(solids)
    )


def something_flies() -> Check:
    """Ask for at least one thing."""
    return lambda scene, laws: None if scene.solids else "no room for a single thing"


def luma_contrast(minimum: float = MIN_LUMA_CONTRAST) -> Check:
    """Ask that every shade of each thing differ in luma, to the same side, from the backdrop at both ends of its path."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        behind = tuple(background_at(scene.background, scene.shot, y_px) for y_px in (0.0, float(scene.shot.height)))
        gaps = [luma_gap(solid.material.albedo, scene.light, behind) for solid in scene.solids]
        return f"subject within {minimum:g} of the backdrop's luma" if min(gaps, default=1.0) < minimum else None

    return check


def blur_readable() -> Check:
    """Ask that speeds show the exposure, and that no blur is longer than most of the thing's chord."""

    def check(scene: SceneSpec, laws: Laws) -> str | None:
        blur_frames = strongest_exposure_s(laws) * scene.shot.fps
        if blur_frames == 0.0:
            return None
        for solid in scene.solids:
            velocity = image_velocity_px_per_s(solid, scene.camera, scene.shot, 0.0)
            speed_px = math.hypot(*velocity) / scene.shot.fps
            if speed_px * blur_frames < READABLE_PX:
                return f"{solid.role} blurred by less than {READABLE_PX:g} px at the longest exposure"
            if speed_px < 0.999 * speed_floor_px(scene.shot, blur_frames):
                return f"{solid.role} too slow to show the exposure"
            chords = [mean_chord_px(solid, scene.camera, scene.shot, time) for time in (0.0, scene.shot.times_s[-1])]
            if speed_px * blur_frames > CHORD_LIMIT * min(chords):
                return f"{solid.role} blurred over more than {CHORD_LIMIT:.0%} of its chord"
        return None

    return check


FLYBY = Family(
    name="flyby",
    summary="one to four primitives that cross the picture at constant speed",
    shows=frozenset({"shutter"}),
    draw=draw,
    rules=(something_flies(), luma_contrast(), blur_readable(), in_frame(), min_size(5.0), none_hidden(0.0), contrast(12.0)),
)
