"""The annotation of a .blend file (`stopdown mark`), as plain data: the camera, and where its objects are over time.

Format 1 had one place a frame and no word on turning, other movers or what is seen; datasets of it stay readable.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from scenes.spec import Shot, Spec, Vec3

ANNOTATION_FORMAT = 2
_NEW_IN_2 = {"steps", "loose_m", "how", "spot_m", "spot_size_m", "also", "others", "changing", "patch_unproven"}


class _Shortened(Spec):
    """Leaves out what an annotation does not have: the plans of datasets with annotations of format 1 keep their bytes."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: part for name, part in tree.items() if name not in _NEW_IN_2 or getattr(self, name) != fields[name].default
        }


class AnnotatedObject(_Shortened):
    """An object of the file: its name, its size (metres, along the world's axes), and its centre over time.

    `path_m` has `steps` places a frame. `loose_m` says from place to place how far a point of it moves otherwise than its
    centre does, and `how` in words what that comes from (it turns, it changes shape). `spot_m` is the middle of the largest
    upright square of it that the camera sees, `spot_size_m` the side of that square.
    """

    name: str
    size_m: Vec3
    path_m: tuple[Vec3, ...] = Field(min_length=3, description="from one frame before the first to one after the last")
    steps: int = Field(default=1, ge=1)
    loose_m: tuple[float, ...] = ()
    how: str = ""
    spot_m: Vec3 | None = None
    spot_size_m: float = Field(default=0.0, ge=0)


class Changing(Spec):
    """A look that is animated: what it is in words, and by what share of its largest value it changes from place to place.

    `gentle` says that it makes things brighter or of another colour as a whole and moves no pattern. `by` has `steps` shares a
    frame, from one frame before the first to one after the last.
    """

    name: str
    gentle: bool
    steps: int = Field(ge=1)
    by: tuple[float, ...]


class Annotation(_Shortened):
    """What is known of a .blend file whose bytes have this sha256. Frames are Blender's, first and last included.

    `subject` is what moves, `also` what else was named so; `others` move too and were not named. `changing` are animated looks.
    """

    format: Literal[1, 2] = 1
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    file: str
    scene: str
    camera: str
    caption: str = Field(min_length=1)
    fps: int = Field(gt=0)
    first_frame: int
    last_frame: int
    location_m: Vec3
    target_m: Vec3
    focal_length_mm: float = Field(gt=0)
    sensor_fit: Literal["AUTO", "HORIZONTAL", "VERTICAL"]
    sensor_width_mm: float = Field(gt=0)
    sensor_height_mm: float = Field(gt=0)
    focus_distance_m: float = Field(gt=0)
    unproven: str = Field(default="", description="why the camera allows no closed form; empty: it does")
    subject: AnnotatedObject | None = None
    patch: AnnotatedObject | None = None
    also: tuple[AnnotatedObject, ...] = ()
    others: tuple[AnnotatedObject, ...] = ()
    changing: tuple[Changing, ...] = ()
    patch_unproven: str = Field(default="", description="why no temperature can be verified on the patch; empty: it can")

    @property
    def subjects(self) -> tuple[AnnotatedObject, ...]:
        """Everything that was named as moving."""
        return (*(() if self.subject is None else (self.subject,)), *self.also)

    def horizontal_sensor_mm(self, shot: Shot) -> float:
        """Return the width of sensor that a shot's width shows, as Blender fits it."""
        if self.sensor_fit == "HORIZONTAL" or (self.sensor_fit == "AUTO" and shot.width >= shot.height):
            return self.sensor_width_mm
        upright_mm = self.sensor_width_mm if self.sensor_fit == "AUTO" else self.sensor_height_mm
        return upright_mm * shot.width / shot.height


class RenderCost(Spec):
    """What rendering one frame of the file took when it was marked: CPU seconds, as measured; no part of a plan.

    A frame of P megapixels at n samples a pixel takes about `frame_s + P * (pixel_s + n * sample_s)`; `open_s` opens the file.
    """

    open_s: float = Field(ge=0)
    frame_s: float = Field(ge=0)
    pixel_s: float = Field(ge=0)
    sample_s: float = Field(ge=0)

    def of_frame(self, megapixels: float, samples: int) -> float:
        """Return the CPU seconds of one frame."""
        return self.frame_s + megapixels * (self.pixel_s + samples * self.sample_s)


def check_caption(caption: str) -> str:
    """Return a caption without blanks around it; raises ValueError where it is empty or has several lines."""
    words = caption.strip()
    if not words:
        raise ValueError("the caption is empty; say in one sentence what is seen")
    if len(words.splitlines()) > 1:
        raise ValueError(f"the caption has {len(words.splitlines())} lines; write one sentence on one line")
    return words
