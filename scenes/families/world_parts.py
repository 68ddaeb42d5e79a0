"""What the layouts of the `world` are made of: a look (light, backdrop, colours), solids placed in the picture, a wall.

Legend: `unit_px` is the shorter side of the picture; 2 picture coordinates (pixels, y down), 3 world coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenes.camera import focal_px, image_plane_velocity, rotation_33, unproject
from scenes.errors import SceneError
from scenes.families import depth_row, tabletop
from scenes.families.base import Laws
from scenes.motion import random_orientation
from scenes.palette import BACKGROUNDS, COLORS, delta_e
from scenes.primitives import SOLID_KINDS
from scenes.rules import hull_points
from scenes.spec import Background, Camera, Light, Material, Motion, SceneSpec, Shot, Solid, Vec3

Floats = NDArray[np.float64]

LEAST_DELTA_E = 22.0
ANGULAR_BULK = 1.15  # what has corners fills less of its circle than a ball
FINISHES: tuple[Literal["matte", "gloss", "metal"], ...] = ("matte", "gloss", "metal")
FINISH_SHARES = (0.5, 0.3, 0.2)
TEXTURES: tuple[Literal["none", "noise", "checker", "wood"], ...] = ("none", "noise", "checker", "wood")
TEXTURE_SHARES = (0.55, 0.2, 0.15, 0.1)
WALL_DEPTHS = (1.6, 2.6)  # of the distance of focus
WALL_TILES = (2.0, 5.0)  # features of the wall's texture over the picture; `scenes.shading` draws six over a unit plane
SOFT_NEUTRALS = frozenset({"white", "grey", "charcoal"})


@dataclass(frozen=True, kw_only=True)
class Look:
    """What every layout of a scene needs: format, laws, the light's strength, the backdrop by name and as dimmed."""

    shot: Shot
    laws: Laws
    strength: float
    backdrop: Background

    @property
    def unit_px(self) -> float:
        """The shorter side of the picture."""
        return float(min(self.shot.width, self.shot.height))

    @property
    def background(self) -> Background:
        """The backdrop under the scene's light."""
        return tabletop.dimmed(self.backdrop, self.strength)


def look_rand(rng: np.random.Generator, shot: Shot, laws: Laws, backdrops: Sequence[str] = tuple(BACKGROUNDS)) -> Look:
    """Draw a backdrop and the light's strength, between that which no cast clips and full."""
    name = backdrops[int(rng.integers(len(backdrops)))]
    return Look(shot=shot, laws=laws, strength=float(rng.uniform(tabletop.exposure(laws), 1.0)), backdrop=BACKGROUNDS[name])


@lru_cache(maxsize=4096)
def colors_before(*behind: Vec3) -> tuple[str, ...]:
    """Return the named colours that differ plainly from every given scene-linear one."""
    return tuple(name for name, mine in COLORS.items() if all(delta_e(mine, other) >= LEAST_DELTA_E for other in behind))


def color_rand(rng: np.random.Generator, look: Look, taken: Sequence[str] = (), floor: str | None = None) -> str:
    """Draw a colour that shows before the backdrop and the floor and is none of those taken; raises SceneError if none is."""
    behind = (look.backdrop.bottom, look.backdrop.top, *(() if floor is None else (COLORS[floor],)))
    names = [name for name in colors_before(*behind) if name not in taken]
    if not names:
        raise SceneError(f"no colour shows before '{look.backdrop.name}'; allow more colours")
    shares = np.array([0.4 if name in SOFT_NEUTRALS else 1.0 for name in names])  # a colour is what a caption is about
    return str(names[int(rng.choice(len(names), p=shares / shares.sum()))])


def light_rand(rng: np.random.Generator, camera: Camera, strength: float) -> Light:
    """Draw a light from above the camera's side, so that shadows fall down and behind."""
    right_3, up_3, backward_3 = rotation_33(camera).T
    toward_3 = backward_3 + float(rng.uniform(-0.9, 0.9)) * right_3 + float(rng.uniform(0.2, 1.1)) * up_3
    return Light(
        direction=vec3(toward_3 / np.linalg.norm(toward_3)),
        strength=strength,
        ambient=float(rng.uniform(0.35, 0.55)),
        angle_rad=float(rng.uniform(0.02, 0.12)),
    )


def camera_rand(rng: np.random.Generator, look: Look, disc_px: float) -> Camera:
    """Draw a camera whose lens shows discs of so many pixels within reach in front of and behind the focus."""
    return depth_row.camera_rand(rng, look.shot, disc_px, depth_row.widest_f_number(look.laws))


