"""A new axis, whole: black bars above and below the picture; the value is the height of one, as a share of the picture's.

Put it into `scenes/axes/letterbox.py` and add a line to `AXES` in `scenes/axes/__init__.py`:

    "letterbox": Letterbox(),

Recipes, builds, proofs, training, `stopdown generate --letterbox`, evaluation and the app know it then.
Array legend: T frames, H rows, W columns, 3 channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scenes.arrays import Bytes, Floats32
from scenes.control_axis import ErrorUnit, Measurement, Reading, UnitLaw, Unread
from scenes.errors import InputError
from scenes.spec import Optics, SceneSpec

MOST = 0.4  # of the picture's height
_LAW = UnitLaw(neutral=0.1, ratio=2.0)


@dataclass(frozen=True)
class Letterbox:
    """Black bars, as a share of the picture's height; +1 is thicker. They are seen in any scene that is not black itself."""

    name: str = "letterbox"
    column: str = "letterbox_share"
    default_law: UnitLaw = _LAW
    error_unit: ErrorUnit = "stop"
    tolerance: float = 0.15
    plural: str = "Heights of the black bars"
    shown_by: frozenset[str] = frozenset({"tabletop", "flyby", "depth_row", "studio"})
    reads_neutral: bool = False
    caveat: str = "letterbox: bars on black content cannot be seen"
    effect_words: tuple[str, str] = ("thin black bars", "thick black bars")

    def layout_law(self, fps: int) -> UnitLaw:
        """Return the default law: scenes are laid out for it."""
        return self.default_law

    def parse(self, text: str) -> float:
        """Parse a share such as `0.1`; raises InputError outside 0 to 0.4."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= MOST:
            raise InputError(f"letterbox '{text}' is no share of the height; write it as 0.1, above 0 and up to {MOST:g}")
        return value

    def format(self, value: float) -> str:
        """Write a share with three digits."""
        return f"{value:.3f}"

    def check_law(self, law: UnitLaw, fps: int) -> None:
        """Raise InputError where c in [-1, 1] leaves 0 to 0.4."""
        for control in (-1.0, 1.0):
            self.parse(str(law.value(control)))

    def apply_optics(self, optics: Optics, value: float) -> Optics:
        """Return the optics unchanged: bars act on the image."""
        return optics

    def apply_image(self, linear_THW3: Floats32, value: float) -> Floats32:
        """Return scene-linear frames with bars; a row that a bar covers in part is darkened by that part."""
        rows_H = np.arange(linear_THW3.shape[1])
        from_edge_H = np.minimum(rows_H, rows_H[::-1])
        open_H = np.clip(from_edge_H + 1 - value * len(rows_H), 0.0, 1.0).astype(np.float32)
        return linear_THW3 * open_H[:, None, None]

    def probe(self, frames_THW3: Bytes, fps: float) -> Reading:
        """Read the height of the upper bar: the rows that are black, and how much of the next one is."""
        light_H = ((frames_THW3 / 255.0) ** 2.2).mean(axis=(0, 2, 3))
        lit_N = np.flatnonzero(light_H > 0.002)
        if not len(lit_N) or lit_N[0] + 1 >= len(light_H):
            return Reading(value=None, confidence=0.0, unread=Unread.NOT_SEEN, note="all is black")
        first = int(lit_N[0])
        covered = first + float(np.clip(1.0 - light_H[first] / light_H[first + 1], 0.0, 1.0))
        if covered < 0.5:
            return Reading(value=None, confidence=0.0, unread=Unread.NOT_SEEN, note="no bar is seen")
        return Reading(value=covered / len(light_H), confidence=1.0)

    def distance(self, value: float, reference: float) -> float:
        """Return how many times the height doubles from reference to value."""
        return math.log2(value / reference)

    def relative(self, frames_THW3: Bytes, reference_THW3: Bytes, fps: float) -> float | None:
        """Return the doublings from a reference of the same content, or None where a bar is not seen."""
        mine, other = self.probe(frames_THW3, fps).value, self.probe(reference_THW3, fps).value
        return None if mine is None or other is None else self.distance(mine, other)

    def measure(self, reading: Reading, scene: SceneSpec, optics: Optics, value: float) -> Measurement:
        """Hold a blind reading against the label; every clip is judged."""
        error = None if reading.value is None else self.distance(reading.value, value)
        return Measurement(
            labelled=value,
            measured=reading.value,
            error=error,
            judged=True,
            confidence=reading.confidence,
            note=reading.note,
        )
