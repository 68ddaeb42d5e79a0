"""What the layouts of the `world` are made of: a look (light, backdrop, colours) and solids posed and placed in the picture.

Legend: `unit_px` is the shorter side of the picture; 2 picture coordinates (pixels, y down), 3 world coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from scenes.arrays import Floats
from scenes.camera import focal_px, image_plane_velocity, rotation_33, unproject
from scenes.errors import SceneError
from scenes.families import depth_row, tabletop
from scenes.families.base import Laws
from scenes.families.rules import bounds_px
from scenes.motion import axis_angle, multiply
from scenes.palette import BACKGROUNDS, COLORS, delta_e
from scenes.spec import Background, Camera, Light, Material, Motion, Quaternion, SceneSpec, Shot, Solid, Vec3

LEAST_DELTA_E = 22.0
# How a kind is held so that it can be told from the others: its own axis leans towards the viewer by so many degrees.
# Kinds that even a person takes for others at 64 pixels (a ball of triangles, a hexagonal prism) are rare.
LEANS_DEG: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "sphere": (0, 90),
        "cube": (20, 40),
        "cylinder": (15, 40),
        "cone": (5, 30),
        "pyramid": (10, 35),
        "torus": (35, 75),
        "star_prism": (70, 90),
        "capsule": (0, 30),
        "hex_prism": (20, 45),
        "icosphere": (0, 90),
    }
)
RARE_KINDS, RARE_SHARE = frozenset({"capsule", "hex_prism", "icosphere"}), 0.15  # a rare kind's share beside another's
MOST_ROLL_DEG = 20.0
SIZES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"small": (0.19, 0.25), "medium": (0.31, 0.39), "large": (0.47, 0.58)}
)  # the longer side of a thing's box, in shares of `unit_px`; `scenes.families.captions` says which it is
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


def kind_rand(rng: np.random.Generator, without: Sequence[str] = ()) -> str:
    """Draw a kind of thing."""
    kinds = [kind for kind in LEANS_DEG if kind not in without]
    shares = np.array([RARE_SHARE if kind in RARE_KINDS else 1.0 for kind in kinds])
    return kinds[int(rng.choice(len(kinds), p=shares / shares.sum()))]


def pose_rand(rng: np.random.Generator, camera: Camera, kind: str) -> Quaternion:
    """Draw an orientation in which a kind shows what it is: upright in the picture, leaning towards the viewer."""
    lean, roll = (math.radians(float(rng.uniform(*limits))) for limits in (LEANS_DEG[kind], (-MOST_ROLL_DEG, MOST_ROLL_DEG)))
    about_itself = axis_angle((0.0, 0.0, 1.0), float(rng.uniform(0, 2 * math.pi)))
    upright = multiply(axis_angle((1.0, 0.0, 0.0), lean - math.pi / 2), about_itself)
    return multiply(depth_row.facing(camera), multiply(axis_angle((0.0, 0.0, 1.0), roll), upright))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a thing is seen in mid-clip (pixels), how far away (metres), how large (its box's longer side) and how fast.

    `velocity_2` is in pixels per frame.
    """

    middle_2: tuple[float, float]
    depth_m: float
    extent_px: float
    velocity_2: tuple[float, float] = (0.0, 0.0)
    spin_rad_per_s: float = 0.0


def thing_rand(rng: np.random.Generator, look: Look, camera: Camera, place: Place, index: int, color_name: str) -> Solid:
    """Draw a primitive at a place: kind, shape and pose; it passes its middle in mid-clip and spins about its own axis."""
    shot = look.shot
    kind = kind_rand(rng)
    shape = rng.uniform(0.85, 1.0, 3) if kind in tabletop.STRETCHED else np.ones(3)
    start_2 = np.asarray(place.middle_2) - np.asarray(place.velocity_2) * (shot.frames - 1) / 2
    per_s = (place.velocity_2[0] * shot.fps, place.velocity_2[1] * shot.fps)
    moves = any(per_s)
    size_m = place.extent_px * place.depth_m / focal_px(camera, shot)
    solid = Solid(
        name=f"thing_{index}",
        role="subject" if index == 0 or moves else "prop",
        kind=kind,
        scale_m=vec3(shape * size_m),
        material=Material(color_name=color_name, albedo=COLORS[color_name]),
        motion=Motion(
            location_m=vec3(unproject(camera, shot, float(start_2[0]), float(start_2[1]), place.depth_m)),
            velocity_m_per_s=vec3(image_plane_velocity(camera, shot, per_s, place.depth_m)) if moves else (0.0, 0.0, 0.0),
            orientation=pose_rand(rng, camera, kind),
            spin_rad_per_s=place.spin_rad_per_s,
        ),
    )
    x0, y0, x1, y1 = bounds_px(solid, camera, shot, shot.times_s[shot.frames // 2])
    return solid.model_copy(update={"scale_m": vec3(np.asarray(solid.scale_m) * place.extent_px / max(x1 - x0, y1 - y0))})


def size_rand(rng: np.random.Generator, most: float = 1.0) -> float:
    """Draw a size, small, medium or large, as a share of `unit_px`, of those that keep within `most`."""
    fitting = [limits for limits in SIZES.values() if limits[0] < most]
    low, high = fitting[int(rng.integers(len(fitting)))]
    return float(rng.uniform(low, min(high, most)))


def spin_rand(rng: np.random.Generator, share: float) -> float:
    """Draw a gentle spin (radians per second) for a share of the things, none for the rest."""
    return float(rng.choice((-1.0, 1.0)) * rng.uniform(0.8, 1.6)) if rng.random() < share else 0.0


def scene_of(look: Look, camera: Camera, light: Light, solids: Sequence[Solid]) -> SceneSpec:
    """Return the scene of what was drawn."""
    return SceneSpec(
        family="world", shot=look.shot, camera=camera, light=light, background=look.background, solids=tuple(solids)
    )


def heading_rand(rng: np.random.Generator) -> float:
    """Draw one of eight directions (radians, y down), a few degrees off."""
    return float(rng.integers(8)) * math.pi / 4 + float(rng.uniform(-0.12, 0.12))


def vec3(values: Sequence[float] | Floats) -> Vec3:
    """Return three floats as a tuple. `values` is `[3]`."""
    x, y, z = (float(part) for part in values)
    return (x, y, z)