def material_rand(rng: np.random.Generator, color_name: str) -> Material:
    """Draw finish and texture of a colour."""
    return Material(
        color_name=color_name,
        albedo=COLORS[color_name],
        finish=FINISHES[int(rng.choice(len(FINISHES), p=FINISH_SHARES))],
        texture=TEXTURES[int(rng.choice(len(TEXTURES), p=TEXTURE_SHARES))],
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a thing is seen in mid-clip (pixels), how far away (metres), how large (pixels) and how fast (pixels per frame)."""

    middle_2: tuple[float, float]
    depth_m: float
    radius_px: float
    velocity_2: tuple[float, float] = (0.0, 0.0)
    spin_rad_per_s: float = 0.0


def thing_rand(rng: np.random.Generator, look: Look, camera: Camera, place: Place, index: int, color_name: str) -> Solid:
    """Draw a primitive at a place: kind, shape, orientation and material; it passes its middle in mid-clip."""
    shot = look.shot
    kind = SOLID_KINDS[int(rng.integers(len(SOLID_KINDS)))]
    shape = rng.uniform(0.8, 1.0, 3) if kind in tabletop.STRETCHED else np.ones(3)
    reach = float(np.linalg.norm(hull_points(kind) * shape, axis=1).max())
    bulk = 1.0 if kind in ("sphere", "icosphere") else ANGULAR_BULK
    size_m = bulk * place.radius_px * place.depth_m / focal_px(camera, shot) / reach
    start_2 = np.asarray(place.middle_2) - np.asarray(place.velocity_2) * (shot.frames - 1) / 2
    per_s = (place.velocity_2[0] * shot.fps, place.velocity_2[1] * shot.fps)
    moves = any(per_s)
    return Solid(
        name=f"thing_{index}",
        role="subject" if index == 0 or moves else "prop",
        kind=kind,
        scale_m=vec3(shape * size_m),
        material=material_rand(rng, color_name),
        motion=Motion(
            location_m=vec3(unproject(camera, shot, float(start_2[0]), float(start_2[1]), place.depth_m)),
            velocity_m_per_s=vec3(image_plane_velocity(camera, shot, per_s, place.depth_m)) if moves else (0.0, 0.0, 0.0),
            orientation=random_orientation(rng),
            spin_axis=vec3(rng.standard_normal(3)),
            spin_rad_per_s=place.spin_rad_per_s,
        ),
    )


def spin_rand(rng: np.random.Generator, share: float) -> float:
    """Draw a gentle spin (radians per second) for a share of the things, none for the rest."""
    return float(rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 1.6)) if rng.random() < share else 0.0


def wall_rand(rng: np.random.Generator, look: Look, camera: Camera) -> Solid:
    """Draw a softly textured wall of the backdrop's colour, facing the camera far behind the focus, over all the picture."""
    shot = look.shot
    depth_m = camera.focus_distance_m * float(rng.uniform(*WALL_DEPTHS))
    across_m = max(shot.width, shot.height) * depth_m / focal_px(camera, shot)
    side_m = max(1.5, 6.0 / float(rng.uniform(*WALL_TILES))) * across_m
    mean = (np.asarray(look.backdrop.bottom) + np.asarray(look.backdrop.top)) / 2
    return Solid(
        name="wall",
        role="backdrop",
        kind="plane",
        scale_m=(side_m, side_m, side_m),
        material=Material(color_name=look.backdrop.name, albedo=vec3(mean), texture="noise"),
        motion=Motion(
            location_m=vec3(unproject(camera, shot, shot.width / 2, shot.height / 2, depth_m)),
            orientation=depth_row.facing(camera),
        ),
    )


def scene_of(look: Look, camera: Camera, light: Light, solids: Sequence[Solid]) -> SceneSpec:
    """Return the scene of what was drawn."""
    return SceneSpec(
        family="world", shot=look.shot, camera=camera, light=light, background=look.background, solids=tuple(solids)
    )


def heading_rand(rng: np.random.Generator) -> float:
    """Draw one of eight directions (radians, y down), a few degrees off."""
    return float(rng.integers(8)) * math.pi / 4 + float(rng.uniform(-0.12, 0.12))


def vec3(values: Sequence[float] | Floats) -> Vec3:
    """Return three floats as a tuple."""
    x, y, z = (float(part) for part in values)
    return (x, y, z)
