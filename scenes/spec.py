"""What stands in front of the camera, as plain data: a scene spec says everything about a clip except its control.

Conventions: metres, seconds, radians; world Z is up; colours are scene-linear Rec.709; time 0 is the middle of the first
frame's exposure. Unit meshes (`scenes.primitives`) fit the cube [-0.5, 0.5]^3 and are scaled by `Solid.scale_m`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

Vec3 = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]  # w, x, y, z


class Spec(BaseModel):
    """Base of every spec: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shot(Spec):
    """The format of a clip: size in pixels, frames per second, number of frames (4n+1)."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)
    fps: int = Field(gt=0)
    frames: int = Field(gt=0)

    @property
    def times_s(self) -> tuple[float, ...]:
        """The mid-exposure time of every frame, in seconds."""
        return tuple(index / self.fps for index in range(self.frames))


class Camera(Spec):
    """A thin-lens camera: where it stands, where it looks, its lens, and the distance of its plane of focus.

    `focus_distance_m` is measured along the optical axis. The sensor is fitted horizontally.
    """

    location_m: Vec3
    target_m: Vec3
    focal_length_mm: float = Field(gt=0)
    sensor_width_mm: float = Field(default=36.0, gt=0)
    focus_distance_m: float = Field(gt=0)


class Optics(Spec):
    """What the axes set on a camera: exposure time in seconds and f-number; None switches the effect off."""

    exposure_s: float | None = None
    f_number: float | None = None


class Light(Spec):
    """A distant light. `direction` points from the scene to the light; `ambient` is the share that reaches every side."""

    direction: Vec3
    strength: float = 1.0
    ambient: float = 0.35
    angle_rad: float = 0.02


class Background(Spec):
    """A backdrop at infinity: a vertical gradient over the picture from `bottom` to `top` (equal: one colour)."""

    name: str
    bottom: Vec3
    top: Vec3


class Material(Spec):
    """A surface: the named colour of its caption, its albedo, and, for highlights, the radiance it emits.

    `finish` and `texture` are used by the `lit` and `pbr` fidelities only; `flat` shades the albedo alone.
    """

    color_name: str
    albedo: Vec3
    emission: float = 0.0
    finish: Literal["matte", "gloss", "metal"] = "matte"
    texture: Literal["none", "noise", "checker", "wood"] = "none"


class Motion(Spec):
    """Place and orientation at time 0, constant velocity, and constant spin about an axis of the object's own frame."""

    location_m: Vec3
    velocity_m_per_s: Vec3 = (0.0, 0.0, 0.0)
    orientation: Quaternion = (1.0, 0.0, 0.0, 0.0)
    spin_axis: Vec3 = (0.0, 0.0, 1.0)
    spin_rad_per_s: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether anything about the object changes over time."""
        return self.spin_rad_per_s != 0.0 or any(self.velocity_m_per_s)


Role = Literal["subject", "prop", "ground", "backdrop", "patch", "highlight"]


class Solid(Spec):
    """One object: a unit mesh of `scenes.primitives`, scaled, coloured and moving.

    Roles: `subject` and `prop` are named in captions; `ground` lies under them; `patch` is a neutral reference;
    `highlight` is a small light source whose blur disc shows the aperture.
    """

    name: str
    role: Role
    kind: str
    scale_m: Vec3
    material: Material
    motion: Motion


class BlendSource(Spec):
    """The .blend file that a scene is rendered from, by the sha256 of its bytes, and the frame of it that is frame 0."""

    sha256: str
    scene: str
    camera: str
    first_frame: int


class SceneSpec(Spec):
    """One scene: content drawn from a seed, independent of any control value.

    With `blend` set, the file is what is rendered, and `solids` are those of its objects that closed forms speak of.
    """

    family: str
    shot: Shot
    camera: Camera
    light: Light
    background: Background
    solids: tuple[Solid, ...]
    blend: BlendSource | None = None

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a scene does not have: the text, and so the hash, of scenes without it stays as it is."""
        tree: dict[str, Any] = handler(self)
        return tree if self.blend is not None else {name: part for name, part in tree.items() if name != "blend"}

    def with_role(self, *roles: Role) -> tuple[Solid, ...]:
        """Return the solids that have one of the given roles, in order."""
        return tuple(solid for solid in self.solids if solid.role in roles)
