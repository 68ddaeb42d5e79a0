"""What an axis is: one unit law, how people write its values, how it acts, what must be seen, and how it is measured.

An axis acts in one or both of two places, and nowhere else: on the camera before rendering (`apply_optics`) and on the
scene-linear picture after it (`apply_image`). Its probe is blind: encoded frames in, a `Reading` out.

Array legend: T frames, H rows, W columns, 3 channels (RGB).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scenes.arrays import Bytes, Floats32
from scenes.spec import Optics, SceneSpec

ErrorUnit = Literal["stop", "mired"]

PROBES_VERSION = 2  # raised when any probe reads the same frames differently; stored readings of other versions are not reused


@dataclass(frozen=True, kw_only=True)
class UnitLaw:
    """The law every axis obeys: `value(c) = neutral * ratio ** c`, or `value(c) = neutral + step * c` where `step` is given.

    Units that are logarithms already (exposure in EV), or that pass through zero (dioptres), step; all others have a ratio.
    Raises ValueError for a law that has both, since no axis is of both kinds.
    """

    neutral: float
    ratio: float = 1.0
    step: float = 0.0

    def __post_init__(self) -> None:
        """Check that the law is of one kind."""
        if self.step and self.ratio != 1.0:
            raise ValueError(f"a law has a ratio or a step; received ratio {self.ratio:g} and step {self.step:g}")

    @property
    def additive(self) -> bool:
        """Whether equal steps of the control add equal amounts of the unit, so that zero and negative values are possible."""
        return self.step != 0.0

    @property
    def rises(self) -> bool:
        """Whether the value grows with the control."""
        return self.step > 0 if self.additive else self.ratio > 1

    def value(self, control: float) -> float:
        """Return the physical value at a control."""
        return self.neutral + self.step * control if self.additive else self.neutral * math.pow(self.ratio, control)

    def values(self, controls_N: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the physical values at controls `[N]`."""
        if self.additive:
            return self.neutral + self.step * controls_N
        return np.asarray(self.neutral * np.power(self.ratio, controls_N))

    def control(self, value: float) -> float:
        """Return the control at a physical value."""
        if self.additive:
            return (value - self.neutral) / self.step
        return math.log(value / self.neutral) / math.log(self.ratio)

    def slack(self, relative: float) -> float:
        """Return what a relative tolerance allows beside the value's own share, in the unit: of an additive law's step."""
        return relative * abs(self.step)

    def turned(self) -> UnitLaw:
        """Return the law with c = -1 and c = +1 exchanged."""
        return replace(self, step=-self.step) if self.additive else replace(self, ratio=1 / self.ratio)

    def recipe_keys(self, digits: int = 9) -> tuple[str, ...]:
        """Return the law as the keys of a recipe: `neutral = 5.6`, `ratio = 0.25`."""
        name, amount = ("step", self.step) if self.additive else ("ratio", self.ratio)
        return f"neutral = {self.neutral:.{digits}g}", f"{name} = {amount:.{digits}g}"

    def __str__(self) -> str:
        """Return the law in words: `neutral 5.6, ratio 0.25`."""
        return ", ".join(self.recipe_keys(6)).replace(" =", "")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One thing a probe saw or the closed form expects: where in the first frame (pixels) and how large (pixels).

    `size_px` is a blur length or a blur-disc diameter.
    """

    x_px: float
    y_px: float
    size_px: float


class Unread(StrEnum):
    """Why a probe read no value. Code asks this; `Reading.note` says the same to people, with what was seen."""

    NOT_SEEN = "nothing in the picture is of the kind that the probe looks at"
    NOT_MOVING = "nothing moves as it must for a reading"
    HIDDEN = "what the probe needs is hidden for most of the clip"
    NO_EDGES = "what there is has no edge that can be read"
    OTHER_SHAPE = "what was seen is not what this axis makes"
    TOO_SHARP = "the effect is smaller than the probe can read: an upper bound"
    IN_FOCUS = "nothing is out of focus"
    NO_SCALE = "sizes were read, and the scale is not in the pixels"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a probe read from frames alone.

    `value` is the physical value in the axis's unit, or None where the scale is not in the pixels; `detections` are sizes in
    pixels, which need a closed form or a reference at c = 0 to become a value. `confidence` is in [0, 1], 0 when the probe
    cannot read. `unread` is why there is no value, `note` the same in words.
    """

    value: float | None
    confidence: float
    detections: tuple[Detection, ...] = ()
    note: str = ""
    unread: Unread | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A blind reading held against the closed form of its scene.

    `measured` and `labelled` are physical values; `error` is signed, in the axis's `error_unit`. `judged` says whether the
    closed form makes the effect large enough to be held to the tolerance, whatever the probe read; a judged clip with
    `measured` None is a failure of the probe. `note` says why a clip is not judged or not read.
    """

    labelled: float
    measured: float | None
    error: float | None
    judged: bool
    confidence: float
    note: str = ""


class Axis(Protocol):
    """One physical camera quantity under control. Each axis is one folder of `scenes/axes/` and one line of `AXES`."""

    @property
    def name(self) -> str:
        """The axis's name in recipes and commands."""
        ...

    @property
    def column(self) -> str:
        """The column of its physical value in `labels.parquet`, with unit (`shutter_exposure_s`)."""
        ...

    @property
    def default_law(self) -> UnitLaw:
        """The default unit law, additive or not; a recipe may override its constants, never its kind."""
        ...

    def layout_law(self, fps: int) -> UnitLaw:
        """Return the law that scenes are laid out for at a frame rate, whatever law a recipe renders and labels them with."""
        ...

    @property
    def error_unit(self) -> ErrorUnit:
        """The unit of errors: photographic stops, or mired."""
        ...

    @property
    def tolerance(self) -> float:
        """The default bar on the median absolute error of a dataset, in `error_unit`."""
        ...

    @property
    def plural(self) -> str:
        """What its values are called, as a sentence begins: `Exposure times`."""
        ...

    @property
    def shown_by(self) -> frozenset[str]:
        """The families whose scenes show this axis, beside those that are laid out for it and name it themselves."""
        ...

    @property
    def reads_neutral(self) -> bool:
        """Whether the probe reads a neutral surface, so that it is shown no more than the one that is marked in a file."""
        ...

    @property
    def caveat(self) -> str:
        """What a reader of measured curves must know about the probe; empty where there is nothing."""
        ...

    @property
    def effect_words(self) -> tuple[str, str]:
        """Caption words for the effect at c < 0 and c > 0, used only where a recipe asks for them."""
        ...

    def parse(self, text: str) -> float:
        """Parse a value as people write it (`1/50`, `f/2.8`, `3200K`); raises InputError."""
        ...

    def format(self, value: float) -> str:
        """Write a value as people do."""
        ...

    def check_law(self, law: UnitLaw, fps: int) -> None:
        """Raise InputError if any value for c in [-1, 1] is impossible (exposure over the frame interval, ...)."""
        ...

    def apply_optics(self, optics: Optics, value: float) -> Optics:
        """Return the optics with this axis set; unchanged where the axis acts on the image."""
        ...

    def apply_image(self, linear_THW3: Floats32, value: float) -> Floats32:
        """Return the scene-linear frames with this axis applied; the same array where it acts on the optics."""
        ...

    def probe(self, frames_THW3: Bytes, fps: float) -> Reading:
        """Read the axis from sRGB frames alone."""
        ...

    def distance(self, value: float, reference: float) -> float:
        """Return the signed distance from reference to value in `error_unit`, positive towards the stronger effect."""
        ...

    def relative(self, frames_THW3: Bytes, reference_THW3: Bytes, fps: float) -> float | None:
        """Read the distance in `error_unit` from a reference clip of the same content at c = 0, or None if unreadable."""
        ...

    def measure(self, reading: Reading, scene: SceneSpec, optics: Optics, value: float) -> Measurement:
        """Hold a blind reading against the closed form for this scene at this value."""
        ...
